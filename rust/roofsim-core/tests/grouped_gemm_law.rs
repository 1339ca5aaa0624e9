//! The grouped-GEMM laws, tiled and smooth, for all lawful constants: never under the roofline, monotone in every size; a worked
//! number.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use proptest::prelude::*;
use roofsim_core::calibration::{Calibration, GroupedGemmLaw};
use roofsim_core::format::{ComputeDType, WeightFormat};
use roofsim_core::hardware::Accelerator;
use roofsim_core::ops::moe::{GroupedGemmOp, GroupedShape};
use roofsim_core::roofline::{Machine, OpCost, Pace};

fn device() -> Accelerator {
    Accelerator::from_json(
        r#"{"name": "d", "family": "hopper", "num_compute_units": 132, "memory_bytes": 85520809984,
            "memory_bandwidth_bytes_per_s": 3.35e12, "peak_flops_per_s": {"bf16": 989e12}}"#,
    )
    .unwrap()
}

fn cost(law: GroupedGemmLaw, tokens: u64, experts: (u64, u64), n: u64, k: u64) -> OpCost {
    let (device, calibration) = (device(), Calibration { grouped_gemm: law, ..Calibration::ideal() });
    calibration.check().unwrap();
    let machine = Machine::new(&device, &calibration, Pace::Burst);
    let shape = GroupedShape {
        num_experts: experts.0,
        experts_per_token: experts.1,
        expert_ranks: 1,
        token_replicas: 1,
        n,
        k,
        format: WeightFormat::Bf16,
        dtype: ComputeDType::Bf16,
        active_experts: None,
    };
    GroupedGemmOp::new(&machine, shape).unwrap().cost(tokens)
}

prop_compose! {
    fn lawful()(
        t0 in 0.0..20e-6f64,
        (e_m, e_c, e_c_narrow, e_c_light) in (0.05..=1.0f64, 0.05..=1.0f64, 0.05..=1.0f64, 0.05..=1.0f64),
        wide_t0 in 0.0..20e-6f64,
        stage in 0.0..1e-6f64,
        epilogue in 0.0..5e-6f64,
        exposed in 0.0..=1.0f64,
        smooth in any::<bool>(),
    ) -> GroupedGemmLaw {
        if smooth {
            GroupedGemmLaw::Smooth { t0_s: t0, e_m, e_c, exposed }
        } else {
            GroupedGemmLaw::Tiled {
                t0_s: t0,
                e_m,
                e_c,
                e_c_narrow,
                e_c_light,
                wide_t0_s: wide_t0,
                stage_s: stage,
                epilogue_s: epilogue,
                exposed,
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn never_faster_for_more_work_and_never_under_the_roofline(
        law in lawful(),
        tokens in prop_oneof![1u64..70, 1u64..20_000],
        (experts, per_token) in (1u64..300).prop_flat_map(|e| (Just(e), 1..=e.min(8))),
        n in 1u64..9000,
        k in 1u64..9000,
        more in prop_oneof![Just(1u64), 1u64..2000],
    ) {
        let base = cost(law, tokens, (experts, per_token), n, k);
        prop_assert!(base.time_s >= base.ideal_s && base.time_s.is_finite());
        for (tokens, n, k) in [(tokens + more, n, k), (tokens, n + more, k), (tokens, n, k + more)] {
            let larger = cost(law, tokens, (experts, per_token), n, k).time_s;
            prop_assert!(larger >= base.time_s, "{tokens} {n} {k}: {larger} < {}", base.time_s);
        }
        if per_token < experts {
            prop_assert!(cost(law, tokens, (experts, per_token + 1), n, k).time_s >= base.time_s);
        }
    }
}

#[test]
fn a_worked_number() {
    let law = |wide_t0_s: f64| GroupedGemmLaw::Tiled {
        t0_s: 4e-6,
        e_m: 1.0,
        e_c: 1.0,
        e_c_narrow: 0.5,
        e_c_light: 0.5,
        wide_t0_s,
        stage_s: 0.064e-6,
        epilogue_s: 0.0,
        exposed: 0.25,
    };
    // 64 tokens that visit all of 8 experts: tiles of 64 rows are full on average, half a tile an expert comes on top. 12
    // rows of tiles of 64 x 17 columns of 128 are 204 tiles, two waves of 132; of 64 x 64, 396 are three; 8 of 128 x 9 of
    // 256 one. 36 rows of tiles of 16 x 17 columns of 128 are 612, five; x 33 of 64, nine. A step of k takes at least 1 ns.
    let step = |a: f64, b: f64, e: f64| -> f64 { (2.0 * a * b / (e * 989e12 / 132.0)).max(1e-9) * 4096.0 };
    let wide = [2.0 * step(64.0, 128.0, 1.0), 3.0 * step(64.0, 64.0, 1.0), step(128.0, 256.0, 1.0)];
    let light = [9.0 * step(16.0, 64.0, 0.5), 5.0 * step(16.0, 128.0, 0.5), 2.0 * step(64.0, 128.0, 0.5)];
    let memory: f64 = (8.0 * 2112.0 * 4096.0 * 2.0 + 512.0 * (4096.0 + 2112.0) * 2.0) / 3.35e12;
    let joined = |tiles: [f64; 3]| {
        let compute = tiles.into_iter().fold(f64::INFINITY, f64::min);
        (compute * compute + memory * memory + 0.5 * compute * memory).sqrt()
    };
    // The wide kernel's larger efficiency counts until it takes too long to start.
    for (wide_t0_s, expected) in [(1e-6, 5e-6 + joined(wide)), (1e-3, 4e-6 + joined(light))] {
        let time_s = cost(law(wide_t0_s), 64, (8, 8), 2112, 4096).time_s;
        assert!((time_s / expected - 1.0).abs() < 1e-9, "{time_s} {expected}");
    }
}
