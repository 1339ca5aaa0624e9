//! The shapes that a step's kernels run, for whoever wants to measure those very kernels.

use super::{CompiledStep, RowOp};
use crate::model::Span;
use crate::workload::Batch;

/// What one operation of a step computes on one rank.
#[derive(Debug, Clone, PartialEq)]
pub struct OpShape {
    /// Name as engines name it.
    pub name: &'static str,
    /// How often it runs in one step.
    pub count: u64,
    /// "gemm", "`grouped_gemm`", "attention" or "elementwise".
    pub family: &'static str,
    /// Operand type of the matrix units; of attention the cache's format follows.
    pub formats: Vec<(&'static str, &'static str)>,
    /// Sizes by name.
    pub sizes: Vec<(&'static str, u64)>,
    /// Bytes by name: of the stored weight, or of one row.
    pub bytes: Option<(&'static str, f64)>,
}

impl CompiledStep {
    /// The shapes behind [`Self::table`], in its order. Communication, dispatch, quantising, the slowdown and latent
    /// attention have none.
    pub fn shapes(&self, batch: &Batch) -> Vec<OpShape> {
        let mut found = Vec::new();
        for entry in &self.row_ops {
            let rows = self.rows_of(entry.rows, batch.rows(), batch.requests());
            let (family, formats, sizes, bytes) = match &entry.op {
                RowOp::Gemm(op) => {
                    let sizes = vec![("m", rows), ("n", op.n), ("k", op.k)];
                    ("gemm", vec![("dtype", op.dtype.name())], sizes, Some(("weight_bytes", op.weight_bytes)))
                }
                RowOp::GroupedGemm(op) => {
                    let s = &op.shape;
                    let formats = vec![("dtype", s.dtype.name()), ("weight_dtype", s.format.name())];
                    let sizes = vec![
                        ("num_tokens", rows * s.token_replicas),
                        ("num_experts", s.num_experts),
                        ("experts_per_token", s.experts_per_token),
                        ("expert_ranks", s.expert_ranks),
                        ("n", s.n),
                        ("k", s.k),
                    ];
                    ("grouped_gemm", formats, sizes, None)
                }
                RowOp::Elementwise(op) => {
                    ("elementwise", Vec::new(), vec![("rows", rows)], Some(("bytes_per_row", op.bytes_per_row)))
                }
                RowOp::Collective(_) | RowOp::Dispatch(_) | RowOp::Quantise(_) | RowOp::Slowdown(_) => continue,
            };
            found.push(OpShape { name: entry.name, count: entry.count, family, formats, sizes, bytes });
        }
        for entry in self.attention.iter().filter(|entry| entry.op.shape.latent.is_none()) {
            let s = &entry.op.shape;
            let mut sizes = vec![
                ("num_heads", s.num_heads),
                ("num_kv_heads", s.num_kv_heads),
                ("head_dim", s.head_dim),
                ("v_head_dim", s.v_head_dim),
            ];
            match s.span {
                Span::Full => {}
                Span::Selected(top_k) => sizes.push(("selected_tokens", top_k)),
                Span::Sliding(window) => sizes.push(("sliding_window", window)),
                Span::Chunked(chunk) => sizes.push(("attention_chunk", chunk)),
            }
            let formats = vec![("dtype", s.dtype.name()), ("kv_cache_dtype", s.kv_format.name())];
            let (name, count) = (entry.name, entry.count);
            found.push(OpShape { name, count, family: "attention", formats, sizes, bytes: None });
        }
        found
    }
}
