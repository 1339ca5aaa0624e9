//! Error bars: how far measured times lie from predicted ones, class by class, and how bars of operations join in a step.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::arithmetic::{larger, smaller};
use crate::error::{Error, Result};
use crate::format::ComputeDType;

/// The largest part of a half-width: a thousand times the prediction, or a thousand seconds.
const WIDEST: f64 = 1000.0;

/// Sizes between which a class was measured.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MeasuredRange {
    /// Least and most FLOPs of a measured operation.
    pub flops: [f64; 2],
    /// Least and most bytes.
    pub bytes: [f64; 2],
}

/// Half of an interval: a sum of parts, each with a meaning of its own.
///
/// Every part of an upper half grows with the operation, and the lower half never faster than the time: that is what
/// keeps both ends monotone where time is. A file may give the share alone, as a number.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[serde(from = "WrittenWidth", into = "WrittenWidth")]
pub struct Width {
    /// Share of the predicted time.
    pub share: f64,
    /// Share of the time above the bare roofline: lower halves only.
    pub excess: f64,
    /// Share of the shorter of both roofline times, whose overlap with the longer one is uncertain: upper halves only.
    pub overlap: f64,
    /// Seconds, whatever the size.
    pub fixed_s: f64,
    /// Share of the time of matrices whose outputs or inputs are no multiple of [`ALIGNMENT`].
    pub unaligned: f64,
    /// Share of the time of matrices of at most [`NARROW`] outputs or inputs, in inverse proportion to them beyond.
    pub narrow: f64,
}

/// Outputs and inputs that kernels of matrix products are tuned for come in multiples of it.
const ALIGNMENT: u64 = 128;
/// Outputs or inputs of a narrow matrix.
const NARROW: f64 = 256.0;
/// Lower ends never reach 0: a time is positive.
const WIDEST_BELOW: f64 = 0.95;

/// A width in a file.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum WrittenWidth {
    Share(f64),
    Parts(WidthParts),
}

/// The parts of a width by name; those that are 0 are not written.
#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct WidthParts {
    #[serde(skip_serializing_if = "is_zero")]
    share: f64,
    #[serde(skip_serializing_if = "is_zero")]
    excess: f64,
    #[serde(skip_serializing_if = "is_zero")]
    overlap: f64,
    #[serde(skip_serializing_if = "is_zero")]
    fixed_s: f64,
    #[serde(skip_serializing_if = "is_zero")]
    unaligned: f64,
    #[serde(skip_serializing_if = "is_zero")]
    narrow: f64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(x: &f64) -> bool {
    *x == 0.0
}

impl From<WrittenWidth> for Width {
    fn from(written: WrittenWidth) -> Self {
        match written {
            WrittenWidth::Share(share) => Self::of_share(share),
            WrittenWidth::Parts(WidthParts { share, excess, overlap, fixed_s, unaligned, narrow }) => {
                Self { share, excess, overlap, fixed_s, unaligned, narrow }
            }
        }
    }
}

impl From<Width> for WrittenWidth {
    fn from(width: Width) -> Self {
        if width == Width::of_share(width.share) {
            return Self::Share(width.share);
        }
        let Width { share, excess, overlap, fixed_s, unaligned, narrow } = width;
        Self::Parts(WidthParts { share, excess, overlap, fixed_s, unaligned, narrow })
    }
}

impl Width {
    /// A share of the predicted time and nothing else.
    pub const fn of_share(share: f64) -> Self {
        Self { share, excess: 0.0, overlap: 0.0, fixed_s: 0.0, unaligned: 0.0, narrow: 0.0 }
    }

    const fn parts(&self) -> [(&'static str, f64); 6] {
        [
            ("share", self.share),
            ("excess", self.excess),
            ("overlap", self.overlap),
            ("fixed_s", self.fixed_s),
            ("unaligned", self.unaligned),
            ("narrow", self.narrow),
        ]
    }

    /// The largest share of the time that it can reach but for the fixed seconds.
    fn largest_share(&self) -> f64 {
        self.share + self.excess + self.overlap + self.unaligned + self.narrow
    }

    fn scaled(self, factor: f64) -> Self {
        Self {
            share: self.share * factor,
            excess: self.excess * factor,
            overlap: self.overlap * factor,
            fixed_s: self.fixed_s * factor,
            unaligned: self.unaligned * factor,
            narrow: self.narrow * factor,
        }
    }

    /// Share of the time for one shape of a matrix, or for an operation that is none.
    fn share_of(&self, matrix: Option<(u64, u64)>) -> f64 {
        let Some((n, k)) = matrix else { return self.share };
        let aligned = n.is_multiple_of(ALIGNMENT) && k.is_multiple_of(ALIGNMENT);
        let narrow = smaller(1.0, NARROW / larger(n.min(k) as f64, 1.0));
        self.share + self.narrow * narrow + if aligned { 0.0 } else { self.unaligned }
    }
}

/// Interval of a prediction: how far measured times of shapes that the fit did not see lie on either side.
///
/// It widens outside the range that was measured, and is cut at the ideal time.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Interval {
    /// Below the prediction.
    pub below: Width,
    /// Above the prediction.
    pub above: Width,
    /// Where it was measured; absent where nothing was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub range: Option<MeasuredRange>,
}

