//! Attention over a flat batch of requests.
//!
//! `shape` holds the exact integer counts of one request, `law` turns the counts of one request into its load on a
//! machine and the load of equal requests into time, `ragged` does so for unequal ones. The batch enters only through sums and maxima of loads, which is what
//! lets a sweep evaluate it from tables, bit for bit.

mod law;
mod ragged;
mod shape;

pub use law::{KernelLaw, Kernels, Load, LongLoad};
pub use shape::{AttentionShape, Counts, LatentHeads, attended_pairs, keys_read};

use crate::calibration::{Bar, Interval};
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
    decode_bar: Bar,
    prefill_bar: Bar,
}

impl AttentionOp {
    /// Compiles a shape.
    pub fn new(machine: &Machine<'_>, shape: AttentionShape) -> Result<Self> {
        let law = KernelLaw::new(machine, &shape)?;
        let intervals = &machine.calibration.intervals;
        let bar = |interval: &Interval| interval.bar(law.seconds_per_flop, machine.seconds_per_byte, None);
        let (decode, prefill) = intervals.attention(shape.latent.is_some());
        let (decode_bar, prefill_bar) = (bar(&decode), bar(&prefill));
        Ok(Self { shape, law, decode_bar, prefill_bar })
    }

    /// What one request adds to a batch.
    pub fn load(&self, request: Request) -> Load {
        self.law.load(&self.shape.counts(request))
    }

    /// The error bar of a batch, all of whose requests bring one new token or not.
    const fn bar(&self, decodes: bool) -> Bar {
        if decodes { self.decode_bar } else { self.prefill_bar }
    }

    /// Cost of the load of equal requests, each of one new token or of several.
    pub fn cost(&self, load: &Load, decodes: bool) -> OpCost {
        self.law.cost(load, &self.law.kernel(load)).with_interval(self.bar(decodes))
    }

    /// Cost of a flat batch.
    pub fn batch_cost(&self, batch: &Batch) -> OpCost {
        if let &[(count, request)] = batch.runs() {
            return self.request_cost(count, request);
        }
        let decodes = batch.runs().iter().all(|(_, request)| request.query_tokens == 1);
        let (load, kernel) = self.law.ragged(&self.shape, batch.runs());
        self.law.cost(&load, &kernel).with_interval(self.bar(decodes))
    }

    /// Cost of `count` equal requests.
    pub fn request_cost(&self, count: u64, request: Request) -> OpCost {
        self.cost(&self.load(request).times(count as f64), request.query_tokens == 1)
    }
}
