//! Every published config that the readers support, against counts that other software made of the same file.

// A test stops at the first thing that is not as it should be; that is what unwrap is for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use roofsim_core::format::{KvFormat, WeightFormat};
use roofsim_core::model::{Model, Span, kept_tokens};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// The rows of a small CSV file whose quoted fields hold no line breaks.
fn rows(path: &str) -> Vec<HashMap<String, String>> {
    let text = std::fs::read_to_string(root().join(path)).unwrap();
    let mut lines = text.lines().map(split);
    let head = lines.next().unwrap();
    lines.map(|line| head.iter().cloned().zip(line).collect()).collect()
}

fn split(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut quoted = false;
    for c in line.chars() {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(String::new()),
            _ => fields.last_mut().unwrap().push(c),
        }
    }
    fields
}

fn load(row: &HashMap<String, String>) -> Model {
    let text = std::fs::read_to_string(root().join(&row["config"])).unwrap();
    Model::from_config_json(&text, &row["name"]).unwrap_or_else(|error| panic!("{}: {error}", row["name"]))
}

/// What differs between a row and the model read from its config; a cell that is empty was never counted.
fn differences(row: &HashMap<String, String>, model: &Model) -> Vec<String> {
    let mut out = Vec::new();
    let mut check = |column: &str, ours: u64| {
        if !row[column].is_empty() && row[column] != ours.to_string() {
            out.push(format!("{column}: theirs {}, ours {ours}", row[column]));
        }
    };
    let bf16 = model.with_weight_format(WeightFormat::Bf16);
    check("total_params", model.num_parameters().unwrap());
    check("text_params", model.num_parameters().unwrap() - model.auxiliary_parameters);
    check("active_params", model.num_active_parameters().unwrap());
    check("bf16_weight_bytes", bf16.weight_bytes().unwrap());
    check("published_weight_bytes", model.weight_bytes().unwrap());
    check("kv_bytes_per_token", model.kv_bytes_per_token(KvFormat::Bf16).unwrap());
    let (mut full, mut sliding) = ((0, 0), (0, 0));
    let mut window = None;
    for (layer, count) in model.kinds.iter().zip(model.counts()) {
        let bytes = layer.mixer.kv_elements_per_token() * 2 * count;
        let part = match layer.mixer.span() {
            Span::Full | Span::Selected(_) => &mut full,
            Span::Sliding(limit) | Span::Chunked(limit) => {
                window = Some(limit);
                assert_eq!(kept_tokens(layer.mixer.span(), 1 << 41), limit);
                &mut sliding
            }
        };
        *part = (part.0 + count, part.1 + bytes);
    }
    check("full_layers", full.0);
    check("kv_full_bytes_per_token", full.1);
    check("sliding_layers", sliding.0);
    check("kv_sliding_bytes_per_token", sliding.1);
    check("window", window.unwrap_or(0));
    if row["tied"] != model.head.tied.to_string() {
        out.push(format!("tied: theirs {}, ours {}", row["tied"], model.head.tied));
    }
    out
}

#[test]
fn every_supported_config_agrees_with_its_facts() {
    let rows = rows("tests/fixtures/models/facts.csv");
    let mut agreed = 0;
    let mut failures = Vec::new();
    for row in &rows {
        let differences = differences(row, &load(row));
        if differences.is_empty() {
            agreed += 1;
        } else {
            failures.push(format!("{}: {}", row["name"], differences.join("; ")));
        }
    }
    println!("facts: {agreed} of {} configs agree", rows.len());
    assert!(failures.is_empty(), "\n{}", failures.join("\n"));
}

/// Values that the models' authors and serving projects publish, once more and by hand.
#[test]
fn golden_anchors() {
    let rows = rows("tests/fixtures/models/facts.csv");
    let by_name = |name: &str| load(rows.iter().find(|row| row["name"] == name).unwrap());
    let kv = |model: &Model| model.kv_bytes_per_token(KvFormat::Bf16).unwrap();

    let llama_8b = by_name("meta-llama--Meta-Llama-3.1-8B");
    assert_eq!((llama_8b.num_parameters().unwrap(), kv(&llama_8b)), (8_030_261_248, 131_072));
    let llama_70b = by_name("meta-llama--Meta-Llama-3.1-70B");
    assert_eq!((llama_70b.num_parameters().unwrap(), kv(&llama_70b)), (70_553_706_496, 327_680));
    assert_eq!(kv(&by_name("Qwen--Qwen3-235B-A22B")), 192_512);
    let deepseek = by_name("deepseek-ai--DeepSeek-V3.1");
    assert_eq!((deepseek.num_parameters().unwrap(), kv(&deepseek)), (671_026_404_352, 70_272));
    let gpt_oss = by_name("openai--gpt-oss-20b");
    assert_eq!(gpt_oss.num_parameters().unwrap(), 20_914_757_184);
    assert_eq!(gpt_oss.num_active_parameters().unwrap(), 4_187_440_704);
    assert_eq!(gpt_oss.weight_bytes().unwrap(), 13_761_264_768);
    assert_eq!(by_name("openai--gpt-oss-120b").weight_bytes().unwrap(), 65_248_815_744);
}

