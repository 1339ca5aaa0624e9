//! The roofline itself: rates of a machine, the cost of an operation, and what bounds it.

use crate::arithmetic::{larger, reciprocal, smaller};
use crate::calibration::{Bar, Calibration, Joint, OpSizes};
use crate::error::Result;
use crate::format::ComputeDType;
use crate::hardware::{Accelerator, Link, Topology};

/// What takes the most time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Bound {
    /// Arithmetic.
    Compute,
    /// Device memory.
    Memory,
    /// Links between devices.
    Network,
    /// Launches, reductions and host work.
    Overhead,
}

impl Bound {
    /// All of them; the position is the code used in columns.
    pub const ALL: [Self; 4] = [Self::Compute, Self::Memory, Self::Network, Self::Overhead];

    /// The name used in columns.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Compute => "compute",
            Self::Memory => "memory",
            Self::Network => "network",
            Self::Overhead => "overhead",
        }
    }

    /// The largest part. Memory wins ties: exactly at the ridge an operation counts as memory-bound.
    #[inline(always)]
    pub fn of(compute_s: f64, memory_s: f64, network_s: f64, overhead_s: f64) -> Self {
        // Without a loop over candidates, which would not become selections in vector code.
        let (bound, most) = if compute_s > memory_s { (Self::Compute, compute_s) } else { (Self::Memory, memory_s) };
        let (bound, most) = if network_s > most { (Self::Network, network_s) } else { (bound, most) };
        if overhead_s > most { Self::Overhead } else { bound }
    }
}

/// Cost of one operation, or the sum of several. Times in seconds, one device.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct OpCost {
    /// Predicted time.
    pub time_s: f64,
    /// Lower end of the interval, never under `ideal_s`.
    pub time_low_s: f64,
    /// Upper end of the interval.
    pub time_high_s: f64,
    /// The bare roofline's time.
    pub ideal_s: f64,
    /// Time of the arithmetic at its calibrated rate.
    pub compute_s: f64,
    /// Time of the memory traffic at its calibrated rate.
    pub memory_s: f64,
    /// Time of the link traffic.
    pub network_s: f64,
    /// Time of launches, waves, reductions, host work.
    pub overhead_s: f64,
    /// FLOPs (a multiply and an add are two).
    pub flops: f64,
    /// Bytes to and from device memory.
    pub bytes: f64,
    /// Of a sum: the squares of the distances from each operation's time to its lower end, added up.
    pub below_squares: f64,
    /// The same for the upper ends.
    pub above_squares: f64,
    /// `F / P` with the peak of the operation's own operand type: the numerator of MFU.
    pub peak_compute_s: f64,
}

impl OpCost {
    /// Numbers in a cost.
    pub const NUM_FIELDS: usize = 13;

    /// All numbers, in the order of the fields: what a copy elsewhere is made of.
    pub const fn to_array(&self) -> [f64; Self::NUM_FIELDS] {
        let Self {
            time_s,
            time_low_s,
            time_high_s,
            ideal_s,
            compute_s,
            memory_s,
            network_s,
            overhead_s,
            flops,
            bytes,
            below_squares,
            above_squares,
            peak_compute_s,
        } = *self;
        [
            time_s,
            time_low_s,
            time_high_s,
            ideal_s,
            compute_s,
            memory_s,
            network_s,
            overhead_s,
            flops,
            bytes,
            below_squares,
            above_squares,
            peak_compute_s,
        ]
    }

    /// The cost that [`Self::to_array`] took apart.
    pub const fn from_array(numbers: [f64; Self::NUM_FIELDS]) -> Self {
        let [
            time_s,
            time_low_s,
            time_high_s,
            ideal_s,
            compute_s,
            memory_s,
            network_s,
            overhead_s,
            flops,
            bytes,
            below_squares,
            above_squares,
            peak_compute_s,
        ] = numbers;
        Self {
            time_s,
            time_low_s,
            time_high_s,
            ideal_s,
            compute_s,
            memory_s,
            network_s,
            overhead_s,
            flops,
            bytes,
            below_squares,
            above_squares,
            peak_compute_s,
        }
    }

    /// What bounds it.
    pub fn bound(&self) -> Bound {
        Bound::of(self.compute_s, self.memory_s, self.network_s, self.overhead_s)
    }

    /// FLOPs per byte; infinite when nothing is moved, 0 when nothing is computed either.
    pub fn arithmetic_intensity(&self) -> f64 {
        ratio(self.flops, self.bytes)
    }

    /// Model FLOPs utilisation.
    pub fn mfu(&self) -> f64 {
        ratio(self.peak_compute_s, self.time_s)
    }

    /// Model bandwidth utilisation, given the machine's seconds per byte.
    pub fn mbu(&self, seconds_per_byte: f64) -> f64 {
        ratio(self.bytes * seconds_per_byte, self.time_s)
    }

