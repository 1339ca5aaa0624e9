//! The calibrations that need no file, and which calibration a device gets by default.

use std::collections::BTreeMap;
use std::sync::OnceLock;

use super::law::{AttentionLaw, CollectiveLaw, ElementwiseLaw, GemmLaw, GroupedGemmLaw, StepLaw};
use super::{Calibration, Interval, Intervals, Joint, Provenance};
use crate::format::ComputeDType;
use crate::hardware::Accelerator;

macro_rules! in_the_catalogue {
    ($name:literal) => {
        ($name, include_str!(concat!("../../../../python/roofsim/catalog/calibrations/", $name, ".json")))
    };
}

/// The calibrations in the box, name and contents: the very files of the Python catalogue. A family without a device
/// of its own in the box takes after the first device; a device takes the profile that [`score`] likes best.
const BOX: &[(&str, &str)] = &[
    in_the_catalogue!("h100-sxm-torch"),
    in_the_catalogue!("h100-sxm-tensorrt-llm"),
    in_the_catalogue!("h100-sxm-vllm"),
    in_the_catalogue!("h100-sxm-sglang"),
    in_the_catalogue!("h200-sxm-torch"),
    in_the_catalogue!("h200-sxm-tensorrt-llm"),
    in_the_catalogue!("h200-sxm-vllm"),
    in_the_catalogue!("h200-sxm-sglang"),
    in_the_catalogue!("a100-sxm-80gb-tensorrt-llm"),
    in_the_catalogue!("a100-sxm-80gb-vllm"),
    in_the_catalogue!("a100-sxm-80gb-sglang"),
    in_the_catalogue!("l40s-tensorrt-llm"),
    in_the_catalogue!("l40s-vllm"),
    in_the_catalogue!("b200-sxm-tensorrt-llm"),
    in_the_catalogue!("b200-sxm-vllm"),
    in_the_catalogue!("b200-sxm-sglang"),
    in_the_catalogue!("gb200-tensorrt-llm"),
    in_the_catalogue!("gb200-vllm"),
    in_the_catalogue!("gb200-sglang"),
];

/// The classes that every profile of a device has, by which they compare.
const COMMON_CLASSES: [&str; 3] = ["gemm.bf16", "decode_attention.bf16", "prefill_attention.bf16"];

/// How much wider bars are on a device that borrows from another one of its family.
const SAME_FAMILY: f64 = 2.0;
/// How much wider bars are on a device whose family nobody measured.
const OTHER_FAMILY: f64 = 4.0;

pub(super) fn in_the_box() -> &'static [Calibration] {
    static PARSED: OnceLock<Vec<Calibration>> = OnceLock::new();
    PARSED.get_or_init(|| {
        // A file that does not read is passed over, so that the core never panics; a test reads all of them.
        let mut read: Vec<Calibration> = BOX.iter().filter_map(|(_, text)| Calibration::from_json(text).ok()).collect();
        let mut devices: Vec<String> = Vec::new();
        for calibration in &read {
            if !devices.contains(&calibration.provenance.device) {
                devices.push(calibration.provenance.device.clone());
            }
        }
        let place = |calibration: &Calibration| devices.iter().position(|d| *d == calibration.provenance.device);
        read.sort_by(|a, b| place(a).cmp(&place(b)).then(score(a).total_cmp(&score(b))));
        read
    })
}

/// How far off a profile is, in percent, by which the default of a device is chosen: the mean over the classes that all
/// profiles share of the mean error on unseen shapes. A point that was left out counts as wholly wrong: the profile
/// says nothing about it.
fn score(calibration: &Calibration) -> f64 {
    let class = |name: &str| match calibration.provenance.errors.get(name) {
        Some(e) if e.num_points + e.left_out > 0 => {
            (e.unseen_percent * e.num_points as f64 + 100.0 * e.left_out as f64) / (e.num_points + e.left_out) as f64
        }
        _ => 100.0,
    };
    COMMON_CLASSES.into_iter().map(class).sum::<f64>() / COMMON_CLASSES.len() as f64
}

pub(super) fn ideal() -> Calibration {
    let assumed = assumed();
    Calibration {
        name: "ideal".to_owned(),
        kernel_library: "none".to_owned(),
        gemm: BTreeMap::new(),
        attention: AttentionLaw::Roofline,
        attention_by_dtype: BTreeMap::new(),
        attention_by_kv_cache: BTreeMap::new(),
        latent_attention: BTreeMap::new(),
        grouped_gemm: GroupedGemmLaw::Roofline,
        elementwise: ElementwiseLaw::Roofline,
        collective: CollectiveLaw::Roofline,
        direct_all_reduce: None,
        step: StepLaw::IDEAL,
        power: None,
        intervals: Intervals::none(),
        provenance: Provenance {
            basis: "ideal".to_owned(),
            note: "datasheet roofline: a lower bound for cold caches, not a prediction".to_owned(),
            ..assumed.provenance
        },
    }
}

