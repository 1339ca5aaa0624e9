//! What a calibrated step adds to the sum of its operations: the falling clock, dispatch to experts, unbroken load.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

use roofsim_core::calibration::{Calibration, StepLaw};
use roofsim_core::ops::SlowdownOp;

fn law() -> StepLaw {
    StepLaw { slowdown: 0.08, slowdown_s: 0.038, ..StepLaw::IDEAL }
}

fn seconds(rows: u64) -> f64 {
    SlowdownOp::new(&law(), 1.3e-5).unwrap().cost(rows).time_s
}

#[test]
fn the_slowdown_is_its_formula_and_grows_with_every_row() {
    for rows in [1, 7, 512, 8192, 100_000] {
        let work = rows as f64 * 1.3e-5;
        let expected = 0.08 * work * work / (work + 0.038);
        assert!((seconds(rows) / expected - 1.0).abs() < 1e-9, "{rows}");
    }
    assert!((1..20_000).all(|rows| seconds(rows) <= seconds(rows + 1)));
    assert!(SlowdownOp::new(&StepLaw::IDEAL, 1.3e-5).is_none());
}

#[test]
fn one_step_costs_at_most_a_seventieth_of_its_arithmetic_more_than_two() {
    for one in [1, 100, 1000, 3000, 10_000_u64] {
        for other in [1, 100, 1000, 3000, 10_000] {
            let excess = seconds(one + other) - seconds(one) - seconds(other);
            assert!(excess <= 0.0143 * (one + other) as f64 * 1.3e-5, "{one} and {other}");
        }
    }
}

#[test]
fn a_slowdown_beyond_its_limit_is_refused_by_name() {
    let error = Calibration::assumed().with_constants([("step.slowdown", 0.081)]);
    let Err(error) = error else { panic!("must be refused") };
    assert!(error.to_string().contains("step.slowdown"), "{error}");
}

#[test]
fn unbroken_load_runs_at_its_own_rate_without_the_slowdown() {
    let short = Calibration::assumed();
    let long = short.sustained();
    assert_eq!(long.step.compute_rate.to_bits(), short.step.sustained_compute.to_bits());
    assert_eq!(long.step.slowdown.to_bits(), 0.0_f64.to_bits());
    assert_eq!(long.step.memory_rate.to_bits(), short.step.memory_rate.to_bits());
    assert_eq!((long.gemm, long.attention), (short.gemm, short.attention));
}
