//! Configs that must be refused, each with the field, the value and the rule it broke.

// A test stops at the first thing that is not as it should be; that is what unwrap is for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use roofsim_core::Error;
use roofsim_core::model::Model;
use serde_json::{Value, json};

fn llama() -> Value {
    json!({
        "architectures": ["LlamaForCausalLM"], "hidden_size": 4096, "num_hidden_layers": 4, "num_attention_heads": 32,
        "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128_256, "torch_dtype": "bfloat16",
    })
}

fn qwen3_moe() -> Value {
    json!({
        "architectures": ["Qwen3MoeForCausalLM"], "hidden_size": 2048, "num_hidden_layers": 4, "head_dim": 128,
        "num_attention_heads": 32, "num_key_value_heads": 4, "intermediate_size": 6144, "vocab_size": 151_936,
        "num_experts": 128, "num_experts_per_tok": 8, "moe_intermediate_size": 768,
    })
}

fn deepseek() -> Value {
    json!({
        "architectures": ["DeepseekV3ForCausalLM"], "hidden_size": 7168, "num_hidden_layers": 4, "vocab_size": 129_280,
        "num_attention_heads": 128, "intermediate_size": 18432, "moe_intermediate_size": 2048, "n_routed_experts": 256,
        "n_shared_experts": 1, "num_experts_per_tok": 8, "first_k_dense_replace": 3, "q_lora_rank": 1536,
        "kv_lora_rank": 512, "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
    })
}

fn gpt_oss() -> Value {
    json!({
        "architectures": ["GptOssForCausalLM"], "hidden_size": 2880, "num_hidden_layers": 2, "head_dim": 64,
        "num_attention_heads": 64, "num_key_value_heads": 8, "intermediate_size": 2880, "vocab_size": 201_088,
        "num_local_experts": 32, "num_experts_per_tok": 4, "sliding_window": 128,
        "layer_types": ["sliding_attention", "full_attention"],
    })
}

fn gemma3() -> Value {
    json!({
        "architectures": ["Gemma3ForConditionalGeneration"],
        "text_config": {"hidden_size": 2560, "num_hidden_layers": 6, "intermediate_size": 10240, "sliding_window": 1024},
        "vision_config": {"hidden_size": 1152, "image_size": 896, "intermediate_size": 4304, "num_hidden_layers": 27,
            "patch_size": 14, "vision_use_head": false},
    })
}

/// `base` with each dotted field set; `Value::String("--")` removes it.
fn with(mut base: Value, changes: &[(&str, Value)]) -> Value {
    for (path, value) in changes {
        let mut at = &mut base;
        let (parents, key) = path.rsplit_once('.').map_or((None, *path), |(parents, key)| (Some(parents), key));
        for parent in parents.iter().flat_map(|parents| parents.split('.')) {
            at = at.get_mut(parent).unwrap();
        }
        let object = at.as_object_mut().unwrap();
        if value == "--" {
            object.remove(key);
        } else {
            object.insert(key.to_owned(), value.clone());
        }
    }
    base
}

/// Field, value and rule of a refusal.
fn parts(error: &Error) -> (&str, &str, &str) {
    match error {
        Error::Spec { field, value, rule }
        | Error::Unsupported { field, value, rule }
        | Error::CountOverflow { field, value, rule } => (field, value, rule),
        Error::Interrupted => panic!("reading is never interrupted"),
    }
}

/// One change and its refusal.
struct Refusal {
    base: fn() -> Value,
    set: &'static str,
    to: fn() -> Value,
    field: &'static str,
    value: &'static str,
    rule: &'static str,
}

const fn refusal(
    base: fn() -> Value,
    set: &'static str,
    to: fn() -> Value,
    field: &'static str,
    value: &'static str,
    rule: &'static str,
) -> Refusal {
    Refusal { base, set, to, field, value, rule }
}

