//! Every weight tensor of a layer, listed once. Parameters, bytes and the GEMMs of a step all come from this list.

use super::layer::{
    Attention, Dense, FeedForward, Indexer, LatentAttention, Layer, LayerFormats, Mixer, Moe, Recurrent,
};
use crate::error::{Error, Result};
use crate::format::WeightFormat;

/// How tensor parallelism cuts a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Shard {
    /// Output rows are divided over the ranks.
    Column,
    /// Input columns are divided over the ranks; the partial sums meet in an all-reduce. Biases stay whole.
    Row,
    /// Output rows are whole KV heads: divided while there are enough, replicated beyond.
    KvHeads {
        /// Number of KV heads.
        heads: u64,
    },
    /// Whole on every rank.
    Replicated,
    /// Routed expert, output rows divided inside the expert's tensor-parallel group.
    ExpertColumn,
    /// Routed expert, input columns divided inside the expert's tensor-parallel group.
    ExpertRow,
}

/// What the tensor does in a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Role {
    /// A projection: a GEMM over every row of the step.
    Projection,
    /// The two per-head factors of a latent up-projection: used inside latent attention.
    LatentUp,
    /// The routed experts: a grouped GEMM.
    Expert,
    /// A vector or convolution that element-wise kernels read.
    Vector,
}

/// One weight tensor (or `copies` equal ones) of `n` outputs by `k` inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Weight {
    /// Name of the fused operation it belongs to, as engines fuse it: `qkv_proj`, `gate_up_proj`, ...
    pub name: &'static str,
    /// Outputs.
    pub n: u64,
    /// Inputs.
    pub k: u64,
    /// Number of equal tensors (experts).
    pub copies: u64,
    /// Parameters of the bias vectors that go with one copy.
    pub bias: u64,
    /// Storage.
    pub format: WeightFormat,
    /// How it is cut.
    pub shard: Shard,
    /// What it does.
    pub role: Role,
}

impl Weight {
    /// Parameters of all copies, biases included.
    pub fn parameters(&self) -> Result<u64> {
        self.n
            .checked_mul(self.k)
            .and_then(|x| x.checked_add(self.bias))
            .and_then(|x| x.checked_mul(self.copies))
            .ok_or_else(|| self.overflow())
    }

    /// Bytes of all copies; biases are stored in `base`.
    pub fn bytes(&self, base: WeightFormat) -> Result<u64> {
        let matrix = if self.role == Role::Vector { base } else { self.format };
        matrix
            .tensor_bytes(self.n, self.k)
            .and_then(|x| x.checked_add(base.tensor_bytes(self.bias, 1)?))
            .and_then(|x| x.checked_mul(self.copies))
            .ok_or_else(|| self.overflow())
    }

    fn overflow(&self) -> Error {
        Error::overflow(
            format!("weight {}", self.name),
            format!("{} x {} x {}", self.copies, self.n, self.k),
            "must have fewer than 2^63 bytes",
        )
    }
}

struct Matrix {
    name: &'static str,
    n: u64,
    k: u64,
    bias: bool,
    shard: Shard,
}

impl Matrix {
    fn stored(self, format: WeightFormat) -> Weight {
        let bias = if self.bias { self.n } else { 0 };
        let Self { name, n, k, shard, .. } = self;
        Weight { name, n, k, copies: 1, bias, format, shard, role: Role::Projection }
    }
}

fn vector(name: &'static str, parameters: u64) -> Weight {
    Weight {
        name,
        n: parameters,
        k: 1,
        copies: 1,
        bias: 0,
        format: WeightFormat::Bf16,
        shard: Shard::Replicated,
        role: Role::Vector,
    }
}

