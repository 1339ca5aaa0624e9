//! NVIDIA's Nemotron-H and Nemotron 3: every layer is one thing alone, a Mamba 2 recurrence, attention, a dense
//! feed-forward or a mixture of experts, in the order of `hybrid_override_pattern`.
//!
//! Layout: `modeling_nemotron_h.py` of transformers 5.23. The recurrence (Dao and Gu, "Transformers are SSMs", 2024,
//! arXiv:2405.21060) keeps one matrix of head width by state size a head.

use super::config::{Body, Config};
use super::fields::{Fields, MAX_EXPERTS, MAX_HEADS, MAX_LAYERS, MAX_VOCAB, MAX_WIDTH};
use super::parts;
use super::quantisation::Modules;
use crate::error::{Error, Result};
use crate::model::{Attention, Dense, FeedForward, Layer, Mixer, Model, Moe, Recurrent};

const RECURRENT: Modules = Modules { mixer: &["mixer.in_proj"], mixer_output: &["mixer.out_proj"], ..NOTHING };
const ATTENTION: Modules =
    Modules { mixer: &["mixer.q_proj", "mixer.k_proj", "mixer.v_proj"], mixer_output: &["mixer.o_proj"], ..NOTHING };
const DENSE: Modules = Modules { dense: &["mixer.up_proj", "mixer.down_proj"], ..NOTHING };
const EXPERTS: Modules = Modules {
    shared_experts: &["mixer.shared_experts.up_proj", "mixer.shared_experts.down_proj"],
    routed_experts: &["mixer.experts.0.up_proj", "mixer.experts.0.down_proj"],
    ..NOTHING
};
const NOTHING: Modules =
    Modules { mixer: &[], mixer_output: &[], indexer: &[], dense: &[], shared_experts: &[], routed_experts: &[] };

/// `NemotronHForCausalLM`. No rotary embedding: the recurrences know the order of tokens.
pub(super) fn nemotron_h(config: &Config) -> Result<Model> {
    let f = &config.text;
    let hidden_size = f.count("hidden_size", MAX_WIDTH)?;
    let mut layers = Vec::new();
    for (index, kind) in (0..).zip(kinds(f)?) {
        let (modules, mixer, feed_forward) = match kind {
            Kind::Recurrence => (&RECURRENT, Mixer::Recurrent(recurrence(f)?), FeedForward::None),
            Kind::Attention => (&ATTENTION, Mixer::Attention(attention(f, hidden_size)?), FeedForward::None),
            Kind::Dense => (&DENSE, Mixer::None, dense(f)?),
            Kind::Experts => (&EXPERTS, Mixer::None, FeedForward::Moe(experts(f)?)),
        };
        layers.push(Layer {
            mixer,
            feed_forward,
            num_norms: 1,
            norm_parameters: hidden_size,
            formats: config.formats(index, modules)?,
            parallel_residual: false,
        });
    }
    config.model(Body::new(hidden_size, f.count("vocab_size", MAX_VOCAB)?, layers, config.tied(false)?))
}

/// What a layer is.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Recurrence,
    Attention,
    Dense,
    Experts,
}

/// One letter a layer in `hybrid_override_pattern`, or one name in `layers_block_type` (newer files).
fn kinds(f: &Fields) -> Result<Vec<Kind>> {
    let unknown = |key: &str, index: usize, value: &str, rule: &str| {
        Err(Error::unsupported(format!("{}[{index}]", f.path_of(key)), value, rule))
    };
    let (key, found): (_, Vec<Kind>) = if let Some(pattern) = f.text("hybrid_override_pattern")? {
        let key = "hybrid_override_pattern";
        let one = |(index, letter): (usize, char)| match letter {
            'M' => Ok(Kind::Recurrence),
            '*' => Ok(Kind::Attention),
            '-' => Ok(Kind::Dense),
            'E' => Ok(Kind::Experts),
            _ => unknown(key, index, &letter.to_string(), "must be M, *, - or E"),
        };
        (key, pattern.chars().enumerate().map(one).collect::<Result<_>>()?)
    } else if let Some(names) = f.texts("layers_block_type")? {
        let key = "layers_block_type";
        let one = |(index, name): (usize, &&str)| match *name {
            "mamba" => Ok(Kind::Recurrence),
            "attention" => Ok(Kind::Attention),
            "mlp" => Ok(Kind::Dense),
            "moe" => Ok(Kind::Experts),
            _ => unknown(key, index, name, "must be mamba, attention, mlp or moe"),
        };
        (key, names.iter().enumerate().map(one).collect::<Result<_>>()?)
    } else {
        return Err(f.refuse("hybrid_override_pattern", "must be given: one letter a layer, M, *, - or E"));
    };
    match f.optional_count("num_hidden_layers", MAX_LAYERS)? {
        Some(layers) => f.check_length(key, found.len(), layers)?,
        None if found.is_empty() => return Err(f.refuse(key, "must name at least one layer")),
        None => {}
    }
    Ok(found)
}

