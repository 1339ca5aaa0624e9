//! `InternLM` 2 and 3: Llama with other names for its switches.

use super::config::Config;
use super::fields::MAX_WIDTH;
use super::parts::{self, Shape};
use crate::error::Result;
use crate::model::{Attention, Dense, FeedForward, Model, Span};

/// `InternLM2ForCausalLM`: `bias` covers the attention projections only.
pub(super) fn internlm2(config: &Config) -> Result<Model> {
    let bias = config.text.flag("bias", false)?;
    internlm(config, bias, bias, false)
}

/// `InternLM3ForCausalLM`: the authors' own files say `qkv_bias` and `bias`, those of transformers `attention_bias` and
/// `mlp_bias`.
pub(super) fn internlm3(config: &Config) -> Result<Model> {
    let f = &config.text;
    let bias = f.flag("bias", false)?;
    let attention_bias = f.flag("attention_bias", false)?;
    let qkv_bias = f.flag("qkv_bias", attention_bias)?;
    internlm(config, qkv_bias, bias || attention_bias, f.flag("mlp_bias", bias)?)
}

fn internlm(config: &Config, qkv_bias: bool, output_bias: bool, bias: bool) -> Result<Model> {
    let f = &config.text;
    let shape = Shape::read(f)?;
    let attention = Attention { qkv_bias, output_bias, ..shape.attention(Span::Full) };
    let intermediate_size = f.count("intermediate_size", MAX_WIDTH)?;
    let feed_forward = FeedForward::Dense(Dense { intermediate_size, gated: true, bias });
    let spans = parts::uniform(Span::Full, shape.num_layers);
    parts::dense_decoder(config, &shape, spans, &attention, &feed_forward, config.tied(false)?)
}
