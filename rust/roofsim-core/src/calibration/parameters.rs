//! The constants of every law: their units, their lawful values and what they mean; and a view of a calibration in
//! which each constant has a dotted path, such as `gemm.bf16.e_m`.
//!
//! The table is what a calibration file is checked against and what a fit walks over. A law whose constant is not in
//! it is refused, so that no constant goes unchecked.

use serde_json::Value;

use super::Calibration;
use crate::error::{Error, Result};

/// The largest slowdown: one step then costs at most 1.4% of its arithmetic more than its two halves do.
pub(super) const SLIGHT: f64 = 0.08;

/// The least efficiency: under it times run off to infinity.
const LEAST_EFFICIENCY: f64 = 1e-6;
/// The longest time that a constant may be, seconds.
const LONGEST_S: f64 = 1.0;
/// The largest overhead that is not a time.
const MOST: f64 = 1e6;
/// The slowest and the fastest rate, and the least and the most of other scales.
const LEAST_RATE: f64 = 1e-9;
const MOST_RATE: f64 = 1e18;

/// Which values a constant may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Domain {
    /// From a millionth to 1: what keeps calibrated time at or above ideal time, and finite.
    Efficiency,
    /// From 0 to 1.
    Fraction,
    /// From 0 to 0.08.
    Slight,
    /// At least 0: overheads, of at most [`MOST`].
    NonNegative,
    /// Rates and scales between [`LEAST_RATE`] and [`MOST_RATE`].
    Positive,
}

impl Domain {
    /// Whether a value lies in it.
    pub fn holds(self, value: f64) -> bool {
        match self {
            Self::Efficiency => (LEAST_EFFICIENCY..=1.0).contains(&value),
            Self::Fraction => (0.0..=1.0).contains(&value),
            Self::Slight => (0.0..=SLIGHT).contains(&value),
            Self::NonNegative => (0.0..=MOST).contains(&value),
            Self::Positive => (LEAST_RATE..=MOST_RATE).contains(&value),
        }
    }

    /// The rule in words.
    pub const fn rule(self) -> &'static str {
        match self {
            Self::Efficiency => "must be between 0.000001 and 1",
            Self::Fraction => "must be between 0 and 1",
            Self::Slight => "must be between 0 and 0.08",
            Self::NonNegative => "must be between 0 and 1e6",
            Self::Positive => "must be between 1e-9 and 1e18",
        }
    }

    /// Its name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Efficiency => "efficiency",
            Self::Fraction => "fraction",
            Self::Slight => "slight",
            Self::NonNegative => "non_negative",
            Self::Positive => "positive",
        }
    }
}

/// A constant of a law.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameter {
    /// Section of a calibration file: `gemm`, `attention`, `grouped_gemm`, `elementwise`, `collective`,
    /// `direct_all_reduce` or `step`.
    pub class: &'static str,
    /// Law within the class.
    pub law: &'static str,
    /// Name in the file.
    pub name: &'static str,
    /// Unit; `1` for a pure number.
    pub unit: &'static str,
    /// Lawful values.
    pub domain: Domain,
    /// What it is.
    pub meaning: &'static str,
}

const fn parameter(
    class: &'static str,
    law: &'static str,
    name: &'static str,
    unit: &'static str,
    domain: Domain,
    meaning: &'static str,
) -> Parameter {
    Parameter { class, law, name, unit, domain, meaning }
}

impl Parameter {
    /// The rule that a value breaks, if any: that of its domain, or the longest time.
    pub fn broken_by(&self, value: f64) -> Option<&'static str> {
        if !self.domain.holds(value) {
            return Some(self.domain.rule());
        }
        (self.unit == "s" && value > LONGEST_S).then_some("must be at most 1 s")
    }
}

use Domain::{Efficiency, Fraction, NonNegative, Positive, Slight};

