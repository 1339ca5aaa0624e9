//! The calibrations that need no file: the ideal one and the prototype constants that stand in until a device is fitted.

use std::collections::BTreeMap;

use super::law::{AttentionLaw, CollectiveLaw, ElementwiseLaw, GemmLaw, GroupedGemmLaw};
use super::{Calibration, Interval, Intervals, Provenance};
use crate::format::ComputeDType;
use crate::hardware::Accelerator;

pub(super) fn ideal() -> Calibration {
    Calibration {
        name: "ideal".to_owned(),
        kernel_library: "none".to_owned(),
        gemm: BTreeMap::new(),
        attention: AttentionLaw::Roofline,
        grouped_gemm: GroupedGemmLaw::Roofline,
        elementwise: ElementwiseLaw::Roofline,
        collective: CollectiveLaw::Roofline,
        sustained_compute: 1.0,
        sustained_memory: 1.0,
        intervals: Intervals {
            coverage: 1.0,
            gemm: Interval::NONE,
            attention: Interval::NONE,
            grouped_gemm: Interval::NONE,
            elementwise: Interval::NONE,
            collective: Interval::NONE,
        },
        provenance: Provenance {
            basis: "ideal".to_owned(),
            device: String::new(),
            software: String::new(),
            date: String::new(),
            num_points: 0,
            note: "datasheet roofline: a lower bound for cold caches, not a prediction".to_owned(),
        },
    }
}

const US: f64 = 1e-6;

struct Constants {
    device: &'static str,
    bf16: GemmLaw,
    fp8: GemmLaw,
    attention: AttentionLaw,
    sustained_memory: f64,
    sustained_compute: f64,
}

/// H100 SXM, torch 2.11 kernels.
const H100: Constants = Constants {
    device: "h100-sxm",
    bf16: GemmLaw::Tiled {
        t0_s: 2.03 * US,
        e_m: 0.867,
        e_tile: 1.204,
        half: 5616.0,
        tau_s: 0.86 * US,
        red_s: 2.41 * US,
        e_p: 0.727,
    },
    fp8: GemmLaw::Tiled {
        t0_s: 2.13 * US,
        e_m: 0.856,
        e_tile: 0.83,
        half: 1429.0,
        tau_s: 1.16 * US,
        red_s: 2.0 * US,
        e_p: 0.648,
    },
    attention: AttentionLaw::Kernels {
        tile_t0_s: 4.10 * US,
        tile_e_c: 0.682,
        tile_tau_s: 1.92 * US,
        tile_tail: 0.556,
        split_t0_s: 6.78 * US,
        split_e_c: 0.682,
        split_c_s: 0.090 * US,
        e_m: 0.944,
    },
    sustained_memory: 0.968,
    sustained_compute: 0.939,
};

/// H200 SXM, torch 2.11 kernels.
const H200: Constants = Constants {
    device: "h200-sxm",
    bf16: GemmLaw::Tiled {
        t0_s: 2.79 * US,
        e_m: 0.907,
        e_tile: 0.972,
        half: 3284.0,
        tau_s: 0.31 * US,
        red_s: 2.80 * US,
        e_p: 0.705,
    },
    fp8: GemmLaw::Tiled {
        t0_s: 2.65 * US,
        e_m: 0.874,
        e_tile: 1.436,
        half: 6827.0,
        tau_s: 0.67 * US,
        red_s: 3.85 * US,
        e_p: 0.640,
    },
    attention: AttentionLaw::Kernels {
        tile_t0_s: 4.24 * US,
        tile_e_c: 0.688,
        tile_tau_s: 1.78 * US,
        tile_tail: 0.625,
        split_t0_s: 6.77 * US,
        split_e_c: 0.688,
        split_c_s: 0.093 * US,
        e_m: 0.985,
    },
    sustained_memory: 0.922,
    sustained_compute: 0.960,
};

/// The smooth law for devices whose kernels nobody timed.
const GENERIC_GEMM: GemmLaw = GemmLaw::Smooth { t0_s: 3.75 * US, e_c: 0.73, e_m: 0.875 };

