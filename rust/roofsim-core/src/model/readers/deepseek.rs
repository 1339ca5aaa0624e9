//! DeepSeek V2 to V3.2, Kimi K2, GLM-4.7-Flash, GLM-5: latent attention, dense first layers, shared and routed experts.
//! DeepSeek V3.2 and GLM-5 attend the tokens that an indexer selects (DeepSeek-AI, "DeepSeek-V3.2-Exp", 2025, section 1).

use super::config::{Body, Config};
use super::fields::{Fields, MAX_EXPERTS, MAX_HEADS, MAX_LAYERS, MAX_TOKENS, MAX_VOCAB, MAX_WIDTH};
use super::parts;
use super::quantisation::Modules;
use super::vision;
use crate::error::{Error, Result};
use crate::model::{FeedForward, Indexer, LatentAttention, Mixer, Model, Moe, Selection};

/// The projections of latent attention, and their names where the query has no bottleneck.
const BOTTLENECK: &[&str] =
    &["self_attn.q_a_proj", "self_attn.q_b_proj", "self_attn.kv_a_proj_with_mqa", "self_attn.kv_b_proj"];
/// The indexer's; the weights of its heads stay in the model's own dtype.
const INDEXER: &[&str] = &["self_attn.indexer.wq_b", "self_attn.indexer.wk"];
const FULL_QUERY: &[&str] = &["self_attn.q_proj", "self_attn.kv_a_proj_with_mqa", "self_attn.kv_b_proj"];

/// `DeepseekV2ForCausalLM`, `DeepseekV3ForCausalLM`: `num_key_value_heads` and `head_dim` mean nothing here, since what
/// is cached is one latent and one rotary key per token.
pub(super) fn deepseek(config: &Config) -> Result<Model> {
    deepseek_with(config, |_, _| Ok(0))
}

/// `DeepseekV32ForCausalLM`, `GlmMoeDsaForCausalLM`: the same, attending the tokens that an indexer selects.
pub(super) fn sparse(config: &Config) -> Result<Model> {
    config.text.count("index_topk", MAX_TOKENS)?;
    deepseek(config)
}

/// `KimiK25ForConditionalGeneration`: Kimi K2 beside a vision tower.
pub(super) fn kimi_k2_5(config: &Config) -> Result<Model> {
    deepseek_with(config, vision::moonvit)
}

fn deepseek_with(config: &Config, auxiliary: fn(&Config, u64) -> Result<u64>) -> Result<Model> {
    let f = &config.text;
    let hidden_size = f.count("hidden_size", MAX_WIDTH)?;
    let num_layers = f.count("num_hidden_layers", MAX_LAYERS)?;
    let attention = latent_attention(f)?;
    let selections = selections(f, num_layers)?;
    let indexer = if selections.is_some() { INDEXER } else { &[] };
    let mut selections = selections.into_iter().flatten().map(Some);
    let sparse = sparse_layers(f)?;
    let mixer = if attention.q_lora_rank.is_some() { BOTTLENECK } else { FULL_QUERY };
    let dense_modules = Modules { mixer, indexer, ..Modules::LLAMA };
    let sparse_modules = Modules { mixer, indexer, ..Modules::DEEPSEEK_MOE };
    let mut layers = Vec::new();
    for index in 0..num_layers {
        let selection = selections.next().flatten();
        let mixer = Mixer::Latent(LatentAttention { selection, ..attention.clone() });
        let (modules, feed_forward) = if let Some(moe) = sparse.moe_at(index) {
            (&sparse_modules, FeedForward::Moe(moe.clone()))
        } else {
            (&dense_modules, parts::gated(f.count("intermediate_size", MAX_WIDTH)?))
        };
        layers.push(parts::layer(config, index, modules, hidden_size, mixer, feed_forward)?);
    }
    let vocab_size = f.count("vocab_size", MAX_VOCAB)?;
    let mut body = Body::new(hidden_size, vocab_size, layers, config.tied(false)?);
    body.auxiliary_parameters = auxiliary(config, hidden_size)?;
    config.model(body)
}

