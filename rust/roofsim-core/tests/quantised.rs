//! How published checkpoints are quantised: each method, its exceptions, its KV cache.

// A test stops at the first thing that is not as it should be; that is what unwrap is for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::Path;

use roofsim_core::format::{KvFormat, WeightFormat};
use roofsim_core::model::{FeedForward, LayerFormats, Model};
use serde_json::{Value, json};

fn config(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path)).unwrap()
}

fn catalogue(name: &str) -> String {
    config(&format!("python/roofsim/catalog/models/{name}.json"))
}

fn with_quantisation(text: &str, quantisation: Value) -> String {
    let mut value: Value = serde_json::from_str(text).unwrap();
    value.as_object_mut().unwrap().insert("quantization_config".to_owned(), quantisation);
    value.to_string()
}

fn layer_formats(model: &Model, layer: usize) -> LayerFormats {
    model.kinds[model.order[layer] as usize].formats
}

#[test]
fn deepseek_is_fp8_in_blocks_but_for_routers_head_and_norms() {
    let model = Model::from_config_json(&catalogue("deepseek-r1"), "r1").unwrap();
    assert_eq!(model.kinds.len(), 2);
    assert_eq!(layer_formats(&model, 0).mixer, WeightFormat::Fp8Block);
    assert_eq!(layer_formats(&model, 60).routed_experts, WeightFormat::Fp8Block);
    let bytes = model.weight_bytes().unwrap();
    let parameters = model.num_parameters().unwrap();
    assert!(bytes > parameters && bytes < parameters * 101 / 100, "{bytes}");
    assert_eq!(model.kv_cache_format, KvFormat::Bf16);
}

#[test]
fn lists_of_unconverted_modules_do_not_reach_their_neighbours() {
    // `gate` is the router, not `gate_proj`; norms and routers are listed by full name in Qwen's files.
    for name in ["minimax-m2.5", "qwen3-235b-a22b-fp8", "qwen3-30b-a3b-fp8"] {
        let model = Model::from_config_json(&catalogue(name), name).unwrap();
        assert_eq!(model.kinds.len(), 1, "{name}");
        let formats = layer_formats(&model, 0);
        assert_eq!((formats.mixer, formats.routed_experts), (WeightFormat::Fp8Block, WeightFormat::Fp8Block), "{name}");
    }
}

#[test]
fn devstral_has_one_scale_a_tensor() {
    let model = Model::from_config_json(&catalogue("devstral-2-123b"), "devstral").unwrap();
    let formats = layer_formats(&model, 5);
    assert_eq!([formats.mixer, formats.mixer_output, formats.dense], [WeightFormat::Fp8; 3]);
}

#[test]
fn kimi_k2_5_quantises_routed_experts_only() {
    let model = Model::from_config_json(&catalogue("kimi-k2.5"), "kimi").unwrap();
    let (first, last) = (layer_formats(&model, 0), layer_formats(&model, 60));
    assert_eq!((first.mixer, first.dense), (WeightFormat::Bf16, WeightFormat::Bf16));
    assert_eq!((last.mixer, last.shared_experts), (WeightFormat::Bf16, WeightFormat::Bf16));
    assert_eq!(last.routed_experts, WeightFormat::Int4G32);
}

#[test]
fn llama_4_scout_leaves_attention_and_vision_alone() {
    let model = Model::from_config_json(&catalogue("llama-4-scout-fp8"), "scout").unwrap();
    let formats = layer_formats(&model, 7);
    assert_eq!((formats.mixer, formats.mixer_output), (WeightFormat::Bf16, WeightFormat::Bf16));
    assert_eq!((formats.shared_experts, formats.routed_experts), (WeightFormat::Fp8Channel, WeightFormat::Fp8Channel));
}

#[test]
fn fbgemm_without_a_list_follows_its_published_recipe() {
    let text = config("tests/fixtures/models/configs/meta-llama--Llama-3.1-405B-Instruct-FP8.json");
    let model = Model::from_config_json(&text, "405b-fp8").unwrap();
    assert_eq!(layer_formats(&model, 0), LayerFormats::uniform(WeightFormat::Bf16));
    assert_eq!(layer_formats(&model, 125), LayerFormats::uniform(WeightFormat::Bf16));
    let middle = layer_formats(&model, 1);
    assert_eq!((middle.mixer, middle.dense), (WeightFormat::Bf16, WeightFormat::Fp8Channel));
    let listed = json!({"quant_method": "fbgemm_fp8", "modules_to_not_convert": ["lm_head"]});
    let model = Model::from_config_json(&with_quantisation(&text, listed), "405b-fp8").unwrap();
    assert_eq!(layer_formats(&model, 0).dense, WeightFormat::Fp8Channel);
}