const SIZES: &[Refusal] = &[
    refusal(llama, "hidden_size", || json!("--"), "hidden_size", "missing", "must be given"),
    refusal(llama, "hidden_size", || json!(null), "hidden_size", "missing", "must be given"),
    refusal(llama, "hidden_size", || json!(0), "hidden_size", "0", "an integer from 1"),
    refusal(llama, "hidden_size", || json!(-4096), "hidden_size", "-4096", "an integer from 1"),
    refusal(llama, "hidden_size", || json!(4096.0), "hidden_size", "4096.0", "an integer from 1"),
    refusal(llama, "hidden_size", || json!("4096"), "hidden_size", "\"4096\"", "an integer from 1"),
    refusal(llama, "hidden_size", || json!([4096]), "hidden_size", "[4096]", "an integer from 1"),
    refusal(llama, "hidden_size", || json!(1_u64 << 25), "hidden_size", "33554432", "to 16777216"),
    refusal(llama, "hidden_size", || json!(4097), "hidden_size", "4097", "multiple of the number of query heads, 32"),
    refusal(llama, "num_hidden_layers", || json!(10_001), "num_hidden_layers", "10001", "to 10000"),
    refusal(llama, "num_hidden_layers", || json!(true), "num_hidden_layers", "true", "an integer"),
    refusal(llama, "num_hidden_layers", || json!(u64::MAX), "num_hidden_layers", "18446744073709551615", "to 10000"),
    refusal(llama, "num_attention_heads", || json!(0), "num_attention_heads", "0", "an integer from 1"),
    refusal(llama, "num_key_value_heads", || json!(5), "num_key_value_heads", "5", "must divide"),
    refusal(llama, "num_key_value_heads", || json!(64), "num_key_value_heads", "64", "query heads, 32"),
    refusal(llama, "head_dim", || json!(0), "head_dim", "0", "an integer from 1"),
    refusal(llama, "intermediate_size", || json!(1.5), "intermediate_size", "1.5", "an integer"),
    refusal(llama, "vocab_size", || json!("--"), "vocab_size", "missing", "must be given"),
    refusal(llama, "vocab_size", || json!(1_u64 << 40), "vocab_size", "1099511627776", "to 268435456"),
    refusal(llama, "max_position_embeddings", || json!(-1), "max_position_embeddings", "-1", "an integer"),
];

const SWITCHES: &[Refusal] = &[
    refusal(llama, "attention_bias", || json!("yes"), "attention_bias", "\"yes\"", "true or false"),
    refusal(llama, "mlp_bias", || json!(1), "mlp_bias", "1", "true or false"),
    refusal(llama, "tie_word_embeddings", || json!("false"), "tie_word_embeddings", "\"false\"", "true or false"),
    refusal(llama, "torch_dtype", || json!("int7"), "torch_dtype", "\"int7\"", "float32, bfloat16, float16"),
    refusal(llama, "torch_dtype", || json!(16), "torch_dtype", "16", "a string"),
    refusal(llama, "dtype", || json!("fp8"), "dtype", "\"fp8\"", "float32, bfloat16, float16"),
    refusal(llama, "architectures", || json!("LlamaForCausalLM"), "architectures", "\"LlamaForCausalLM\"", "a list"),
    refusal(llama, "architectures", || json!([7]), "architectures[0]", "7", "a string"),
    refusal(llama, "architectures", || json!([]), "architectures", "[]", "must be given"),
    refusal(llama, "architectures", || json!("--"), "architectures", "missing", "must be given"),
    refusal(llama, "text_config", || json!([]), "text_config", "[]", "an object"),
    refusal(llama, "text_config", || json!({}), "text_config.hidden_size", "missing", "must be given"),
];

