//! Engines: what a serving runtime adds to the bare forward step.

use crate::error::{Error, Result};

/// Whose rules hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Engine {
    /// No runtime: the forward step alone, KV in closed form.
    #[default]
    Ideal,
    /// vLLM V1: blocks, hybrid groups, a null block, memory for the context and CUDA graphs.
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

    /// Parses a name.
    pub fn parse(field: &str, text: &str) -> Result<Self> {
        match text.trim().to_ascii_lowercase().as_str() {
            "ideal" | "none" => Ok(Self::Ideal),
            "vllm" => Ok(Self::Vllm),
            _ => Err(Error::spec(field, text, "must be one of ideal, vllm")),
        }
    }
}