/// Every constant of every law.
pub const PARAMETERS: &[Parameter] = &[
    parameter("gemm", "smooth", "t0_s", "s", NonNegative, "fixed time"),
    parameter("gemm", "smooth", "e_c", "1", Efficiency, "compute efficiency"),
    parameter("gemm", "smooth", "e_m", "1", Efficiency, "memory efficiency"),
    parameter("gemm", "tiled", "t0_s", "s", NonNegative, "fixed time"),
    parameter("gemm", "tiled", "e_m", "1", Efficiency, "memory efficiency"),
    parameter("gemm", "tiled", "e_c", "1", Efficiency, "matrix-unit efficiency inside a tile"),
    parameter("gemm", "tiled", "load_bytes_per_s", "bytes/s", Positive, "operand bytes one compute unit loads"),
    parameter("gemm", "tiled", "stage_s", "s", NonNegative, "least time of 64 elements of k in a tile"),
    parameter("gemm", "tiled", "epilogue_s", "s", NonNegative, "time in which a unit writes 128 x 128 outputs"),
    parameter("gemm", "tiled", "red_s", "s", NonNegative, "time to reduce the partial sums of split-k"),
    parameter("gemm", "tiled", "tail", "1", Fraction, "share of a partly filled last wave that is waited for"),
    parameter("gemm", "tiled", "quantise_s", "s", NonNegative, "as timed by the library: fixed time of quantising"),
    parameter("gemm", "tiled", "quantise_bytes", "bytes", NonNegative, "as timed: traffic of quantising an element"),
    parameter("attention", "kernels", "e_m", "1", Efficiency, "memory efficiency"),
    parameter(
        "attention",
        "kernels",
        "stream_bytes_per_s",
        "bytes/s",
        Positive,
        "keys and values one compute unit streams",
    ),
    parameter("attention", "kernels", "crowd_s", "s", NonNegative, "what a launch over very many KV heads takes more"),
    parameter("attention", "kernels", "crowd_heads", "1", Positive, "KV heads per compute unit at half of crowd_s"),
    parameter("attention", "kernels", "head_s", "s", NonNegative, "what a unit spends on a KV head besides arithmetic"),
    parameter("attention", "kernels", "overlap", "1", Fraction, "share of memory and units' time that is waited for"),
    parameter("attention", "kernels", "ungrouped_t0_s", "s", NonNegative, "pass_t0_s of one query head a KV head"),
    parameter(
        "attention",
        "kernels",
        "ungrouped_e_m",
        "1",
        Efficiency,
        "memory efficiency of one query head a KV head",
    ),
    parameter("attention", "kernels", "ungrouped_head_s", "s", NonNegative, "head_s of one query head a KV head"),
    parameter(
        "attention",
        "kernels",
        "pass_t0_s",
        "s",
        NonNegative,
        "fixed time of a pass by packed rows, and of every launch",
    ),
    parameter(
        "attention",
        "kernels",
        "split_t0_s",
        "s",
        NonNegative,
        "split KV axis: time that combining the parts adds",
    ),
    parameter(
        "attention",
        "kernels",
        "split_c_s",
        "s",
        NonNegative,
        "split KV axis: time per square root of the context",
    ),
    parameter(
        "attention",
        "kernels",
        "split_rows_s",
        "s",
        NonNegative,
        "split KV axis: time to combine the parts of tiles of 128 rows",
    ),
    parameter("attention", "kernels", "split_e_c", "1", Efficiency, "split KV axis: compute efficiency"),
    parameter("attention", "kernels", "tile_t0_s", "s", NonNegative, "query tiles: fixed time"),
    parameter(
        "attention",
        "kernels",
        "tile_e_c",
        "1",
        Efficiency,
        "query tiles: efficiency of the products of a block",
    ),
    parameter(
        "attention",
        "kernels",
        "tile_exp_per_s",
        "1/s",
        Positive,
        "query tiles: exponentials of one compute unit",
    ),
    parameter(
        "attention",
        "kernels",
        "tile_start",
        "1",
        NonNegative,
        "query tiles: blocks that a tile's start and end are worth",
    ),
    parameter(
        "attention",
        "kernels",
        "tile_spread",
        "1",
        Fraction,
        "query tiles: share of longest less shortest tile in the tail",
    ),
    parameter("attention", "kernels", "tile_last", "1", Fraction, "query tiles: share of the longest tile in the tail"),
    parameter(
        "attention",
        "kernels",
        "tile_end",
        "1",
        NonNegative,
        "query tiles: blocks that writing the last tiles is worth",
    ),
    parameter(
        "attention",
        "kernels",
        "prefix_tile_s",
        "s",
        NonNegative,
        "query tiles: time of a unit to merge a tile with its cached prefix",
    ),
    parameter(
        "attention",
        "kernels",
        "prefix_excess",
        "1",
        Fraction,
        "query tiles: excess of blocks that take a cached prefix in one launch",
    ),
    parameter(
        "attention",
        "kernels",
        "split_tiles",
        "1",
        Fraction,
        "rate of whole tiles of packed rows over query tiles",
    ),
    parameter(
        "attention",
        "kernels",
        "prepare_bytes",
        "bytes",
        NonNegative,
        "query tiles: traffic of rotating and storing an element before",
    ),
    parameter("attention", "kernels", "latent_e_c", "1", Efficiency, "latent attention, absorbed: compute efficiency"),
    parameter("attention", "kernels", "latent_t0_s", "s", NonNegative, "latent attention: fixed time of its launches"),
    parameter("grouped_gemm", "smooth", "t0_s", "s", NonNegative, "fixed time"),
    parameter("grouped_gemm", "smooth", "e_m", "1", Efficiency, "memory efficiency"),
    parameter("grouped_gemm", "smooth", "e_c", "1", Efficiency, "compute efficiency"),
    parameter("grouped_gemm", "smooth", "exposed", "1", Fraction, "how little arithmetic and traffic hide each other"),
    parameter("grouped_gemm", "tiled", "t0_s", "s", NonNegative, "fixed time"),
    parameter("grouped_gemm", "tiled", "e_m", "1", Efficiency, "memory efficiency"),
    parameter(
        "grouped_gemm",
        "tiled",
        "e_c",
        "1",
        Efficiency,
        "wide kernel: matrix-unit efficiency inside a tile, 16 bits and more",
    ),
    parameter(
        "grouped_gemm",
        "tiled",
        "e_c_narrow",
        "1",
        Efficiency,
        "wide kernel: matrix-unit efficiency inside a tile, below 16 bits",
    ),
    parameter(
        "grouped_gemm",
        "tiled",
        "e_c_light",
        "1",
        Efficiency,
        "light kernel: matrix-unit efficiency inside a tile",
    ),
    parameter("grouped_gemm", "tiled", "wide_t0_s", "s", NonNegative, "what the wide kernel takes more to start"),
    parameter("grouped_gemm", "tiled", "stage_s", "s", NonNegative, "least time of 64 elements of k in a tile"),
    parameter("grouped_gemm", "tiled", "epilogue_s", "s", NonNegative, "time in which a unit writes 128 x 128 outputs"),
    parameter("grouped_gemm", "tiled", "exposed", "1", Fraction, "how little arithmetic and traffic hide each other"),
    parameter("elementwise", "launched", "launch_s", "s", NonNegative, "time of one kernel inside a captured graph"),
    parameter("elementwise", "launched", "e_m", "1", Efficiency, "memory efficiency"),
    parameter(
        "elementwise",
        "launched",
        "reduce_s",
        "s",
        NonNegative,
        "time in which a row of 4096 elements is reduced",
    ),
    parameter("collective", "alpha_beta", "t0_s", "s", NonNegative, "fixed time"),
    parameter("collective", "alpha_beta", "hop_s", "s", NonNegative, "time of one hop beyond the link's latency"),
    parameter("collective", "alpha_beta", "e_link", "1", Efficiency, "link efficiency"),
    parameter("collective", "pipelined", "t0_s", "s", NonNegative, "fixed time"),
    parameter("collective", "pipelined", "hop_s", "s", NonNegative, "time of one hop beyond the link's latency"),
    parameter("collective", "pipelined", "e_link", "1", Efficiency, "link efficiency"),
    parameter("collective", "pipelined", "own", "1", Fraction, "weight of a rank's own part, copied and not sent"),
    parameter(
        "collective",
        "pipelined",
        "pipe_s",
        "s",
        NonNegative,
        "transfer that takes as long as filling its pipeline",
    ),
    parameter("collective", "pipelined", "e_switch", "1", Fraction, "link efficiency of a reduction in the switch"),
    parameter(
        "collective",
        "pipelined",
        "graph_s",
        "s",
        NonNegative,
        "time of a call replayed from a graph beyond one of the library's own loop",
    ),
    parameter("direct_all_reduce", "", "t0_s", "s", NonNegative, "fixed time"),
    parameter("direct_all_reduce", "", "hop_s", "s", NonNegative, "time of each peer"),
    parameter("direct_all_reduce", "", "e_link", "1", Efficiency, "link efficiency"),
    parameter("direct_all_reduce", "", "sync_s", "s", NonNegative, "time of the second meeting of all ranks"),
    parameter("step", "", "compute_rate", "1", Efficiency, "compute rate inside a step over that of kernels alone"),
    parameter("step", "", "memory_rate", "1", Efficiency, "memory rate inside a step over that of kernels alone"),
    parameter("step", "", "slowdown", "1", Slight, "share of its arithmetic that a very long step takes more"),
    parameter("step", "", "slowdown_s", "s", Positive, "arithmetic at the peak at which half of slowdown is reached"),
    parameter("step", "", "dispatch_s", "s", NonNegative, "time to sort the tokens of a batch by expert"),
    parameter("step", "", "sustained_compute", "1", Efficiency, "compute rate of unbroken load over kernels alone"),
];