#[test]
fn nvidia_files_quantise_beside_the_config() {
    let text = config("tests/fixtures/models/configs/nvidia--DeepSeek-V3.1-NVFP4.json");
    let quant = json!({"producer": {"name": "modelopt"}, "quantization": {
        "quant_algo": "NVFP4", "kv_cache_quant_algo": "FP8", "group_size": 16,
        "exclude_modules": ["lm_head", "model.layers.0*", "*self_attn.q*", "*self_attn.kv_*", "model.layers.61*"],
    }});
    let model = Model::from_config_and_quant_json(&text, Some(&quant.to_string()), "v3.1-nvfp4").unwrap();
    assert_eq!(model.kv_cache_format, KvFormat::Fp8);
    assert_eq!(layer_formats(&model, 0).dense, WeightFormat::Bf16);
    assert_eq!(layer_formats(&model, 1).dense, WeightFormat::NvFp4);
    let formats = layer_formats(&model, 60);
    assert_eq!((formats.mixer, formats.mixer_output), (WeightFormat::Bf16, WeightFormat::NvFp4));
    assert_eq!((formats.shared_experts, formats.routed_experts), (WeightFormat::NvFp4, WeightFormat::NvFp4));
    // Without that file the config says nothing of it.
    assert_eq!(layer_formats(&Model::from_config_json(&text, "x").unwrap(), 60).routed_experts, WeightFormat::Bf16);
}

#[test]
fn mixed_precision_goes_module_by_module() {
    let mut layers = serde_json::Map::new();
    for layer in 0..36 {
        for module in ["q_proj", "k_proj", "v_proj", "o_proj"] {
            layers.insert(format!("model.layers.{layer}.self_attn.{module}"), json!({"quant_algo": "FP8"}));
        }
        if layer > 0 {
            let nvfp4 = json!({"quant_algo": "NVFP4", "group_size": 16});
            layers.insert(format!("model.layers.{layer}.mlp"), nvfp4);
        }
    }
    let quant = json!({"quant_method": "modelopt", "quant_algo": "MIXED_PRECISION", "quantized_layers": layers,
        "kv_cache_scheme": {"num_bits": 8, "type": "float"}});
    let text = with_quantisation(&catalogue("qwen3-8b"), quant);
    let model = Model::from_config_json(&text, "mixed").unwrap();
    assert_eq!(
        (layer_formats(&model, 0).mixer, layer_formats(&model, 0).dense),
        (WeightFormat::Fp8, WeightFormat::Bf16)
    );
    assert_eq!(
        (layer_formats(&model, 9).mixer, layer_formats(&model, 9).dense),
        (WeightFormat::Fp8, WeightFormat::NvFp4)
    );
    assert_eq!(model.kv_cache_format, KvFormat::Fp8);
}

#[test]
fn compressed_tensors_schemes() {
    let text = catalogue("llama-3.1-8b");
    let scheme = |weights: Value, activations: Value| {
        json!({"quant_method": "compressed-tensors", "ignore": ["lm_head"], "config_groups": {"group_0": {
            "targets": ["Linear"], "weights": weights, "input_activations": activations}}})
    };
    let fp8 = || json!({"num_bits": 8, "type": "float"});
    let int8 = || json!({"num_bits": 8, "type": "int"});
    let fp4 = || json!({"num_bits": 4, "type": "float"});
    for (weights, activations, expected) in [
        (json!({"num_bits": 8, "type": "float", "strategy": "tensor"}), fp8(), WeightFormat::Fp8),
        (json!({"num_bits": 8, "type": "float", "strategy": "channel"}), fp8(), WeightFormat::Fp8Channel),
        (
            json!({"num_bits": 8, "type": "float", "strategy": "block", "block_structure": [128, 128]}),
            fp8(),
            WeightFormat::Fp8Block,
        ),
        (json!({"num_bits": 8, "type": "int", "strategy": "channel"}), int8(), WeightFormat::Int8),
        (
            json!({"num_bits": 4, "type": "float", "strategy": "tensor_group", "group_size": 16}),
            fp4(),
            WeightFormat::NvFp4,
        ),
        (
            json!({"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128}),
            Value::Null,
            WeightFormat::Int4,
        ),
    ] {
        let text = with_quantisation(&text, scheme(weights, activations));
        let model = Model::from_config_json(&text, "ct").unwrap();
        assert_eq!(layer_formats(&model, 3), LayerFormats { dense: expected, ..layer_formats(&model, 3) });
        assert_eq!(layer_formats(&model, 3).mixer_output, expected);
    }
}

#[test]
fn gptq_and_awq_are_four_bit_integers() {
    for method in ["gptq", "awq"] {
        let quant = json!({"quant_method": method, "bits": 4, "group_size": 128, "sym": true});
        let text = with_quantisation(&catalogue("qwen2.5-7b"), quant);
        let model = Model::from_config_json(&text, method).unwrap();
        assert_eq!(layer_formats(&model, 0).mixer, WeightFormat::Int4);
        // Embedding and head stay bf16.
        assert!(model.weight_bytes().unwrap() > 2 * 2 * model.vocab_size * model.hidden_size);
    }
}

/// A group that a layer does not have must not split equal layers into two kinds.
#[test]
fn quantised_layers_still_collapse() {
    for name in ["gpt-oss-20b", "gpt-oss-120b"] {
        let model = Model::from_config_json(&catalogue(name), name).unwrap();
        assert_eq!(model.kinds.len(), 2, "{name}");
        assert!(matches!(model.kinds[0].feed_forward, FeedForward::Moe(_)));
        assert_eq!(model.kinds[0].formats.routed_experts, WeightFormat::MxFp4);
        assert_eq!(model.kinds[0].formats.mixer, WeightFormat::Bf16);
    }
}