impl Interval {
    /// No width: the value of a bound is not uncertain.
    pub const NONE: Self = Self::symmetric(0.0);

    /// A share of the time on either side, of a class without a measured range.
    pub const fn symmetric(share: f64) -> Self {
        Self { below: Width::of_share(share), above: Width::of_share(share), range: None }
    }

    /// The same bar `factor` times as wide.
    #[must_use]
    pub fn widened(self, factor: f64) -> Self {
        let below = smaller(factor, WIDEST_BELOW / self.below.largest_share());
        Self { below: self.below.scaled(below), above: self.above.scaled(factor), range: self.range }
    }

    /// The bar of one compiled operation on a machine of these rates: of a matrix of `(outputs, inputs)`, or of something
    /// else.
    pub fn bar(&self, seconds_per_flop: f64, seconds_per_byte: f64, matrix: Option<(u64, u64)>) -> Bar {
        let (below_share, below_excess) = (self.below.share_of(matrix), self.below.excess);
        // What the lower end may lose to the time: less than the whole, however often a bar is widened.
        let lead = below_share + below_excess;
        let cut = smaller(1.0, WIDEST_BELOW / lead);
        let lead = lead * cut;
        let beyond_share = smaller(below_share * cut, larger(WIDEST_BELOW - lead, 0.0));
        Bar {
            below_share: below_share * cut,
            below_excess: below_excess * cut,
            below_fixed_s: self.below.fixed_s,
            most_widening: larger((WIDEST_BELOW - beyond_share) / lead, 1.0),
            beyond_share,
            longest_s: self.range.map_or(f64::INFINITY, |range| {
                larger(range.flops[1] * seconds_per_flop, range.bytes[1] * seconds_per_byte)
            }),
            above_share: self.above.share_of(matrix),
            above_overlap: self.above.overlap,
            above_fixed_s: self.above.fixed_s,
            seconds_per_byte,
            range: self.range,
        }
    }

