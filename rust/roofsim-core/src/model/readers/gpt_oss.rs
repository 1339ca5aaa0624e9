//! gpt-oss: alternating windows, attention sinks, biases everywhere, experts stored in microscaling fp4.

use super::config::{Body, Config};
use super::parts::{self, Shape};
use super::quantisation::Modules;
use crate::error::Result;
use crate::model::{Attention, FeedForward, Mixer, Model, Moe, Span};

/// The experts are two stacked tensors, so the checkpoint names them without numbers.
const MODULES: Modules = Modules {
    shared_experts: &[],
    routed_experts: &["mlp.experts.gate_up_proj", "mlp.experts.down_proj"],
    ..Modules::QWEN_MOE
};

/// `GptOssForCausalLM`: one sink logit per query head; the router has a bias too. Without `layer_types` the layers
/// alternate, starting with a window.
pub(super) fn gpt_oss(config: &Config) -> Result<Model> {
    let f = &config.text;
    let shape = Shape::read(f)?;
    let routed =
        parts::moe(f, (&["num_local_experts"], &["num_experts_per_tok", "experts_per_token"], "intermediate_size"))?;
    let moe = Moe { bias: true, router_bias: true, ..routed };
    let bias = f.flag("attention_bias", true)?;
    let spans = parts::spans_or(
        f,
        shape.num_layers,
        |index, window| {
            if index.is_multiple_of(2) { window } else { Span::Full }
        },
    )?;
    let mut layers = Vec::new();
    for (index, span) in (0..).zip(spans) {
        let mixer = Mixer::Attention(Attention {
            qkv_bias: bias,
            output_bias: bias,
            vector_parameters: shape.num_heads,
            ..shape.attention(span)
        });
        let feed_forward = FeedForward::Moe(moe.clone());
        layers.push(parts::layer(config, index, &MODULES, shape.hidden_size, mixer, feed_forward)?);
    }
    config.model(Body::new(shape.hidden_size, shape.vocab_size, layers, config.tied(false)?))
}