const US: f64 = 1e-6;

/// Grouped GEMM in round numbers: where fits start.
const ASSUMED_EXPERTS: GroupedGemmLaw = GroupedGemmLaw::Tiled {
    t0_s: 4.0 * US,
    e_m: 0.95,
    e_c: 0.85,
    e_c_narrow: 0.7,
    e_c_light: 0.4,
    wide_t0_s: 8.0 * US,
    stage_s: 0.1 * US,
    epilogue_s: 0.5 * US,
    exposed: 0.25,
};

/// Where every fit starts: round numbers of a recent data-centre GPU.
pub(super) fn assumed() -> Calibration {
    let tiled = GemmLaw::Tiled {
        t0_s: 3.0 * US,
        e_m: 0.86,
        e_c: 0.83,
        load_bytes_per_s: 200e9,
        stage_s: 0.04 * US,
        epilogue_s: 0.75 * US,
        red_s: 2.0 * US,
        tail: 0.1,
        quantise_s: 0.0,
        quantise_bytes: 0.0,
    };
    Calibration {
        name: "assumed".to_owned(),
        kernel_library: "torch".to_owned(),
        gemm: BTreeMap::from([(ComputeDType::Bf16, tiled)]),
        attention: AttentionLaw::Kernels {
            e_m: 0.93,
            stream_bytes_per_s: 48e9,
            crowd_s: 4.0 * US,
            crowd_heads: 2.5,
            head_s: 0.0,
            overlap: 0.8,
            pass_t0_s: 2.7 * US,
            ungrouped_t0_s: None,
            ungrouped_e_m: None,
            ungrouped_head_s: None,
            split_t0_s: 2.1 * US,
            split_c_s: 0.012 * US,
            split_rows_s: 7.5 * US,
            split_e_c: 0.33,
            tile_t0_s: 3.8 * US,
            tile_e_c: 0.85,
            tile_exp_per_s: 19e9,
            tile_start: 1.4,
            tile_spread: 0.57,
            tile_last: 0.1,
            tile_end: 0.9,
            prefix_tile_s: 5.5 * US,
            prefix_excess: None,
            split_tiles: 0.0,
            prepare_bytes: 0.0,
            latent_e_c: 0.55,
            latent_t0_s: 9.0 * US,
        },
        attention_by_dtype: BTreeMap::new(),
        attention_by_kv_cache: BTreeMap::new(),
        latent_attention: BTreeMap::new(),
        grouped_gemm: ASSUMED_EXPERTS,
        elementwise: ElementwiseLaw::Launched { launch_s: 1.8 * US, e_m: 0.87, reduce_s: 0.6 * US },
        collective: CollectiveLaw::AlphaBeta { t0_s: 6.0 * US, hop_s: 0.5 * US, e_link: 0.75 },
        direct_all_reduce: None,
        step: StepLaw {
            compute_rate: 0.97,
            memory_rate: 0.97,
            slowdown: 0.08,
            slowdown_s: 38e-3,
            dispatch_s: 12.0 * US,
            sustained_compute: 0.86,
        },
        power: None,
        intervals: Intervals {
            coverage: 0.8,
            decode_step: Joint::correlated(0.5),
            prefill_step: Joint::correlated(0.5),
            moe_decode_step: None,
            moe_prefill_step: None,
            gemm: BTreeMap::from([(ComputeDType::Bf16, Interval::symmetric(0.09))]),
            decode_attention: Interval::symmetric(0.08),
            prefill_attention: Interval::symmetric(0.08),
            latent_decode_attention: None,
            latent_prefill_attention: None,
            grouped_gemm: BTreeMap::from([(ComputeDType::Bf16, Interval::symmetric(0.15))]),
            elementwise: Interval::symmetric(0.2),
            collective: Interval::symmetric(0.32),
        },
        provenance: Provenance {
            basis: "assumed".to_owned(),
            device: String::new(),
            family: String::new(),
            memory_bandwidth_bytes_per_s: 0.0,
            num_compute_units: None,
            software: String::new(),
            date: String::new(),
            num_points: 0,
            errors: BTreeMap::new(),
            note: "round numbers that no measurement stands behind".to_owned(),
        },
    }
}

pub(super) fn default_for(accelerator: &Accelerator) -> Calibration {
    among(accelerator, |_| true)
        .unwrap_or_else(|| from_another_family(accelerator, in_the_box().first().unwrap_or(&assumed())))
}

