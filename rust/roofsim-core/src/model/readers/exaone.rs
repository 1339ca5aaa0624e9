//! LG's EXAONE 4: norms after attention and feed-forward instead of before, three windows to one full layer.

use super::config::Config;
use super::fields::{Fields, MAX_WIDTH};
use super::parts::{self, Shape};
use crate::error::{Error, Result};
use crate::model::{Attention, Mixer, Model, Span};

/// `Exaone4ForCausalLM`. Where windows alternate with full layers, the full ones have no rotary embedding.
pub(super) fn exaone4(config: &Config) -> Result<Model> {
    let f = &config.text;
    let shape = Shape::read(f)?;
    let attention = Attention { qk_norm: true, vector_parameters: 2 * shape.head_dim, ..shape.attention(Span::Full) };
    let feed_forward = parts::gated(f.count("intermediate_size", MAX_WIDTH)?);
    let spans = spans(f, shape.num_layers)?;
    let hybrid = spans.iter().any(|span| *span != Span::Full);
    let mut body = parts::dense_body(config, &shape, spans, &attention, &feed_forward, config.tied(false)?)?;
    for layer in &mut body.layers {
        if let Mixer::Attention(attention) = &mut layer.mixer {
            attention.rotary = !hybrid || attention.span != Span::Full;
        }
    }
    config.model(body)
}

/// Without `layer_types`, the pattern is a text such as `LLLG` (local, global) that repeats.
fn spans(f: &Fields, num_layers: u64) -> Result<Vec<Span>> {
    let key = "sliding_window_pattern";
    if f.value("layer_types").is_some() || f.value("sliding_window").is_none() || f.value(key).is_none() {
        return parts::spans_or(f, num_layers, |_, window| window);
    }
    let pattern = f.text(key)?.unwrap_or_default().as_bytes();
    if pattern.is_empty() || pattern.iter().any(|letter| !b"LG".contains(letter)) {
        return Err(Error::spec(f.path_of(key), String::from_utf8_lossy(pattern), "must be a text of L and G"));
    }
    parts::spans_or(f, num_layers, |index, window| match pattern.iter().cycle().nth(place(index, pattern.len())) {
        Some(b'G') => Span::Full,
        _ => window,
    })
}

fn place(index: u64, length: usize) -> usize {
    usize::try_from(index).map_or(0, |index| index % length)
}
