//! What a class assumes for an integer that its file leaves out, where that is not what the readers would fall back to:
//! the defaults of the configuration classes of transformers. A written `null` is not replaced.

/// A field and what the class takes where the file leaves it out.
type Default = (&'static str, u64);

const KV: &str = "num_key_value_heads";
const HEAD: &str = "head_dim";
const DENSE: &str = "first_k_dense_replace";
const SHARED: &str = "n_shared_experts";

/// Architecture classes and model types with their defaults.
const TABLE: &[(&[&str], &[Default])] = &[
    (&["MistralForCausalLM", "mistral", "MixtralForCausalLM", "mixtral"], &[(KV, 8)]),
    (&["PhiMoEForCausalLM", "PhimoeForCausalLM", "phimoe"], &[(KV, 8)]),
    (&["Qwen2_5_VLForConditionalGeneration", "qwen2_5_vl"], &[(KV, 8)]),
    (&["Ministral3ForCausalLM", "ministral3"], &[(KV, 8), (HEAD, 128)]),
    (&["MiniMaxM2ForCausalLM", "minimax_m2"], &[(KV, 8), (HEAD, 128)]),
    (&["NemotronHForCausalLM", "nemotron_h"], &[(KV, 8), (HEAD, 128)]),
    (&["Llama4ForConditionalGeneration", "llama4", "Llama4ForCausalLM", "llama4_text"], &[(KV, 8), (HEAD, 128)]),
    (&["GptOssForCausalLM", "gpt_oss"], &[(KV, 8), (HEAD, 64)]),
    (&["Qwen2ForCausalLM", "qwen2", "Exaone4ForCausalLM", "exaone4"], &[(KV, 32)]),
    (&["Qwen3ForCausalLM", "qwen3", "Qwen3VLForConditionalGeneration", "qwen3_vl"], &[(KV, 32), (HEAD, 128)]),
    (&["Qwen2MoeForCausalLM", "qwen2_moe", "Qwen3VLMoeForConditionalGeneration", "qwen3_vl_moe"], &[(KV, 16)]),
    (&["Qwen3MoeForCausalLM", "qwen3_moe", "SmolLM3ForCausalLM", "smollm3"], &[(KV, 4)]),
    (&["Ernie4_5_MoeForCausalLM", "ernie4_5_moe"], &[(KV, 4)]),
    (&["DeepseekV3ForCausalLM", "deepseek_v3", "kimi_k2"], &[(DENSE, 3), (SHARED, 1)]),
    (&["DeepseekV32ForCausalLM", "deepseek_v32"], &[(DENSE, 3), (SHARED, 1)]),
    (&["GlmMoeDsaForCausalLM", "glm_moe_dsa"], &[(DENSE, 3), (SHARED, 1)]),
    (&["Glm4MoeForCausalLM", "glm4_moe"], &[(KV, 8), (DENSE, 1), (SHARED, 1)]),
    (&["Glm4MoeLiteForCausalLM", "glm4_moe_lite"], &[(SHARED, 1)]),
];

/// The defaults of an architecture class or model type.
pub(super) fn of(architecture: &str) -> &'static [Default] {
    TABLE.iter().find(|(names, _)| names.contains(&architecture)).map_or(&[], |(_, defaults)| defaults)
}
