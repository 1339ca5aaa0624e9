//! The tiled GEMM law, for all lawful constants: never under the roofline, monotone to the last bit in every size,
//! a worked number; for constants of the size that kernels show, subadditive in the rows.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::collections::BTreeMap;

use proptest::prelude::*;
use roofsim_core::calibration::{Calibration, GemmLaw};
use roofsim_core::format::{ComputeDType, WeightFormat};
use roofsim_core::hardware::Accelerator;
use roofsim_core::ops::gemm::GemmOp;
use roofsim_core::roofline::{Machine, OpCost, Pace};

fn device() -> Accelerator {
    Accelerator::from_json(
        r#"{"name": "d", "family": "hopper", "num_compute_units": 132, "memory_bytes": 85520809984,
            "memory_bandwidth_bytes_per_s": 3.35e12,
            "peak_flops_per_s": {"bf16": 989e12, "fp8": 1979e12, "int8": 1979e12, "fp4": 3958e12}}"#,
    )
    .unwrap()
}

fn under(law: GemmLaw) -> Calibration {
    let calibration =
        Calibration { gemm: BTreeMap::from([(ComputeDType::Bf16, law)]), name: "t".to_owned(), ..Calibration::ideal() };
    calibration.check().unwrap();
    calibration
}

fn cost(law: GemmLaw, m: u64, n: u64, k: u64, format: WeightFormat) -> OpCost {
    let (device, calibration) = (device(), under(law));
    let machine = Machine::new(&device, &calibration, Pace::Burst);
    let dtype = format.compute(ComputeDType::Bf16);
    GemmOp::new(&machine, n, k, format, dtype).unwrap().cost(m)
}

/// What an H100 shows with torch's bf16 kernels, rounded.
const HOPPER: GemmLaw = GemmLaw::Tiled {
    t0_s: 2.8e-6,
    e_m: 0.86,
    e_c: 0.84,
    load_bytes_per_s: 300e9,
    stage_s: 0.06e-6,
    epilogue_s: 0.75e-6,
    red_s: 2.0e-6,
    tail: 0.1,
    quantise_s: 0.0,
    quantise_bytes: 0.0,
};

fn tiled(constants: [f64; 9]) -> GemmLaw {
    let [t0_s, e_m, e_c, load_bytes_per_s, stage_s, epilogue_s, red_s, tail, quantise_bytes] = constants;
    let quantise_s = 0.0;
    GemmLaw::Tiled { t0_s, e_m, e_c, load_bytes_per_s, stage_s, epilogue_s, red_s, tail, quantise_s, quantise_bytes }
}

prop_compose! {
    fn lawful()(
        t0 in 0.0..20e-6f64,
        (e_m, e_c) in (0.05..=1.0f64, 0.05..=1.0f64),
        load in 1e9..1e13f64,
        stage in 0.0..1e-6f64,
        epilogue in 0.0..5e-6f64,
        red in 0.0..10e-6f64,
        tail in 0.0..=1.0f64,
        quantise in prop_oneof![Just(0.0), 0.0..10.0f64],
    ) -> GemmLaw {
        tiled([t0, e_m, e_c, load, stage, epilogue, red, tail, quantise])
    }
}

prop_compose! {
    /// Constants of the size that Hopper's kernels show. A longer tail or no fixed time breaks subadditivity: a wave more
    /// of large tiles for two rows more, where two rows alone take small tiles.
    fn realistic()(
        t0 in 2e-6..15e-6f64,
        (e_m, e_c) in (0.75..=0.95f64, 0.5..=0.95f64),
        load in 120e9..600e9f64,
        stage in 0.0..0.1e-6f64,
        epilogue in 0.0..1e-6f64,
        red in 1e-6..5e-6f64,
        tail in 0.0..=0.2f64,
        quantise in prop_oneof![Just(0.0), 0.0..10.0f64],
    ) -> GemmLaw {
        tiled([t0, e_m, e_c, load, stage, epilogue, red, tail, quantise])
    }
}

/// Sizes near tile and block edges, small ones, and any.
fn size() -> impl Strategy<Value = u64> {
    let edges = (1u64..200, prop_oneof![Just(16u64), Just(64), Just(128)], 0u64..3);
    prop_oneof![1u64..70, edges.prop_map(|(i, edge, off)| (i * edge + off).saturating_sub(1).max(1)), 1u64..40_000]
}

