//! Tencent's Hunyuan mixture of experts: its counts are one number or a list with one for each layer.

use super::config::{Body, Config};
use super::fields::{Fields, MAX_EXPERTS, MAX_WIDTH};
use super::parts::{self, Shape};
use super::quantisation::Modules;
use crate::error::{Error, Result};
use crate::model::{Attention, FeedForward, Mixer, Model, Moe, Span};

/// Hunyuan's shared feed-forward.
const MODULES: Modules = Modules {
    shared_experts: &["mlp.shared_mlp.gate_proj", "mlp.shared_mlp.up_proj", "mlp.shared_mlp.down_proj"],
    ..Modules::QWEN_MOE
};

/// `HunYuanMoEV1ForCausalLM`. Layers that share another layer's keys and values (`use_cla`) have no reader.
pub(super) fn hunyuan_moe(config: &Config) -> Result<Model> {
    let f = &config.text;
    let shape = Shape::read(f)?;
    for key in ["use_cla", "use_mla"] {
        if f.flag(key, false)? {
            return Err(f.unsupported(key, "must be false: no published model uses it"));
        }
    }
    let bias = f.flag("attention_bias", false)?;
    let qk_norm = f.flag("use_qk_norm", true)?;
    let attention = Attention {
        qkv_bias: bias,
        output_bias: bias,
        qk_norm,
        vector_parameters: if qk_norm { 2 * shape.head_dim } else { 0 },
        ..shape.attention(Span::Full)
    };
    let mut layers = Vec::new();
    for (index, moe) in (0..).zip(experts(f, shape.num_layers)?) {
        let mixer = Mixer::Attention(attention.clone());
        layers.push(parts::layer(config, index, &MODULES, shape.hidden_size, mixer, FeedForward::Moe(moe))?);
    }
    config.model(Body::new(shape.hidden_size, shape.vocab_size, layers, config.tied(true)?))
}

/// The experts of every layer; with `use_mixed_mlp_moe` there is a shared feed-forward too.
fn experts(f: &Fields, num_layers: u64) -> Result<Vec<Moe>> {
    let per_layer = |key: &str, max: u64| {
        f.count_per_layer(key, max, num_layers)?
            .ok_or_else(|| f.refuse(key, "must be given, one or one for each layer"))
    };
    let num_experts = per_layer("num_experts", MAX_EXPERTS)?;
    let top_k = per_layer("moe_topk", MAX_EXPERTS)?;
    let widths = match f.count_per_layer("moe_intermediate_size", MAX_WIDTH, num_layers)? {
        Some(widths) => widths,
        None => per_layer("intermediate_size", MAX_WIDTH)?,
    };
    let shared = if f.flag("use_mixed_mlp_moe", false)? {
        let width = f.count("intermediate_size", MAX_WIDTH)?;
        let counts = f.count_per_layer("num_shared_expert", MAX_EXPERTS, num_layers)?;
        counts.map_or_else(|| vec![width; widths.len()], |counts| counts.iter().map(|n| n * width).collect())
    } else {
        vec![0; widths.len()]
    };
    let mut out = Vec::with_capacity(widths.len());
    for (((num_experts, experts_per_token), intermediate_size), shared_intermediate_size) in
        num_experts.into_iter().zip(top_k).zip(widths).zip(shared)
    {
        if experts_per_token > num_experts {
            let rule = format!("must not exceed the number of experts, {num_experts}");
            return Err(Error::spec(f.path_of("moe_topk"), experts_per_token, rule));
        }
        out.push(Moe {
            num_experts,
            experts_per_token,
            latent_size: None,
            intermediate_size,
            gated: true,
            bias: false,
            router_bias: false,
            shared_intermediate_size,
            shared_gate: false,
        });
    }
    Ok(out)
}
