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
            Span::Full => &mut full,
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
