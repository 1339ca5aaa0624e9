//! Mixtral: Mistral's attention, a mixture of experts in every layer.

use super::config::{Body, Config};
use super::parts::{self, Shape};
use super::quantisation::Modules;
use crate::error::Result;
use crate::model::{FeedForward, Mixer, Model};

/// `MixtralForCausalLM`: `intermediate_size` is one expert's.
pub(super) fn mixtral(config: &Config) -> Result<Model> {
    let f = &config.text;
    let shape = Shape::read(f)?;
    let moe = parts::moe(f, (&["num_local_experts"], &["num_experts_per_tok"], "intermediate_size"))?;
    let attention = shape.attention(parts::window(f)?);
    let mut layers = Vec::new();
    for index in 0..shape.num_layers {
        let mixer = Mixer::Attention(attention.clone());
        let feed_forward = FeedForward::Moe(moe.clone());
        layers.push(parts::layer(config, index, &Modules::MIXTRAL, shape.hidden_size, mixer, feed_forward)?);
    }
    config.model(Body::new(shape.hidden_size, shape.vocab_size, layers, config.tied(false)?))
}
