//! Pieces that most families share: head geometry, attention spans, gated feed-forwards, expert counts.

use super::config::{Body, Config};
use super::fields::{Fields, MAX_EXPERTS, MAX_HEADS, MAX_LAYERS, MAX_TOKENS, MAX_VOCAB, MAX_WIDTH};
use super::quantisation::Modules;
use crate::error::{Error, Result};
use crate::model::{Attention, Dense, FeedForward, Layer, Mixer, Model, Moe, Span};

/// The sizes that nearly every decoder spells the same way.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// d.
    pub(super) hidden_size: u64,
    /// L.
    pub(super) num_layers: u64,
    /// H.
    pub(super) num_heads: u64,
    /// K.
    pub(super) num_kv_heads: u64,
    /// h.
    pub(super) head_dim: u64,
    /// Rows of the embedding.
    pub(super) vocab_size: u64,
}

impl Shape {
    /// Reads the common spelling.
    pub(super) fn read(f: &Fields) -> Result<Self> {
        let hidden_size = f.count("hidden_size", MAX_WIDTH)?;
        let num_layers = f.count("num_hidden_layers", MAX_LAYERS)?;
        let num_heads = f.count("num_attention_heads", MAX_HEADS)?;
        let num_kv_heads = kv_heads(f, "num_key_value_heads", num_heads)?;
        let head_dim = head_dim(f, hidden_size, num_heads)?;
        let vocab_size = f.count("vocab_size", MAX_VOCAB)?;
        Ok(Self { hidden_size, num_layers, num_heads, num_kv_heads, head_dim, vocab_size })
    }

    /// Grouped-query attention over this shape: rotary, no bias, no norms.
    pub(super) fn attention(&self, span: Span) -> Attention {
        Attention {
            num_heads: self.num_heads,
            num_kv_heads: self.num_kv_heads,
            head_dim: self.head_dim,
            v_head_dim: self.head_dim,
            span,
            qkv_bias: false,
            output_bias: false,
            vector_parameters: 0,
            rotary: true,
            qk_norm: false,
            output_gate: false,
        }
    }
}

/// KV heads; absent means as many as query heads. Query heads must form whole groups.
pub(super) fn kv_heads(f: &Fields, key: &str, num_heads: u64) -> Result<u64> {
    let heads = f.count_or(key, MAX_HEADS, num_heads)?;
    if num_heads.is_multiple_of(heads) {
        return Ok(heads);
    }
    Err(f.refuse(key, format!("must divide the number of query heads, {num_heads}")))
}

/// Head width: the field when it is there (it need not be hidden / heads), else hidden / heads, which must be whole.
pub(super) fn head_dim(f: &Fields, hidden_size: u64, num_heads: u64) -> Result<u64> {
    if let Some(width) = f.optional_count("head_dim", MAX_HEADS)? {
        return Ok(width);
    }
    whole_head_dim(f, "hidden_size", hidden_size, num_heads)
}

/// hidden / heads, which must be whole; `key` is where the hidden size stands.
pub(super) fn whole_head_dim(f: &Fields, key: &str, hidden_size: u64, num_heads: u64) -> Result<u64> {
    let width = hidden_size / num_heads;
    if hidden_size.is_multiple_of(num_heads) && width <= MAX_HEADS {
        return Ok(width);
    }
    let rule = format!("must be a multiple of the number of query heads, {num_heads}, where head_dim is absent");
    Err(Error::spec(f.path_of(key), hidden_size, rule))
}

/// The window of `sliding_window`, full attention where it is absent or null.
pub(super) fn window(f: &Fields) -> Result<Span> {
    Ok(f.optional_count("sliding_window", MAX_TOKENS)?.map_or(Span::Full, Span::Sliding))
}

/// The span of every layer from `layer_types`, if the file has it.
pub(super) fn layer_types(f: &Fields, num_layers: u64) -> Result<Option<Vec<Span>>> {
    let Some(types) = f.texts("layer_types")? else { return Ok(None) };
    f.check_length("layer_types", types.len(), num_layers)?;
    let sliding = f.optional_count("sliding_window", MAX_TOKENS)?;
    let mut spans = Vec::with_capacity(types.len());
    for (index, name) in types.iter().enumerate() {
        spans.push(match (*name, sliding) {
            ("full_attention", _) => Span::Full,
            ("sliding_attention", Some(window)) => Span::Sliding(window),
            ("sliding_attention", None) => {
                return Err(f.refuse("sliding_window", "must be given, as layer_types has sliding_attention"));
            }
            _ => {
                let field = format!("{}[{index}]", f.path_of("layer_types"));
                return Err(Error::unsupported(field, name, "must be full_attention or sliding_attention"));
            }
        });
    }
    Ok(Some(spans))
}