    fn check(&self, field: &str, is_matrix: bool) -> Result<()> {
        let halves = [("below", &self.below, "overlap"), ("above", &self.above, "excess")];
        for (half, width, foreign) in halves {
            for (part, value) in width.parts() {
                let refuse = |rule: &str| Err(Error::spec(format!("{field}.{half}.{part}"), value, rule));
                if !(0.0..=WIDEST).contains(&value) {
                    return refuse("must be between 0 and 1000");
                }
                if part == foreign && value > 0.0 {
                    return refuse("must be absent: this end of the interval would not rise with the time");
                }
                if !is_matrix && matches!(part, "unaligned" | "narrow") && value > 0.0 {
                    return refuse("must be absent: only matrices have outputs and inputs");
                }
            }
        }
        let below = self.below.largest_share();
        if below >= 1.0 {
            return Err(Error::spec(format!("{field}.below"), below, "shares must add up to less than 1"));
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

/// The interval of one operation, shape and machine folded in.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bar {
    below_share: f64,
    below_excess: f64,
    below_fixed_s: f64,
    /// Most that the lower half widens under the measured range.
    most_widening: f64,
    /// Share of the time past `longest_s` that the lower half gains.
    beyond_share: f64,
    /// Roofline time of the largest measured operation.
    longest_s: f64,
    above_share: f64,
    above_overlap: f64,
    above_fixed_s: f64,
    seconds_per_byte: f64,
    range: Option<MeasuredRange>,
}

impl Bar {
    /// No width.
    pub const NONE: Self = Self {
        below_share: 0.0,
        below_excess: 0.0,
        below_fixed_s: 0.0,
        most_widening: 1.0,
        beyond_share: 0.0,
        longest_s: f64::INFINITY,
        above_share: 0.0,
        above_overlap: 0.0,
        above_fixed_s: 0.0,
        seconds_per_byte: 0.0,
        range: None,
    };

    /// Lower and upper end of a cost; the lower one never under its ideal time, neither beyond the prediction.
    ///
    /// Under the measured range the lower end widens up to twofold: a smaller operation takes no longer than the least
    /// measured one, but nobody knows how much less. Past the range both widen. Neither end falls when sizes grow.
    #[inline]
    pub fn around(&self, cost: &OpSizes) -> (f64, f64) {
        let &OpSizes { time_s, ideal_s, peak_compute_s, flops, bytes } = cost;
        let (under, past) = self.range.map_or((0.0, 0.0), |range| range.distances(flops, bytes));
        let excess_s = larger(time_s - ideal_s, 0.0);
        let below = self.below_share * time_s + self.below_excess * excess_s + self.below_fixed_s;
        let beyond_s = self.beyond_share * larger(time_s - self.longest_s, 0.0);
        let low_s = time_s - below * smaller(1.0 + under, self.most_widening) - beyond_s;
        let shorter_s = smaller(peak_compute_s, bytes * self.seconds_per_byte);
        let above = self.above_share * time_s + self.above_overlap * shorter_s + self.above_fixed_s;
        (larger(low_s, smaller(ideal_s, time_s)), time_s + above * (1.0 + past))
    }
}

/// What the width of a bar depends on.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct OpSizes {
    /// Predicted seconds.
    pub time_s: f64,
    /// Roofline seconds.
    pub ideal_s: f64,
    /// Roofline seconds of the arithmetic alone.
    pub peak_compute_s: f64,
    /// FLOPs.
    pub flops: f64,
    /// Bytes.
    pub bytes: f64,
}

impl MeasuredRange {
    /// How far under and past the range: 0 inside, rising to 1 far outside, one minus the ratio between the nearest
    /// measured size and this one.
    fn distances(&self, flops: f64, bytes: f64) -> (f64, f64) {
        let under = |x: f64, [least, _]: [f64; 2]| if x < least { 1.0 - x / least } else { 0.0 };
        let past = |x: f64, [_, most]: [f64; 2]| if x > most { 1.0 - most / x } else { 0.0 };
        let larger_of = |apart: fn(f64, [f64; 2]) -> f64| larger(apart(flops, self.flops), apart(bytes, self.bytes));
        (larger_of(under), larger_of(past))
    }
}

/// How the half-widths of a step's operations make its own. A file may give the correlation alone, as a number.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(from = "WrittenJoint", into = "WrittenJoint")]
pub struct Joint {
    /// Correlation of the errors of different operations: 0 where they cancel, 1 where all err together.
    pub correlation: f64,
    /// Share of the joint half-width that remains: constants fitted to whole steps take the common error away.
    pub scale: f64,
    /// Share of the step's time that is added: what goes wrong in a step and not in its operations.
    pub share: f64,
}

/// A joint in a file.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum WrittenJoint {
    Correlation(f64),
    Parts(JointParts),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct JointParts {
    correlation: f64,
    scale: f64,
    share: f64,
}

impl From<WrittenJoint> for Joint {
    fn from(written: WrittenJoint) -> Self {
        match written {
            WrittenJoint::Correlation(correlation) => Self::correlated(correlation),
            WrittenJoint::Parts(JointParts { correlation, scale, share }) => Self { correlation, scale, share },
        }
    }
}

impl From<Joint> for WrittenJoint {
    fn from(joint: Joint) -> Self {
        let Joint { correlation, scale, share } = joint;
        if joint == Joint::correlated(correlation) {
            Self::Correlation(correlation)
        } else {
            Self::Parts(JointParts { correlation, scale, share })
        }
    }
}

impl Joint {
    /// Correlated, and nothing else.
    pub const fn correlated(correlation: f64) -> Self {
        Self { correlation, scale: 1.0, share: 0.0 }
    }

