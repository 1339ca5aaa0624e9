//! One transformer layer: a token mixer and a feed-forward, with everything their cost depends on.

use crate::format::WeightFormat;

/// Which earlier tokens a row of attention sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Span {
    /// Every earlier token.
    Full,
    /// The last `window` tokens, itself included (`sliding_window`).
    Sliding(u64),
    /// The tokens of the same chunk of `chunk` tokens, itself included (Llama 4).
    Chunked(u64),
    /// As many of the earlier tokens as this, chosen anew by every row; all of them stay cached (DeepSeek sparse attention).
    Selected(u64),
}

/// Multi-head, grouped-query or multi-query softmax attention.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Attention {
    /// H, query heads.
    pub num_heads: u64,
    /// K, key/value heads.
    pub num_kv_heads: u64,
    /// h, width of a query and key head.
    pub head_dim: u64,
    /// Width of a value head.
    pub v_head_dim: u64,
    /// Which tokens a row sees.
    pub span: Span,
    /// Bias vectors on the query, key and value projections.
    pub qkv_bias: bool,
    /// Bias vector on the output projection.
    pub output_bias: bool,
    /// Parameters of query/key norms and attention sinks (vectors, never quantised).
    pub vector_parameters: u64,
    /// Rotary embedding is applied (a kernel that reads and writes q and k).
    pub rotary: bool,
    /// Query and key are normalised per head (fused with the rotary kernel for cost).
    pub qk_norm: bool,
    /// An output gate doubles the query projection (Qwen3-Next).
    pub output_gate: bool,
}

/// Multi-head latent attention (DeepSeek): one shared latent per token is cached.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LatentAttention {
    /// H, query heads.
    pub num_heads: u64,
    /// Rank of the query bottleneck; `None` is one full query projection.
    pub q_lora_rank: Option<u64>,
    /// Rank of the cached latent.
    pub kv_lora_rank: u64,
    /// Width of the part of a query/key head without position.
    pub qk_nope_head_dim: u64,
    /// Width of the rotary part, shared by all heads.
    pub qk_rope_head_dim: u64,
    /// Width of a value head.
    pub v_head_dim: u64,
    /// Bias vectors on the down projections and the output projection.
    pub bias: bool,
    /// Which tokens a row attends; `None` is every earlier one.
    pub selection: Option<Selection>,
}

/// Sparse attention (DeepSeek V3.2): every row attends the tokens that an indexer scores highest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Selection {
    /// Tokens that a row attends at most (`index_topk`).
    pub top_k: u64,
    /// The layer's own indexer; a layer without one takes over the choice of the last layer that has one.
    pub indexer: Option<Indexer>,
}

/// Scores of earlier tokens: light heads over one cached key a token, whole on every rank.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Indexer {
    /// Query heads.
    pub num_heads: u64,
    /// Width of a query head and of the cached key.
    pub head_dim: u64,
}

/// A recurrent mixer: its state does not grow with context.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Recurrent {
    /// Outputs of the input projection.
    pub in_features: u64,
    /// Inputs of the output projection.
    pub out_features: u64,
    /// Bias on the two projections.
    pub bias: bool,
    /// Parameters held in vectors and convolutions (never quantised).
    pub vector_parameters: u64,
    /// Elements of recurrent state per sequence.
    pub state_elements: u64,
    /// Bytes of one element of the recurrent state.
    pub state_element_bytes: u64,
    /// Elements of convolution state per sequence, stored in the model's dtype.
    pub conv_state_elements: u64,
    /// FLOPs of the recurrence itself per token (projections excluded).
    pub flops_per_token: u64,
}

/// What mixes information between tokens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Mixer {
    /// Softmax attention over cached keys and values.
    Attention(Attention),
    /// Latent attention.
    Latent(LatentAttention),
    /// A recurrence.
    Recurrent(Recurrent),
    /// The layer has no mixer.
    None,
}

/// A dense feed-forward network.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Dense {
    /// Width between the projections.
    pub intermediate_size: u64,
    /// Three matrices (gate, up, down) instead of two.
    pub gated: bool,
    /// Bias vectors on the projections.
    pub bias: bool,
}

/// A mixture of experts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Moe {
    /// E, routed experts.
    pub num_experts: u64,
    /// k, routed experts that one token visits.
    pub experts_per_token: u64,
    /// Width between the projections of one routed expert.
    pub intermediate_size: u64,
    /// Width of the rows that routed experts work on, where two projections around them change it (Nemotron 3 Super);
    /// `None` is the model's own.
    pub latent_size: Option<u64>,
    /// Three matrices instead of two.
    pub gated: bool,
    /// Bias vectors on the experts' projections.
    pub bias: bool,
    /// Bias vector on the router's projection.
    pub router_bias: bool,
    /// Width of all shared experts together; 0 is none.
    pub shared_intermediate_size: u64,
    /// One more projection of width 1 gates the shared experts (Qwen2-MoE).
    pub shared_gate: bool,
}

/// What works on each token by itself.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum FeedForward {
    /// Dense.
    Dense(Dense),
    /// Mixture of experts.
    Moe(Moe),
    /// The layer has no feed-forward.
    None,
}

/// How the weight matrices of a layer are stored. Norms, biases and routers stay in the model's own dtype.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct LayerFormats {
    /// Projections into the mixer.
    pub mixer: WeightFormat,
    /// Projection out of the mixer (some NVFP4 checkpoints quantise it alone).
    pub mixer_output: WeightFormat,
    /// Projections of the indexer of sparse attention.
    pub indexer: WeightFormat,
    /// Dense feed-forward.
    pub dense: WeightFormat,
    /// Shared experts.
    pub shared_experts: WeightFormat,
    /// Routed experts.
    pub routed_experts: WeightFormat,
}

impl LayerFormats {
    /// The same format everywhere.
    pub const fn uniform(format: WeightFormat) -> Self {
        Self {
            mixer: format,
            mixer_output: format,
            indexer: format,
            dense: format,
            shared_experts: format,
            routed_experts: format,
        }
    }
}

/// One distinct kind of layer. Layers that are equal collapse into one kind with a count.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Layer {
    /// Token mixer.
    pub mixer: Mixer,
    /// Feed-forward.
    pub feed_forward: FeedForward,
    /// Number of norm kernels that a step runs in this layer.
    pub num_norms: u64,
    /// Parameters of all norms of this layer (biases included; per-head q/k norms are the mixer's).
    pub norm_parameters: u64,
    /// Storage of the matrices.
    pub formats: LayerFormats,
    /// Mixer and feed-forward read the same input and share one reduction (Falcon, GPT-J).
    pub parallel_residual: bool,
}
