//! Exact counts of attention for one request: pairs, keys, bytes, blocks.
//!
//! Causal: the row at position p (from 0) sees min(p + 1, window) keys. The triangle is counted, never the full square.

use crate::arithmetic::float;
use crate::format::{ComputeDType, KvFormat};
use crate::model::{Span, kept_tokens};
use crate::workload::Request;

/// Queries and keys of one block of the query-tiled kernel.
const BLOCK: u64 = 128;
/// Rows to which the matrix units pad a tile of packed rows; the query heads that share a KV head are packed as rows.
const PADDED_ROWS: u64 = 8;
/// Packed rows up to which one pass over the keys serves a KV head; beyond, queries are tiled.
const PACKED_ROWS: u64 = 64;
/// The same of latent attention, in new tokens of all heads; beyond, keys may be expanded.
const PACKED_LATENT_TOKENS: u64 = 16;

/// Heads of latent attention; the cached latent is shared by all of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LatentHeads {
    /// Rank of the latent.
    pub kv_lora_rank: u64,
    /// Width of the part of a head without position.
    pub qk_nope_head_dim: u64,
    /// Width of the rotary part.
    pub qk_rope_head_dim: u64,
    /// Width of a value head.
    pub v_head_dim: u64,
    /// Whether the up-projection of queries, outputs or keys belongs to the operation; kernels are measured without.
    pub projects: bool,
}

impl LatentHeads {
    /// Elements of one head's up-projections.
    const fn projection(&self) -> u64 {
        if self.projects { self.kv_lora_rank * (self.qk_nope_head_dim + self.v_head_dim) } else { 0 }
    }
}

/// Attention on one rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionShape {
    /// Query heads on this rank.
    pub num_heads: u64,
    /// KV heads on this rank.
    pub num_kv_heads: u64,
    /// Width of a query and key head.
    pub head_dim: u64,
    /// Width of a value head.
    pub v_head_dim: u64,
    /// Which keys a row sees.
    pub span: Span,
    /// Present for latent attention; `head_dim` and `v_head_dim` are then those of the expanded heads.
    pub latent: Option<LatentHeads>,
    /// Operand type of the matrix units.
    pub dtype: ComputeDType,
    /// Storage of the cache.
    pub kv_format: KvFormat,
    /// Bytes read once whatever the batch (the up-projection of latent attention).
    pub fixed_bytes: u64,
}

/// What one request adds to a batch. Integers held in `f64`, exact below 2^53, and one square root.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Counts {
    /// FLOPs of scores and values (and of latent projections).
    pub flops: f64,
    /// Bytes: cache read, new entries written, queries read, outputs written.
    pub bytes: f64,
    /// The bytes that the kernel itself moves: tiles of queries leave the writing of new entries to the kernel that
    /// made them. Never fewer than the most rows that are packed move.
    pub moved_bytes: f64,
    /// The rows of all KV heads, as the KV-splitting kernel packs them.
    pub rows: PackedRows,
    /// FLOPs of the most rows that are packed, over the same keys.
    pub packed_limit_flops: f64,
    /// Whether the rows of a KV head are few enough for one pass over the keys.
    pub is_packed: bool,
    /// Elements of new queries, keys and values that are rotated and stored before a kernel of tiles.
    pub prepared_elements: f64,
    /// Elements of the queries, keys and values that latent attention writes out in its expanded form.
    pub written_elements: f64,
    /// Share of a tile that the packed rows fill.
    pub row_share: f64,
    /// Query tiles behind a cached prefix, or without one.
    pub tiles: Tiles,
    /// The tiles of the whole context, as if nothing were cached.
    pub whole: Tiles,
    /// Whether keys are cached before the first query tile.
    pub has_prefix: bool,
    /// Key blocks of the longest query tile.
    pub longest_blocks: f64,
    /// Key blocks by which the longest tile exceeds the shortest.
    pub spread_blocks: f64,
    /// The tiles that are nearly as long as the longest.
    pub long: LongTiles,
    /// Bytes of one KV head's keys and values that a pass streams.
    pub head_bytes: f64,
    /// Square root of the keys kept, times the root of the head's width over 128.
    pub root_context: f64,
    /// Latent attention: FLOPs of the expanded form, all of them.
    pub expanded_flops: f64,
    /// Latent attention: FLOPs of expanding the keys and values read.
    pub expansion_flops: f64,
}

