//! Phi-3 and 4, dense and mixture of experts.

use super::config::{Body, Config};
use super::fields::MAX_WIDTH;
use super::parts::{self, Shape};
use super::quantisation::Modules;
use crate::error::Result;
use crate::model::{Attention, FeedForward, Mixer, Model};

/// Phi stores its projections fused.
const FUSED: Modules =
    Modules { mixer: &["self_attn.qkv_proj"], dense: &["mlp.gate_up_proj", "mlp.down_proj"], ..Modules::LLAMA };

/// `Phi3ForCausalLM`: the window, where there is one, holds on every layer.
pub(super) fn phi3(config: &Config) -> Result<Model> {
    let f = &config.text;
    let shape = Shape::read(f)?;
    let feed_forward = parts::gated(f.count("intermediate_size", MAX_WIDTH)?);
    let mut layers = Vec::new();
    for (index, span) in (0..).zip(parts::spans_or(f, shape.num_layers, |_, window| window)?) {
        let mixer = Mixer::Attention(shape.attention(span));
        layers.push(parts::layer(config, index, &FUSED, shape.hidden_size, mixer, feed_forward.clone())?);
    }
    config.model(Body::new(shape.hidden_size, shape.vocab_size, layers, config.tied(false)?))
}

/// `PhiMoEForCausalLM`: layer norms with bias, biases in attention and in the head, none in the experts.
pub(super) fn phi_moe(config: &Config) -> Result<Model> {
    let f = &config.text;
    let shape = Shape::read(f)?;
    let bias = f.flag("attention_bias", false)?;
    let moe = parts::moe(f, (&["num_local_experts"], &["num_experts_per_tok"], "intermediate_size"))?;
    let mut layers = Vec::new();
    for (index, span) in (0..).zip(parts::spans_or(f, shape.num_layers, |_, window| window)?) {
        let mixer = Mixer::Attention(Attention { qkv_bias: bias, output_bias: bias, ..shape.attention(span) });
        let feed_forward = FeedForward::Moe(moe.clone());
        let mut layer = parts::layer(config, index, &Modules::MIXTRAL, shape.hidden_size, mixer, feed_forward)?;
        layer.norm_parameters = 4 * shape.hidden_size;
        layers.push(layer);
    }
    let mut body = Body::new(shape.hidden_size, shape.vocab_size, layers, config.tied(false)?);
    body.final_norm_parameters = 2 * shape.hidden_size;
    body.head.bias = f.flag("lm_head_bias", false)?;
    config.model(body)
}
