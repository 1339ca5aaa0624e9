//! Llama (and the many models published under its class), Mistral: pre-norm, grouped queries, gated feed-forward.

use super::config::Config;
use super::fields::MAX_WIDTH;
use super::parts::{self, Shape};
use crate::error::Result;
use crate::model::{Attention, Dense, FeedForward, Model, Span};

/// `LlamaForCausalLM`: `attention_bias` covers all four projections, `mlp_bias` all three matrices. Full attention.
pub(super) fn llama(config: &Config) -> Result<Model> {
    let f = &config.text;
    let shape = Shape::read(f)?;
    let bias = f.flag("attention_bias", false)?;
    let attention = Attention { qkv_bias: bias, output_bias: bias, ..shape.attention(Span::Full) };
    let feed_forward = FeedForward::Dense(Dense {
        intermediate_size: f.count("intermediate_size", MAX_WIDTH)?,
        gated: true,
        bias: f.flag("mlp_bias", false)?,
    });
    let spans = parts::uniform(Span::Full, shape.num_layers);
    parts::dense_decoder(config, &shape, spans, &attention, &feed_forward, config.tied(false)?)
}

/// `MistralForCausalLM`: the window holds on every layer (v0.1) or is null (since v0.2).
pub(super) fn mistral(config: &Config) -> Result<Model> {
    let f = &config.text;
    let shape = Shape::read(f)?;
    let spans = parts::spans_or(f, shape.num_layers, |_, window| window)?;
    let feed_forward = parts::gated(f.count("intermediate_size", MAX_WIDTH)?);
    let attention = shape.attention(Span::Full);
    parts::dense_decoder(config, &shape, spans, &attention, &feed_forward, config.tied(false)?)
}
