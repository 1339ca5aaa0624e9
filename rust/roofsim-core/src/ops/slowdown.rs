//! The clock falls while a step computes: what the arithmetic of all its operations costs beyond the rate of short steps.

use crate::calibration::{Bar, StepLaw};
use crate::roofline::OpCost;

/// `slowdown w w/(w + w_0)`, w the arithmetic of all products of a step in seconds at the datasheet peak.
///
/// A device runs short steps at its boost clock and lowers the clock as the energy of a longer one adds up. Leaves out
/// the arithmetic of attention, which is not a matter of rows alone. One step must not cost much more than its two
/// halves: with `slowdown` s it costs at most `(3 - 2 sqrt(2)) s` of its arithmetic more.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlowdownOp {
    seconds_per_row: f64,
    slowdown: f64,
    slowdown_s: f64,
}

impl SlowdownOp {
    /// Compiles the slowdown of a step whose rows take so many seconds each at the peak.
    pub const fn new(law: &StepLaw, seconds_per_row: f64) -> Self {
        Self { seconds_per_row, slowdown: law.slowdown, slowdown_s: law.slowdown_s }
    }

    /// Cost of `rows` rows.
    pub fn cost(&self, rows: u64) -> OpCost {
        let time_s = self.time_s(rows as f64);
        OpCost { time_s, compute_s: time_s, ..OpCost::default() }.with_interval(Bar::NONE)
    }

    /// Times of many row counts at once.
    #[inline(always)]
    pub(crate) fn times(&self, rows: &[f64], out: &mut [f64]) {
        for (t, &m) in out.iter_mut().zip(rows) {
            *t = self.time_s(m);
        }
    }

    #[inline(always)]
    fn time_s(&self, rows: f64) -> f64 {
        let work_s = rows * self.seconds_per_row;
        // Written so that rounding keeps it monotone.
        self.slowdown * work_s * (1.0 - self.slowdown_s / (work_s + self.slowdown_s))
    }
}