    fn check(&self, field: &str) -> Result<()> {
        for (name, value) in [("correlation", self.correlation), ("scale", self.scale), ("share", self.share)] {
            if !(0.0..=1.0).contains(&value) {
                return Err(Error::spec(format!("{field}.{name}"), value, "must be between 0 and 1"));
            }
        }
        let sum = self.scale + self.share;
        if sum > 1.0 {
            let rule = "scale and share must add up to at most 1: the lower end would not rise with the time";
            return Err(Error::spec(field, sum, rule));
        }
        Ok(())
    }
}

/// The bar of an operand type; one that was not measured has twice the widest bar of those that were.
fn of_dtype(bars: &BTreeMap<ComputeDType, Interval>, dtype: ComputeDType) -> Interval {
    let size = |bar: &Interval| bar.below.largest_share() + bar.above.largest_share();
    let widest = |a: Interval, b: &Interval| if size(b) > size(&a) { *b } else { a };
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
    /// How the errors of the operations of a step of decodes alone join.
    #[serde(alias = "decode_correlation")]
    pub decode_step: Joint,
    /// The same for steps with prefill in them.
    #[serde(alias = "prefill_correlation")]
    pub prefill_step: Joint,
    /// Decodes of models with routed experts; as the others where it is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moe_decode_step: Option<Joint>,
    /// The same for steps with prefill in them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moe_prefill_step: Option<Joint>,
    /// GEMM per operand type; a type that is not listed has twice the widest bar of those that are.
    pub gemm: BTreeMap<ComputeDType, Interval>,
    /// Attention of one new row a request.
    pub decode_attention: Interval,
    /// Attention of several new rows a request.
    pub prefill_attention: Interval,
    /// Latent attention of one new row a request; absent where it was not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latent_decode_attention: Option<Interval>,
    /// Latent attention of several new rows a request; absent where it was not measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latent_prefill_attention: Option<Interval>,
    /// Grouped GEMM per operand type, as GEMM.
    pub grouped_gemm: BTreeMap<ComputeDType, Interval>,
    /// Element-wise.
    pub elementwise: Interval,
    /// Collectives.
    pub collective: Interval,
}

impl Intervals {
    /// The bars of attention of one new row a request and of several. Latent attention that was not measured has twice
    /// those of other attention.
    pub fn attention(&self, is_latent: bool) -> (Interval, Interval) {
        if !is_latent {
            return (self.decode_attention, self.prefill_attention);
        }
        let twice = |own: Option<Interval>, other: Interval| own.unwrap_or_else(|| other.widened(2.0));
        (
            twice(self.latent_decode_attention, self.decode_attention),
            twice(self.latent_prefill_attention, self.prefill_attention),
        )
    }

