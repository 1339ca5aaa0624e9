//! Attention over a flat batch of requests.
//!
//! `shape` holds the exact integer counts of one request, `law` turns the counts of one request into its load on a
//! machine and the load of a batch into time. The batch enters only through sums and maxima of loads, which is what
//! lets a sweep evaluate it from tables, bit for bit.

mod law;
mod shape;

pub use law::{KernelLaw, Kernels, Load};
pub use shape::{AttentionShape, Counts, LatentHeads, attended_pairs, keys_read};

use crate::calibration::Interval;
use crate::error::Result;
use crate::roofline::{Machine, OpCost};
use crate::workload::{Batch, Request};

/// A compiled attention operation on one rank.
#[derive(Debug, Clone, PartialEq)]
pub struct AttentionOp {
    /// Its shape.
    pub shape: AttentionShape,
    /// Its law with the machine's rates folded in.
    pub law: KernelLaw,
    interval: Interval,
}

impl AttentionOp {
    /// Compiles a shape.
    pub fn new(machine: &Machine<'_>, shape: AttentionShape) -> Result<Self> {
        let law = KernelLaw::new(machine, &shape)?;
        Ok(Self { law, interval: machine.calibration.intervals.attention, shape })
    }

    /// What one request adds to a batch.
    pub fn load(&self, request: Request) -> Load {
        self.law.load(&self.shape.counts(request))
    }

    /// The load of a flat batch.
    pub fn batch_load(&self, batch: &Batch) -> Load {
        let mut total = Load::default();
        for &(count, request) in batch.runs() {
            total.add(&self.load(request).times(count as f64));
        }
        total
    }

    /// Cost of a load.
    pub fn cost(&self, load: &Load) -> OpCost {
        self.law.cost(load).with_interval(self.interval)
    }

    /// Cost of `count` equal requests.
    pub fn request_cost(&self, count: u64, request: Request) -> OpCost {
        self.cost(&self.load(request).times(count as f64))
    }
}
