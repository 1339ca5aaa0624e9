//! Weights and activations of one rank.

use super::CapacityLimits;
use crate::error::{Error, Result};
use crate::format::WeightFormat;
use crate::model::{FeedForward, Mixer, Model, Role, Shard, Weight};
use crate::parallel::Layout;

impl Weight {
    /// Bytes of this tensor on one rank; biases are stored in `base`. Exact.
    pub fn bytes_on_rank(&self, layout: Layout, base: WeightFormat) -> Result<u64> {
        let (n, k) = self.on_rank(layout);
        // A bias goes with the outputs: whole where the inputs are divided.
        let bias = if self.bias == 0 { 0 } else { n };
        let copies = if self.role == Role::Expert { self.copies.div_ceil(layout.expert) } else { self.copies };
        Self { n, k, bias, copies, shard: Shard::Replicated, ..*self }.bytes(base)
    }
}

/// Bytes of the weights of one stage on one rank: its layers, the embedding on the first, the head on the last.
pub fn stage_weight_bytes(model: &Model, layout: Layout, counts: &[u64], first: bool, last: bool) -> Result<u64> {
    let base = model.dtype;
    let mut total = 0_u64;
    let mut add = |bytes: Option<u64>| -> Result<()> {
        total = bytes
            .and_then(|b| total.checked_add(b))
            .ok_or_else(|| Error::overflow("weight_bytes", "sum of one rank's tensors", "must stay below 2^64"))?;
        Ok(())
    };
    for (layer, &count) in model.kinds.iter().zip(counts) {
        for weight in layer.weights(model.hidden_size, base) {
            add(weight.bytes_on_rank(layout, base)?.checked_mul(count))?;
        }
    }
    let table = model.vocab_size.div_ceil(layout.tensor).checked_mul(model.embedding.dim);
    let stored = |elements: Option<u64>| elements.and_then(|x| base.tensor_bytes(x, 1));
    if first {
        add(stored(table))?;
        add(stored(model.embedding.position_rows.checked_mul(model.hidden_size)))?;
        add(stored(Some(model.embedding.other_parameters)))?;
        // Vision towers are divided like everything else.
        add(stored(Some(model.auxiliary_parameters.div_ceil(layout.tensor))))?;
    }
    if last {
        add(stored(Some(model.final_norm_parameters)))?;
        // A tied head needs its own copy of the table only where the embedding lives on another stage.
        if !model.head.tied || !first {
            add(stored(table))?;
        }
        if model.head.bias {
            add(stored(Some(model.vocab_size.div_ceil(layout.tensor))))?;
        }
    }
    Ok(total)
}

/// Peak of the live tensors of one forward step, one rank: the residual and the hidden state of every row, plus the
/// widest pair of neighbours inside a layer, or the logits of the sampled rows where these are larger.
///
/// Leaves out allocator fragmentation and kernel workspaces.
pub fn activation_bytes(
    model: &Model,
    layout: Layout,
    counts: &[u64],
    last: bool,
    limits: &CapacityLimits,
) -> Result<u64> {
    let width = model.activation_dtype().operand_bits() / 8;
    let rows = limits.max_num_batched_tokens;
    let widest = model.kinds.iter().zip(counts).filter(|&(_, &count)| count > 0).map(|(layer, _)| {
        let mixer = mixer_elements(&layer.mixer, layout);
        mixer.max(feed_forward_elements(&layer.feed_forward, model.hidden_size, layout))
    });
    let elements = 2 * model.hidden_size + widest.max().unwrap_or(0);
    let layers = elements.checked_mul(width).and_then(|x| x.checked_mul(rows));
    // Logits in the model's dtype and in fp32 for the sampler, whole vocabulary on every rank.
    let logits = if last { model.vocab_size.checked_mul(width + 4) } else { Some(0) };
    let sampled = limits.max_num_seqs.min(rows);
    let logits = logits.and_then(|x| x.checked_mul(sampled));
    match (layers, logits) {
        (Some(layers), Some(logits)) => Ok(layers.max(logits)),
        _ => Err(Error::overflow("activation_bytes", format!("{rows} rows"), "must stay below 2^64 bytes")),
    }
}

/// Elements a row needs in the widest place of a mixer: projections in and the mixed output.
fn mixer_elements(mixer: &Mixer, layout: Layout) -> u64 {
    let tp = layout.tensor;
    match mixer {
        Mixer::Attention(a) => {
            let (heads, kv) = (a.num_heads.div_ceil(tp), a.num_kv_heads.div_ceil(tp));
            heads * (a.head_dim + a.v_head_dim) + kv * (a.head_dim + a.v_head_dim)
        }
        Mixer::Latent(a) => {
            let heads = a.num_heads.div_ceil(tp);
            let qk = a.qk_nope_head_dim + a.qk_rope_head_dim;
            let indexer = a.selection.and_then(|selection| selection.indexer);
            let queries = indexer.map_or(0, |i| (i.num_heads + 1) * i.head_dim);
            heads * (2 * qk + 2 * a.v_head_dim) + a.kv_lora_rank + a.qk_rope_head_dim + queries
        }
        Mixer::Recurrent(r) => (r.in_features + r.out_features).div_ceil(tp),
        Mixer::None => 0,
    }
}

/// Elements a row needs in the widest place of a feed-forward.
fn feed_forward_elements(feed_forward: &FeedForward, hidden_size: u64, layout: Layout) -> u64 {
    match feed_forward {
        FeedForward::Dense(f) => {
            let width = f.intermediate_size.div_ceil(layout.tensor);
            if f.gated { 3 * width } else { 2 * width }
        }
        FeedForward::Moe(m) => {
            // One row per visited expert: the larger of the expert's input projection and its output, and the product.
            let width = m.intermediate_size.div_ceil(layout.expert_tensor());
            let wide = if m.gated { 2 * width } else { width };
            m.experts_per_token * (wide.max(m.latent_size.unwrap_or(hidden_size)) + width)
        }
        FeedForward::None => 0,
    }
}
