//! Gemma 2 and 3: four norms a layer, alternating windows, a tied head; Gemma 3 with or without its vision tower.

use super::config::Config;
use super::fields::{Fields, MAX_HEADS, MAX_LAYERS, MAX_VOCAB, MAX_WIDTH};
use super::parts::{self, Shape};
use super::vision;
use crate::error::Result;
use crate::model::{Attention, Model, Span};

/// `Gemma2ForCausalLM`: every other layer has the window, starting with the first. The files have no `layer_types`.
pub(super) fn gemma2(config: &Config) -> Result<Model> {
    let shape = Shape::read(&config.text)?;
    let attention = shape.attention(Span::Full);
    let spans =
        parts::spans_or(
            &config.text,
            shape.num_layers,
            |index, window| {
                if index.is_multiple_of(2) { window } else { Span::Full }
            },
        )?;
    gemma(config, &shape, spans, &attention, 0)
}

/// `Gemma3ForCausalLM`: the text model alone.
pub(super) fn gemma3_text(config: &Config) -> Result<Model> {
    gemma3_with(config, |_, _| Ok(0))
}

/// `Gemma3ForConditionalGeneration`: the text model beside `SigLIP`.
pub(super) fn gemma3(config: &Config) -> Result<Model> {
    gemma3_with(config, vision::siglip)
}

fn gemma3_with(config: &Config, auxiliary: fn(&Config, u64) -> Result<u64>) -> Result<Model> {
    let f = &config.text;
    let shape = gemma3_shape(f)?;
    let attention = Attention { qk_norm: true, vector_parameters: 2 * shape.head_dim, ..shape.attention(Span::Full) };
    // Newer files spell the pattern with an underscore; files without it mean one full layer in six.
    let pattern = f.count_any_or(&["sliding_window_pattern", "_sliding_window_pattern"], MAX_LAYERS, 6)?;
    let spans =
        parts::spans_or(
            f,
            shape.num_layers,
            |index, window| {
                if (index + 1).is_multiple_of(pattern) { Span::Full } else { window }
            },
        )?;
    gemma(config, &shape, spans, &attention, auxiliary(config, shape.hidden_size)?)
}

/// Google's own Gemma 3 files leave out what equals the class's default (transformers, `Gemma3TextConfig`): 8 query
/// heads, 4 KV heads of 256, a vocabulary of 262,208.
fn gemma3_shape(f: &Fields) -> Result<Shape> {
    let num_heads = f.count_or("num_attention_heads", MAX_HEADS, 8)?;
    let num_kv_heads = match f.value("num_key_value_heads") {
        Some(_) => parts::kv_heads(f, "num_key_value_heads", num_heads)?,
        None if num_heads.is_multiple_of(4) => 4,
        None => {
            return Err(f.refuse("num_key_value_heads", format!("must be given and divide {num_heads} query heads")));
        }
    };
    Ok(Shape {
        hidden_size: f.count("hidden_size", MAX_WIDTH)?,
        num_layers: f.count("num_hidden_layers", MAX_LAYERS)?,
        num_heads,
        num_kv_heads,
        head_dim: f.count_or("head_dim", MAX_HEADS, 256)?,
        vocab_size: f.count_or("vocab_size", MAX_VOCAB, 262_208)?,
    })
}

/// Norms stand before and after both the attention and the feed-forward.
fn gemma(config: &Config, shape: &Shape, spans: Vec<Span>, attention: &Attention, auxiliary: u64) -> Result<Model> {
    let f = &config.text;
    let bias = f.flag("attention_bias", false)?;
    let attention = Attention { qkv_bias: bias, output_bias: bias, ..attention.clone() };
    let feed_forward = parts::gated(f.count("intermediate_size", MAX_WIDTH)?);
    let mut body = parts::dense_body(config, shape, spans, &attention, &feed_forward, config.tied(true)?)?;
    for layer in &mut body.layers {
        layer.num_norms = 4;
        layer.norm_parameters = 4 * shape.hidden_size;
    }
    body.auxiliary_parameters = auxiliary;
    config.model(body)
}