/// Rows of one request that share KV heads, all heads.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct PackedRows {
    /// FLOPs over every key read.
    pub flops: f64,
    /// FLOPs of one whole tile of rows over the same keys, for every KV head.
    pub one_tile_flops: f64,
    /// Query tiles of the new tokens among themselves.
    pub own: Tiles,
}

/// Query tiles of one request, all heads.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Tiles {
    /// How many.
    pub count: f64,
    /// Key blocks of all of them.
    pub blocks: f64,
}

/// Query tiles of one request, all heads, each of at least so many key blocks.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LongTiles {
    /// How many.
    pub count: f64,
    /// Key blocks of the shortest of them.
    pub blocks: f64,
}

/// A tile is nearly as long as the longest where it lacks no more than one in so many of its blocks.
const NEARLY: u64 = 16;

/// Query-key pairs of one head: the sum over the new rows of the keys each of them sees.
pub fn attended_pairs(span: Span, request: Request) -> u64 {
    let (q, s) = (request.query_tokens, request.context_tokens);
    let base = s - q;
    match span {
        Span::Full => q * base + q * (q + 1) / 2,
        Span::Sliding(window) => {
            // Rows that still see everything, then rows that see one window each.
            let growing = window.saturating_sub(base).min(q);
            growing * base + growing * (growing + 1) / 2 + (q - growing) * window
        }
        Span::Chunked(chunk) => {
            let before = |n: u64| {
                let rest = n % chunk;
                n / chunk * (chunk * (chunk + 1) / 2) + rest * (rest + 1) / 2
            };
            before(s) - before(base)
        }
    }
}

/// Distinct keys that at least one new row sees: the tokens of the cache that are read.
pub fn keys_read(span: Span, request: Request) -> u64 {
    let (q, s) = (request.query_tokens, request.context_tokens);
    match span {
        Span::Full => s,
        Span::Sliding(window) => s.min(window + q - 1),
        Span::Chunked(chunk) => s - (s - q) / chunk * chunk,
    }
}

impl AttentionShape {
    /// Counts of one request.
    pub fn counts(&self, request: Request) -> Counts {
        let pairs = attended_pairs(self.span, request);
        let keys = keys_read(self.span, request);
        let q = request.query_tokens;
        let split_flops = self.split_flops(q, request, keys);
        let (flops, expanded, expansion) = match self.latent {
            None => {
                let width = u128::from(self.head_dim + self.v_head_dim);
                (2 * width * u128::from(self.num_heads) * u128::from(pairs), 0, 0)
            }
            Some(latent) => {
                let expanded = self.expanded_flops(latent, keys, pairs);
                (split_flops.min(expanded), expanded, self.expanded_flops(latent, keys, 0))
            }
        };
        let rows = self.packed_rows(q);
        let (tiles, longest) = self.query_tiles(request);
        let is_packed = q <= self.most_packed_tokens();
        let (whole, _) = self.query_tiles(Request { query_tokens: request.context_tokens, ..request });
        let tiles_of_a_head = q.div_ceil(BLOCK);
        let kept = kept_tokens(self.span, request.context_tokens) as f64;
        let bytes = self.request_bytes(q, keys);
        Counts {
            flops: float(flops),
            bytes: float(bytes),
            moved_bytes: float(if is_packed { bytes } else { self.tiled_bytes(q, keys, bytes) }),
            rows: self.rows(q, request),
            packed_limit_flops: float(self.split_flops(self.most_packed_tokens(), request, keys)),
            is_packed,
            prepared_elements: self.prepared_elements(q),
            written_elements: if self.latent.is_some() { self.elements(q, keys) } else { 0.0 },
            row_share: rows.min(BLOCK) as f64 / BLOCK as f64,
            tiles,
            whole,
            has_prefix: request.context_tokens.div_ceil(BLOCK) > tiles_of_a_head,
            longest_blocks: longest as f64,
            spread_blocks: (tiles_of_a_head.min(longest) - 1) as f64,
            long: self.long_tiles(request),
            head_bytes: keys as f64 * self.head_bytes(),
            root_context: (kept * self.relative_width()).sqrt(),
            expanded_flops: float(expanded),
            expansion_flops: float(expansion),
        }
    }