/// Families without a file among the fixtures, from the fields of their published configs. The counts are those of the
/// checkpoints: `total_size` of the safetensors index over two for `DeepSeek` V2 Lite and Gemma 3 4B, the number that the
/// transformers class reports for the others.
#[test]
fn published_counts_of_families_without_a_fixture() {
    let cases = [
        (
            r#"{"architectures": ["QWenLMHeadModel"], "hidden_size": 8192, "intermediate_size": 49152, "kv_channels": 128,
                "num_attention_heads": 64, "num_hidden_layers": 80, "tie_word_embeddings": false,
                "vocab_size": 152064}"#,
            72_287_920_128,
            2_621_440,
        ),
        (
            r#"{"architectures": ["DeepseekForCausalLM"], "first_k_dense_replace": 1, "hidden_size": 2048,
                "intermediate_size": 10944, "moe_intermediate_size": 1408, "moe_layer_freq": 1, "n_routed_experts": 64,
                "n_shared_experts": 2, "num_attention_heads": 16, "num_experts_per_tok": 6, "num_hidden_layers": 28,
                "num_key_value_heads": 16, "vocab_size": 102400}"#,
            16_375_728_128,
            229_376,
        ),
        (
            // Nemotron-H 56B, whose file has a number that JSON has not.
            r#"{"architectures": ["NemotronHForCausalLM"], "attention_head_dim": 128, "conv_kernel": 4,
                "hidden_size": 8192, "intermediate_size": 32768, "mamba_head_dim": 64, "mamba_num_heads": 256,
                "mlp_hidden_act": "relu2", "n_groups": 8, "num_attention_heads": 64, "num_hidden_layers": 118,
                "hybrid_override_pattern":
"M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-",
                "num_key_value_heads": 8, "ssm_state_size": 256, "time_step_limit": [0.0, Infinity], "use_bias": false,
                "use_conv_bias": true, "vocab_size": 131072}"#,
            56_324_350_464,
            40_960,
        ),
        (
            r#"{"architectures": ["GPT2LMHeadModel"], "n_embd": 768, "n_layer": 12, "n_head": 12, "n_positions": 1024,
                "n_inner": null, "vocab_size": 50257}"#,
            124_439_808,
            36_864,
        ),
        (
            // Says 71 KV heads and has one.
            r#"{"architectures": ["FalconForCausalLM"], "hidden_size": 4544, "num_hidden_layers": 32, "bias": false,
                "num_attention_heads": 71, "num_kv_heads": 71, "multi_query": true, "parallel_attn": true,
                "new_decoder_architecture": false, "alibi": false, "vocab_size": 65024}"#,
            6_921_720_704,
            8_192,
        ),
        (
            r#"{"architectures": ["OPTForCausalLM"], "hidden_size": 1024, "word_embed_proj_dim": 512, "ffn_dim": 4096,
                "num_hidden_layers": 24, "num_attention_heads": 16, "max_position_embeddings": 2048,
                "do_layer_norm_before": false, "vocab_size": 50272}"#,
            331_196_416,
            98_304,
        ),
        (
            r#"{"architectures": ["MistralForCausalLM"], "hidden_size": 4096, "num_hidden_layers": 32,
                "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336,
                "sliding_window": 4096, "vocab_size": 32000}"#,
            7_241_732_096,
            131_072,
        ),
        (
            r#"{"architectures": ["DeepseekV2ForCausalLM"], "hidden_size": 2048, "num_hidden_layers": 27,
                "num_attention_heads": 16, "q_lora_rank": null, "kv_lora_rank": 512, "qk_nope_head_dim": 128,
                "qk_rope_head_dim": 64, "v_head_dim": 128, "first_k_dense_replace": 1, "intermediate_size": 10944,
                "moe_intermediate_size": 1408, "n_routed_experts": 64, "n_shared_experts": 2, "moe_layer_freq": 1,
                "num_experts_per_tok": 6, "vocab_size": 102400}"#,
            15_706_484_224,
            31_104,
        ),
        (
            // The published file leaves heads, head width and vocabulary to the class's defaults.
            r#"{"architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3",
                "text_config": {"hidden_size": 2560, "intermediate_size": 10240, "model_type": "gemma3_text",
                    "num_hidden_layers": 34, "sliding_window": 1024},
                "vision_config": {"hidden_size": 1152, "image_size": 896, "intermediate_size": 4304, "patch_size": 14,
                    "num_attention_heads": 16, "num_hidden_layers": 27, "vision_use_head": false}}"#,
            4_300_079_472,
            139_264,
        ),
    ];
    for (text, parameters, kv_bytes) in cases {
        let model = Model::from_config_json(text, "anchor").unwrap();
        assert_eq!(model.num_parameters().unwrap(), parameters, "{}", model.architecture);
        assert_eq!(model.kv_bytes_per_token(KvFormat::Bf16).unwrap(), kv_bytes, "{}", model.architecture);
    }
}

