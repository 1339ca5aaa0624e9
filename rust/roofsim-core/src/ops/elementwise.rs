//! Element-wise, normalisation, gather and recurrence kernels: bytes, with or without arithmetic.

use crate::calibration::{Bar, ElementwiseLaw};
use crate::roofline::{Machine, OpCost};

/// Elements of the row whose reduction is the unit of `reduce_s`.
const REDUCED: f64 = 4096.0;

/// A compiled kernel whose traffic is `fixed_bytes` plus `bytes_per_row` for each row.
#[derive(Debug, Clone, PartialEq)]
pub struct ElementwiseOp {
    /// Bytes per row, reads and writes.
    pub bytes_per_row: f64,
    /// Bytes that do not depend on the rows.
    pub fixed_bytes: f64,
    ideal_seconds_per_byte: f64,
    seconds_per_byte: f64,
    launch_s: f64,
    bar: Bar,
}

impl ElementwiseOp {
    /// Compiles a kernel.
    pub fn new(machine: &Machine<'_>, bytes_per_row: f64, fixed_bytes: f64) -> Self {
        Self::reducing(machine, bytes_per_row, fixed_bytes, 0)
    }

    /// Compiles what is no kernel of its own but part of one that another operation prices: the bytes of its bound.
    pub fn fused(machine: &Machine<'_>, bytes_per_row: f64) -> Self {
        Self { seconds_per_byte: machine.seconds_per_byte, launch_s: 0.0, ..Self::new(machine, bytes_per_row, 0.0) }
    }

    /// Compiles a kernel that reduces every row of so many elements before it writes it: a norm.
    pub fn reducing(machine: &Machine<'_>, bytes_per_row: f64, fixed_bytes: f64, row_elements: u64) -> Self {
        let (launch_s, e_m) = match machine.calibration.elementwise {
            ElementwiseLaw::Roofline => (0.0, 1.0),
            ElementwiseLaw::Launched { launch_s, e_m, reduce_s } => {
                (launch_s + row_elements as f64 / REDUCED * reduce_s, e_m * machine.memory_rate)
            }
        };
        Self {
            bytes_per_row,
            fixed_bytes,
            ideal_seconds_per_byte: machine.seconds_per_byte,
            seconds_per_byte: machine.seconds_per_byte / e_m,
            launch_s,
            bar: machine.calibration.intervals.elementwise.bar(0.0, machine.seconds_per_byte, None),
        }
    }

    /// Cost of `rows` rows.
    pub fn cost(&self, rows: u64) -> OpCost {
        self.evaluate(rows as f64)
    }

    /// Times of many row counts at once.
    #[inline(always)]
    pub(crate) fn times(&self, rows: &[f64], out: &mut [f64]) {
        for (t, &m) in out.iter_mut().zip(rows) {
            *t = self.evaluate(m).time_s;
        }
    }

    #[inline(always)]
    fn evaluate(&self, rows: f64) -> OpCost {
        let bytes = self.fixed_bytes + rows * self.bytes_per_row;
        let ideal_s = bytes * self.ideal_seconds_per_byte;
        let memory_s = bytes * self.seconds_per_byte;
        OpCost {
            time_s: (self.launch_s + memory_s).max(ideal_s),
            ideal_s,
            memory_s,
            overhead_s: self.launch_s,
            bytes,
            ..OpCost::default()
        }
        .with_interval(self.bar)
    }
}
