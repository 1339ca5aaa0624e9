//! Engines: what a serving runtime adds to the bare forward step.

use crate::error::{Error, Result};

/// Whose rules hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Engine {
    /// No runtime: the forward step alone, KV in closed form.
    #[default]
    Ideal,
    /// vLLM V1: small steps are padded up to the sizes that CUDA graphs were captured for. Host time is left out: its
    /// asynchronous scheduler hides it behind the device.
    Vllm,
}

impl Engine {
    /// All of them; the position is the code used in columns.
    pub const ALL: [Self; 2] = [Self::Ideal, Self::Vllm];

    /// The name used in specs and results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ideal => "ideal",
            Self::Vllm => "vllm",
        }
    }

    /// Rows that a step of `rows` rows really computes.
    ///
    /// vLLM captures graphs for 1, 2, 4, 8 to 248 by 8 and 256 to 512 by 16 rows and pads up to the next; larger steps
    /// run without a graph at their own size. Source: vLLM 0.33, `config/vllm.py`, default capture sizes.
    pub const fn padded_rows(self, rows: u64) -> u64 {
        match (self, rows) {
            (Self::Ideal, _) | (Self::Vllm, 0..=2 | 513..) => rows,
            (Self::Vllm, 3..=4) => 4,
            (Self::Vllm, 5..=248) => rows.next_multiple_of(8),
            (Self::Vllm, 249..=512) => {
                if rows <= 256 {
                    256
                } else {
                    rows.next_multiple_of(16)
                }
            }
        }
    }

    /// Parses a name.
    pub fn parse(field: &str, text: &str) -> Result<Self> {
        match text.trim().to_ascii_lowercase().as_str() {
            "ideal" | "none" => Ok(Self::Ideal),
            "vllm" => Ok(Self::Vllm),
            _ => Err(Error::spec(field, text, "must be one of ideal, vllm")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Engine;

    #[test]
    fn padding_follows_the_capture_sizes() {
        let padded = |rows| Engine::Vllm.padded_rows(rows);
        assert_eq!([1, 2, 3, 5, 8, 9, 248].map(padded), [1, 2, 4, 8, 8, 16, 248]);
        assert_eq!([249, 256, 257, 272, 500, 512, 513, 8192].map(padded), [256, 256, 272, 272, 512, 512, 513, 8192]);
        assert!((1..9000).all(|rows| padded(rows) >= rows && padded(rows + 1) >= padded(rows)));
        assert!((1..9000).all(|rows| Engine::Ideal.padded_rows(rows) == rows));
    }
}