    /// Of a bound.
    pub fn none() -> Self {
        Self {
            coverage: 1.0,
            decode_step: Joint::correlated(1.0),
            prefill_step: Joint::correlated(1.0),
            moe_decode_step: None,
            moe_prefill_step: None,
            gemm: BTreeMap::from([(ComputeDType::Bf16, Interval::NONE)]),
            decode_attention: Interval::NONE,
            prefill_attention: Interval::NONE,
            latent_decode_attention: None,
            latent_prefill_attention: None,
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

    /// How the errors of a step's operations join, for decodes alone or not, with routed experts or without.
    pub fn joint(&self, decodes: bool, experts: bool) -> Joint {
        let (plain, moe) =
            if decodes { (self.decode_step, self.moe_decode_step) } else { (self.prefill_step, self.moe_prefill_step) };
        moe.filter(|_| experts).unwrap_or(plain)
    }

    /// All bars `factor` times as wide and all errors alike: what a device gets that borrows from another.
    #[must_use]
    pub fn borrowed(mut self, factor: f64) -> Self {
        (self.decode_step, self.prefill_step) = (Joint::correlated(1.0), Joint::correlated(1.0));
        (self.moe_decode_step, self.moe_prefill_step) = (None, None);
        for interval in self.gemm.values_mut().chain(self.grouped_gemm.values_mut()) {
            *interval = interval.widened(factor);
        }
        for interval in
            [&mut self.decode_attention, &mut self.prefill_attention, &mut self.elementwise, &mut self.collective]
        {
            *interval = interval.widened(factor);
        }
        for interval in [&mut self.latent_decode_attention, &mut self.latent_prefill_attention].into_iter().flatten() {
            *interval = interval.widened(factor);
        }
        self
    }

    /// Refuses bars that no prediction could have.
    pub(super) fn check(&self) -> Result<()> {
        if !(0.0..=1.0).contains(&self.coverage) {
            return Err(Error::spec("intervals.coverage", self.coverage, "must be between 0 and 1"));
        }
        for (name, joint) in [
            ("decode_step", Some(self.decode_step)),
            ("prefill_step", Some(self.prefill_step)),
            ("moe_decode_step", self.moe_decode_step),
            ("moe_prefill_step", self.moe_prefill_step),
        ] {
            joint.map_or(Ok(()), |joint| joint.check(&format!("intervals.{name}")))?;
        }
        for (class, bars) in [("gemm", &self.gemm), ("grouped_gemm", &self.grouped_gemm)] {
            for (dtype, interval) in bars {
                interval.check(&format!("intervals.{class}.{}", dtype.name()), true)?;
            }
        }
        let named = [
            ("decode_attention", self.decode_attention),
            ("prefill_attention", self.prefill_attention),
            ("elementwise", self.elementwise),
            ("collective", self.collective),
        ];
        let latent = [
            ("latent_decode_attention", self.latent_decode_attention),
            ("latent_prefill_attention", self.latent_prefill_attention),
        ];
        let latent = latent.into_iter().filter_map(|(name, interval)| interval.map(|interval| (name, interval)));
        named
            .into_iter()
            .chain(latent)
            .try_for_each(|(name, interval)| interval.check(&format!("intervals.{name}"), false))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interval(text: &str) -> Option<Interval> {
        serde_json::from_str(text).ok()
    }

    #[test]
    fn a_width_is_a_share_or_parts_and_is_written_as_short_as_it_was() {
        for text in [
            r#"{"below":0.1,"above":0.2}"#,
            r#"{"below":{"share":0.1,"excess":0.2},"above":{"share":0.1,"overlap":0.3,"fixed_s":1e-6,"narrow":0.1}}"#,
        ] {
            let read = interval(text);
            assert!(read.is_some_and(|read| read.check("bar", true).is_ok()));
            assert_eq!(read.and_then(|read| serde_json::to_string(&read).ok()).as_deref(), Some(text));
        }
        assert!(interval(r#"{"below":{"shares":0.1},"above":0.2}"#).is_none());
    }

    #[test]
    fn parts_that_would_break_a_law_are_refused_by_name() {
        for (text, is_matrix, field) in [
            (r#"{"below":{"overlap":0.1},"above":0.0}"#, true, "bar.below.overlap"),
            (r#"{"below":0.0,"above":{"excess":0.1}}"#, true, "bar.above.excess"),
            (r#"{"below":0.0,"above":{"narrow":0.1}}"#, false, "bar.above.narrow"),
            (r#"{"below":-0.1,"above":0.0}"#, true, "bar.below.share"),
            (r#"{"below":{"share":0.6,"excess":0.6},"above":0.0}"#, true, "bar.below"),
        ] {
            let error = interval(text).map(|read| read.check("bar", is_matrix));
            assert!(format!("{error:?}").contains(&format!("{field:?}")), "{error:?}");
        }
    }

    /// Sizes that grow, some of them by nothing, with times that are flat now and then.
    #[test]
    fn neither_end_falls_when_an_operation_grows() {
        let range = Some(MeasuredRange { flops: [1e6, 1e12], bytes: [1e5, 1e9] });
        let below = Width { share: 0.1, excess: 0.15, fixed_s: 1e-6, unaligned: 0.05, narrow: 0.1, overlap: 0.0 };
        let above = Width { share: 0.1, overlap: 0.4, fixed_s: 1e-6, unaligned: 0.05, narrow: 0.1, excess: 0.0 };
        for factor in [1.0, 2.0, 4.0, 40.0] {
            let bar = Interval { below, above, range }.widened(factor).bar(1e-15, 3e-13, Some((100, 4096)));
            let mut last = (0.0, 0.0);
            for step in 0..4000 {
                let flops = 1e3 * 1.01_f64.powi(step);
                let bytes = 1e3 + 0.01 * flops;
                let (peak_compute_s, memory_s) = (flops * 1e-15, bytes * 3e-13);
                let ideal_s = larger(peak_compute_s, memory_s);
                // Flat over stretches of 20 sizes, never below the roofline.
                let wave = 1e3 * 1.01_f64.powi(20 * (step / 20 + 1));
                let time_s = 2e-6 + 1.2 * larger(wave * 1e-15, (1e3 + 0.01 * wave) * 3e-13);
                let ends = bar.around(&OpSizes { time_s, ideal_s, peak_compute_s, flops, bytes });
                assert!(ideal_s <= ends.0 && ends.0 <= time_s && time_s <= ends.1);
                assert!(ends.0 >= last.0 * (1.0 - 1e-12) && ends.1 >= last.1 * (1.0 - 1e-12), "{step} {ends:?}");
                last = ends;
            }
        }
    }
}
