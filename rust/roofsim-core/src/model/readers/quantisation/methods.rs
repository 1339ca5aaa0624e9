//! The quantisation methods that published checkpoints use, one function each.

use std::collections::BTreeMap;

use super::patterns::Patterns;
use super::{Quantisation, Rule};
use crate::error::{Error, Result};
use crate::format::{KvFormat, WeightFormat};
use crate::model::readers::fields::{Fields, MAX_LAYERS};

const KNOWN: &str = "known are fp8, fbgemm_fp8, mxfp4, modelopt, compressed-tensors, gptq, awq";

/// Reads a `quantization_config`.
pub(super) fn read(q: &Fields, text: &Fields, base: WeightFormat) -> Result<Quantisation> {
    let method = q.text("quant_method")?;
    match method {
        // NVIDIA's exporter names its algorithm in `quant_algo`, under whatever method the original had.
        _ if q.value("quant_algo").is_some() => modelopt(q, base),
        Some("fp8") => fp8(q, base),
        Some("fbgemm_fp8") => fbgemm(q, text, base),
        Some("mxfp4") => mxfp4(q, base),
        Some("modelopt") => modelopt(q, base),
        Some("compressed-tensors") => compressed_tensors(q, base),
        Some("gptq" | "awq") => integer4(q, base),
        Some("bitsandbytes") => Err(q.unsupported(
            "quant_method",
            format!("bitsandbytes stores nested scales of a layout no law here covers; {KNOWN}"),
        )),
        Some(_) => Err(q.unsupported("quant_method", KNOWN)),
        None => Err(q.refuse("quant_method", format!("must be given; {KNOWN}"))),
    }
}

/// One format for every linear layer but the ignored ones.
fn everywhere(q: &Fields, base: WeightFormat, format: WeightFormat) -> Result<Quantisation> {
    rules(q, base, vec![Rule { targets: None, format }])
}

fn rules(q: &Fields, base: WeightFormat, rules: Vec<Rule>) -> Result<Quantisation> {
    let mut ignore = Patterns::default();
    for key in ["ignore", "modules_to_not_convert", "exclude_modules"] {
        add_all(&mut ignore, q, key)?;
    }
    Ok(Quantisation { base, field: q.path_of("ignore"), rules, ignore, kv_cache: kv_cache(q)? })
}

fn add_all(patterns: &mut Patterns, q: &Fields, key: &str) -> Result<()> {
    for entry in q.texts(key)?.unwrap_or_default() {
        patterns.add(entry, &q.path_of(key))?;
    }
    Ok(())
}

/// DeepSeek's block-wise fp8, or per-tensor fp8 where `weight_block_size` is null.
fn fp8(q: &Fields, base: WeightFormat) -> Result<Quantisation> {
    let format = match q.counts("weight_block_size", 1, 1 << 20)?.as_deref() {
        None => WeightFormat::Fp8,
        Some([128, 128]) => WeightFormat::Fp8Block,
        Some(_) => return Err(q.unsupported("weight_block_size", "must be [128, 128] or null")),
    };
    everywhere(q, base, format)
}

/// Meta's fp8 with one scale per output channel.
///
/// The only models published in it are Meta's own, quantised by one recipe (The Llama 3 Herd of Models, section 6.2):
/// feed-forwards only, and neither the first nor the last layer. Where a file has lost its list of exceptions, that
/// recipe stands in for it.
fn fbgemm(q: &Fields, text: &Fields, base: WeightFormat) -> Result<Quantisation> {
    let mut found = everywhere(q, base, WeightFormat::Fp8Channel)?;
    if found.ignore.is_empty() {
        let last = text.count("num_hidden_layers", MAX_LAYERS)? - 1;
        for entry in ["self_attn".to_owned(), "model.layers.0".to_owned(), format!("model.layers.{last}")] {
            found.ignore.add(&entry, "quantization_config")?;
        }
    }
    Ok(found)
}

/// gpt-oss: microscaling fp4 for the routed experts only, whatever the list of exceptions says.
fn mxfp4(q: &Fields, base: WeightFormat) -> Result<Quantisation> {
    let mut experts = Patterns::default();
    experts.add("experts", "quantization_config")?;
    rules(q, base, vec![Rule { targets: Some(experts), format: WeightFormat::MxFp4 }])
}

/// GPTQ and AWQ: four-bit integers, weight only. Zero points, where a checkpoint has them, are not counted: half a byte
/// per group, below 1% at 128.
fn integer4(q: &Fields, base: WeightFormat) -> Result<Quantisation> {
    if q.count_any(&["bits", "w_bit"], 64)? != 4 {
        return Err(q.unsupported("bits", "must be 4"));
    }
    if q.flag("lm_head", false)? {
        return Err(q.unsupported("lm_head", "must be false: the head is stored in the model's own dtype here"));
    }
    let key = if q.value("q_group_size").is_some() { "q_group_size" } else { "group_size" };
    let format = match q.value(key).and_then(serde_json::Value::as_i64) {
        Some(128) => WeightFormat::Int4,
        Some(32) => WeightFormat::Int4G32,
        _ => return Err(q.unsupported(key, "must be 128 or 32")),
    };
    everywhere(q, base, format)
}

/// NVIDIA `ModelOpt`: one algorithm with exceptions, or a map from module to algorithm.
pub(super) fn modelopt(q: &Fields, base: WeightFormat) -> Result<Quantisation> {
    match q.text("quant_algo")? {
        Some("MIXED_PRECISION") => match q.object("quantized_layers")? {
            Some(map) => mixed(q, &map, base),
            None => compressed_tensors(q, base),
        },
        Some(_) => everywhere(q, base, algorithm(q)?),
        // A file may describe its KV cache only.
        None if q.value("kv_cache_quant_algo").is_some() || q.mentions("quant_algo") => rules(q, base, Vec::new()),
        None => Err(q.refuse("quant_algo", "must be given")),
    }
}

