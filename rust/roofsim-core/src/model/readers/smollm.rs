//! Hugging Face's SmolLM3: Llama with a tied head and every fourth layer without rotary embedding.

use super::config::Config;
use super::fields::{MAX_LAYERS, MAX_WIDTH};
use super::parts::{self, Shape};
use crate::error::Result;
use crate::model::{Attention, Dense, FeedForward, Mixer, Model, Span};

/// `SmolLM3ForCausalLM`: `no_rope_layers` holds 1 for layers *with* a rotary embedding.
pub(super) fn smollm3(config: &Config) -> Result<Model> {
    let f = &config.text;
    let shape = Shape::read(f)?;
    let bias = f.flag("attention_bias", false)?;
    let attention = Attention { qkv_bias: bias, output_bias: bias, ..shape.attention(Span::Full) };
    let feed_forward = FeedForward::Dense(Dense {
        intermediate_size: f.count("intermediate_size", MAX_WIDTH)?,
        gated: true,
        bias: f.flag("mlp_bias", false)?,
    });
    let window = if f.flag("use_sliding_window", false)? { parts::window(f)? } else { Span::Full };
    let spans = parts::spans_or(f, shape.num_layers, |_, _| window)?;
    let mut body = parts::dense_body(config, &shape, spans, &attention, &feed_forward, config.tied(true)?)?;
    let interval = f.count_or("no_rope_layer_interval", MAX_LAYERS, 4)?;
    let rotary = parts::rotary_layers(f, shape.num_layers, interval)?;
    for (layer, rotary) in body.layers.iter_mut().zip(rotary) {
        if let Mixer::Attention(attention) = &mut layer.mixer {
            attention.rotary = rotary;
        }
    }
    config.model(body)
}
