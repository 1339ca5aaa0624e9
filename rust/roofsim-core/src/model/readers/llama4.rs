//! Llama 4: chunked attention with a full layer without rotary embedding after every three, one shared expert beside
//! the routed ones, a vision tower.

use super::config::{Body, Config};
use super::fields::{Fields, MAX_LAYERS, MAX_TOKENS, MAX_WIDTH};
use super::parts::{self, Shape};
use super::quantisation::Modules;
use super::vision;
use crate::error::Result;
use crate::model::{Attention, FeedForward, Mixer, Model, Moe, Span};

const DENSE: Modules =
    Modules { dense: &["feed_forward.gate_proj", "feed_forward.up_proj", "feed_forward.down_proj"], ..Modules::LLAMA };

const SPARSE: Modules = Modules {
    dense: &[],
    shared_experts: &[
        "feed_forward.shared_expert.gate_proj",
        "feed_forward.shared_expert.up_proj",
        "feed_forward.shared_expert.down_proj",
    ],
    routed_experts: &[
        "feed_forward.experts.0.gate_proj",
        "feed_forward.experts.0.up_proj",
        "feed_forward.experts.0.down_proj",
    ],
    ..Modules::LLAMA
};

/// `Llama4ForCausalLM`: the text model alone.
pub(super) fn llama4_text(config: &Config) -> Result<Model> {
    llama4_with(config, |_, _| Ok(0))
}

/// `Llama4ForConditionalGeneration`: the text model beside its vision tower.
pub(super) fn llama4(config: &Config) -> Result<Model> {
    llama4_with(config, vision::llama4)
}

fn llama4_with(config: &Config, auxiliary: fn(&Config, u64) -> Result<u64>) -> Result<Model> {
    let f = &config.text;
    let shape = Shape::read(f)?;
    let attention = attention(f, &shape)?;
    let interval = f.count_or("no_rope_layer_interval", MAX_LAYERS, 4)?;
    let chunk = f.optional_count("attention_chunk_size", MAX_TOKENS)?.map_or(Span::Full, Span::Chunked);
    let routed = parts::moe(f, (&["num_local_experts"], &["num_experts_per_tok"], "intermediate_size"))?;
    let moe = Moe { shared_intermediate_size: routed.intermediate_size, ..routed };
    let sparse = sparse_layers(f, shape.num_layers)?;
    let mut layers = Vec::new();
    let rotary = parts::rotary_layers(f, shape.num_layers, interval)?;
    for ((index, rotary), sparse) in (0..).zip(rotary).zip(sparse) {
        let span = if rotary { chunk } else { Span::Full };
        // Queries and keys are normalised, without weights, where they are rotated.
        let mixer =
            Mixer::Attention(Attention { span, rotary, qk_norm: rotary && attention.qk_norm, ..attention.clone() });
        let (modules, feed_forward) = if sparse {
            (&SPARSE, FeedForward::Moe(moe.clone()))
        } else {
            (&DENSE, parts::gated(f.count("intermediate_size_mlp", MAX_WIDTH)?))
        };
        layers.push(parts::layer(config, index, modules, shape.hidden_size, mixer, feed_forward)?);
    }
    let mut body = Body::new(shape.hidden_size, shape.vocab_size, layers, config.tied(false)?);
    body.auxiliary_parameters = auxiliary(config, shape.hidden_size)?;
    config.model(body)
}

fn attention(f: &Fields, shape: &Shape) -> Result<Attention> {
    let bias = f.flag("attention_bias", false)?;
    let qk_norm = f.flag("use_qk_norm", true)?;
    Ok(Attention { qkv_bias: bias, output_bias: bias, qk_norm, ..shape.attention(Span::Full) })
}

/// Which layers have experts: those of `moe_layers`, else the last of every `interleave_moe_layer_step`.
fn sparse_layers(f: &Fields, num_layers: u64) -> Result<Vec<bool>> {
    if let Some(listed) = f.counts("moe_layers", 0, MAX_LAYERS)? {
        return Ok((0..num_layers).map(|index| listed.contains(&index)).collect());
    }
    let step = f.count_or("interleave_moe_layer_step", MAX_LAYERS, 1)?;
    Ok((0..num_layers).map(|index| (index + 1).is_multiple_of(step)).collect())
}
