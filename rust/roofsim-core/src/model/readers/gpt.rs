//! The older generation: layer norms with bias, plain feed-forwards of two matrices, mostly biases everywhere.
//! GPT-2, GPT-J, GPT-NeoX, OPT and Falcon.

use super::config::{Body, Config};
use super::fields::{Fields, MAX_HEADS, MAX_LAYERS, MAX_TOKENS, MAX_VOCAB, MAX_WIDTH};
use super::parts::{self, Shape};
use super::quantisation::Modules;
use crate::error::Result;
use crate::model::{Attention, Dense, Embedding, FeedForward, Layer, Mixer, Model, Span};

/// What tells the members of this generation apart, layer by layer.
struct Block {
    attention: Attention,
    intermediate_size: u64,
    feed_forward_bias: bool,
    num_norms: u64,
    parallel_residual: bool,
    modules: Modules,
}

/// Equal layers, layer norms with bias throughout.
fn body(config: &Config, shape: &Shape, block: &Block, tied: bool) -> Result<Body> {
    let mut layers = Vec::new();
    for index in 0..shape.num_layers {
        layers.push(Layer {
            mixer: Mixer::Attention(block.attention.clone()),
            feed_forward: FeedForward::Dense(Dense {
                intermediate_size: block.intermediate_size,
                gated: false,
                bias: block.feed_forward_bias,
            }),
            num_norms: block.num_norms,
            norm_parameters: block.num_norms * 2 * shape.hidden_size,
            formats: config.formats(index, &block.modules)?,
            parallel_residual: block.parallel_residual,
        });
    }
    let mut body = Body::new(shape.hidden_size, shape.vocab_size, layers, tied);
    body.final_norm_parameters = 2 * shape.hidden_size;
    Ok(body)
}

const fn modules(
    mixer: &'static [&'static str],
    mixer_output: &'static [&'static str],
    dense: &'static [&'static str],
) -> Modules {
    Modules { mixer, mixer_output, dense, ..Modules::LLAMA }
}

/// The shape in GPT-2's spelling, with as many KV heads as query heads.
fn gpt_shape(f: &Fields) -> Result<Shape> {
    let hidden_size = f.count_any(&["n_embd", "hidden_size"], MAX_WIDTH)?;
    let num_heads = f.count_any(&["n_head", "num_attention_heads"], MAX_HEADS)?;
    Ok(Shape {
        hidden_size,
        num_layers: f.count_any(&["n_layer", "num_hidden_layers"], MAX_LAYERS)?,
        num_heads,
        num_kv_heads: num_heads,
        head_dim: parts::whole_head_dim(f, "n_embd", hidden_size, num_heads)?,
        vocab_size: f.count("vocab_size", MAX_VOCAB)?,
    })
}

/// `GPT2LMHeadModel`: learned positions, biases everywhere, a tied head.
pub(super) fn gpt2(config: &Config) -> Result<Model> {
    let f = &config.text;
    let shape = gpt_shape(f)?;
    let positions = f.count_any(&["n_positions", "n_ctx"], MAX_TOKENS)?;
    let block = Block {
        attention: Attention { qkv_bias: true, output_bias: true, rotary: false, ..shape.attention(Span::Full) },
        intermediate_size: f.count_or("n_inner", MAX_WIDTH, 4 * shape.hidden_size)?,
        feed_forward_bias: true,
        num_norms: 2,
        parallel_residual: false,
        modules: modules(&["attn.c_attn"], &["attn.c_proj"], &["mlp.c_fc", "mlp.c_proj"]),
    };
    let mut body = body(config, &shape, &block, config.tied(true)?)?;
    body.embedding.position_rows = positions;
    body.max_context_tokens = Some(positions);
    config.model(body)
}

/// `GPTJForCausalLM`: one norm, attention and feed-forward side by side, no bias in attention, one in the head.
pub(super) fn gpt_j(config: &Config) -> Result<Model> {
    let f = &config.text;
    let shape = gpt_shape(f)?;
    let block = Block {
        attention: shape.attention(Span::Full),
        intermediate_size: f.count_or("n_inner", MAX_WIDTH, 4 * shape.hidden_size)?,
        feed_forward_bias: true,
        num_norms: 1,
        parallel_residual: true,
        modules: modules(
            &["attn.q_proj", "attn.k_proj", "attn.v_proj"],
            &["attn.out_proj"],
            &["mlp.fc_in", "mlp.fc_out"],
        ),
    };
    let mut body = body(config, &shape, &block, config.tied(false)?)?;
    body.head.bias = true;
    body.max_context_tokens = f.optional_count("n_positions", MAX_TOKENS)?;
    config.model(body)
}

