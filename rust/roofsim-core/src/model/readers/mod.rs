//! Readers of `config.json`, one file per architecture family.
//!
//! [`Model::from_config_json`] finds the architecture class, looks its family up in one table and hands over to the
//! family's reader. What is counted: every tensor of the main model once. Multi-token-prediction layers are left out, as
//! they are not run in a plain step; so are buffers, such as the correction bias of DeepSeek's router.

mod config;
mod deepseek;
mod fields;
mod gpt_oss;
mod llama;
mod mixtral;
mod parts;
mod quantisation;
mod qwen;

use serde_json::Value;

use super::Model;
use crate::error::{Error, Result};
use config::Config;

/// One family: the architecture classes and model types that its reader understands.
struct Family {
    /// Entries of `architectures`.
    classes: &'static [&'static str],
    /// Entries of `model_type`, for files that name no class.
    types: &'static [&'static str],
    /// The reader.
    read: fn(&Config) -> Result<Model>,
}

/// Every family that can be read. A new family is a file beside this one and a line here.
const FAMILIES: &[Family] = &[
    Family { classes: &["LlamaForCausalLM"], types: &["llama"], read: llama::llama },
    Family { classes: &["MistralForCausalLM"], types: &["mistral"], read: llama::mistral },
    Family { classes: &["Ministral3ForCausalLM"], types: &["ministral3"], read: llama::mistral },
    Family { classes: &["MixtralForCausalLM"], types: &["mixtral"], read: mixtral::mixtral },
    Family { classes: &["Qwen2ForCausalLM"], types: &["qwen2"], read: qwen::qwen2 },
    Family { classes: &["Qwen3ForCausalLM"], types: &["qwen3"], read: qwen::qwen3 },
    Family { classes: &["Qwen2MoeForCausalLM"], types: &["qwen2_moe"], read: qwen::qwen2_moe },
    Family { classes: &["Qwen3MoeForCausalLM"], types: &["qwen3_moe"], read: qwen::qwen3_moe },
    Family { classes: &["GptOssForCausalLM"], types: &["gpt_oss"], read: gpt_oss::gpt_oss },
    Family { classes: &["DeepseekV2ForCausalLM"], types: &["deepseek_v2"], read: deepseek::deepseek },
    Family { classes: &["DeepseekV3ForCausalLM"], types: &["deepseek_v3", "kimi_k2"], read: deepseek::deepseek },
];

/// Names within this edit distance of an unknown one are offered, at most three of them.
const NEAR: usize = 12;

impl Model {
    /// Reads the text of a Hugging Face `config.json`; `name` is what the model will be called.
    ///
    /// # Errors
    /// [`Error::Spec`] for text that is not a JSON object and for a field that is missing, of the wrong type or out of
    /// range; [`Error::Unsupported`] for an architecture, an attention pattern or a quantisation that no reader here
    /// knows, with the nearest known ones; [`Error::CountOverflow`] for a model whose totals pass 2^64.
    ///
    /// ```
    /// let config = r#"{"architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "num_hidden_layers": 32,
    ///     "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256}"#;
    /// let model = roofsim_core::model::Model::from_config_json(config, "llama-3.1-8b")?;
    /// assert_eq!(model.num_parameters()?, 8_030_261_248);
    /// # Ok::<(), roofsim_core::Error>(())
    /// ```
    pub fn from_config_json(text: &str, name: &str) -> Result<Self> {
        Self::from_config_and_quant_json(text, None, name)
    }

    /// As [`Model::from_config_json`], with the text of the `hf_quant_config.json` that NVIDIA's exporter writes beside
    /// it. Where both files describe a quantisation, this one wins.
    pub fn from_config_and_quant_json(text: &str, hf_quant_config: Option<&str>, name: &str) -> Result<Self> {
        let value = parse("config.json", text)?;
        let quant = hf_quant_config.map(|text| parse("hf_quant_config.json", text)).transpose()?;
        let config = Config::new(&value, quant.as_ref(), name)?;
        let names = |family: &Family| if config.architecture_is_type { family.types } else { family.classes };
        match FAMILIES.iter().find(|family| names(family).contains(&config.architecture)) {
            Some(family) => (family.read)(&config),
            None => Err(unknown(&config)),
        }
    }

    /// The architecture classes that can be read, in alphabetical order.
    pub fn known_architectures() -> Vec<&'static str> {
        let mut classes: Vec<_> = FAMILIES.iter().flat_map(|family| family.classes).copied().collect();
        classes.sort_unstable();
        classes
    }
}

fn parse(file: &str, text: &str) -> Result<Value> {
    // The parser refuses deep nesting, numbers beyond f64, NaN and Infinity by itself.
    serde_json::from_str(text).map_err(|error| Error::spec(file, fields::cut(text), format!("must be JSON: {error}")))
}

fn unknown(config: &Config) -> Error {
    let (field, known): (_, Vec<&str>) = if config.architecture_is_type {
        ("model_type", FAMILIES.iter().flat_map(|family| family.types).copied().collect())
    } else {
        ("architectures[0]", Model::known_architectures())
    };
    let name: String = config.architecture.chars().take(80).collect();
    let mut near: Vec<(usize, &str)> = known.iter().map(|known| (edit_distance(&name, known), *known)).collect();
    near.sort_unstable();
    let nearest = near.first().map_or(NEAR, |(distance, _)| *distance).max(NEAR);
    near.retain(|(distance, _)| *distance <= nearest);
    let offered: Vec<&str> = near.iter().take(3).map(|(_, known)| *known).collect();
    let rule = format!("no reader for this architecture; the nearest known ones are {}", offered.join(", "));
    Error::unsupported(field, name, rule)
}

/// Levenshtein distance.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut next = Vec::with_capacity(row.len());
        next.push(i + 1);
        for ((to, corner_above), left_at) in b.iter().zip(row.windows(2)).zip(0..) {
            let [corner, above] = corner_above else { continue };
            let left: usize = next.get(left_at).copied().unwrap_or(usize::MAX - 1);
            let swap = corner + usize::from(from != *to);
            next.push(swap.min(above + 1).min(left + 1));
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edit_distance_counts_edits() {
        assert_eq!(edit_distance("kitten", "sitting"), 3);
        assert_eq!(edit_distance("", "abc"), 3);
        assert_eq!(edit_distance("abc", ""), 3);
        assert_eq!(edit_distance("LlamaForCausalLM", "LlamaForCausalLM"), 0);
    }
}