fn mixed(q: &Fields, map: &Fields, base: WeightFormat) -> Result<Quantisation> {
    let mut by_format: BTreeMap<WeightFormat, Patterns> = BTreeMap::new();
    for (module, entry) in map.objects()? {
        by_format.entry(algorithm(&entry)?).or_default().add(module, &map.path_of(module))?;
    }
    let found = by_format.into_iter().map(|(format, targets)| Rule { targets: Some(targets), format });
    rules(q, base, found.collect())
}

fn algorithm(q: &Fields) -> Result<WeightFormat> {
    let known = "known are FP8, FP8_PER_CHANNEL_PER_TOKEN, FP8_PB_WO, NVFP4, W4A16_AWQ, MIXED_PRECISION";
    let (format, group_size) = match q.text("quant_algo")? {
        Some("FP8") => return Ok(WeightFormat::Fp8),
        Some("FP8_PER_CHANNEL_PER_TOKEN") => return Ok(WeightFormat::Fp8Channel),
        Some("FP8_PB_WO") => (WeightFormat::Fp8Block, 128),
        Some("NVFP4") => (WeightFormat::NvFp4, 16),
        Some("W4A16_AWQ") => (WeightFormat::Int4, 128),
        Some(_) => return Err(q.unsupported("quant_algo", known)),
        None => return Err(q.refuse("quant_algo", format!("must be given; {known}"))),
    };
    if q.count_or("group_size", 1 << 20, group_size)? != group_size {
        return Err(q.unsupported("group_size", format!("must be {group_size}")));
    }
    Ok(format)
}

/// llm-compressor: groups of targets, each with its own scheme.
fn compressed_tensors(q: &Fields, base: WeightFormat) -> Result<Quantisation> {
    if let Some(sparsity) = q.object("sparsity_config")?
        && sparsity.text("format")?.is_some_and(|format| format != "dense")
    {
        return Err(sparsity.unsupported("format", "sparse storage has no format here"));
    }
    let groups = q.object("config_groups")?.ok_or_else(|| q.refuse("config_groups", "must be given"))?;
    let mut named = Vec::new();
    let mut all = Vec::new();
    for (_, group) in groups.objects()? {
        let format = scheme(&group)?;
        let entries = group.texts("targets")?.ok_or_else(|| group.refuse("targets", "must be given"))?;
        if entries.contains(&"Linear") {
            all.push(Rule { targets: None, format });
            continue;
        }
        let mut targets = Patterns::default();
        for entry in entries {
            targets.add(entry, &group.path_of("targets"))?;
        }
        named.push(Rule { targets: Some(targets), format });
    }
    // A group that names its modules goes before one that takes every linear layer.
    named.extend(all);
    rules(q, base, named)
}

/// The format of one group of a compressed-tensors config.
fn scheme(group: &Fields) -> Result<WeightFormat> {
    let weights = group.object("weights")?.ok_or_else(|| group.refuse("weights", "must be given"))?;
    let quantised_activations = group.object("input_activations")?.is_some();
    let bits = weights.count("num_bits", 64)?;
    let kind = weights.text("type")?.unwrap_or("int");
    let group_size = weights.value("group_size").and_then(serde_json::Value::as_i64);
    let strategy = weights.text("strategy")?;
    let block = weights.counts("block_structure", 1, 1 << 20)?;
    Ok(match (kind, bits, quantised_activations, strategy) {
        ("float", 8, true, Some("tensor") | None) => WeightFormat::Fp8,
        ("float", 8, true, Some("channel")) => WeightFormat::Fp8Channel,
        ("float", 8, true, Some("block")) if block.as_deref() == Some(&[128, 128]) => WeightFormat::Fp8Block,
        ("float", 4, true, _) if group_size == Some(16) => WeightFormat::NvFp4,
        ("float", 4, false, _) if group_size == Some(32) => WeightFormat::MxFp4,
        ("int", 8, true, Some("channel")) => WeightFormat::Int8,
        ("int", 4, false, _) if group_size == Some(128) => WeightFormat::Int4,
        ("int", 4, false, _) if group_size == Some(32) => WeightFormat::Int4G32,
        _ => {
            let rule = "no format here: known are fp8 with fp8 activations (per tensor, channel or 128 x 128 block), \
                        fp4 with fp4 activations in groups of 16, fp4 weights alone in groups of 32, int8 with int8 \
                        activations per channel, int4 weights alone in groups of 128 or 32";
            return Err(group.unsupported("weights", rule));
        }
    })
}

/// `kv_cache_quant_algo` (`ModelOpt`) or `kv_cache_scheme` (compressed-tensors).
fn kv_cache(q: &Fields) -> Result<Option<KvFormat>> {
    let key = "kv_cache_quant_algo";
    match q.text(key)? {
        Some("FP8") => return Ok(Some(KvFormat::Fp8)),
        Some("INT8") => return Ok(Some(KvFormat::Int8)),
        Some(_) => return Err(q.unsupported(key, "must be FP8, INT8 or null")),
        None => {}
    }
    let Some(scheme) = q.object("kv_cache_scheme")? else { return Ok(None) };
    match (scheme.count("num_bits", 64)?, scheme.text("type")?) {
        (8, Some("float")) => Ok(Some(KvFormat::Fp8)),
        (8, Some("int")) => Ok(Some(KvFormat::Int8)),
        (bits, kind) => {
            let value = format!("{} {bits}", kind.unwrap_or("missing"));
            Err(Error::unsupported(q.path_of("kv_cache_scheme"), value, "must be 8-bit float or int"))
        }
    }
}