/// An integer that a file leaves out is what the class of transformers assumes; a written null is not replaced.
#[test]
fn absent_integers_are_those_of_the_class() {
    let file = |class: &str| {
        serde_json::json!({
            "architectures": [class], "hidden_size": 4096, "num_hidden_layers": 6, "num_attention_heads": 32,
            "intermediate_size": 8192, "vocab_size": 1000, "n_routed_experts": 8, "num_experts_per_tok": 2,
            "moe_intermediate_size": 512,
        })
    };
    let read = |file: &serde_json::Value| Model::from_config_json(&file.to_string(), "absent").unwrap();
    for (class, kv_heads) in [("LlamaForCausalLM", 32), ("MistralForCausalLM", 8), ("Qwen3ForCausalLM", 32)] {
        let mut file = file(class);
        let absent = read(&file).kv_bytes_per_token(KvFormat::Bf16).unwrap();
        assert_eq!(absent, 6 * 2 * 2 * kv_heads * 128, "{class}");
        file["num_key_value_heads"] = serde_json::Value::Null;
        assert_eq!(read(&file).kv_bytes_per_token(KvFormat::Bf16).unwrap(), 6 * 2 * 2 * 32 * 128, "{class}");
    }
    let mut glm = file("Glm4MoeForCausalLM");
    let absent = read(&glm);
    (glm["num_key_value_heads"], glm["first_k_dense_replace"]) = (8.into(), 1.into());
    glm["n_shared_experts"] = 1.into();
    assert_eq!(absent, read(&glm));
    glm["first_k_dense_replace"] = 2.into();
    assert_ne!(absent, read(&glm));
}

/// Mistral 7B v0.1 keeps its window and no more; Gemma 3 27B grows by its ten full layers only.
#[test]
fn windows_cap_the_cache() {
    let rows = rows("tests/fixtures/models/facts.csv");
    let gemma = load(rows.iter().find(|row| row["name"] == "google--gemma-3-27b-it").unwrap());
    let at = |tokens| gemma.kv_cache_bytes(tokens, KvFormat::Bf16).unwrap();
    assert_eq!(at(1024), 1024 * 507_904);
    assert_eq!(at(100_000) - at(99_999), 81_920);
}

/// Every model of the catalogue loads, is quoted once, and has its file.
#[test]
fn the_catalogue_loads() {
    let folder = root().join("python/roofsim/catalog/models");
    let index = std::fs::read_to_string(folder.join("index.toml")).unwrap();
    let files: Vec<&str> = index.lines().filter_map(|line| line.strip_prefix("file = \"")?.strip_suffix('"')).collect();
    for file in &files {
        let text = std::fs::read_to_string(folder.join(file)).unwrap();
        Model::from_config_json(&text, file).unwrap_or_else(|error| panic!("{file}: {error}"));
    }
    let aliases: Vec<&str> = index
        .lines()
        .filter_map(|line| line.strip_prefix("aliases = [")?.strip_suffix(']'))
        .flat_map(|list| list.split(", "))
        .collect();
    let distinct: std::collections::HashSet<_> = aliases.iter().collect();
    assert_eq!(distinct.len(), aliases.len());
    let on_disk = std::fs::read_dir(&folder)
        .unwrap()
        .filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|extension| extension == "json"));
    assert_eq!(on_disk.count(), files.len());
    println!("catalogue: {} models under {} ids", files.len(), aliases.len());
}