fn attention(f: &Fields, hidden_size: u64) -> Result<Attention> {
    let num_heads = f.count("num_attention_heads", MAX_HEADS)?;
    let head_dim = match f.optional_count("attention_head_dim", MAX_HEADS)? {
        Some(width) => width,
        None => parts::head_dim(f, hidden_size, num_heads)?,
    };
    let bias = f.flag("attention_bias", false)?;
    Ok(Attention {
        num_heads,
        num_kv_heads: parts::kv_heads(f, "num_key_value_heads", num_heads)?,
        head_dim,
        v_head_dim: head_dim,
        span: parts::window(f)?,
        qkv_bias: bias,
        output_bias: bias,
        vector_parameters: 0,
        rotary: false,
        qk_norm: false,
        output_gate: false,
    })
}

/// Two matrices: the activation is a squared rectifier.
fn dense(f: &Fields) -> Result<FeedForward> {
    check_activation(f)?;
    let intermediate_size = f.count("intermediate_size", MAX_WIDTH)?;
    Ok(FeedForward::Dense(Dense { intermediate_size, gated: false, bias: f.flag("mlp_bias", false)? }))
}

fn experts(f: &Fields) -> Result<Moe> {
    check_activation(f)?;
    let routed = parts::moe(f, (&["n_routed_experts"], &["num_experts_per_tok"], "moe_intermediate_size"))?;
    let num_shared = f.whole_or("n_shared_experts", MAX_EXPERTS, 1)?;
    let shared = if num_shared == 0 { 0 } else { f.count("moe_shared_expert_intermediate_size", MAX_WIDTH)? };
    if num_shared > 1 {
        return Err(f.unsupported("n_shared_experts", "must be 0 or 1: no more were ever published"));
    }
    let latent_size = f.optional_count("moe_latent_size", MAX_WIDTH)?;
    Ok(Moe { gated: false, latent_size, bias: f.flag("mlp_bias", false)?, shared_intermediate_size: shared, ..routed })
}

fn check_activation(f: &Fields) -> Result<()> {
    match f.text("mlp_hidden_act")? {
        None | Some("relu2") => Ok(()),
        Some(_) => Err(f.unsupported("mlp_hidden_act", "must be relu2: two matrices, without a gate")),
    }
}

/// Mamba 2: gate, values, the groups' keys and queries, and one step width a head. The convolution runs over all but
/// gate and step widths. State is fp32 unless the file says otherwise, as engines keep it.
fn recurrence(f: &Fields) -> Result<Recurrent> {
    let heads = f.count("mamba_num_heads", MAX_HEADS)?;
    let groups = f.count("n_groups", MAX_HEADS)?;
    if !heads.is_multiple_of(groups) {
        return Err(f.refuse("n_groups", format!("must divide the number of heads, {heads}")));
    }
    let head_dim = f.count("mamba_head_dim", MAX_HEADS)?;
    let state = f.count("ssm_state_size", MAX_HEADS)?;
    let kernel = f.count("conv_kernel", MAX_HEADS)?;
    let values = heads * head_dim;
    let mixed = values + 2 * groups * state;
    let state_elements = values * state;
    let bias = f.flag("use_bias", false)?;
    if f.flag("mamba_proj_bias", bias)? != bias {
        return Err(f.unsupported("mamba_proj_bias", "must equal use_bias"));
    }
    let conv_bias = if f.flag("use_conv_bias", true)? { mixed } else { 0 };
    Ok(Recurrent {
        in_features: values + mixed + heads,
        out_features: values,
        bias,
        // The convolution, three constants of each head, and the norm behind the gate.
        vector_parameters: mixed * kernel + conv_bias + 3 * heads + values,
        state_elements,
        state_element_bytes: match f.text("mamba_ssm_cache_dtype")? {
            None | Some("float32") => 4,
            Some("bfloat16" | "float16") => 2,
            Some(_) => return Err(f.refuse("mamba_ssm_cache_dtype", "must be float32, bfloat16 or float16")),
        },
        conv_state_elements: mixed * kernel,
        // Decay the state, add the outer product of key and value, read with the query: three products of the state.
        flops_per_token: 6 * state_elements,
    })
}
