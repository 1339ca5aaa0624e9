//! Qwen 3.5: three of four layers mix by a gated delta rule, a recurrence; the fourth by attention behind an output gate.
//!
//! Layout: transformers 5.23, `modeling_qwen3_5_moe.py`. The recurrence (Yang et al., "Gated Delta Networks", 2024,
//! arXiv:2412.06464) keeps one matrix of key width by value width a value head.

use super::config::{Body, Config};
use super::fields::{Fields, MAX_HEADS, MAX_LAYERS, MAX_WIDTH};
use super::parts::{self, Shape};
use super::quantisation::Modules;
use super::vision;
use crate::error::{Error, Result};
use crate::model::{Attention, FeedForward, Mixer, Model, Moe, Recurrent, Span};

/// A layer of attention of the mixture of experts.
const ATTENTION_MOE: Modules = Modules::QWEN_MOE;

/// Its recurrent layers keep their projections under another name.
const RECURRENT_MOE: Modules = Modules { mixer: LINEAR_INPUTS, mixer_output: LINEAR_OUTPUT, ..Modules::QWEN_MOE };
/// The same of the dense models.
const RECURRENT_DENSE: Modules = Modules { mixer: LINEAR_INPUTS, mixer_output: LINEAR_OUTPUT, ..Modules::LLAMA };

const LINEAR_INPUTS: &[&str] = &["linear_attn.in_proj_qkv", "linear_attn.in_proj_z"];
const LINEAR_OUTPUT: &[&str] = &["linear_attn.out_proj"];

/// `Qwen3_5ForCausalLM`: dense feed-forwards.
pub(super) fn dense(config: &Config) -> Result<Model> {
    let feed_forward = parts::gated(config.text.count("intermediate_size", MAX_WIDTH)?);
    build(config, &feed_forward, [&Modules::LLAMA, &RECURRENT_DENSE], 0)
}

/// `Qwen3_5ForConditionalGeneration`: the dense model beside Qwen 3 VL's tower.
pub(super) fn dense_vl(config: &Config) -> Result<Model> {
    let feed_forward = parts::gated(config.text.count("intermediate_size", MAX_WIDTH)?);
    build(config, &feed_forward, [&Modules::LLAMA, &RECURRENT_DENSE], vision::qwen3_vl(config)?)
}

/// `Qwen3_5MoeForCausalLM`: a mixture of experts in every layer.
pub(super) fn moe(config: &Config) -> Result<Model> {
    build(config, &experts(&config.text)?, [&ATTENTION_MOE, &RECURRENT_MOE], 0)
}

/// `Qwen3_5MoeForConditionalGeneration`: the mixture of experts beside Qwen 3 VL's tower.
pub(super) fn moe_vl(config: &Config) -> Result<Model> {
    build(config, &experts(&config.text)?, [&ATTENTION_MOE, &RECURRENT_MOE], vision::qwen3_vl(config)?)
}

/// Routed experts beside shared ones behind a gate.
fn experts(f: &Fields) -> Result<FeedForward> {
    let routed = parts::moe(f, (&["num_experts"], &["num_experts_per_tok"], "moe_intermediate_size"))?;
    let shared_intermediate_size = f.count("shared_expert_intermediate_size", MAX_WIDTH)?;
    Ok(FeedForward::Moe(Moe { shared_intermediate_size, shared_gate: true, ..routed }))
}

fn build(
    config: &Config,
    feed_forward: &FeedForward,
    modules: [&Modules; 2],
    auxiliary_parameters: u64,
) -> Result<Model> {
    let f = &config.text;
    let shape = Shape::read(f)?;
    let bias = f.flag("attention_bias", false)?;
    let attention = Attention {
        qkv_bias: bias,
        output_bias: bias,
        qk_norm: true,
        vector_parameters: 2 * shape.head_dim,
        output_gate: f.flag("attn_output_gate", true)?,
        ..shape.attention(Span::Full)
    };
    let recurrence = recurrence(f)?;
    let mut layers = Vec::new();
    for (index, is_attention) in (0..).zip(attention_layers(f, shape.num_layers)?) {
        let (modules, mixer) = if is_attention {
            (modules[0], Mixer::Attention(attention.clone()))
        } else {
            (modules[1], Mixer::Recurrent(recurrence.clone()))
        };
        layers.push(parts::layer(config, index, modules, shape.hidden_size, mixer, feed_forward.clone())?);
    }
    let mut body = Body::new(shape.hidden_size, shape.vocab_size, layers, config.tied(false)?);
    body.auxiliary_parameters = auxiliary_parameters;
    config.model(body)
}

/// The gated delta rule: queries and keys of the key heads, values, their gate, and two numbers a value head. State is
/// fp32 unless the file says otherwise; a convolution over queries, keys and values keeps `kernel` rows.
fn recurrence(f: &Fields) -> Result<Recurrent> {
    let key_heads = f.count("linear_num_key_heads", MAX_HEADS)?;
    let value_heads = f.count("linear_num_value_heads", MAX_HEADS)?;
    if !value_heads.is_multiple_of(key_heads) {
        return Err(f.refuse("linear_num_key_heads", format!("must divide the number of value heads, {value_heads}")));
    }
    let key_width = f.count("linear_key_head_dim", MAX_HEADS)?;
    let value_width = f.count("linear_value_head_dim", MAX_HEADS)?;
    let kernel = f.count("linear_conv_kernel_dim", MAX_HEADS)?;
    let values = value_heads * value_width;
    let mixed = 2 * key_heads * key_width + values;
    let state_elements = value_heads * key_width * value_width;
    let state_element_bytes = match f.text("mamba_ssm_dtype")? {
        None | Some("float32") => 4,
        Some("bfloat16" | "float16") => 2,
        Some(_) => return Err(f.refuse("mamba_ssm_dtype", "must be float32, bfloat16 or float16")),
    };
    Ok(Recurrent {
        in_features: mixed + values + 2 * value_heads,
        out_features: values,
        bias: false,
        // The convolution, the two constants of each head's decay, and a norm of a head's width.
        vector_parameters: mixed * kernel + 2 * value_heads + value_width,
        state_elements,
        state_element_bytes,
        conv_state_elements: mixed * kernel,
        // Read with the key, correct by the delta, read with the query: three products of the state.
        flops_per_token: 6 * state_elements,
    })
}

/// Which layers are attention: `layer_types`, else every `full_attention_interval`-th.
fn attention_layers(f: &Fields, num_layers: u64) -> Result<Vec<bool>> {
    let Some(types) = f.texts("layer_types")? else {
        let interval = f.count_or("full_attention_interval", MAX_LAYERS, 4)?;
        return Ok((1..=num_layers).map(|number| number.is_multiple_of(interval)).collect());
    };
    f.check_length("layer_types", types.len(), num_layers)?;
    let is_attention = |(index, name): (usize, &&str)| match *name {
        "full_attention" => Ok(true),
        "linear_attention" => Ok(false),
        _ => {
            let field = format!("{}[{index}]", f.path_of("layer_types"));
            Err(Error::unsupported(field, *name, "must be full_attention or linear_attention"))
        }
    };
    types.iter().enumerate().map(is_attention).collect()
}