const STRUCTURE: &[Refusal] = &[
    refusal(qwen3_moe, "num_experts", || json!(0), "num_experts", "0", "an integer from 1"),
    refusal(qwen3_moe, "num_experts_per_tok", || json!(129), "num_experts_per_tok", "129", "number of experts, 128"),
    refusal(qwen3_moe, "num_experts_per_tok", || json!("--"), "num_experts_per_tok", "missing", "must be given"),
    refusal(qwen3_moe, "moe_intermediate_size", || json!(-1), "moe_intermediate_size", "-1", "an integer"),
    refusal(qwen3_moe, "mlp_only_layers", || json!([0, "1"]), "mlp_only_layers[1]", "\"1\"", "an integer"),
    refusal(qwen3_moe, "decoder_sparse_step", || json!(0), "decoder_sparse_step", "0", "an integer from 1"),
    refusal(qwen3_moe, "use_sliding_window", || json!("no"), "use_sliding_window", "\"no\"", "true or false"),
    refusal(deepseek, "q_lora_rank", || json!("--"), "q_lora_rank", "missing", "null where the query has no"),
    refusal(deepseek, "kv_lora_rank", || json!(null), "kv_lora_rank", "missing", "must be given"),
    refusal(deepseek, "n_routed_experts", || json!("--"), "n_routed_experts", "missing", "must be given"),
    refusal(deepseek, "num_experts_per_tok", || json!(257), "num_experts_per_tok", "257", "experts, 256"),
    refusal(deepseek, "moe_layer_freq", || json!(0), "moe_layer_freq", "0", "an integer from 1"),
    refusal(deepseek, "first_k_dense_replace", || json!(-3), "first_k_dense_replace", "-3", "an integer from 0"),
    refusal(gpt_oss, "layer_types", || json!(["full_attention"]), "layer_types", "list of 1", "each of the 2 layers"),
    refusal(
        gpt_oss,
        "layer_types",
        || json!(["full_attention", "linear_attention"]),
        "layer_types[1]",
        "linear_attention",
        "full_attention or sliding_attention",
    ),
    refusal(gpt_oss, "sliding_window", || json!(0), "sliding_window", "0", "an integer from 1"),
    refusal(gpt_oss, "sliding_window", || json!(null), "sliding_window", "missing", "layer_types has sliding"),
    refusal(gemma3, "text_config.hidden_size", || json!(0), "text_config.hidden_size", "0", "an integer from 1"),
    refusal(gemma3, "vision_config", || json!("--"), "vision_config", "missing", "must be given"),
    refusal(gemma3, "vision_config.patch_size", || json!(900), "vision_config.patch_size", "900", "exceed image_size"),
    refusal(
        gemma3,
        "vision_config.vision_use_head",
        || json!(true),
        "vision_config.vision_use_head",
        "true",
        "pooling",
    ),
    refusal(gemma3, "vision_config.hidden_size", || json!(1e9), "vision_config.hidden_size", "1000000000.0", "integer"),
];

const QUANTISATION: &[Refusal] = &[
    refusal(llama, "quantization_config", || json!("fp8"), "quantization_config", "\"fp8\"", "an object"),
    refusal(llama, "quantization_config", || json!({}), "quantization_config.quant_method", "missing", "must be given"),
    refusal(
        llama,
        "quantization_config",
        || json!({"quant_method": "bitsandbytes", "load_in_4bit": true}),
        "quantization_config.quant_method",
        "\"bitsandbytes\"",
        "known are fp8",
    ),
    refusal(
        llama,
        "quantization_config",
        || json!({"quant_method": "quark"}),
        "quantization_config.quant_method",
        "\"quark\"",
        "compressed-tensors",
    ),
    refusal(
        llama,
        "quantization_config",
        || json!({"quant_method": "fp8", "weight_block_size": [64, 64]}),
        "quantization_config.weight_block_size",
        "[64,64]",
        "[128, 128]",
    ),
    refusal(
        llama,
        "quantization_config",
        || json!({"quant_method": "gptq", "bits": 3, "group_size": 128}),
        "quantization_config.bits",
        "3",
        "must be 4",
    ),
    refusal(
        llama,
        "quantization_config",
        || json!({"quant_method": "awq", "bits": 4, "group_size": -1}),
        "quantization_config.group_size",
        "-1",
        "128 or 32",
    ),
    refusal(
        llama,
        "quantization_config",
        || json!({"quant_method": "modelopt", "quant_algo": "FP5"}),
        "quantization_config.quant_algo",
        "\"FP5\"",
        "NVFP4",
    ),
    refusal(
        llama,
        "quantization_config",
        || json!({"quant_method": "fp8", "modules_to_not_convert": ["re:(["]}),
        "quantization_config.modules_to_not_convert",
        "re:([",
        "regular expression",
    ),
    refusal(
        llama,
        "quantization_config",
        || json!({"quant_method": "fp8", "modules_to_not_convert": ["lm_head", 3]}),
        "quantization_config.modules_to_not_convert[1]",
        "3",
        "a string",
    ),
    refusal(
        llama,
        "quantization_config",
        || json!({"quant_method": "fp8", "modules_to_not_convert": ["model.layers.2.self_attn.k_proj"]}),
        "quantization_config.ignore",
        "layer 2: self_attn.q_proj fp8, self_attn.k_proj bf16",
        "must share a format",
    ),
    refusal(
        llama,
        "quantization_config",
        || json!({"quant_method": "modelopt", "quant_algo": "FP8", "kv_cache_quant_algo": "FP3"}),
        "quantization_config.kv_cache_quant_algo",
        "\"FP3\"",
        "FP8, INT8",
    ),
    refusal(
        llama,
        "quantization_config",
        || json!({"quant_method": "compressed-tensors"}),
        "quantization_config.config_groups",
        "missing",
        "must be given",
    ),
];