impl Layer {
    /// All weight tensors of one such layer in a model of width `hidden_size`.
    ///
    /// `base` is the model's own dtype: routers and everything in vectors are stored in it.
    pub fn weights(&self, hidden_size: u64, base: WeightFormat) -> Vec<Weight> {
        let mut out = Vec::with_capacity(10);
        match &self.mixer {
            Mixer::Attention(a) => attention(a, hidden_size, self.formats, &mut out),
            Mixer::Latent(a) => latent(a, hidden_size, self.formats, base, &mut out),
            Mixer::Recurrent(r) => recurrent(r, hidden_size, self.formats, &mut out),
            Mixer::None => {}
        }
        match &self.feed_forward {
            FeedForward::Dense(d) => dense(d, hidden_size, self.formats.dense, &mut out),
            FeedForward::Moe(m) => {
                let router_bias = m.router_bias;
                let router = Matrix {
                    name: "router",
                    n: m.num_experts,
                    k: hidden_size,
                    bias: router_bias,
                    shard: Shard::Replicated,
                };
                out.push(router.stored(base));
                experts(m, hidden_size, self.formats.routed_experts, base, &mut out);
                shared(m, hidden_size, self, base, &mut out);
            }
            FeedForward::None => {}
        }
        out.push(vector("norms", self.norm_parameters));
        out.retain(|w| w.n > 0 && w.k > 0 && w.copies > 0);
        out
    }
}

fn attention(a: &Attention, d: u64, formats: LayerFormats, out: &mut Vec<Weight>) {
    let format = formats.mixer;
    let q_heads = if a.output_gate { 2 * a.num_heads } else { a.num_heads };
    let kv = Shard::KvHeads { heads: a.num_kv_heads };
    let bias = a.qkv_bias;
    out.push(Matrix { name: "qkv_proj", n: q_heads * a.head_dim, k: d, bias, shard: Shard::Column }.stored(format));
    out.push(Matrix { name: "qkv_proj", n: a.num_kv_heads * a.head_dim, k: d, bias, shard: kv }.stored(format));
    out.push(Matrix { name: "qkv_proj", n: a.num_kv_heads * a.v_head_dim, k: d, bias, shard: kv }.stored(format));
    let o = Matrix { name: "o_proj", n: d, k: a.num_heads * a.v_head_dim, bias: a.output_bias, shard: Shard::Row };
    out.push(o.stored(formats.mixer_output));
    out.push(vector("attention_vectors", a.vector_parameters));
}

fn latent(a: &LatentAttention, d: u64, formats: LayerFormats, base: WeightFormat, out: &mut Vec<Weight>) {
    let format = formats.mixer;
    let qk = a.qk_nope_head_dim + a.qk_rope_head_dim;
    let q_rows = a.num_heads * qk;
    let kv_a = a.kv_lora_rank + a.qk_rope_head_dim;
    let whole = Shard::Replicated;
    // Engines fuse the two down projections into one GEMM when the query has a bottleneck.
    if let Some(rank) = a.q_lora_rank {
        out.push(Matrix { name: "qkv_a_proj", n: rank, k: d, bias: a.bias, shard: whole }.stored(format));
        out.push(Matrix { name: "qkv_a_proj", n: kv_a, k: d, bias: a.bias, shard: whole }.stored(format));
        out.push(vector("q_a_norm", rank));
        out.push(Matrix { name: "q_b_proj", n: q_rows, k: rank, bias: false, shard: Shard::Column }.stored(format));
    } else {
        out.push(Matrix { name: "q_proj", n: q_rows, k: d, bias: false, shard: Shard::Column }.stored(format));
        out.push(Matrix { name: "kv_a_proj", n: kv_a, k: d, bias: a.bias, shard: whole }.stored(format));
    }
    out.push(vector("kv_a_norm", a.kv_lora_rank));
    let up_rows = a.num_heads * (a.qk_nope_head_dim + a.v_head_dim);
    let up = Matrix { name: "kv_b_proj", n: up_rows, k: a.kv_lora_rank, bias: false, shard: Shard::Column };
    out.push(Weight { role: Role::LatentUp, ..up.stored(format) });
    let o = Matrix { name: "o_proj", n: d, k: a.num_heads * a.v_head_dim, bias: a.bias, shard: Shard::Row };
    out.push(o.stored(formats.mixer_output));
    if let (Some(indexer), Some(rank)) = (a.selection.and_then(|selection| selection.indexer), a.q_lora_rank) {
        indexer_weights(indexer, rank, d, formats.indexer, base, out);
    }
}