    /// Adds `count` times `op`.
    pub fn add(&mut self, count: f64, op: &Self) {
        let (below, above) = (count * (op.time_s - op.time_low_s), count * (op.time_high_s - op.time_s));
        self.below_squares += below * below;
        self.above_squares += above * above;
        self.time_s += count * op.time_s;
        self.time_low_s += count * op.time_low_s;
        self.time_high_s += count * op.time_high_s;
        self.ideal_s += count * op.ideal_s;
        self.compute_s += count * op.compute_s;
        self.memory_s += count * op.memory_s;
        self.network_s += count * op.network_s;
        self.overhead_s += count * op.overhead_s;
        self.flops += count * op.flops;
        self.bytes += count * op.bytes;
        self.peak_compute_s += count * op.peak_compute_s;
    }

    /// Closes a sum of operations: its interval from theirs, whose errors have this correlation with each other.
    ///
    /// The half-width is `share t + scale sqrt((1 - rho) sum(b^2) + rho sum(b)^2)`: the root of the sum of squares where
    /// errors are independent, the plain sum where all err together. Runs of one operation err alike and count as one.
    /// Neither end falls when those of the operations do not: the root grows no faster than the sum of their halves.
    #[must_use]
    pub fn with_joint_interval(mut self, joint: Joint) -> Self {
        let Joint { correlation, scale, share } = joint;
        let half_width = |squares: f64, sum: f64| {
            share * self.time_s + scale * ((1.0 - correlation) * squares + correlation * sum * sum).sqrt()
        };
        let below = half_width(self.below_squares, larger(self.time_s - self.time_low_s, 0.0));
        let above = half_width(self.above_squares, larger(self.time_high_s - self.time_s, 0.0));
        self.time_low_s = larger(self.time_s - below, smaller(self.ideal_s, self.time_s));
        self.time_high_s = self.time_s + above;
        self
    }

    /// Sets the interval around `time_s`, cut at the ideal time.
    #[must_use]
    pub fn with_interval(mut self, bar: Bar) -> Self {
        let Self { time_s, ideal_s, peak_compute_s, flops, bytes, .. } = self;
        (self.time_low_s, self.time_high_s) = bar.around(&OpSizes { time_s, ideal_s, peak_compute_s, flops, bytes });
        self
    }
}

/// `x / y`, with 0 of nothing being 0.
fn ratio(x: f64, y: f64) -> f64 {
    if x > 0.0 { x / y } else { 0.0 }
}

/// Devices from which on a switch reduces: boards of fewer have none of its kind.
const LEAST_SWITCHED: u64 = 8;

/// How an operation runs: alone, or among those of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Pace {
    /// One operation alone, in a short burst.
    Burst,
    /// Inside a step.
    Step,
}

/// The rates of one accelerator under one calibration.
#[derive(Debug, Clone)]
pub struct Machine<'a> {
    /// The device.
    pub accelerator: &'a Accelerator,
    /// The laws.
    pub calibration: &'a Calibration,
    /// `1 / W`.
    pub seconds_per_byte: f64,
    /// Compute rate at this pace over that of kernels alone.
    pub compute_rate: f64,
    /// Memory rate at this pace over that of kernels alone.
    pub memory_rate: f64,
}

impl<'a> Machine<'a> {
    /// Binds an accelerator to a calibration at a pace.
    pub fn new(accelerator: &'a Accelerator, calibration: &'a Calibration, pace: Pace) -> Self {
        let (compute_rate, memory_rate) = match pace {
            Pace::Burst => (1.0, 1.0),
            Pace::Step => (calibration.step.compute_rate, calibration.step.memory_rate),
        };
        Self {
            accelerator,
            calibration,
            seconds_per_byte: reciprocal(accelerator.memory_bandwidth_bytes_per_s),
            compute_rate,
            memory_rate,
        }
    }

    /// `1 / P` for one operand type; refused when the device has no such peak.
    pub fn seconds_per_flop(&self, dtype: ComputeDType) -> Result<f64> {
        self.accelerator.peak(dtype).map(reciprocal)
    }

    /// Number of tiles that run at once, where the device has such a number and the constants of tiles are its own
    /// family's. What one unit does differs too much between families: a systolic array does the work of many streaming
    /// multiprocessors. Constants that name no family are taken for the device's own.
    pub fn compute_units(&self) -> Option<f64> {
        self.accelerator.num_compute_units.filter(|_| self.is_own_family()).map(|n| n as f64)
    }

    /// Whether the scale-up link has the switch that the constants are of: bridges between few cards have none, nor have
    /// the meshes and rings of other families.
    pub fn has_switch(&self) -> bool {
        let switched = |link: Link| link.topology == Topology::Switch && link.num_devices >= LEAST_SWITCHED;
        self.is_own_family() && self.accelerator.link.is_some_and(switched)
    }

    fn is_own_family(&self) -> bool {
        let family = &self.calibration.provenance.family;
        family.is_empty() || *family == self.accelerator.family
    }
}
