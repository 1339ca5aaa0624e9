//! Collectives by latency and bandwidth (Hockney's model): the best of ring, tree, a reduction inside the switch, and an
//! engine's own kernel, over the wires that join the group ([`super::wire`]).
//!
//! Sources: Thakur, Rabenseifner, Gropp, "Optimization of Collective Communication Operations in MPICH", 2005;
//! Patarasuk and Yuan, "Bandwidth optimal all-reduce algorithms", 2009. The ideal time is that of endpoints: it knows no reduction inside the switch.

use crate::arithmetic::{larger, smaller};
use crate::calibration::{Bar, CollectiveLaw, DirectAllReduceLaw};
use crate::error::{Error, Result};
use crate::hardware::Route;
use crate::roofline::{Machine, OpCost};

use super::wire::{self, Wire};

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

    /// Shares of the buffer that cross one rank's link among `n` ranks: of a ring, of a tree.
    fn shares(self, n: f64) -> [f64; 2] {
        let share = (n - 1.0) / n;
        match self {
            Self::AllReduce => [2.0 * share, 2.0],
            // All ranks talk to all others at once; each sends all but its own part.
            Self::AllGather | Self::ReduceScatter | Self::AllToAll => [share, share],
            Self::PointToPoint => [1.0, 1.0],
        }
    }

    /// The ways of a library, each as (hops, share of the buffer that crosses one rank's link): from rank to rank inside a host, where a tree saves nothing, and between hosts
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

/// The least that any algorithm of endpoints takes.
fn ideal_ways(kind: Collective, route: &Route, wire: Wire) -> [Way; 2] {
    let [ring, tree] = kind.shares(route.num_devices as f64);
    let [ring_s, tree_s] = wire::hops_s(route, kind, 0.0);
    [(ring_s, ring), (tree_s, tree)].map(|(hops_s, share)| Way {
        t0_s: 0.0,
        hops_s,
        share,
        seconds_per_byte: wire.ideal,
        pipe_s: 0.0,
    })
}

/// The ways that a calibration knows.
fn ways(machine: &Machine<'_>, kind: Collective, route: &Route, wire: Wire) -> Vec<Way> {
    let n = route.num_devices as f64;
    let mut ways = match machine.calibration.collective {
        CollectiveLaw::Roofline => ideal_ways(kind, route, wire).to_vec(),
        CollectiveLaw::AlphaBeta { t0_s, hop_s, e_link } => {
            let (hops, shares) = (wire::hops_s(route, kind, hop_s), kind.shares(n));
            let seconds_per_byte = wire.library / e_link;
            let way = |(hops_s, share)| Way { t0_s, hops_s, share, seconds_per_byte, pipe_s: 0.0 };
            hops.into_iter().zip(shares).map(way).collect()
        }
        CollectiveLaw::Pipelined { t0_s, hop_s, e_link, own, pipe_s, e_switch, graph_s } => {
            let latencies = wire::hops_s(route, kind, 0.0);
            let algorithms = kind.library_algorithms(n, own);
            let way = |at: usize, share: f64, e: f64| {
                let (hops, _) = algorithms[at];
                let hops_s = hops * hop_s + latencies[at];
                Way { t0_s: t0_s + graph_s, hops_s, share, seconds_per_byte: wire.library / e, pipe_s }
            };
            let mut ways = vec![way(0, algorithms[0].1, e_link), way(1, algorithms[1].1, e_link)];
            if kind == Collective::AllReduce && route.scales_up() && machine.has_switch() && e_switch > 0.0 {
                // Short messages never see the switch: as many hops as a tree.
                ways.push(way(1, 1.0, e_switch));
            }
            ways
        }
    };
    if let (Collective::AllReduce, true, Some(law)) = (kind, route.is_local(), machine.calibration.direct_all_reduce) {
        let DirectAllReduceLaw { t0_s, hop_s, e_link, sync_s } = law;
        let peers = n - 1.0;
        let hops_s = peers * (route.outermost().link.latency_s + hop_s);
        let once = Way { t0_s, hops_s, share: peers, seconds_per_byte: wire.library / e_link, pipe_s: 0.0 };
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
        let route = machine.accelerator.route(num_devices).ok_or_else(|| {
            let rule =
                format!("{} has no link, network or host_link that joins so many devices", machine.accelerator.name);
            Error::spec("num_devices", num_devices, rule)
        })?;
        let wire = Wire::of(&route, kind);
        Ok(Self {
            bytes_per_row,
            ways: ways(machine, kind, &route, wire),
            ideal: ideal_ways(kind, &route, wire),
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