/// Sections of a calibration file that hold laws, and whose laws.
const LAW_SECTIONS: [(&str, &str); 10] = [
    ("gemm", "gemm"),
    ("attention", "attention"),
    ("attention_by_dtype", "attention"),
    ("attention_by_kv_cache", "attention"),
    ("latent_attention", "attention"),
    ("grouped_gemm", "grouped_gemm"),
    ("elementwise", "elementwise"),
    ("collective", "collective"),
    ("direct_all_reduce", "direct_all_reduce"),
    ("step", "step"),
];

/// One constant of a calibration: where it stands, what it is, its value.
#[derive(Debug, Clone, PartialEq)]
pub struct Constant {
    /// Dotted path, `gemm.bf16.e_m`.
    pub path: String,
    /// Value in its unit.
    pub value: f64,
    /// What it is.
    pub parameter: &'static Parameter,
}

impl Calibration {
    /// Every constant with its path, in the order of the file.
    ///
    /// An error where a law holds a constant that [`PARAMETERS`] does not list.
    pub fn constants(&self) -> Result<Vec<Constant>> {
        let tree = self.tree();
        let mut found = Vec::new();
        for (section, class) in LAW_SECTIONS {
            if let Some(node) = tree.get(section) {
                collect(class, "", section.to_owned(), node, &mut found)?;
            }
        }
        Ok(found)
    }

