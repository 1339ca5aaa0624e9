//! Readers of `config.json`, one file per architecture family.
//!
//! [`Model::from_config_json`] finds the architecture class, looks its family up in one table and hands over to the
//! family's reader. What is counted: every tensor of the main model once. Multi-token-prediction layers are left out, as
//! they are not run in a plain step; so are buffers, such as the correction bias of DeepSeek's router.

mod cohere;
mod config;
mod deepseek;
mod defaults;
mod ernie;
mod exaone;
mod fields;
mod gemma;
mod glm;
mod gpt;
mod gpt_oss;
mod hunyuan;
mod internlm;
mod llama;
mod llama4;
mod mixtral;
mod nemotron;
mod parts;
mod phi;
mod quantisation;
mod qwen;
mod qwen3_5;
mod smollm;
mod sparse;
mod vision;

use serde_json::Value;

use super::Model;
use crate::error::{Error, Result};
use crate::nearest::nearest;
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
    family(&["LlamaForCausalLM"], &["llama"], llama::llama),
    family(&["MistralForCausalLM"], &["mistral"], llama::mistral),
    family(&["Ministral3ForCausalLM"], &["ministral3"], llama::mistral),
    family(&["MixtralForCausalLM"], &["mixtral"], mixtral::mixtral),
    family(&["QWenLMHeadModel"], &["qwen"], qwen::qwen1),
    family(&["Qwen2ForCausalLM"], &["qwen2"], qwen::qwen2),
    family(&["Qwen3ForCausalLM"], &["qwen3"], qwen::qwen3),
    family(&["Qwen2MoeForCausalLM"], &["qwen2_moe"], qwen::qwen2_moe),
    family(&["Qwen3MoeForCausalLM"], &["qwen3_moe"], qwen::qwen3_moe),
    family(&["Qwen2_5_VLForConditionalGeneration"], &["qwen2_5_vl"], qwen::qwen2_5_vl),
    family(&["Qwen3VLForConditionalGeneration"], &["qwen3_vl"], qwen::qwen3_vl),
    family(&["Qwen3VLMoeForConditionalGeneration"], &["qwen3_vl_moe"], qwen::qwen3_vl_moe),
    family(&["Qwen3_5ForCausalLM"], &["qwen3_5_text"], qwen3_5::dense),
    family(&["Qwen3_5ForConditionalGeneration"], &["qwen3_5"], qwen3_5::dense_vl),
    family(&["Qwen3_5MoeForCausalLM"], &["qwen3_5_moe_text"], qwen3_5::moe),
    family(&["Qwen3_5MoeForConditionalGeneration"], &["qwen3_5_moe"], qwen3_5::moe_vl),
    family(&["MiMoForCausalLM"], &["mimo"], qwen::qwen2),
    family(&["GptOssForCausalLM"], &["gpt_oss"], gpt_oss::gpt_oss),
    family(&["DeepseekV2ForCausalLM"], &["deepseek_v2"], deepseek::deepseek),
    family(&["DeepseekV3ForCausalLM"], &["deepseek_v3", "kimi_k2"], deepseek::deepseek),
    family(&["DeepseekV32ForCausalLM"], &["deepseek_v32"], deepseek::sparse),
    family(&["GlmMoeDsaForCausalLM"], &["glm_moe_dsa"], deepseek::sparse),
    family(&["KimiK25ForConditionalGeneration"], &["kimi_k25"], deepseek::kimi_k2_5),
    family(&["Glm4MoeLiteForCausalLM"], &["glm4_moe_lite"], deepseek::deepseek),
    family(&["DeepseekForCausalLM"], &["deepseek"], glm::deepseek_moe),
    family(&["Glm4MoeForCausalLM"], &["glm4_moe"], glm::glm4_moe),
    family(&["Gemma2ForCausalLM"], &["gemma2"], gemma::gemma2),
    family(&["Gemma3ForCausalLM"], &["gemma3_text"], gemma::gemma3_text),
    family(&["Gemma3ForConditionalGeneration"], &["gemma3"], gemma::gemma3),
    family(&["Phi3ForCausalLM"], &["phi3"], phi::phi3),
    family(&["PhiMoEForCausalLM", "PhimoeForCausalLM"], &["phimoe"], phi::phi_moe),
    family(&["GPT2LMHeadModel"], &["gpt2"], gpt::gpt2),
    family(&["GPTJForCausalLM"], &["gptj"], gpt::gpt_j),
    family(&["GPTNeoXForCausalLM"], &["gpt_neox"], gpt::gpt_neox),
    family(&["OPTForCausalLM"], &["opt"], gpt::opt),
    family(&["FalconForCausalLM"], &["falcon"], gpt::falcon),
    family(&["Llama4ForConditionalGeneration"], &["llama4"], llama4::llama4),
    family(&["Llama4ForCausalLM"], &["llama4_text"], llama4::llama4_text),
    family(&["CohereForCausalLM"], &["cohere"], cohere::cohere),
    family(&["Exaone4ForCausalLM"], &["exaone4"], exaone::exaone4),
    family(&["SmolLM3ForCausalLM"], &["smollm3"], smollm::smollm3),
    family(&["InternLM2ForCausalLM"], &["internlm2"], internlm::internlm2),
    family(&["InternLM3ForCausalLM"], &["internlm3"], internlm::internlm3),
    family(&["OlmoeForCausalLM"], &["olmoe"], sparse::olmoe),
    family(&["MiniMaxM2ForCausalLM"], &["minimax_m2"], sparse::minimax_m2),
    family(&["GraniteMoeForCausalLM"], &["granitemoe"], sparse::granite_moe),
    family(&["Ernie4_5_MoeForCausalLM"], &["ernie4_5_moe"], ernie::ernie4_5_moe),
    family(&["NemotronHForCausalLM"], &["nemotron_h"], nemotron::nemotron_h),
    family(&["HunYuanMoEV1ForCausalLM"], &["hunyuan_v1_moe"], hunyuan::hunyuan_moe),
];

