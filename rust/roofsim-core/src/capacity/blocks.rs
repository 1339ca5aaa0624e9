//! Blocks as vLLM lays them out: one pool, layers grouped by span, whole blocks per sequence and group.

use crate::error::{Error, Result};
use crate::model::Span;

/// How one rank's attention layers share blocks.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct BlockLayout {
    /// Tokens of one block.
    pub(super) block_size: u64,
    /// Bytes of one block over the layers of one group; 0 without attention layers.
    pub(super) bytes_per_block: u64,
    /// Groups of each span.
    groups: Vec<(Span, u64)>,
}

impl BlockLayout {
    /// Lays out `layers`, given as (span, bytes of one token in one layer, number of layers).
    ///
    /// With one span all layers form one group. With several, groups hold as many layers as the rarest span has, or as
    /// the commonest where that is less than half as many again; the last group of a span is padded.
    pub(super) fn new(layers: &[(Span, u64, u64)], block_size: u64) -> Result<Self> {
        let mut spans: Vec<(Span, u64)> = Vec::new();
        let mut page = 0;
        for &(span, token_bytes, count) in layers {
            page = page.max(token_bytes * block_size);
            match spans.iter_mut().find(|(known, _)| *known == span) {
                Some((_, n)) => *n += count,
                None => spans.push((span, count)),
            }
        }
        if let [(span, count)] = spans[..] {
            // Layers of one span may still differ in width; each brings its own page.
            let bytes: u64 = layers.iter().map(|&(_, token_bytes, n)| token_bytes * block_size * n).sum();
            debug_assert!(count > 0);
            return Ok(Self { block_size, bytes_per_block: bytes, groups: vec![(span, 1)] });
        }
        let fewest = spans.iter().map(|&(_, n)| n).min().unwrap_or(0);
        let most = spans.iter().map(|&(_, n)| n).max().unwrap_or(0);
        let size = if 2 * most < 3 * fewest { most } else { fewest };
        let bytes_per_block = page.checked_mul(size).ok_or_else(|| {
            Error::overflow("bytes_per_block", format!("{size} layers of {page} bytes"), "must stay below 2^64")
        })?;
        let groups = spans.into_iter().map(|(span, n)| (span, n.div_ceil(size.max(1)))).collect();
        Ok(Self { block_size, bytes_per_block, groups })
    }

    /// Whole blocks in a pool.
    pub(super) fn num_blocks(&self, pool_bytes: u64) -> u64 {
        pool_bytes.checked_div(self.bytes_per_block).unwrap_or(0)
    }

    /// Blocks that one resident sequence of `tokens` holds. A window keeps the blocks it touches: at most
    /// `ceil((window - 1) / b) + 1`.
    pub(super) fn blocks(&self, tokens: u64) -> u64 {
        let whole = tokens.div_ceil(self.block_size);
        let held = self.groups.iter().map(|&(span, groups)| match span {
            Span::Full | Span::Selected(_) => whole * groups,
            Span::Sliding(limit) | Span::Chunked(limit) => {
                whole.min((limit - 1).div_ceil(self.block_size) + 1) * groups
            }
        });
        held.sum()
    }

    /// Tokens of a pool before windows cut in.
    pub(super) fn tokens(&self, pool_bytes: u64) -> u64 {
        let groups: u64 = self.groups.iter().map(|&(_, n)| n).sum();
        self.num_blocks(pool_bytes).checked_div(groups).map_or(crate::workload::MAX_TOKENS, |n| n * self.block_size)
    }
}
