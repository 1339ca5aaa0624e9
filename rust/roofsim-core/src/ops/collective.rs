//! Collectives by latency and bandwidth (Hockney's model): the better of ring and tree.
//!
//! Sources: Thakur, Rabenseifner, Gropp, "Optimization of Collective Communication Operations in MPICH", 2005;
//! Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms", 2009. In-network reduction is left out.

use crate::arithmetic::reciprocal;
use crate::calibration::{Bar, CollectiveLaw};
use crate::error::{Error, Result};
use crate::roofline::{Machine, OpCost};

/// Which collective.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Collective {
    /// Every rank ends with the sum of all ranks' buffers.
    AllReduce,
    /// Every rank ends with all ranks' parts; the size is that of the gathered buffer.
    AllGather,
    /// Every rank ends with its part of the sum; the size is that of the whole buffer.
    ReduceScatter,
    /// Every rank sends a different part of its buffer to every other; the size is one rank's buffer.
    AllToAll,
    /// One neighbour sends its buffer to the next.
    PointToPoint,
}

impl Collective {
    /// Parses a name as people write it.
    pub fn parse(field: &str, text: &str) -> Result<Self> {
        Ok(match text.trim().to_ascii_lowercase().replace(['-', ' '], "_").as_str() {
            "all_reduce" | "allreduce" => Self::AllReduce,
            "all_gather" | "allgather" => Self::AllGather,
            "reduce_scatter" | "reducescatter" => Self::ReduceScatter,
            "all_to_all" | "alltoall" => Self::AllToAll,
            "point_to_point" | "p2p" | "send_recv" => Self::PointToPoint,
            _ => {
                return Err(Error::spec(
                    field,
                    text,
                    "must be one of all_reduce, all_gather, reduce_scatter, all_to_all, point_to_point",
                ));
            }
        })
    }

    /// The ways to do it among `n` ranks: each as (hops, share of the buffer that crosses one rank's link).
    fn algorithms(self, n: f64) -> [(f64, f64); 2] {
        let others = n - 1.0;
        let share = others / n;
        let depth = n.log2().ceil();
        match self {
            Self::AllReduce => [(2.0 * others, 2.0 * share), (2.0 * depth, 2.0)],
            Self::AllGather | Self::ReduceScatter => [(others, share), (depth, share)],
            // All ranks talk to all others at once; each sends all but its own part.
            Self::AllToAll => [(1.0, share), (1.0, share)],
            Self::PointToPoint => [(1.0, 1.0), (1.0, 1.0)],
        }
    }
}

/// A compiled collective.
#[derive(Debug, Clone, PartialEq)]
pub struct CollectiveOp {
    /// Bytes of the buffer for each row of the step.
    pub bytes_per_row: f64,
    algorithms: [(f64, f64); 2],
    seconds_per_byte: f64,
    ideal_seconds_per_byte: f64,
    latency_s: f64,
    ideal_latency_s: f64,
    t0_s: f64,
    bar: Bar,
}

impl CollectiveOp {
    /// Compiles `kind` among `num_devices`; refused where no link joins them.
    pub fn new(machine: &Machine<'_>, kind: Collective, num_devices: u64, bytes_per_row: f64) -> Result<Self> {
        if num_devices < 2 {
            return Err(Error::spec("num_devices", num_devices, "a collective needs at least 2 devices"));
        }
        let link = machine.link(num_devices).ok_or_else(|| {
            let rule =
                format!("{} has no link, network or host_link that joins so many devices", machine.accelerator.name);
            Error::spec("num_devices", num_devices, rule)
        })?;
        let (t0_s, hop_s, e_link) = match machine.calibration.collective {
            CollectiveLaw::Roofline => (0.0, 0.0, 1.0),
            CollectiveLaw::AlphaBeta { t0_s, hop_s, e_link } => (t0_s, hop_s, e_link),
        };
        let ideal = reciprocal(link.bandwidth_bytes_per_s);
        Ok(Self {
            bytes_per_row,
            algorithms: kind.algorithms(num_devices as f64),
            seconds_per_byte: ideal / e_link,
            ideal_seconds_per_byte: ideal,
            latency_s: link.latency_s + hop_s,
            ideal_latency_s: link.latency_s,
            t0_s,
            bar: machine.calibration.intervals.collective.bar(0.0, machine.seconds_per_byte, None),
        })
    }

    /// Cost for a buffer of `rows` rows.
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
        let buffer = rows * self.bytes_per_row;
        let best = |latency_s: f64, seconds_per_byte: f64| {
            let [x, y] = self.algorithms.map(|(hops, share)| (hops * latency_s, share * buffer * seconds_per_byte));
            if x.0 + x.1 <= y.0 + y.1 { x } else { y }
        };
        let (ideal_hops_s, ideal_wire_s) = best(self.ideal_latency_s, self.ideal_seconds_per_byte);
        let (hops_s, wire_s) = best(self.latency_s, self.seconds_per_byte);
        let ideal_s = ideal_hops_s + ideal_wire_s;
        OpCost {
            time_s: (self.t0_s + (hops_s + wire_s)).max(ideal_s),
            ideal_s,
            network_s: hops_s + wire_s,
            overhead_s: self.t0_s,
            ..OpCost::default()
        }
        .with_interval(self.bar)
    }
}
