//! The accelerator spec: what is read, what is refused and by which name, and the round trip through the file.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;

use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use roofsim_core::Error;
use roofsim_core::format::ComputeDType;
use roofsim_core::hardware::{Accelerator, Link, Price, Source, Topology, Torus};
use serde_json::{Value, json};

fn minimal() -> Value {
    json!({
        "name": "my-chip",
        "memory_bytes": 80e9,
        "memory_bandwidth_bytes_per_s": 3e12,
        "peak_flops_per_s": { "bf16": 1e15 },
    })
}

fn full() -> Value {
    json!({
        "name": "h100-sxm",
        "aliases": ["H100", "H100 80GB HBM3"],
        "vendor": "NVIDIA",
        "family": "hopper",
        "num_compute_units": 132,
        "memory_bytes": 85_520_809_984_u64,
        "memory_bandwidth_bytes_per_s": 3350e9,
        "cache_bytes": 52_428_800,
        "peak_flops_per_s": { "bf16": 989e12, "fp16": 989e12, "fp8": 1979e12 },
        "link": { "bandwidth_bytes_per_s": 450e9, "latency_s": 1e-6, "num_devices": 8 },
        "host_link": { "bandwidth_bytes_per_s": 63e9, "num_devices": 8 },
        "network": { "bandwidth_bytes_per_s": 50e9 },
        "power_w": 700,
        "prices": [
            { "usd_per_hour": 2.95, "kind": "on-demand", "provider": "median", "source": "an index", "date": "2026-05-20" },
        ],
        "sources": {
            "*": { "source": "datasheet", "date": "2026" },
            "peak_flops_per_s.bf16": { "source": "whitepaper", "date": "2022-09" },
            "link.num_devices": { "source": "system guide", "date": "2023-01-31" },
        },
    })
}

/// A link of eight devices behind a switch.
fn switched(bandwidth_bytes_per_s: f64, latency_s: f64) -> Link {
    Link { bandwidth_bytes_per_s, latency_s, num_devices: 8, topology: Topology::Switch }
}

fn read(spec: &Value) -> Result<Accelerator, Error> {
    Accelerator::from_json(&spec.to_string())
}

/// `full()` with the value at `path` (a JSON pointer) replaced; a missing last key is added.
fn with(path: &str, value: Value) -> Value {
    let mut spec = full();
    let (parent, key) = path.rsplit_once('/').unwrap();
    let parent = spec.pointer_mut(parent).unwrap();
    match parent {
        Value::Array(items) => items[key.parse::<usize>().unwrap()] = value,
        _ => parent[key] = value,
    }
    spec
}

/// `full()` with a torus of eight devices and this shape.
fn torus(shape: Value) -> Value {
    let mut spec = with("/link/topology", json!("torus"));
    spec["link"]["shape"] = shape;
    spec
}

fn cube_mesh(num_devices: u64) -> Value {
    let mut spec = with("/link/topology", json!("cube-mesh"));
    spec["link"]["num_devices"] = json!(num_devices);
    spec
}

fn without(key: &str) -> Value {
    let mut spec = full();
    spec.as_object_mut().unwrap().remove(key);
    spec
}

#[test]
fn a_minimal_spec_needs_four_fields() {
    let chip = read(&minimal()).unwrap();
    assert_eq!(chip.memory_bytes, 80_000_000_000);
    assert_eq!(chip.family, "generic");
    assert_eq!(chip.vendor, "unknown");
    assert_eq!((chip.link, chip.host_link, chip.network), (None, None, None));
    assert_eq!((chip.power_w, chip.cache_bytes, chip.num_compute_units), (None, None, None));
    assert!(chip.prices.is_empty() && chip.sources.is_empty() && chip.aliases.is_empty());
}

#[test]
fn every_field_is_read() {
    let chip = read(&full()).unwrap();
    assert_eq!(chip.aliases, ["H100", "H100 80GB HBM3"]);
    assert_eq!((chip.vendor.as_str(), chip.family.as_str()), ("NVIDIA", "hopper"));
    assert_eq!((chip.num_compute_units, chip.cache_bytes), (Some(132), Some(52_428_800)));
    assert_eq!(chip.link, Some(switched(450e9, 1e-6)));
    assert_eq!(chip.host_link, Some(switched(63e9, 0.0)));
    assert_eq!(chip.network.unwrap().num_devices, Link::UNBOUNDED_DEVICES);
    assert_eq!(chip.power_w, Some(700.0));
    assert_eq!(chip.prices[0].kind, "on-demand");
    assert_eq!(chip.sources["link.num_devices"].date, "2023-01-31");
    assert_eq!(chip.sources.len(), 3);
}