    /// The same calibration with some constants replaced, by path.
    ///
    /// An error names the path where nothing stands there, or the constant that its law refuses.
    pub fn with_constants<'a>(&self, values: impl IntoIterator<Item = (&'a str, f64)>) -> Result<Self> {
        let mut tree = self.tree();
        for (path, value) in values {
            let place = tree.pointer_mut(&format!("/{}", path.replace('.', "/")));
            let Some(place) = place.filter(|place| place.is_number()) else {
                return Err(Error::spec(path, value, "must be the path of a constant of this calibration"));
            };
            // What JSON cannot hold (NaN, infinity) is refused here, by name.
            let Some(number) = serde_json::Number::from_f64(value) else {
                return Err(Error::spec(path, value, "must be finite"));
            };
            *place = Value::Number(number);
        }
        let changed: Self = serde_json::from_value(tree)
            .map_err(|error| Error::spec("calibration", &self.name, format!("not a calibration: {error}")))?;
        changed.check()?;
        Ok(changed)
    }

    fn tree(&self) -> Value {
        serde_json::to_value(self).unwrap_or_default()
    }
}

/// Walks one section; the nearest enclosing object with a `law` says whose constants they are.
fn collect(class: &str, law: &str, path: String, node: &Value, found: &mut Vec<Constant>) -> Result<()> {
    match node {
        Value::Object(fields) => {
            let law = fields.get("law").and_then(Value::as_str).unwrap_or(law);
            for (name, field) in fields {
                collect(class, law, format!("{path}.{name}"), field, found)?;
            }
            Ok(())
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                collect(class, law, format!("{path}.{index}"), item, found)?;
            }
            Ok(())
        }
        Value::Number(number) => {
            let value = number.as_f64().unwrap_or(f64::NAN);
            let named = |p: &&Parameter| p.class == class && p.law == law && path.split('.').any(|part| part == p.name);
            match PARAMETERS.iter().find(named) {
                Some(parameter) => {
                    found.push(Constant { path, value, parameter });
                    Ok(())
                }
                None => Err(Error::spec(path, value, format!("the {law} law has no such constant"))),
            }
        }
        _ => Ok(()),
    }
}