const fn family(
    classes: &'static [&'static str],
    types: &'static [&'static str],
    read: fn(&Config) -> Result<Model>,
) -> Family {
    Family { classes, types, read }
}

/// How many known names an unknown one is answered with.
const OFFERED: usize = 3;

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
    // The parser refuses deep nesting, numbers beyond f64, NaN and Infinity by itself. Python writes the last two
    // bare (`"time_step_limit": [0.0, Infinity]`), where no reader needs a number; as strings they are refused where one does.
    serde_json::from_str(text)
        .or_else(|error| serde_json::from_str(&with_quoted_constants(text)).map_err(|_| error))
        .map_err(|error| Error::spec(file, fields::cut(text), format!("must be JSON: {error}")))
}

/// The text with the bare words `NaN`, `Infinity` and `-Infinity` outside of strings put in quotes.
fn with_quoted_constants(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 16);
    let (mut rest, mut in_string) = (text, false);
    while let Some(next) = rest.chars().next() {
        let bare =
            if in_string { None } else { ["NaN", "Infinity", "-Infinity"].into_iter().find(|w| rest.starts_with(w)) };
        if let Some(word) = bare {
            out.push('"');
            out.push_str(word);
            out.push('"');
            rest = rest.get(word.len()..).unwrap_or_default();
            continue;
        }
        // An escape inside a string covers the character after it.
        let taken =
            if in_string && next == '\\' { rest.chars().take(2).map(char::len_utf8).sum() } else { next.len_utf8() };
        in_string ^= next == '"';
        out.push_str(rest.get(..taken).unwrap_or_default());
        rest = rest.get(taken..).unwrap_or_default();
    }
    out
}

fn unknown(config: &Config) -> Error {
    let (field, known): (_, Vec<&str>) = if config.architecture_is_type {
        ("model_type", FAMILIES.iter().flat_map(|family| family.types).copied().collect())
    } else {
        ("architectures[0]", Model::known_architectures())
    };
    let name: String = config.architecture.chars().take(80).collect();
    let offered = nearest(&name, known, OFFERED).join(", ");
    Error::unsupported(field, name, format!("no reader for this architecture; the nearest known ones are {offered}"))
}
