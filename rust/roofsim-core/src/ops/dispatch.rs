//! Bringing the tokens of a batch to their experts: sorting them, and laying their rows out expert by expert.

use crate::calibration::{Bar, ElementwiseLaw};
use crate::roofline::{Machine, OpCost};

/// Time alone: a fused kernel could gather rows as it reads them, so that none of it belongs to the bound.
///
/// Leaves out the choice of experts (an element-wise kernel of its own) and exchange between devices (a collective).
#[derive(Debug, Clone, PartialEq)]
pub struct DispatchOp {
    fixed_s: f64,
    seconds_per_row: f64,
    bar: Bar,
}

impl DispatchOp {
    /// Compiles the dispatch that copies so many bytes a row; of the bare roofline it takes no time.
    pub fn new(machine: &Machine<'_>, copied_bytes_per_row: f64) -> Self {
        let seconds_per_byte = match machine.calibration.elementwise {
            ElementwiseLaw::Roofline => 0.0,
            ElementwiseLaw::Launched { e_m, .. } => machine.seconds_per_byte / (e_m * machine.memory_rate),
        };
        Self {
            fixed_s: machine.calibration.step.dispatch_s,
            seconds_per_row: copied_bytes_per_row * seconds_per_byte,
            bar: machine.calibration.intervals.elementwise.bar(0.0, machine.seconds_per_byte, None),
        }
    }

    /// Cost of `rows` rows.
    pub fn cost(&self, rows: u64) -> OpCost {
        let time_s = self.time_s(rows as f64);
        OpCost { time_s, overhead_s: time_s, ..OpCost::default() }.with_interval(self.bar)
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
        self.fixed_s + rows * self.seconds_per_row
    }
}
