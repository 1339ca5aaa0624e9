//! Collectives by latency and bandwidth (Hockney's model): the best of ring, tree, a reduction inside the switch, and an
//! engine's own kernel.
//!
//! Sources: Thakur, Rabenseifner, Gropp, "Optimization of Collective Communication Operations in MPICH", 2005;
//! Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms", 2009. The ideal time is that of endpoints: it knows no reduction inside the switch.

use crate::arithmetic::{larger, reciprocal, smaller};
use crate::calibration::{Bar, CollectiveLaw, DirectAllReduceLaw};
use crate::error::{Error, Result};
use crate::hardware::Link;
use crate::roofline::{Machine, OpCost};

/// Devices of a host: ring and tree take as many hops among them.
const HOST_DEVICES: f64 = 8.0;

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

    /// The same as a library does them: from rank to rank inside a host, where a tree saves nothing, and between hosts
    /// by a ring or a tree. `own` weighs the part that a rank copies for itself.
    fn library_algorithms(self, n: f64, own: f64) -> [(f64, f64); 2] {
        let others = n - 1.0;
        let share = (others + own) / n;
        let chain = smaller(n, HOST_DEVICES) - 1.0;
        let depth = chain + larger(n / HOST_DEVICES, 1.0).log2().ceil();
        match self {
            Self::AllReduce => [(2.0 * others, others / n + share), (2.0 * depth, 2.0)],
            Self::AllGather | Self::ReduceScatter => [(others, share), (depth, share)],
            // A send and a receive wait for each other.
            Self::AllToAll => [(2.0, share), (2.0, share)],
            Self::PointToPoint => [(1.0, 1.0), (1.0, 1.0)],
        }
    }
}

/// One way to do a collective.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Way {
    t0_s: f64,
    hops_s: f64,
    share: f64,
    seconds_per_byte: f64,
    pipe_s: f64,
}

impl Way {
    /// Time of the link for a buffer: hops, transfer, filling the pipeline.
    #[inline(always)]
    fn network_s(&self, buffer: f64) -> f64 {
        let transfer_s = self.share * buffer * self.seconds_per_byte;
        self.hops_s + (transfer_s + (self.pipe_s * transfer_s).sqrt())
    }

    #[inline(always)]
    fn time_s(&self, buffer: f64) -> f64 {
        self.t0_s + self.network_s(buffer)
    }
}

/// The ways that a calibration knows; `link` is a scale-up link where `scales_up`, a link of one node where `local`.
fn ways(machine: &Machine<'_>, kind: Collective, n: f64, link: Link, scales_up: bool, local: bool) -> Vec<Way> {
    let ideal = reciprocal(link.bandwidth_bytes_per_s);
    let endpoint = |t0_s: f64, hop_s: f64, seconds_per_byte: f64| {
        kind.algorithms(n).map(|(hops, share)| {
            let hops_s = hops * (link.latency_s + hop_s);
            Way { t0_s, hops_s, share, seconds_per_byte, pipe_s: 0.0 }
        })
    };
    let mut ways = match machine.calibration.collective {
        CollectiveLaw::Roofline => endpoint(0.0, 0.0, ideal).to_vec(),
        CollectiveLaw::AlphaBeta { t0_s, hop_s, e_link } => endpoint(t0_s, hop_s, ideal / e_link).to_vec(),
        CollectiveLaw::Pipelined { t0_s, hop_s, e_link, own, pipe_s, e_switch } => {
            let hop_s = link.latency_s + hop_s;
            let way = |hops: f64, share: f64, e: f64| Way {
                t0_s,
                hops_s: hops * hop_s,
                share,
                seconds_per_byte: ideal / e,
                pipe_s,
            };
            let mut ways: Vec<Way> =
                kind.library_algorithms(n, own).iter().map(|&(hops, share)| way(hops, share, e_link)).collect();
            if kind == Collective::AllReduce && scales_up && machine.has_switch() && e_switch > 0.0 {
                // Short messages never see the switch: as many hops as a tree.
                let (hops, _) = kind.library_algorithms(n, own)[1];
                ways.push(way(hops, 1.0, e_switch));
            }
            ways
        }
    };
    if let (Collective::AllReduce, true, Some(law)) = (kind, local, machine.calibration.direct_all_reduce) {
        let DirectAllReduceLaw { t0_s, hop_s, e_link, sync_s } = law;
        let peers = n - 1.0;
        let hops_s = peers * (link.latency_s + hop_s);
        let once = Way { t0_s, hops_s, share: peers, seconds_per_byte: ideal / e_link, pipe_s: 0.0 };
        ways.extend([once, Way { t0_s: t0_s + sync_s, share: 2.0 * peers / n, ..once }]);
    }
    ways
}

/// A compiled collective.
#[derive(Debug, Clone, PartialEq)]
pub struct CollectiveOp {
    /// Bytes of the buffer for each row of the step.
    pub bytes_per_row: f64,
    ways: Vec<Way>,
    ideal: [Way; 2],
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
        let n = num_devices as f64;
        let scales_up = machine.accelerator.link.is_some_and(|own| own.num_devices >= num_devices);
        let local = scales_up || machine.accelerator.network.is_none_or(|own| own.num_devices < num_devices);
        Ok(Self {
            bytes_per_row,
            ways: ways(machine, kind, n, link, scales_up, local),
            ideal: kind.algorithms(n).map(|(hops, share)| Way {
                t0_s: 0.0,
                hops_s: hops * link.latency_s,
                share,
                seconds_per_byte: reciprocal(link.bandwidth_bytes_per_s),
                pipe_s: 0.0,
            }),
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
        let ideal_s = smaller(self.ideal[0].time_s(buffer), self.ideal[1].time_s(buffer));
        let (mut time_s, mut best) = (f64::INFINITY, &self.ideal[0]);
        for way in &self.ways {
            let own_s = way.time_s(buffer);
            if own_s < time_s {
                (time_s, best) = (own_s, way);
            }
        }
        OpCost {
            time_s: larger(time_s, ideal_s),
            ideal_s,
            // Where the bound is above the law, the links take what is missing.
            network_s: larger(best.network_s(buffer), ideal_s - best.t0_s),
            overhead_s: best.t0_s,
            ..OpCost::default()
        }
        .with_interval(self.bar)
    }
}
