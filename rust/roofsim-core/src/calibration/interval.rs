//! Error bars: how far measured times lie from predicted ones, class by class, and how bars of operations join in a step.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::arithmetic::{larger, smaller};
use crate::error::{Error, Result};
use crate::format::ComputeDType;

/// Sizes between which a class was measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasuredRange {
    /// Least and most FLOPs of a measured operation.
    pub flops: [f64; 2],
    /// Least and most bytes.
    pub bytes: [f64; 2],
}

/// Interval of a prediction t: `[t (1 - below), t (1 + above)]`, cut at the ideal time.
///
/// The two ends are quantiles of measured over predicted time on shapes that the fit did not see. Outside the range
/// that was measured both widen, up to twofold.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interval {
    /// Fraction below the prediction.
    pub below: f64,
    /// Fraction above the prediction.
    pub above: f64,
    /// Where it was measured; absent where nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<MeasuredRange>,
}

/// Bars never reach 0: a time is positive.
const WIDEST_BELOW: f64 = 0.95;

impl Interval {
    /// No width: the value of a bound is not uncertain.
    pub const NONE: Self = Self::symmetric(0.0);

    /// Symmetric, of a class without a measured range.
    pub const fn symmetric(width: f64) -> Self {
        Self { below: width, above: width, range: None }
    }

    /// The same bar `factor` times as wide.
    #[must_use]
    pub fn widened(self, factor: f64) -> Self {
        Self { below: smaller(self.below * factor, WIDEST_BELOW), above: self.above * factor, range: self.range }
    }

    /// Lower and upper end around `time_s`; the lower one never under `ideal_s`, neither beyond the prediction.
    #[inline]
    pub fn around(&self, time_s: f64, ideal_s: f64, flops: f64, bytes: f64) -> (f64, f64) {
        let widening = self.range.map_or(1.0, |range| 1.0 + range.distance(flops, bytes));
        let below = smaller(self.below * widening, WIDEST_BELOW);
        (larger(time_s * (1.0 - below), smaller(ideal_s, time_s)), time_s * (1.0 + self.above * widening))
    }

    fn check(&self, field: &str) -> Result<()> {
        if !(0.0..1.0).contains(&self.below) {
            return Err(Error::spec(format!("{field}.below"), self.below, "must be at least 0 and below 1"));
        }
        if !(self.above >= 0.0 && self.above.is_finite()) {
            return Err(Error::spec(format!("{field}.above"), self.above, "must be finite and at least 0"));
        }
        let Some(range) = self.range else { return Ok(()) };
        for (name, [least, most]) in [("flops", range.flops), ("bytes", range.bytes)] {
            if !(least >= 0.0 && least <= most && most.is_finite()) {
                let field = format!("{field}.range.{name}");
                return Err(Error::spec(field, format!("[{least}, {most}]"), "must be two rising sizes of at least 0"));
            }
        }
        Ok(())
    }
}

impl MeasuredRange {
    /// 0 inside, rising to 1 far outside: one minus the ratio between the nearest measured size and this one.
    fn distance(&self, flops: f64, bytes: f64) -> f64 {
        let apart = |x: f64, [least, most]: [f64; 2]| {
            if x > most {
                1.0 - most / x
            } else if x < least {
                1.0 - x / least
            } else {
                0.0
            }
        };
        larger(apart(flops, self.flops), apart(bytes, self.bytes))
    }
}

/// The bar of an operand type; one that was not measured has twice the widest bar of those that were.
fn of_dtype(bars: &BTreeMap<ComputeDType, Interval>, dtype: ComputeDType) -> Interval {
    let widest = |a: Interval, b: &Interval| if b.below + b.above > a.below + a.above { *b } else { a };
    match bars.get(&dtype) {
        Some(own) => *own,
        None => bars.values().fold(Interval::NONE, widest).widened(2.0),
    }
}

/// Error bars of every class of operation, and how they join.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Intervals {
    /// Stated coverage, 0.8 for 80%.
    pub coverage: f64,
    /// Correlation of the errors of different operations of a step of decodes alone: 0 where they cancel, 1 where all err
    /// together.
    pub decode_correlation: f64,
    /// The same for steps with prefill in them.
    pub prefill_correlation: f64,
    /// GEMM per operand type; a type that is not listed has twice the widest bar of those that are.
    pub gemm: BTreeMap<ComputeDType, Interval>,
    /// Attention of one new row a request.
    pub decode_attention: Interval,
    /// Attention of several new rows a request.
    pub prefill_attention: Interval,
    /// Grouped GEMM per operand type, as GEMM.
    pub grouped_gemm: BTreeMap<ComputeDType, Interval>,
    /// Element-wise.
    pub elementwise: Interval,
    /// Collectives.
    pub collective: Interval,
}

impl Intervals {
    /// Of a bound.
    pub fn none() -> Self {
        Self {
            coverage: 1.0,
            decode_correlation: 1.0,
            prefill_correlation: 1.0,
            gemm: BTreeMap::from([(ComputeDType::Bf16, Interval::NONE)]),
            decode_attention: Interval::NONE,
            prefill_attention: Interval::NONE,
            grouped_gemm: BTreeMap::from([(ComputeDType::Bf16, Interval::NONE)]),
            elementwise: Interval::NONE,
            collective: Interval::NONE,
        }
    }

    /// The bar of a GEMM.
    pub fn of_gemm(&self, dtype: ComputeDType) -> Interval {
        of_dtype(&self.gemm, dtype)
    }

    /// The bar of a grouped GEMM.
    pub fn of_grouped_gemm(&self, dtype: ComputeDType) -> Interval {
        of_dtype(&self.grouped_gemm, dtype)
    }

    /// Correlation of the errors of a step's operations, for decodes alone or not.
    pub const fn correlation(&self, decodes: bool) -> f64 {
        if decodes { self.decode_correlation } else { self.prefill_correlation }
    }

    /// All bars `factor` times as wide: what a device gets that borrows from another.
    #[must_use]
    pub fn widened(mut self, factor: f64) -> Self {
        for interval in self.gemm.values_mut().chain(self.grouped_gemm.values_mut()) {
            *interval = interval.widened(factor);
        }
        for interval in
            [&mut self.decode_attention, &mut self.prefill_attention, &mut self.elementwise, &mut self.collective]
        {
            *interval = interval.widened(factor);
        }
        self
    }

    /// Refuses bars that no prediction could have.
    pub(super) fn check(&self) -> Result<()> {
        for (name, value) in [
            ("coverage", self.coverage),
            ("decode_correlation", self.decode_correlation),
            ("prefill_correlation", self.prefill_correlation),
        ] {
            if !(0.0..=1.0).contains(&value) {
                return Err(Error::spec(format!("intervals.{name}"), value, "must be between 0 and 1"));
            }
        }
        for (class, bars) in [("gemm", &self.gemm), ("grouped_gemm", &self.grouped_gemm)] {
            for (dtype, interval) in bars {
                interval.check(&format!("intervals.{class}.{}", dtype.name()))?;
            }
        }
        let named = [
            ("decode_attention", self.decode_attention),
            ("prefill_attention", self.prefill_attention),
            ("elementwise", self.elementwise),
            ("collective", self.collective),
        ];
        named.into_iter().try_for_each(|(name, interval)| interval.check(&format!("intervals.{name}")))
    }
}