#[test]
fn bad_fields_are_refused_with_field_value_and_rule() {
    let mut count = 0;
    for case in [SIZES, SWITCHES, STRUCTURE, QUANTISATION].into_iter().flatten() {
        let config = with((case.base)(), &[(case.set, (case.to)())]);
        let error = Model::from_config_json(&config.to_string(), "bad").expect_err(case.set);
        let (field, value, rule) = parts(&error);
        assert_eq!((field, value), (case.field, case.value), "{error}");
        assert!(rule.contains(case.rule), "{error}: expected a rule with {:?}", case.rule);
        count += 1;
    }
    println!("bad configs: {count} of {count} refused by name");
    assert!(count >= 40);
}

#[test]
fn the_unspoilt_configs_are_read() {
    for base in [llama, qwen3_moe, deepseek, gpt_oss, gemma3] {
        Model::from_config_json(&base().to_string(), "good").unwrap();
    }
}

/// Python writes numbers that JSON has not; they matter only where a reader needs one.
#[test]
fn bare_words_of_python_are_refused_where_a_number_is_needed() {
    for word in ["NaN", "Infinity", "-Infinity"] {
        let needed = llama().to_string().replace("4096", word);
        let error = Model::from_config_json(&needed, "bad").unwrap_err();
        let (field, value, rule) = parts(&error);
        assert!(rule.contains("must be an integer") && value.contains(word), "{field} {value} {rule}");
        let mut spare = llama();
        spare["time_step_limit"] = serde_json::json!(["NaN \\\" Infinity", "WORD"]);
        let spare = spare.to_string().replace("\"WORD\"", word);
        let same = Model::from_config_json(&llama().to_string(), "good").unwrap();
        assert_eq!(Model::from_config_json(&spare, "good").unwrap(), same);
        assert!(Model::from_config_json(&format!("{{\"a\": {word}1}}"), "bad").is_err());
    }
}

#[test]
fn text_that_is_no_config_is_refused() {
    let deep = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
    let infinite = llama().to_string().replace("4096", "1e999");
    for (text, rule) in [
        ("", "must be JSON"),
        ("{", "must be JSON"),
        ("[]", "must be a JSON object"),
        ("null", "must be a JSON object"),
        ("\u{feff}{}", "must be JSON"),
        (deep.as_str(), "recursion limit"),
        (infinite.as_str(), "out of range"),
    ] {
        let error = Model::from_config_json(text, "bad").unwrap_err();
        let (field, _, said) = parts(&error);
        assert!(field == "config.json" && said.contains(rule), "{error}");
    }
    let huge = llama().to_string().replace("4096", "123456789012345678901234567890");
    let error = Model::from_config_json(&huge, "bad").unwrap_err();
    assert_eq!(parts(&error).0, "hidden_size");
}

#[test]
fn unknown_architectures_are_refused_with_the_nearest_known_ones() {
    for (class, nearest) in [
        ("LlamaForCausalLLM", "LlamaForCausalLM"),
        ("Qwen4ForCausalLM", "Qwen3ForCausalLM"),
        ("DeepseekV4ForCausalLM", "DeepseekV3ForCausalLM"),
        ("Gemma4ForConditionalGeneration", "Gemma3ForConditionalGeneration"),
        ("OPT", "OPTForCausalLM"),
    ] {
        let error = Model::from_config_json(&json!({"architectures": [class]}).to_string(), "x").unwrap_err();
        assert!(matches!(error, Error::Unsupported { .. }), "{error}");
        let (field, value, rule) = parts(&error);
        assert_eq!((field, value), ("architectures[0]", class));
        assert!(rule.contains(nearest), "{error}");
    }
    let error = Model::from_config_json(r#"{"model_type": "lama"}"#, "x").unwrap_err();
    assert!(error.to_string().starts_with("model_type = lama"), "{error}");
    assert!(error.to_string().contains("llama"), "{error}");
}

/// Sizes that pass one by one but whose totals leave 64 bits.
#[test]
fn totals_beyond_64_bits_are_refused() {
    let wide = 1_u64 << 24;
    let config = with(
        qwen3_moe(),
        &[
            ("hidden_size", json!(wide)),
            ("moe_intermediate_size", json!(wide)),
            ("num_experts", json!(1 << 16)),
            ("num_hidden_layers", json!(10_000)),
        ],
    );
    let error = Model::from_config_json(&config.to_string(), "wide").unwrap_err();
    assert!(matches!(error, Error::CountOverflow { .. }), "{error}");
}