/// Queries from the bottleneck, one key a token behind a layer norm, one weight a head and token.
fn indexer_weights(
    indexer: Indexer,
    rank: u64,
    d: u64,
    format: WeightFormat,
    base: WeightFormat,
    out: &mut Vec<Weight>,
) {
    let Indexer { num_heads, head_dim } = indexer;
    let matrix = |name, n, k| Matrix { name, n, k, bias: false, shard: Shard::Replicated };
    out.push(matrix("indexer_q_proj", num_heads * head_dim, rank).stored(format));
    out.push(matrix("indexer_k_proj", head_dim, d).stored(format));
    out.push(matrix("indexer_head_weights", num_heads, d).stored(base));
    out.push(vector("indexer_k_norm", 2 * head_dim));
}

fn recurrent(r: &Recurrent, d: u64, formats: LayerFormats, out: &mut Vec<Weight>) {
    let into = Matrix { name: "in_proj", n: r.in_features, k: d, bias: r.bias, shard: Shard::Column };
    out.push(into.stored(formats.mixer));
    let back = Matrix { name: "out_proj", n: d, k: r.out_features, bias: r.bias, shard: Shard::Row };
    out.push(back.stored(formats.mixer_output));
    out.push(vector("recurrent_vectors", r.vector_parameters));
}

fn dense(f: &Dense, d: u64, format: WeightFormat, out: &mut Vec<Weight>) {
    feed_forward(f.intermediate_size, f.gated, f.bias, d, ("gate_up_proj", "up_proj", "down_proj"), format, out);
}

fn feed_forward(
    width: u64,
    gated: bool,
    bias: bool,
    d: u64,
    (gate_up, up, down): (&'static str, &'static str, &'static str),
    format: WeightFormat,
    out: &mut Vec<Weight>,
) {
    if gated {
        out.push(Matrix { name: gate_up, n: 2 * width, k: d, bias, shard: Shard::Column }.stored(format));
    } else {
        out.push(Matrix { name: up, n: width, k: d, bias, shard: Shard::Column }.stored(format));
    }
    out.push(Matrix { name: down, n: d, k: width, bias, shard: Shard::Row }.stored(format));
}

fn experts(m: &Moe, hidden_size: u64, format: WeightFormat, base: WeightFormat, out: &mut Vec<Weight>) {
    let d = m.latent_size.unwrap_or(hidden_size);
    if let Some(latent) = m.latent_size {
        let shard = Shard::Replicated;
        out.push(Matrix { name: "latent_down_proj", n: latent, k: hidden_size, bias: false, shard }.stored(base));
        out.push(Matrix { name: "latent_up_proj", n: hidden_size, k: latent, bias: false, shard }.stored(base));
    }
    let width = m.intermediate_size;
    let (name, n) = if m.gated { ("experts_gate_up", 2 * width) } else { ("experts_up", width) };
    let into = Matrix { name, n, k: d, bias: m.bias, shard: Shard::ExpertColumn }.stored(format);
    let back = Matrix { name: "experts_down", n: d, k: width, bias: m.bias, shard: Shard::ExpertRow }.stored(format);
    out.push(Weight { copies: m.num_experts, role: Role::Expert, ..into });
    out.push(Weight { copies: m.num_experts, role: Role::Expert, ..back });
}

fn shared(m: &Moe, d: u64, layer: &Layer, base: WeightFormat, out: &mut Vec<Weight>) {
    if m.shared_intermediate_size == 0 {
        return;
    }
    let names = ("shared_gate_up_proj", "shared_up_proj", "shared_down_proj");
    feed_forward(m.shared_intermediate_size, m.gated, false, d, names, layer.formats.shared_experts, out);
    if m.shared_gate {
        let gate = Matrix { name: "shared_expert_gate", n: 1, k: d, bias: false, shard: Shard::Replicated };
        out.push(gate.stored(base));
    }
}
