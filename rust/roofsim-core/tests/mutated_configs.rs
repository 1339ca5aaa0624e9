//! Whatever is done to a real config, reading it gives a model or a named error, never a panic.

// A test stops at the first thing that is not as it should be; that is what unwrap is for.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::Path;

use proptest::prelude::*;
use roofsim_core::Error;
use roofsim_core::format::{KvFormat, WeightFormat};
use roofsim_core::model::Model;
use serde_json::{Value, json};

/// Field, value and rule of a refusal.
fn parts(error: &Error) -> (&str, &str, &str) {
    match error {
        Error::Spec { field, value, rule }
        | Error::Unsupported { field, value, rule }
        | Error::CountOverflow { field, value, rule } => (field, value, rule),
        Error::Interrupted => panic!("reading is never interrupted"),
    }
}

/// All configs of the fixtures and of the catalogue.
fn real_configs() -> Vec<Value> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut paths: Vec<_> = ["tests/fixtures/models/configs", "python/roofsim/catalog/models"]
        .iter()
        .flat_map(|folder| std::fs::read_dir(root.join(folder)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
        .collect();
    paths.sort();
    paths.iter().map(|path| serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap()).collect()
}

/// Replaces every positive integer by `count`.
fn inflate(value: &mut Value, count: u64) {
    match value {
        Value::Number(number) if number.as_u64().is_some_and(|n| n > 0) => *value = json!(count),
        Value::Array(list) => list.iter_mut().for_each(|inner| inflate(inner, count)),
        Value::Object(object) => object.values_mut().for_each(|inner| inflate(inner, count)),
        _ => {}
    }
}

/// The pointer of a field that an error names: `vision_config.sizes[3]` is `/vision_config/sizes/3`.
fn pointer(field: &str) -> String {
    format!("/{}", field.replace(['.', '['], "/").replace(']', ""))
}

/// Every size of a config at the largest value that is accepted, found by asking: each refusal names the field and its
/// limit. Sums and products that the model makes without a check must stay in range there (this is a debug build, where
/// they would panic), and what is left is a model or totals beyond 64 bits.
#[test]
fn sizes_at_their_limits_do_not_overflow() {
    let mut at_limit = 0;
    for mut config in real_configs() {
        config.as_object_mut().unwrap().remove("quantization_config");
        inflate(&mut config, u64::MAX);
        for _ in 0..500 {
            let Err(error) = Model::from_config_json(&config.to_string(), "large") else {
                at_limit += 1;
                break;
            };
            let (field, _, rule) = parts(&error);
            let limit = rule.rsplit_once(" to ").and_then(|(_, limit)| limit.parse::<u64>().ok());
            // Limits apart, head counts must divide, and layer lists must have one entry for each layer.
            match (limit, config.pointer_mut(&pointer(field))) {
                (Some(limit), Some(value)) => *value = json!(limit),
                _ if matches!(error, Error::CountOverflow { .. }) => {
                    at_limit += 1;
                    break;
                }
                _ if rule.contains("for each of the") => {
                    config.as_object_mut().unwrap().retain(|key, value| key == "architectures" || !value.is_array());
                    let Some(text) = config.get_mut("text_config").and_then(Value::as_object_mut) else { continue };
                    text.retain(|_, value| !value.is_array());
                }
                _ => break,
            }
        }
    }
    println!("{at_limit} configs read or counted out at their limits");
    assert!(at_limit > 60);
}

/// Every object inside a value, as JSON pointers, with its keys.
fn fields(value: &Value, at: &str, out: &mut Vec<(String, String)>) {
    if let Value::Object(object) = value {
        for (key, inner) in object {
            out.push((at.to_owned(), key.clone()));
            fields(inner, &format!("{at}/{}", key.replace('~', "~0").replace('/', "~1")), out);
        }
    }
}

fn odd_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (0_u64..300).prop_map(Value::from),
        any::<f64>().prop_map(|x| json!(x)),
        ".{0,8}".prop_map(Value::from),
        Just(json!([])),
        Just(json!({})),
        prop::collection::vec(any::<u8>(), 0..4).prop_map(|list| json!(list)),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Up to four fields of a real config are removed or replaced: the answer is a model whose totals can be counted,
    /// or an error that names a field.
    #[test]
    fn mutated_configs_are_read_or_refused_by_name(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), prop::option::of(odd_value())), 1..5),
    ) {
        thread_local!(static CONFIGS: Vec<Value> = real_configs());
        let mut config = CONFIGS.with(|configs| which.get(configs).clone());
        for (at, change) in changes {
            let mut all = Vec::new();
            fields(&config, "", &mut all);
            if all.is_empty() {
                break;
            }
            let (parent, key) = at.get(&all).clone();
            let object = config.pointer_mut(&parent).and_then(Value::as_object_mut).unwrap();
            match change {
                Some(value) => object.insert(key, value),
                None => object.remove(&key),
            };
        }
        match Model::from_config_json(&config.to_string(), "mutated") {
            Ok(model) => {
                prop_assert!(model.num_active_parameters()? <= model.num_parameters()?);
                prop_assert!(model.weight_bytes()? > 0);
                model.with_weight_format(WeightFormat::Fp32).weight_bytes()?;
                model.kv_bytes_per_token(KvFormat::Fp32)?;
                model.state_bytes()?;
            }
            Err(error) => {
                let (field, _, rule) = parts(&error);
                prop_assert!(!field.is_empty() && !rule.is_empty());
            }
        }
    }
}