/// The span of every layer: from `layer_types`, else `rule` of the layer's index and the file's window.
pub(super) fn spans_or(f: &Fields, num_layers: u64, rule: impl Fn(u64, Span) -> Span) -> Result<Vec<Span>> {
    if let Some(spans) = layer_types(f, num_layers)? {
        return Ok(spans);
    }
    let window = window(f)?;
    Ok((0..num_layers).map(|index| rule(index, window)).collect())
}

/// Which layers have a rotary embedding: `no_rope_layers` holds 1 for each that has one; without it, or where it is
/// empty, every `interval`-th layer has none.
pub(super) fn rotary_layers(f: &Fields, num_layers: u64, interval: u64) -> Result<Vec<bool>> {
    let key = "no_rope_layers";
    match f.counts(key, 0, 1)? {
        Some(marks) if !marks.is_empty() => {
            f.check_length(key, marks.len(), num_layers)?;
            Ok(marks.iter().map(|mark| *mark == 1).collect())
        }
        _ => Ok((0..num_layers).map(|index| !(index + 1).is_multiple_of(interval)).collect()),
    }
}

/// The same span for every layer.
pub(super) fn uniform(span: Span, num_layers: u64) -> Vec<Span> {
    (0..num_layers).map(|_| span).collect()
}

/// A gated feed-forward of three matrices without bias.
pub(super) fn gated(intermediate_size: u64) -> FeedForward {
    FeedForward::Dense(Dense { intermediate_size, gated: true, bias: false })
}

/// Routed gated experts without bias and without shared ones. `keys` spell experts, experts per token and their width.
pub(super) fn moe(f: &Fields, keys: (&[&str], &[&str], &str)) -> Result<Moe> {
    let (experts, per_token, width) = keys;
    let num_experts = f.count_any(experts, MAX_EXPERTS)?;
    let experts_per_token = f.count_any(per_token, MAX_EXPERTS)?;
    check_experts_per_token(f, per_token, experts_per_token, num_experts)?;
    Ok(Moe {
        num_experts,
        experts_per_token,
        intermediate_size: f.count(width, MAX_WIDTH)?,
        latent_size: None,
        gated: true,
        bias: false,
        router_bias: false,
        shared_intermediate_size: 0,
        shared_gate: false,
    })
}

/// A token cannot visit more experts than there are.
pub(super) fn check_experts_per_token(f: &Fields, keys: &[&str], per_token: u64, num_experts: u64) -> Result<()> {
    if per_token <= num_experts {
        return Ok(());
    }
    let key = keys.iter().copied().find(|key| f.value(key).is_some()).unwrap_or("num_experts_per_tok");
    Err(Error::spec(f.path_of(key), per_token, format!("must not exceed the number of experts, {num_experts}")))
}

/// A pre-norm layer: two root-mean-square norms, mixer, feed-forward, one after the other.
pub(super) fn layer(
    config: &Config,
    index: u64,
    modules: &Modules,
    hidden_size: u64,
    mixer: Mixer,
    feed_forward: FeedForward,
) -> Result<Layer> {
    Ok(Layer {
        mixer,
        feed_forward,
        num_norms: 2,
        norm_parameters: 2 * hidden_size,
        formats: config.formats(index, modules)?,
        parallel_residual: false,
    })
}

/// A decoder whose layers differ only in span: attention of `attention`, feed-forward of `feed_forward`.
pub(super) fn dense_decoder(
    config: &Config,
    shape: &Shape,
    spans: Vec<Span>,
    attention: &Attention,
    feed_forward: &FeedForward,
    tied: bool,
) -> Result<Model> {
    config.model(dense_body(config, shape, spans, attention, feed_forward, tied)?)
}

/// As [`dense_decoder`], for readers that change the frame before they build the model.
pub(super) fn dense_body(
    config: &Config,
    shape: &Shape,
    spans: Vec<Span>,
    attention: &Attention,
    feed_forward: &FeedForward,
    tied: bool,
) -> Result<Body> {
    let mut layers = Vec::with_capacity(spans.len());
    for (index, span) in (0..).zip(spans) {
        let mixer = Mixer::Attention(Attention { span, ..attention.clone() });
        layers.push(layer(config, index, &Modules::LLAMA, shape.hidden_size, mixer, feed_forward.clone())?);
    }
    Ok(Body::new(shape.hidden_size, shape.vocab_size, layers, tied))
}