    /// Packed rows of `q` new tokens over the keys that a request reads.
    pub fn rows(&self, q: u64, request: Request) -> PackedRows {
        let keys = keys_read(self.span, request);
        let width = self.head_dim + self.v_head_dim;
        PackedRows {
            flops: float(self.split_flops(q, request, keys)),
            one_tile_flops: keys as f64 * (2 * width * self.num_kv_heads * BLOCK) as f64,
            own: self.query_tiles(Request { query_tokens: q, context_tokens: q }).0,
        }
    }

    /// Elements of the new queries, keys and values of `q` tokens, where a kernel of its own prepares them: packed rows
    /// are prepared by the kernel that attends them. Projections of latent attention are operations of their own.
    pub fn prepared_elements(&self, q: u64) -> f64 {
        if self.latent.is_some() || q <= self.most_packed_tokens() {
            return 0.0;
        }
        self.elements(q, q)
    }

    /// Elements of the queries of `q` tokens and the keys and values of `keys` tokens.
    fn elements(&self, q: u64, keys: u64) -> f64 {
        q as f64 * (self.num_heads * self.head_dim) as f64
            + keys as f64 * (self.num_kv_heads * (self.head_dim + self.v_head_dim)) as f64
    }

    /// Whether every KV head serves one query head.
    pub const fn is_ungrouped(&self) -> bool {
        self.latent.is_none() && self.num_heads <= self.num_kv_heads
    }

    /// Width of a key and a value head over that of two heads of 128.
    pub fn relative_width(&self) -> f64 {
        (self.head_dim + self.v_head_dim) as f64 / 256.0
    }

    /// Heads whose keys are streamed for one request: the KV heads, or the one latent.
    pub const fn streamed_heads(&self) -> f64 {
        if self.latent.is_some() { 1.0 } else { self.num_kv_heads as f64 }
    }

    /// Bytes of one token of one KV head in the cache.
    pub fn head_bytes(&self) -> f64 {
        (self.cached_elements() * self.kv_format.element_bytes()) as f64 / self.streamed_heads()
    }

    /// FLOPs of the packed rows of one new token for each byte of the cache.
    pub fn row_flops_per_byte(&self) -> f64 {
        let flops = if let Some(latent) = self.latent {
            2 * self.num_heads * (2 * latent.kv_lora_rank + latent.qk_rope_head_dim)
        } else {
            let rows = self.packed_rows(1).next_multiple_of(PADDED_ROWS);
            2 * (self.head_dim + self.v_head_dim) * self.num_kv_heads * rows
        };
        flops as f64 / (self.cached_elements() * self.kv_format.element_bytes()) as f64
    }

    /// Keys of one block.
    pub const fn block_keys() -> f64 {
        BLOCK as f64
    }

    /// Exponentials of one block of the query-tiled kernel.
    pub const fn block_exponentials() -> f64 {
        (BLOCK * BLOCK) as f64
    }

    /// FLOPs of one block of the query-tiled kernel.
    pub fn block_flops(&self) -> f64 {
        (2 * (self.head_dim + self.v_head_dim) * BLOCK * BLOCK) as f64
    }

    /// Latent attention in latent space: queries and outputs go through the up-projection, keys do not.
    pub fn absorbed_flops(&self, latent: LatentHeads, q: u64, pairs: u64) -> u128 {
        let heads = u128::from(self.num_heads);
        let width = u128::from(2 * latent.kv_lora_rank + latent.qk_rope_head_dim);
        let project = u128::from(latent.projection());
        2 * heads * (u128::from(pairs) * width + u128::from(q) * project)
    }

    /// Latent attention over expanded heads: every key that is read goes through the up-projection first.
    pub fn expanded_flops(&self, latent: LatentHeads, keys: u64, pairs: u64) -> u128 {
        let heads = u128::from(self.num_heads);
        let width = u128::from(latent.qk_nope_head_dim + latent.qk_rope_head_dim + latent.v_head_dim);
        let project = u128::from(latent.projection());
        2 * heads * (u128::from(pairs) * width + u128::from(keys) * project)
    }

    /// Query rows that share one KV head, or the latent.
    fn packed_rows(&self, q: u64) -> u64 {
        if self.latent.is_some() { q * self.num_heads } else { q * self.num_heads.div_ceil(self.num_kv_heads) }
    }

