//! The tiled grouped-GEMM law, for all lawful constants: never under the roofline, monotone in every size; one expert
//! is a dense product.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::collections::BTreeMap;

use proptest::prelude::*;
use roofsim_core::calibration::{Calibration, GemmLaw, GroupedGemmLaw};
use roofsim_core::format::{ComputeDType, WeightFormat};
use roofsim_core::hardware::Accelerator;
use roofsim_core::ops::gemm::GemmOp;
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
        (e_m, e_c) in (0.05..=1.0f64, 0.05..=1.0f64),
        load in 1e9..1e13f64,
        stage in 0.0..1e-6f64,
        epilogue in 0.0..5e-6f64,
        tail in 0.0..=1.0f64,
    ) -> GroupedGemmLaw {
        GroupedGemmLaw::Tiled {
            t0_s: t0,
            e_m,
            e_c,
            load_bytes_per_s: load,
            stage_s: stage,
            epilogue_s: epilogue,
            tail,
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
fn one_expert_costs_what_a_dense_product_does() {
    let (t0_s, e_m, e_c, load_bytes_per_s) = (3e-6, 0.86, 0.8, 300e9);
    let (stage_s, epilogue_s, tail) = (0.06e-6, 0.7e-6, 0.0);
    let grouped = GroupedGemmLaw::Tiled { t0_s, e_m, e_c, load_bytes_per_s, stage_s, epilogue_s, tail };
    // A split that costs a second is never taken.
    let dense =
        GemmLaw::Tiled { t0_s, e_m, e_c, load_bytes_per_s, stage_s, epilogue_s, red_s: 1.0, tail, quantise_bytes: 0.0 };
    let calibration = Calibration { gemm: BTreeMap::from([(ComputeDType::Bf16, dense)]), ..Calibration::ideal() };
    let device = device();
    let machine = Machine::new(&device, &calibration, Pace::Burst);
    let op = GemmOp::new(&machine, 4096, 4096, WeightFormat::Bf16, ComputeDType::Bf16).unwrap();
    // One row: the same single tile of one row. Many: apart by the half tile that routing leaves empty.
    assert!((cost(grouped, 1, (1, 1), 4096, 4096).time_s / op.cost(1).time_s - 1.0).abs() < 1e-12);
    assert!((cost(grouped, 8192, (1, 1), 4096, 4096).time_s / op.cost(8192).time_s - 1.0).abs() < 0.02);
}