/// `GPTNeoXForCausalLM`: two norms, side by side unless `use_parallel_residual` is false.
pub(super) fn gpt_neox(config: &Config) -> Result<Model> {
    let f = &config.text;
    let shape = Shape::read(f)?;
    let bias = f.flag("attention_bias", true)?;
    let block = Block {
        attention: Attention { qkv_bias: bias, output_bias: bias, ..shape.attention(Span::Full) },
        intermediate_size: f.count("intermediate_size", MAX_WIDTH)?,
        feed_forward_bias: true,
        num_norms: 2,
        parallel_residual: f.flag("use_parallel_residual", true)?,
        modules: modules(
            &["attention.query_key_value"],
            &["attention.dense"],
            &["mlp.dense_h_to_4h", "mlp.dense_4h_to_h"],
        ),
    };
    let body = body(config, &shape, &block, config.tied(false)?)?;
    config.model(body)
}

/// `OPTForCausalLM`: positions start at 2, and the smallest post-norm model projects its embeddings in and out.
pub(super) fn opt(config: &Config) -> Result<Model> {
    let f = &config.text;
    let shape = Shape::read(f)?;
    let bias = f.flag("enable_bias", true)?;
    let block = Block {
        attention: Attention { qkv_bias: bias, output_bias: bias, rotary: false, ..shape.attention(Span::Full) },
        intermediate_size: f.count("ffn_dim", MAX_WIDTH)?,
        feed_forward_bias: bias,
        num_norms: 2,
        parallel_residual: false,
        modules: modules(
            &["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
            &["self_attn.out_proj"],
            &["fc1", "fc2"],
        ),
    };
    let mut body = body(config, &shape, &block, config.tied(true)?)?;
    if !f.flag("do_layer_norm_before", true)? || f.flag("_remove_final_layer_norm", false)? {
        body.final_norm_parameters = 0;
    }
    let dim = f.count_or("word_embed_proj_dim", MAX_WIDTH, shape.hidden_size)?;
    let projections = if dim == shape.hidden_size { 0 } else { 2 * dim * shape.hidden_size };
    let position_rows = f.count("max_position_embeddings", MAX_TOKENS)? + 2;
    body.embedding = Embedding { dim, position_rows, other_parameters: projections };
    config.model(body)
}

/// `FalconForCausalLM`: the old decoder has one KV head (`multi_query`, whatever `num_kv_heads` says) and one norm, the
/// new one groups of queries and two norms side by side.
pub(super) fn falcon(config: &Config) -> Result<Model> {
    let f = &config.text;
    let hidden_size = f.count("hidden_size", MAX_WIDTH)?;
    let num_heads = f.count_any(&["num_attention_heads", "n_head"], MAX_HEADS)?;
    let new_decoder = f.flag("new_decoder_architecture", false)?;
    let parallel = new_decoder || f.flag("parallel_attn", true)?;
    let grouped = new_decoder || !f.flag("multi_query", true)?;
    let kv_key = if f.value("n_head_kv").is_some() { "n_head_kv" } else { "num_kv_heads" };
    let shape = Shape {
        hidden_size,
        num_layers: f.count_any(&["num_hidden_layers", "n_layer"], MAX_LAYERS)?,
        num_heads,
        num_kv_heads: if grouped { parts::kv_heads(f, kv_key, num_heads)? } else { 1 },
        head_dim: parts::whole_head_dim(f, "hidden_size", hidden_size, num_heads)?,
        vocab_size: f.count("vocab_size", MAX_VOCAB)?,
    };
    let bias = f.flag("bias", false)?;
    let rotary = !f.flag("alibi", false)?;
    let norms_in_parallel = f.count_or("num_ln_in_parallel_attn", 2, if new_decoder { 2 } else { 1 })?;
    let block = Block {
        attention: Attention { qkv_bias: bias, output_bias: bias, rotary, ..shape.attention(Span::Full) },
        intermediate_size: f.count_or("ffn_hidden_size", MAX_WIDTH, 4 * hidden_size)?,
        feed_forward_bias: bias,
        num_norms: if parallel { norms_in_parallel } else { 2 },
        parallel_residual: parallel,
        modules: modules(
            &["self_attention.query_key_value"],
            &["self_attention.dense"],
            &["mlp.dense_h_to_4h", "mlp.dense_4h_to_h"],
        ),
    };
    let body = body(config, &shape, &block, config.tied(true)?)?;
    config.model(body)
}