    /// New tokens up to which rows are packed.
    fn most_packed_tokens(&self) -> u64 {
        if self.latent.is_some() {
            PACKED_LATENT_TOKENS
        } else {
            PACKED_ROWS / self.num_heads.div_ceil(self.num_kv_heads)
        }
    }

    /// Elements of one token in the cache.
    fn cached_elements(&self) -> u64 {
        match self.latent {
            None => self.num_kv_heads * (self.head_dim + self.v_head_dim),
            Some(latent) => latent.kv_lora_rank + latent.qk_rope_head_dim,
        }
    }

    /// Cache read, new entries written, queries read and outputs written once each.
    fn request_bytes(&self, q: u64, keys: u64) -> u128 {
        let token = u128::from(self.cached_elements()) * u128::from(self.kv_format.element_bytes());
        let width = u128::from(self.head_dim + self.v_head_dim) * u128::from(self.dtype.operand_bits().max(16) / 8);
        u128::from(keys + q) * token + u128::from(q) * u128::from(self.num_heads) * width
    }

    /// The bytes of a request without its new entries, but no fewer than the most rows that are packed move.
    fn tiled_bytes(&self, q: u64, keys: u64, bytes: u128) -> u128 {
        let token = u128::from(self.cached_elements()) * u128::from(self.kv_format.element_bytes());
        (bytes - u128::from(q) * token).max(self.request_bytes(self.most_packed_tokens(), keys))
    }

    /// FLOPs of the KV-splitting kernel for `q` new tokens: whole tiles of rows over every key read, no triangle. Latent
    /// attention runs all heads of a token as rows of one tile and is counted without padding, in its absorbed form.
    fn split_flops(&self, q: u64, request: Request, keys: u64) -> u128 {
        if let Some(latent) = self.latent {
            let query_tokens = q.min(request.context_tokens);
            return self.absorbed_flops(
                latent,
                query_tokens,
                attended_pairs(self.span, Request { query_tokens, ..request }),
            );
        }
        let rows = self.packed_rows(q).next_multiple_of(PADDED_ROWS);
        2 * u128::from(self.head_dim + self.v_head_dim)
            * u128::from(self.num_kv_heads)
            * u128::from(rows)
            * u128::from(keys)
    }

    /// Query tiles of all heads, and the key blocks of the longest one.
    ///
    /// Tiles are counted from the last row backwards, so that one more row or one more key never takes a block away:
    /// the j-th tile from the end sees `longest - j` blocks. A window caps them, at the misaligned worst case.
    fn query_tiles(&self, request: Request) -> (Tiles, u64) {
        let tiles = request.query_tokens.div_ceil(BLOCK);
        let longest = request.context_tokens.div_ceil(BLOCK);
        let cap = self.most_blocks();
        let capped = longest.saturating_sub(cap).min(tiles);
        let rest = tiles - capped;
        // Sum of longest - j over j in capped..tiles.
        let uncapped = rest * longest - (capped + tiles).saturating_sub(1) * rest / 2;
        let capped_blocks = if capped > 0 { capped * cap } else { 0 };
        let heads = self.num_heads as f64;
        let all = Tiles { count: tiles as f64 * heads, blocks: (capped_blocks + uncapped) as f64 * heads };
        (all, longest.min(cap))
    }

    /// Key blocks that a window leaves a tile at most, at the misaligned worst case.
    fn most_blocks(&self) -> u64 {
        match self.span {
            Span::Full => u64::MAX,
            Span::Sliding(limit) | Span::Chunked(limit) => (limit + BLOCK - 1).div_ceil(BLOCK),
        }
    }

    /// Query tiles that are nearly as long as the longest. Count and blocks never fall when the context, the window or
    /// the new tokens of a given context grow.
    fn long_tiles(&self, request: Request) -> LongTiles {
        let longest = request.context_tokens.div_ceil(BLOCK);
        let lacking = longest / NEARLY;
        let tiles = request.query_tokens.div_ceil(BLOCK).min(lacking + 1);
        LongTiles { count: (tiles * self.num_heads) as f64, blocks: (longest - lacking).min(self.most_blocks()) as f64 }
    }
}