fn format() -> impl Strategy<Value = WeightFormat> {
    prop::sample::select(vec![
        WeightFormat::Bf16,
        WeightFormat::Fp8,
        WeightFormat::Fp8Block,
        WeightFormat::Int8,
        WeightFormat::Int4,
        WeightFormat::MxFp4,
        WeightFormat::NvFp4,
    ])
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn never_under_the_roofline(law in lawful(), m in size(), n in size(), k in size(), format in format()) {
        let cost = cost(law, m, n, k, format);
        prop_assert!(cost.time_s >= cost.ideal_s);
        prop_assert!(cost.ideal_s >= cost.flops / 3958e12);
        prop_assert!(cost.time_s.is_finite() && cost.compute_s >= 0.0 && cost.memory_s >= 0.0);
    }

    #[test]
    fn never_faster_for_more_work(
        law in lawful(), m in size(), n in size(), k in size(), more in size(), format in format()
    ) {
        let base = cost(law, m, n, k, format).time_s;
        for (m, n, k) in [(m + more, n, k), (m, n + more, k), (m, n, k + more), (m + 1, n, k), (m, n + 1, k), (m, n, k + 1)]
        {
            let larger = cost(law, m, n, k, format).time_s;
            prop_assert!(larger >= base, "{m} {n} {k}: {larger} < {base}");
        }
    }

    #[test]
    fn two_batches_apart_are_no_faster(
        law in realistic(), one in size(), other in size(), n in size(), k in size(), format in format()
    ) {
        let t = |m| cost(law, m, n, k, format).time_s;
        let (together, apart) = (t(one + other), t(one) + t(other));
        prop_assert!(together <= 1.02 * apart, "{one} + {other}: {together} > {apart}");
    }
}

#[test]
fn a_worked_number() {
    // 64 x 4096 x 4096: tiles of 64 x 64, k split in two: 64 tiles x 2 on 132 units, one wave.
    let step: f64 = (64.0 * 2.0 + 64.0 * 2.0) / 300e9 + 0.06e-6 / 64.0;
    let (compute, bytes): (f64, f64) = (step * 2048.0, 34_603_008.0 + 8.0 * 2.0 * 64.0 * 4096.0);
    let split = (compute.powi(4) + (bytes / (0.86 * 3.35e12)).powi(4)).powf(0.25) + 0.1875e-6 + 2.0e-6;
    // Unsplit: half the units, twice the way, nothing to reduce.
    let whole = ((2.0 * compute).powi(4) + (34_603_008.0f64 / (0.86 * 3.35e12)).powi(4)).powf(0.25) + 0.1875e-6;
    let expected = 2.8e-6 + split.min(whole);
    let measured = cost(HOPPER, 64, 4096, 4096, WeightFormat::Bf16).time_s;
    assert!((measured / expected - 1.0).abs() < 1e-9, "{measured} {expected}");
}

#[test]
fn whole_waves_where_the_tail_is_waited_for() {
    let GemmLaw::Tiled { t0_s, e_m, e_c, load_bytes_per_s, stage_s, epilogue_s, red_s, .. } = HOPPER else {
        unreachable!("a tiled law")
    };
    let with = |tail, n| {
        let law = tiled([t0_s, e_m, e_c, load_bytes_per_s, stage_s, epilogue_s, red_s, tail, 0.0]);
        cost(law, 1024, n, 8192, WeightFormat::Bf16).time_s
    };
    // 8 x 17 tiles of 128 x 128 are 1.03 waves of 132, and 16 x 34 of 64 x 64 are 4.12: either way some units wait.
    assert!(with(1.0, 2176) > 1.1 * with(0.0, 2176));
    // 16 x 33 tiles of 64 x 64 are 4 waves exactly: nothing to wait for.
    assert!((with(1.0, 2112) / with(0.0, 2112) - 1.0).abs() < 0.01);
}

#[test]
fn what_libraries_time_besides_is_in_no_step() {
    let GemmLaw::Tiled { t0_s, e_m, e_c, load_bytes_per_s, stage_s, epilogue_s, red_s, tail, .. } = HOPPER else {
        unreachable!("a tiled law")
    };
    let (quantise_s, quantise_bytes) = (12e-6, 6.0);
    let law = GemmLaw::Tiled {
        t0_s,
        e_m,
        e_c,
        load_bytes_per_s,
        stage_s,
        epilogue_s,
        red_s,
        tail,
        quantise_s,
        quantise_bytes,
    };
    let (device, calibration) = (device(), under(law));
    let machine = Machine::new(&device, &calibration, Pace::Burst);
    let op = GemmOp::new(&machine, 512, 8192, WeightFormat::Fp8, ComputeDType::Fp8).unwrap();
    let (bare, timed) = (op.cost(4096), op.as_timed(&machine).cost(4096));
    let expected = quantise_s + quantise_bytes * 4096.0 * 8192.0 / (0.86 * 3.35e12);
    assert!(((timed.time_s - bare.time_s) / expected - 1.0).abs() < 1e-6);
    assert_eq!((bare.time_s, timed.bytes), (cost(HOPPER, 4096, 512, 8192, WeightFormat::Fp8).time_s, bare.bytes));
}

#[test]
fn constants_survive_a_round_trip_and_are_refused_by_name() {
    let calibration = under(HOPPER);
    assert_eq!(Calibration::from_json(&calibration.to_json()).unwrap(), calibration);
    for (name, bad) in [
        ("e_c", 1.2),
        ("e_m", 0.0),
        ("load_bytes_per_s", 0.0),
        ("tail", 1.5),
        ("stage_s", -1e-9),
        ("e_m", 1e-320),
        ("e_c", 1e-9),
        ("t0_s", 1e308),
        ("red_s", 1.5),
        ("load_bytes_per_s", 1e-320),
        ("quantise_bytes", 1e300),
    ] {
        let path = format!("gemm.bf16.{name}");
        let refused = calibration.with_constants([(path.as_str(), bad)]).unwrap_err();
        assert!(refused.to_string().contains(&path), "{refused}");
    }
}
