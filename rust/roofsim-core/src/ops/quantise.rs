//! Narrowing what attention returns to the operand type of the product after it.

use crate::calibration::{Bar, ElementwiseLaw};
use crate::roofline::{Machine, OpCost};

/// Time alone: an attention kernel could write the narrow type itself, so that none of it belongs to the bound.
///
/// Norms and activations do write what the products after them multiply, here as in engines; attention kernels of
/// today mostly do not.
#[derive(Debug, Clone, PartialEq)]
pub struct QuantiseOp {
    launch_s: f64,
    seconds_per_row: f64,
    bar: Bar,
}

impl QuantiseOp {
    /// Compiles the kernel that reads and writes so many bytes a row; of the bare roofline it takes no time.
    pub fn new(machine: &Machine<'_>, moved_bytes_per_row: f64) -> Self {
        let (launch_s, seconds_per_byte) = match machine.calibration.elementwise {
            ElementwiseLaw::Roofline => (0.0, 0.0),
            ElementwiseLaw::Launched { launch_s, e_m, .. } => {
                (launch_s, machine.seconds_per_byte / (e_m * machine.memory_rate))
            }
        };
        Self {
            launch_s,
            seconds_per_row: moved_bytes_per_row * seconds_per_byte,
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
        self.launch_s + rows * self.seconds_per_row
    }
}