#[test]
fn a_null_is_an_absent_field() {
    let nulls = ["num_compute_units", "cache_bytes", "link", "host_link", "network", "power_w", "prices", "sources"];
    for key in nulls {
        assert_eq!(read(&with(&format!("/{key}"), Value::Null)), read(&without(key)), "{key}");
    }
}

#[test]
fn the_file_round_trip_is_exact() {
    for spec in [minimal(), full()] {
        let chip = read(&spec).unwrap();
        assert_eq!(Accelerator::from_json(&chip.to_json()), Ok(chip));
    }
}

#[test]
fn a_missing_peak_is_refused_even_when_its_twin_is_there() {
    let mut v100 = minimal();
    v100["peak_flops_per_s"] = json!({ "fp16": 125e12, "fp32": 15.7e12 });
    let v100 = read(&v100).unwrap();
    assert_eq!(v100.peak(ComputeDType::Fp16), Ok(125e12));
    let Err(Error::Unsupported { field, value, rule }) = v100.peak(ComputeDType::Bf16) else {
        panic!("bf16 was invented")
    };
    assert_eq!((field.as_str(), value.as_str()), ("dtype", "bf16"));
    assert!(rule.contains("my-chip") && rule.contains("fp32, fp16"), "{rule}");
    assert!(v100.balance(ComputeDType::Bf16).is_err());
}

#[test]
fn balance_is_peak_over_bandwidth() {
    let chip = read(&full()).unwrap();
    let balance = chip.balance(ComputeDType::Bf16).unwrap();
    assert!((balance - 295.223_880_597).abs() < 1e-8, "{balance}"); // 989e12 / 3350e9, NVIDIA H100 SXM datasheet
}

