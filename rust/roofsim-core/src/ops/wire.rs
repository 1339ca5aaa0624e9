//! What the wires between a group of devices let through: seconds a byte for each kind of collective, and hops.
//!
//! A cut divides the group into parts; what each part must take in or send out crosses the links that leave it. The
//! ideal time is that of the worst cut: around one device, and around the devices of each domain of a route. Both are
//! written relative to the share of the buffer that one rank moves, 2 (N-1)/N of it for an all-reduce.
//! Source: Thakur, Rabenseifner, Gropp, 2005, for the shares; cuts as in Bokhari, Berryman, "Complete exchange on a
//! circuit switched mesh", 1992. Intel's Gaudi 3 documentation states both limits of several servers: 600 GB/s for
//! all-reduces (525 within and 75 out of each of eight), 75 GB/s for an exchange.

use crate::arithmetic::{larger, reciprocal};
use crate::hardware::{Level, Link, Route};

use super::collective::Collective;

/// The wires of a group, as one kind of collective uses them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Wire {
    /// Seconds for each byte of a rank's share that no algorithm of endpoints can beat.
    pub(super) ideal: f64,
    /// The same of a library that sends one ring, or each message of an exchange, through all levels at once.
    pub(super) library: f64,
}

impl Wire {
    pub(super) fn of(route: &Route, kind: Collective) -> Self {
        if let [level] = route.levels[..] {
            let alone = reciprocal(inside(&level.link, route.num_devices, kind));
            return Self { ideal: alone, library: alone };
        }
        let n = route.num_devices as f64;
        let mut wire = Self { ideal: 0.0, library: 0.0 };
        if kind == Collective::PointToPoint {
            // The hand-over that crosses the outermost level.
            let alone = reciprocal(route.outermost().link.pair_bandwidth());
            return Self { ideal: alone, library: alone };
        }
        // Members of one part, and what leads out of each of them.
        let mut members = 1.0;
        for (at, level) in route.levels.iter().enumerate() {
            let own = if at == 0 { inside(&level.link, level.width, kind) } else { level.link.bandwidth_bytes_per_s };
            let outward: f64 = own + route.levels[at + 1..].iter().map(|o| o.link.bandwidth_bytes_per_s).sum::<f64>();
            let parts = n / members;
            // Bytes over the edge of a part, for each of its members, relative to those over the edge of a device.
            let (all, kept) = match kind {
                Collective::AllToAll => {
                    ((n - members) / (n - 1.0), (n / level.num_groups as f64 - members) / (n - 1.0))
                }
                _ => ((parts - 1.0) / parts / ((n - 1.0) / n) / members, 1.0 / members),
            };
            wire.ideal = larger(wire.ideal, all * reciprocal(outward));
            // Of an exchange the messages that stay within the level, of a ring all of it.
            let through = if level.num_groups == 1 && kind == Collective::AllToAll { all } else { kept };
            wire.library = larger(wire.library, through * reciprocal(own));
            members = n / level.num_groups as f64;
        }
        wire.library = larger(wire.library, wire.ideal);
        wire
    }
}

/// Bandwidth of a device within one level.
fn inside(link: &Link, group: u64, kind: Collective) -> f64 {
    match kind {
        Collective::AllToAll => link.exchange_bandwidth(group),
        Collective::PointToPoint => link.pair_bandwidth(),
        _ => link.group_bandwidth(group),
    }
}

/// Seconds that the hops of (ring, tree) take, level by level, where each adds `hop_s` to its link's latency.
pub(super) fn hops_s(route: &Route, kind: Collective, hop_s: f64) -> [f64; 2] {
    if kind == Collective::PointToPoint {
        let one = route.outermost().link.latency_s + hop_s;
        return [one, one];
    }
    let mut sums = [0.0, 0.0];
    for level in route.levels.iter().filter(|level| level.width > 1) {
        let hops = level_hops(level, kind);
        for (sum, hops) in sums.iter_mut().zip(hops) {
            *sum += hops * (level.link.latency_s + hop_s);
        }
    }
    sums
}

/// Hops of (ring, tree) among the parts that a level joins. In a mesh all peers are one hop away.
fn level_hops(level: &Level, kind: Collective) -> [f64; 2] {
    let width = level.width as f64;
    let passes = if kind == Collective::AllReduce { 2.0 } else { 1.0 };
    if kind == Collective::AllToAll || level.link.topology.is_mesh() {
        return [passes, passes];
    }
    [passes * (width - 1.0), passes * width.log2().ceil()]
}
