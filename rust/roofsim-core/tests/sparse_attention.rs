//! Sparse attention behind an indexer: what its rows see, what stays cached, and what it costs beside dense attention.

// A test stops at the first thing that is not as it should be; that is what unwrap is for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use proptest::prelude::*;
use roofsim_core::Error;
use roofsim_core::format::KvFormat;
use roofsim_core::model::{Mixer, Model, Span, kept_tokens};
use roofsim_core::ops::attention::{attended_pairs, keys_read};
use roofsim_core::workload::Request;
use serde_json::{Value, json};

/// GLM-5 in four layers.
fn config() -> Value {
    json!({
        "architectures": ["GlmMoeDsaForCausalLM"], "first_k_dense_replace": 3, "hidden_size": 6144, "index_head_dim": 128,
        "index_n_heads": 32, "index_topk": 2048, "intermediate_size": 12288, "kv_lora_rank": 512,
        "moe_intermediate_size": 2048, "n_routed_experts": 256, "n_shared_experts": 1, "num_attention_heads": 64,
        "num_experts_per_tok": 8, "num_hidden_layers": 4, "q_lora_rank": 2048, "qk_nope_head_dim": 192,
        "qk_rope_head_dim": 64, "v_head_dim": 256, "vocab_size": 154_880,
    })
}

fn read(config: &Value) -> roofsim_core::error::Result<Model> {
    Model::from_config_json(&config.to_string(), "glm")
}

proptest! {
    #[test]
    fn rows_see_what_they_select_and_everything_stays_cached(
        query in 1_u64..300, before in 0_u64..3000, top_k in 1_u64..3000,
    ) {
        let request = Request::new(query, before + query).unwrap();
        let span = Span::Selected(top_k);
        let pairs: u64 = (before..before + query).map(|position| (position + 1).min(top_k)).sum();
        prop_assert_eq!(attended_pairs(span, request), pairs);
        let keys = keys_read(span, request);
        prop_assert!(keys >= top_k.min(before + query) && keys <= before + query);
        prop_assert!(keys >= pairs.div_ceil(query));
        prop_assert_eq!(kept_tokens(span, before + query), before + query);
        if top_k >= before + query {
            prop_assert_eq!(pairs, attended_pairs(Span::Full, request));
            prop_assert_eq!(keys, keys_read(Span::Full, request));
        }
    }
}

/// Layers that share a choice have neither the indexer's weights nor its keys.
#[test]
fn shared_layers_have_no_indexer() {
    let whole = read(&config()).unwrap();
    let mut shared = config();
    shared["indexer_types"] = json!(["full", "shared", "shared", "full"]);
    let shared = read(&shared).unwrap();
    let indexer = 2048 * 32 * 128 + 6144 * 128 + 2 * 128 + 6144 * 32;
    assert_eq!(whole.num_parameters().unwrap() - shared.num_parameters().unwrap(), 2 * indexer);
    let bytes = |model: &Model| model.kv_bytes_per_token(KvFormat::Bf16).unwrap();
    assert_eq!((bytes(&whole), bytes(&shared)), (4 * 2 * (512 + 64 + 128), 2 * (4 * (512 + 64) + 2 * 128)));
    for layer in shared.kinds.iter().chain(&whole.kinds) {
        let Mixer::Latent(latent) = &layer.mixer else { panic!("{:?}", layer.mixer) };
        assert_eq!(latent.selection.unwrap().top_k, 2048);
    }
}

/// Field and rule of what is refused.
#[test]
fn bad_indexers_are_refused_by_name() {
    let cases = [
        ("index_topk", Value::Null, "must be given"),
        ("index_topk", json!(0), "integer from 1"),
        ("index_n_heads", Value::Null, "must be given"),
        ("index_head_dim", json!("128"), "integer from 1"),
        ("q_lora_rank", Value::Null, "the indexer's queries"),
        ("index_topk_freq", json!(4), "must be 1"),
        ("indexer_types", json!(["full"]), "one entry for each"),
        ("indexer_types[0]", json!(["shared", "full", "full", "full"]), "full in the first layer"),
        ("indexer_types[2]", json!(["full", "full", "half", "full"]), "must be full or shared"),
    ];
    for (field, value, rule) in cases {
        let mut bad = config();
        bad[field.split('[').next().unwrap()] = value;
        match read(&bad).unwrap_err() {
            Error::Spec { field: named, rule: said, .. } | Error::Unsupported { field: named, rule: said, .. } => {
                assert!(named == field && said.contains(rule), "{field}: {named} {said}");
            }
            other => panic!("{other}"),
        }
    }
}