fn latent_attention(f: &Fields) -> Result<LatentAttention> {
    // A written null means one full query projection (V2-Lite); a file without the field is incomplete.
    if !f.mentions("q_lora_rank") {
        return Err(f.refuse("q_lora_rank", "must be given, null where the query has no bottleneck"));
    }
    Ok(LatentAttention {
        num_heads: f.count("num_attention_heads", MAX_HEADS)?,
        q_lora_rank: f.optional_count("q_lora_rank", MAX_WIDTH)?,
        kv_lora_rank: f.count("kv_lora_rank", MAX_WIDTH)?,
        qk_nope_head_dim: f.count("qk_nope_head_dim", MAX_HEADS)?,
        qk_rope_head_dim: f.count("qk_rope_head_dim", MAX_HEADS)?,
        v_head_dim: f.count("v_head_dim", MAX_HEADS)?,
        bias: f.flag("attention_bias", false)?,
        selection: None,
    })
}

/// How each layer selects tokens; `None` where the class attends everything. `indexer_types` says which layers have an
/// indexer of their own (`full`) and which take over the choice of the last one that has (`shared`).
fn selections(f: &Fields, num_layers: u64) -> Result<Option<Vec<Selection>>> {
    if f.value("index_topk").is_none() {
        return Ok(None);
    }
    if f.value("q_lora_rank").is_none() {
        return Err(f.refuse("q_lora_rank", "must be given where index_topk is: the indexer's queries come from it"));
    }
    let top_k = f.count("index_topk", MAX_TOKENS)?;
    let indexer =
        Indexer { num_heads: f.count("index_n_heads", MAX_HEADS)?, head_dim: f.count("index_head_dim", MAX_HEADS)? };
    let key = "indexer_types";
    let Some(types) = f.texts(key)? else {
        if f.count_or("index_topk_freq", MAX_LAYERS, 1)? != 1 {
            return Err(f.unsupported("index_topk_freq", "must be 1 where indexer_types does not list the layers"));
        }
        return Ok(Some((0..num_layers).map(|_| Selection { top_k, indexer: Some(indexer) }).collect()));
    };
    f.check_length(key, types.len(), num_layers)?;
    let one = |(index, name): (usize, &&str)| {
        let own = match *name {
            "full" => Some(indexer),
            "shared" if index > 0 => None,
            _ => {
                let rule = "must be full or shared, and full in the first layer";
                return Err(Error::unsupported(format!("{}[{index}]", f.path_of(key)), *name, rule));
            }
        };
        Ok(Selection { top_k, indexer: own })
    };
    types.iter().enumerate().map(one).collect::<Result<Vec<_>>>().map(Some)
}

/// Which layers have experts, and what experts.
pub(super) struct SparseLayers {
    moe: Option<Moe>,
    first: u64,
    every: u64,
}

impl SparseLayers {
    /// The mixture of experts of layer `index`, `None` where it is dense.
    pub(super) fn moe_at(&self, index: u64) -> Option<&Moe> {
        self.moe.as_ref().filter(|_| index >= self.first && index.is_multiple_of(self.every))
    }
}

/// A layer has experts from `first_k_dense_replace` on, at multiples of `moe_layer_freq`. The shared experts are one
/// feed-forward of `n_shared_experts` times the width of a routed one.
pub(super) fn sparse_layers(f: &Fields) -> Result<SparseLayers> {
    let first = f.whole_or("first_k_dense_replace", MAX_LAYERS, 0)?;
    let every = f.count_or("moe_layer_freq", MAX_LAYERS, 1)?;
    if f.value("n_routed_experts").is_none() && f.mentions("n_routed_experts") {
        return Ok(SparseLayers { moe: None, first, every });
    }
    let routed = parts::moe(f, (&["n_routed_experts"], &["num_experts_per_tok"], "moe_intermediate_size"))?;
    let num_shared = f.whole_or("n_shared_experts", MAX_EXPERTS, 0)?;
    let shared_intermediate_size = num_shared * routed.intermediate_size;
    Ok(SparseLayers { moe: Some(Moe { shared_intermediate_size, ..routed }), first, every })
}