pub(super) fn default_for(accelerator: &Accelerator) -> Calibration {
    let name = accelerator.name.as_str();
    // A name alone proves nothing: the datasheet must be the measured device's too.
    let is = |bandwidth: f64| {
        accelerator.num_compute_units == Some(132)
            && (accelerator.memory_bandwidth_bytes_per_s / bandwidth - 1.0).abs() < 0.02
    };
    match (name, accelerator.family.as_str()) {
        ("h100-sxm", "hopper") if is(3.35e12) => prototype(name, &H100, "prototype", 1.0, ""),
        ("h200-sxm", "hopper") if is(4.8e12) => prototype(name, &H200, "prototype", 1.0, ""),
        (_, "hopper") => {
            prototype(name, &H100, "borrowed", 2.0, "constants of the H100 SXM, same family, fixed times included")
        }
        _ => generic(name, accelerator),
    }
}

fn prototype(name: &str, c: &Constants, basis: &str, widen: f64, note: &str) -> Calibration {
    let gemm = BTreeMap::from([
        (ComputeDType::Bf16, c.bf16),
        (ComputeDType::Fp16, c.bf16),
        (ComputeDType::Fp8, c.fp8),
        (ComputeDType::Int8, c.fp8),
    ]);
    let source = "GEMM, attention and grouped GEMM: early measurements of torch 2.11 kernels, not yet refitted by this validator; \
                  element-wise and collective constants are assumed";
    let note = if note.is_empty() { source.to_owned() } else { format!("{note}; {source}") };
    Calibration {
        name: format!("{name}/torch/{basis}"),
        kernel_library: "torch".to_owned(),
        gemm,
        attention: c.attention,
        grouped_gemm: GroupedGemmLaw::Loaded {
            t0_s: 10.9 * US,
            e_m: 0.9,
            load_bytes_per_flop: 3.22e12 / 989e12,
            e_tile: 0.72,
        },
        elementwise: ElementwiseLaw::Launched { launch_s: 2.1 * US, e_m: 0.85 },
        collective: CollectiveLaw::AlphaBeta { t0_s: 6.0 * US, hop_s: 0.5 * US, e_link: 0.75 },
        sustained_compute: c.sustained_compute,
        sustained_memory: c.sustained_memory,
        intervals: intervals(widen),
        provenance: Provenance {
            basis: basis.to_owned(),
            device: c.device.to_owned(),
            software: "torch 2.11, CUDA 13.0".to_owned(),
            date: "2026-11".to_owned(),
            num_points: 0,
            note,
        },
    }
}

/// 80% bars from the mean errors of the prototype (about 5% GEMM, 4.5% attention, 8% grouped GEMM): 1.6 times the mean
/// absolute error covers 80% of a Laplace distribution.
fn intervals(widen: f64) -> Intervals {
    let bar = |mean_error: f64| Interval::symmetric((1.6 * mean_error * widen).min(0.9));
    Intervals {
        coverage: 0.8,
        gemm: bar(0.055),
        attention: bar(0.05),
        grouped_gemm: bar(0.09),
        elementwise: bar(0.12),
        collective: bar(0.20),
    }
}

fn generic(name: &str, accelerator: &Accelerator) -> Calibration {
    let note = format!(
        "nobody measured the {} family here: Hopper's efficiencies are borrowed, bars are up to four times wider",
        accelerator.family
    );
    let mut calibration = prototype(name, &H100, "borrowed", 4.0, &note);
    calibration.gemm = BTreeMap::from([(ComputeDType::Bf16, GENERIC_GEMM)]);
    // The load ceiling is Hopper's own: elsewhere only the memory limits the loads of experts.
    calibration.grouped_gemm =
        GroupedGemmLaw::Loaded { t0_s: 10.9 * US, e_m: 0.9, load_bytes_per_flop: 1.0, e_tile: 0.72 };
    calibration
}