/// Kernels of one library: the device's own, those of its family, or where nobody measured the family those of the first
/// device in the box. Where the family was measured, but with other libraries, the default stands in and says so: what
/// was measured there is nearer than what another family's kernels of that library do.
pub(super) fn of_library(accelerator: &Accelerator, library: &str) -> Calibration {
    if let Some(own) = among(accelerator, |c| c.kernel_library == library) {
        return own;
    }
    let default = default_for(accelerator);
    let of_the_library = in_the_box().iter().find(|c| c.kernel_library == library);
    if let Some(other) = of_the_library.filter(|_| among(accelerator, |_| true).is_none()) {
        return from_another_family(accelerator, other);
    }
    let note = format!(
        "{library} was not measured for the {} family: {} stands in; {}",
        accelerator.family, default.kernel_library, default.provenance.note
    );
    Calibration { provenance: Provenance { note, ..default.provenance.clone() }, ..default }
}

/// The first calibration of the device itself, else of its family, that passes.
fn among(accelerator: &Accelerator, passes: impl Fn(&Calibration) -> bool) -> Option<Calibration> {
    let measured = || in_the_box().iter().filter(|c| passes(c));
    if let Some(own) = measured().find(|c| is_measured_device(c, accelerator)) {
        return Some(own.clone());
    }
    let relative = measured().find(|c| c.provenance.family == accelerator.family)?;
    let note = format!("constants of the {}, same family, fixed times included", relative.provenance.device);
    Some(borrowed(accelerator, relative, SAME_FAMILY, &note))
}

/// A name alone proves nothing: the datasheet must be the measured device's too.
fn is_measured_device(calibration: &Calibration, accelerator: &Accelerator) -> bool {
    let p = &calibration.provenance;
    let bandwidth = p.memory_bandwidth_bytes_per_s / accelerator.memory_bandwidth_bytes_per_s;
    p.device == accelerator.name
        && p.family == accelerator.family
        && p.num_compute_units == accelerator.num_compute_units
        && (bandwidth - 1.0).abs() < 0.02
}

fn borrowed(accelerator: &Accelerator, from: &Calibration, widening: f64, note: &str) -> Calibration {
    Calibration {
        name: format!("{}/{}/borrowed", accelerator.name, from.kernel_library),
        power: None,
        // What is wrong with borrowed constants is wrong in every operation alike.
        intervals: from.intervals.clone().borrowed(widening),
        provenance: Provenance {
            basis: "borrowed".to_owned(),
            num_points: 0,
            errors: BTreeMap::new(),
            note: note.to_owned(),
            ..from.provenance.clone()
        },
        ..from.clone()
    }
}

/// Tile sizes, split-k and the load ceiling are one architecture's own: elsewhere smooth laws stand in for them, and a
/// device's compute units, which may be streaming multiprocessors or whole systolic arrays, do not count.
fn from_another_family(accelerator: &Accelerator, from: &Calibration) -> Calibration {
    let note = format!(
        "nobody measured the {} family: efficiencies of the {} are borrowed, bars are four times as wide",
        accelerator.family, from.provenance.device
    );
    let mut calibration = borrowed(accelerator, from, OTHER_FAMILY, &note);
    calibration.gemm =
        BTreeMap::from([(ComputeDType::Bf16, GemmLaw::Smooth { t0_s: 3.75 * US, e_c: 0.73, e_m: 0.875 })]);
    calibration.grouped_gemm = GroupedGemmLaw::Smooth { t0_s: 4.5 * US, e_m: 0.875, e_c: 0.73, exposed: 0.45 };
    // Without tiles one kernel stands for prefill too, which reaches more than a split KV axis does.
    if let AttentionLaw::Kernels { split_e_c, .. } = &mut calibration.attention {
        *split_e_c = 0.68;
    }
    calibration
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_calibration_in_the_box_reads_and_says_what_it_measured() {
        for (name, text) in BOX {
            let calibration = Calibration::from_json(text);
            assert!(calibration.is_ok(), "{name}: {calibration:?}");
            let Ok(read) = calibration else { continue };
            assert_eq!(format!("{}-{}", read.provenance.device, read.kernel_library), *name);
            let basis = if read.kernel_library == "torch" { "measured" } else { "published" };
            assert_eq!(read.provenance.basis, basis);
            assert!(read.provenance.num_points > 0);
        }
        assert_eq!(in_the_box().len(), BOX.len());
    }

    #[test]
    fn the_default_of_a_device_is_the_profile_that_is_least_far_off() {
        for calibration in in_the_box() {
            let same_device = |c: &&Calibration| c.provenance.device == calibration.provenance.device;
            let first = in_the_box().iter().find(same_device);
            assert!(first.is_some_and(|first| score(first) <= score(calibration)), "{}", calibration.name);
        }
    }

    #[test]
    fn what_is_assumed_is_lawful() {
        assert!(assumed().check().is_ok());
        assert!(ideal().check().is_ok());
    }
}