/// The spec, the field the error must name, the value it must show, a piece of the rule.
type BadSpec = (Value, &'static str, &'static str, &'static str);

fn bad_top_level() -> Vec<BadSpec> {
    vec![
        (without("name"), "name", "missing", "is required"),
        (without("memory_bytes"), "memory_bytes", "missing", "is required"),
        (without("memory_bandwidth_bytes_per_s"), "memory_bandwidth_bytes_per_s", "missing", "is required"),
        (without("peak_flops_per_s"), "peak_flops_per_s", "missing", "at least one operand type"),
        (with("/name", json!("")), "name", "\"\"", "must not be empty"),
        (with("/name", json!("H100")), "name", "H100", "lower case"),
        (with("/name", json!(" h100")), "name", " h100", "blanks"),
        (with("/name", json!(100)), "name", "100", "must be a string"),
        (with("/name", Value::Null), "name", "missing", "is required"),
        (with("/aliases", json!("H100")), "aliases", "\"H100\"", "must be a list"),
        (with("/aliases", json!(["H100", 3])), "aliases[1]", "3", "must be a string"),
        (with("/vendor", json!(" ")), "vendor", "\" \"", "must not be empty"),
        (with("/num_compute_units", json!(131.5)), "num_compute_units", "131.5", "whole number"),
        (with("/memory_bytes", json!(0)), "memory_bytes", "0", "from 1"),
        (with("/memory_bytes", json!(-80e9)), "memory_bytes", "-80000000000.0", "from 1"),
        (with("/memory_bytes", json!(80.5)), "memory_bytes", "80.5", "whole number"),
        (with("/memory_bytes", json!("80 GB")), "memory_bytes", "\"80 GB\"", "whole number"),
        (with("/memory_bytes", json!(true)), "memory_bytes", "true", "whole number"),
        (with("/memory_bytes", json!(1_u64 << 51)), "memory_bytes", "2251799813685248", "2^50"),
        (with("/memory_bytes", json!(u64::MAX)), "memory_bytes", "18446744073709551615", "2^50"),
        (with("/memory_bandwidth_bytes_per_s", json!(0)), "memory_bandwidth_bytes_per_s", "0", "a number"),
        (with("/memory_bandwidth_bytes_per_s", json!(2e16)), "memory_bandwidth_bytes_per_s", "2e+16", "1e16"),
        (with("/memory_bandwidth_bytes_per_s", json!([1])), "memory_bandwidth_bytes_per_s", "[1]", "a number"),
        (with("/cache_bytes", json!(-1)), "cache_bytes", "-1", "whole number"),
        (with("/power_w", json!(0)), "power_w", "0", "W"),
        (with("/power_w", json!("700")), "power_w", "\"700\"", "a number"),
        (with("/memory_byte", json!(1)), "memory_byte", "1", "nearest known one is memory_bytes"),
        (with("/bandwidth", json!(1)), "bandwidth", "1", "unknown field"),
        (with("/", json!(1)), "\"\"", "1", "unknown field"),
        (with("/power w", json!(1)), "\"power w\"", "1", "nearest known one is power_w"),
    ]
}

fn bad_tables() -> Vec<BadSpec> {
    vec![
        (with("/peak_flops_per_s", json!({})), "peak_flops_per_s", "{}", "at least one operand type"),
        (with("/peak_flops_per_s", json!("1e15")), "peak_flops_per_s", "\"1e15\"", "must be a table"),
        (with("/peak_flops_per_s/bf16", json!(2e18)), "peak_flops_per_s.bf16", "2e+18", "1e18 FLOP/s"),
        (with("/peak_flops_per_s/bf16", json!(0)), "peak_flops_per_s.bf16", "0", "a number"),
        (with("/peak_flops_per_s/fp64", json!(1)), "peak_flops_per_s.fp64", "1", "nearest known one is fp"),
        (with("/link/num_devices", json!(1)), "link.num_devices", "1", "from 2"),
        (with("/link/num_devices", json!(7.5)), "link.num_devices", "7.5", "whole number"),
        (with("/link/latency_s", json!(-1)), "link.latency_s", "-1", "from 0"),
        (with("/link/topology", json!("hypercube")), "link.topology", "hypercube", "switch, mesh, cube-mesh, torus"),
        (with("/link/topology", json!(8)), "link.topology", "8", "string"),
        (with("/link/topology", json!("torus")), "link.shape", "missing", "whose product is num_devices"),
        (with("/link/shape", json!([2, 4])), "link.shape", "[2,4]", "topology must be torus"),
        (torus(json!([3, 4])), "link.shape", "[3,4]", "whose product is num_devices"),
        (torus(json!([2, 2, 2, 1])), "link.shape", "[2,2,2,1]", "1 to 3 axes"),
        (torus(json!([8, 1])), "link.shape[1]", "1", "from 2"),
        (torus(json!([1_000_000, 1_000_000, 1_000_000])), "link.shape", "[1000000,1000000,1000000]", "whose product"),
        (cube_mesh(4), "link.num_devices", "4", "must be 8"),
        (with("/host_link/topology", json!("mesh")), "host_link.topology", "\"mesh\"", "unknown field"),
        (with("/link/bandwidth", json!(1)), "link.bandwidth", "1", "nearest known one is bandwidth_bytes_per_s"),
        (with("/host_link", json!({ "num_devices": 8 })), "host_link.bandwidth_bytes_per_s", "missing", "direction"),
        (with("/host_link", json!({ "bandwidth_bytes_per_s": 63e9 })), "host_link.num_devices", "missing", "devices"),
        (with("/network", json!("400G")), "network", "\"400G\"", "must be a table"),
        (with("/prices", json!({})), "prices", "{}", "must be a list"),
        (with("/prices/0/kind", json!("spot")), "prices[0].kind", "spot", "on-demand, reserved, cost-of-ownership"),
        (with("/prices/0/usd_per_hour", json!(0)), "prices[0].usd_per_hour", "0", "US dollars"),
        (with("/prices/0/usd_per_hour", json!(-1.5)), "prices[0].usd_per_hour", "-1.5", "US dollars"),
        (with("/prices/0/date", json!("May 2026")), "prices[0].date", "May 2026", "YYYY-MM"),
        (with("/prices/0/currency", json!("EUR")), "prices[0].currency", "\"EUR\"", "unknown field"),
        (with("/prices/0", json!(2.95)), "prices[0]", "2.95", "must be a table"),
        (with("/sources/memory", json!({})), "sources.memory", "{}", "nearest known one is memory_bytes"),
        (with("/sources/prices", json!({})), "sources.prices", "{}", "unknown field"),
        (with("/sources/link", json!({ "date": "2026" })), "sources.link.source", "missing", "document"),
        (with("/sources/link", json!({ "source": "x" })), "sources.link.date", "missing", "when"),
        (with("/sources/*", json!("datasheet")), "sources.*", "\"datasheet\"", "must be a table"),
        (with("/sources/*/date", json!("2026-13")), "sources.*.date", "2026-13", "YYYY"),
    ]
}

#[test]
fn a_bad_spec_is_refused_with_field_value_and_rule() {
    let cases = [bad_top_level(), bad_tables()].concat();
    assert!(cases.len() >= 50);
    for (spec, field, value, rule) in cases {
        match read(&spec) {
            Err(Error::Spec { field: f, value: v, rule: r }) => {
                assert_eq!((f.as_str(), v.as_str()), (field, value), "{r}");
                assert!(r.contains(rule), "{field}: {r:?} should say {rule:?}");
            }
            other => panic!("{field} = {value} gave {other:?}"),
        }
    }
}

#[test]
fn text_that_is_no_spec_is_refused() {
    let twice = r#"{"name": "a", "name": "b"}"#;
    let deep = "[".repeat(100_000);
    let huge = " ".repeat(2 << 20);
    let texts = ["", "h100", "{", "[]", "null", "3", "{\"power_w\": NaN}", "{\"power_w\": 1e999}", twice, &deep, &huge];
    for text in texts {
        match Accelerator::from_json(text) {
            Err(Error::Spec { field, value, .. }) => {
                assert_eq!(field, "accelerator");
                assert!(value.chars().count() <= 83, "an error repeats too much of {} bytes", text.len());
            }
            other => panic!("{text:.40} gave {other:?}"),
        }
    }
    let Err(Error::Spec { rule, .. }) = Accelerator::from_json(twice) else { panic!("a key stands twice") };
    assert!(rule.contains("name stands twice"), "{rule}");
}

#[test]
fn hostile_keys_and_values_are_cut() {
    let error = read(&with(&format!("/{}", "é".repeat(10_000)), json!("x".repeat(10_000)))).unwrap_err();
    assert!(error.to_string().len() < 1000, "{error}");
}

fn source() -> impl Strategy<Value = Source> {
    let date = "(19|2[0-9])[0-9]{2}(-(0[1-9]|1[0-2])(-(0[1-9]|[12][0-9]|3[01]))?)?";
    ("[ -~]{0,20}[a-z]", date).prop_map(|(source, date)| Source { source, date })
}

fn topology() -> impl Strategy<Value = Option<Topology>> {
    let shape = (2..20_u64, prop_oneof![Just(1), 2..20_u64], prop_oneof![Just(1), 2..20_u64]);
    let torus = (shape, option::of(2..8_u64)).prop_map(|((x, y, z), cube)| {
        let mut shape = [x, y, z];
        shape[1..].sort_unstable_by(|a, b| b.cmp(a));
        Topology::Torus(Torus { shape, cube })
    });
    let plain = prop::sample::select(vec![None, Some(Topology::Mesh), Some(Topology::CubeMesh)]);
    prop_oneof![plain, torus.prop_map(Some)]
}

/// A scale-up link.
fn link() -> impl Strategy<Value = Link> {
    (host_link(), topology()).prop_map(|(link, topology)| {
        let num_devices = match topology {
            Some(Topology::Torus(torus)) => torus.shape.iter().product(),
            Some(Topology::CubeMesh) => 8,
            _ => link.num_devices,
        };
        Link { num_devices, topology: topology.unwrap_or_default(), ..link }
    })
}

fn host_link() -> impl Strategy<Value = Link> {
    // Short of the unbounded size, which only a network may have.
    (1.0..1e16_f64, 0.0..10.0_f64, 2..Link::UNBOUNDED_DEVICES).prop_map(
        |(bandwidth_bytes_per_s, latency_s, num_devices)| Link {
            bandwidth_bytes_per_s,
            latency_s,
            num_devices,
            topology: Topology::Switch,
        },
    )
}

fn network() -> impl Strategy<Value = Link> {
    (host_link(), any::<bool>()).prop_map(|(link, unbounded)| Link {
        num_devices: if unbounded { Link::UNBOUNDED_DEVICES } else { link.num_devices },
        ..link
    })
}

fn price() -> impl Strategy<Value = Price> {
    let kind = prop::sample::select(vec!["on-demand", "reserved", "cost-of-ownership"]);
    (1e-6..1e6_f64, kind, "[ -~]{0,20}[a-z]", source()).prop_map(|(usd_per_hour, kind, provider, source)| Price {
        usd_per_hour,
        kind: kind.to_owned(),
        provider,
        source,
    })
}

fn sources() -> impl Strategy<Value = BTreeMap<String, Source>> {
    let fields = ["*", "name", "link", "link.latency_s", "peak_flops_per_s.fp4"].map(str::to_owned);
    btree_map(prop::sample::select(fields.to_vec()), source(), 0..5)
}

prop_compose! {
    fn accelerator()(
        (name, vendor, family) in ("[a-z0-9][a-z0-9 ._-]{0,20}[a-z0-9]", "[ -~]{0,20}[a-z]", "[a-z0-9-]{1,20}"),
        aliases in vec("[ -~]{0,20}[a-z]", 0..4),
        (num_compute_units, cache_bytes) in (option::of(1..1000_u64), option::of(1..=1_u64 << 40)),
        memory_bytes in 1..=1_u64 << 50,
        (memory_bandwidth_bytes_per_s, power_w) in (1.0..1e16_f64, option::of(1e-3..1e6_f64)),
        peak_flops_per_s in btree_map(prop::sample::select(ComputeDType::ALL.to_vec()), 1.0..1e18_f64, 1..8),
        (link, host_link, network) in (option::of(link()), option::of(host_link()), option::of(network())),
        prices in vec(price(), 0..4),
        sources in sources(),
    ) -> Accelerator {
        Accelerator {
            name, aliases, vendor, family, num_compute_units, memory_bytes, memory_bandwidth_bytes_per_s, cache_bytes,
            peak_flops_per_s, link, host_link, network, power_w, prices, sources,
        }
    }
}

/// Any JSON value, among them the ones a careless writer puts where a number belongs.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            btree_map(".{0,8}", inner, 0..4).prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Every place of a JSON value, as a pointer.
fn places(value: &Value, path: &str, found: &mut Vec<String>) {
    found.push(path.to_owned());
    match value {
        Value::Object(map) => map.iter().for_each(|(key, item)| places(item, &format!("{path}/{key}"), found)),
        Value::Array(items) => {
            items.iter().enumerate().for_each(|(index, item)| places(item, &format!("{path}/{index}"), found));
        }
        _ => {}
    }
}

proptest! {
    #[test]
    fn every_valid_accelerator_survives_its_file(chip in accelerator()) {
        prop_assert_eq!(Accelerator::from_json(&chip.to_json()), Ok(chip));
    }

    #[test]
    fn a_mutated_spec_is_read_or_refused_and_never_panics(place in any::<prop::sample::Index>(), value in any_json()) {
        let mut spec = full();
        let mut found = Vec::new();
        places(&spec, "", &mut found);
        if let Some(target) = spec.pointer_mut(&found[place.index(found.len())]) {
            *target = value;
        }
        match read(&spec) {
            Ok(chip) => prop_assert_eq!(Accelerator::from_json(&chip.to_json()), Ok(chip)),
            Err(Error::Spec { field, rule, .. }) => prop_assert!(!field.is_empty() && !rule.is_empty()),
            Err(other) => prop_assert!(false, "{other:?}"),
        }
    }

    #[test]
    fn cut_and_edited_text_never_panics(cut in any::<prop::sample::Index>(), insert in ".{0,4}") {
        let text: Vec<char> = full().to_string().chars().collect();
        let (head, tail) = text.split_at(cut.index(text.len()));
        let head: String = head.iter().collect();
        let _ = Accelerator::from_json(&head);
        let _ = Accelerator::from_json(&format!("{head}{insert}{}", tail.iter().collect::<String>()));
    }
}
