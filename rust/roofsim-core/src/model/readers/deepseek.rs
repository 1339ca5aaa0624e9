//! DeepSeek V2 and V3, Kimi K2, GLM-4.7-Flash: latent attention, dense first layers, shared and routed experts.

use super::config::{Body, Config};
use super::fields::{Fields, MAX_EXPERTS, MAX_HEADS, MAX_LAYERS, MAX_VOCAB, MAX_WIDTH};
use super::parts;
use super::quantisation::Modules;
use super::vision;
use crate::error::Result;
use crate::model::{FeedForward, LatentAttention, Mixer, Model, Moe};

/// The projections of latent attention, and their names where the query has no bottleneck.
const BOTTLENECK: &[&str] =
    &["self_attn.q_a_proj", "self_attn.q_b_proj", "self_attn.kv_a_proj_with_mqa", "self_attn.kv_b_proj"];
const FULL_QUERY: &[&str] = &["self_attn.q_proj", "self_attn.kv_a_proj_with_mqa", "self_attn.kv_b_proj"];

/// `DeepseekV2ForCausalLM`, `DeepseekV3ForCausalLM`: `num_key_value_heads` and `head_dim` mean nothing here, since what
/// is cached is one latent and one rotary key per token.
pub(super) fn deepseek(config: &Config) -> Result<Model> {
    deepseek_with(config, |_, _| Ok(0))
}

/// `KimiK25ForConditionalGeneration`: Kimi K2 beside a vision tower.
pub(super) fn kimi_k2_5(config: &Config) -> Result<Model> {
    deepseek_with(config, vision::moonvit)
}

fn deepseek_with(config: &Config, auxiliary: fn(&Config, u64) -> Result<u64>) -> Result<Model> {
    let f = &config.text;
    let hidden_size = f.count("hidden_size", MAX_WIDTH)?;
    let num_layers = f.count("num_hidden_layers", MAX_LAYERS)?;
    let attention = latent_attention(f)?;
    let sparse = sparse_layers(f)?;
    let mixer = if attention.q_lora_rank.is_some() { BOTTLENECK } else { FULL_QUERY };
    let dense_modules = Modules { mixer, ..Modules::LLAMA };
    let sparse_modules = Modules { mixer, ..Modules::DEEPSEEK_MOE };
    let mut layers = Vec::new();
    for index in 0..num_layers {
        let mixer = Mixer::Latent(attention.clone());
        let (modules, feed_forward) = if let Some(moe) = sparse.moe_at(index) {
            (&sparse_modules, FeedForward::Moe(moe.clone()))
        } else {
            (&dense_modules, parts::gated(f.count("intermediate_size", MAX_WIDTH)?))
        };
        layers.push(parts::layer(config, index, modules, hidden_size, mixer, feed_forward)?);
    }
    let vocab_size = f.count("vocab_size", MAX_VOCAB)?;
    let mut body = Body::new(hidden_size, vocab_size, layers, config.tied(false)?);
    body.auxiliary_parameters = auxiliary(config, hidden_size)?;
    config.model(body)
}

fn latent_attention(f: &Fields) -> Result<LatentAttention> {
    // A written null means one full query projection (V2-Lite); a file without the field is incomplete.
    if !f.mentions("q_lora_rank") {
        return Err(f.refuse("q_lora_rank", "must be given, null where the query has no bottleneck"));
    }
    Ok(LatentAttention {
        num_heads: f.count("num_attention_heads", MAX_HEADS)?,
        q_lora_rank: f.optional_count("q_lora_rank", MAX_WIDTH)?,
        kv_lora_rank: f.count("kv_lora_rank", MAX_WIDTH)?,
        qk_nope_head_dim: f.count("qk_nope_head_dim", MAX_HEADS)?,
        qk_rope_head_dim: f.count("qk_rope_head_dim", MAX_HEADS)?,
        v_head_dim: f.count("v_head_dim", MAX_HEADS)?,
        bias: f.flag("attention_bias", false)?,
    })
}

/// Which layers have experts, and what experts.
pub(super) struct SparseLayers {
    moe: Option<Moe>,
    first: u64,
    every: u64,
}

impl SparseLayers {
    /// The mixture of experts of layer `index`, `None` where it is dense.
    pub(super) fn moe_at(&self, index: u64) -> Option<&Moe> {
        self.moe.as_ref().filter(|_| index >= self.first && index.is_multiple_of(self.every))
    }
}

/// A layer has experts from `first_k_dense_replace` on, at multiples of `moe_layer_freq`. The shared experts are one
/// feed-forward of `n_shared_experts` times the width of a routed one.
pub(super) fn sparse_layers(f: &Fields) -> Result<SparseLayers> {
    let first = f.whole_or("first_k_dense_replace", MAX_LAYERS, 0)?;
    let every = f.count_or("moe_layer_freq", MAX_LAYERS, 1)?;
    if f.value("n_routed_experts").is_none() && f.mentions("n_routed_experts") {
        return Ok(SparseLayers { moe: None, first, every });
    }
    let routed = parts::moe(f, (&["n_routed_experts"], &["num_experts_per_tok"], "moe_intermediate_size"))?;
    let num_shared = f.whole_or("n_shared_experts", MAX_EXPERTS, 0)?;
    let shared_intermediate_size = num_shared * routed.intermediate_size;
    Ok(SparseLayers { moe: Some(Moe { shared_intermediate_size, ..routed }), first, every })
}
