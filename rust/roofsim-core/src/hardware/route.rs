//! The links that join a group of devices, innermost first: inside a link's domain one, beyond it one for each level.
//!
//! A group of 16 H100s is two boards of eight: `NVLink` within, the network cards of all eight between. Groups are spread
//! as evenly over domains as they go.

use super::{Accelerator, Link};

/// Which table of the spec a link stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// `link`: scale-up.
    ScaleUp,
    /// `host_link`: the host's bus.
    Host,
    /// `network`: between hosts.
    Network,
}

/// One level of a route.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Level {
    /// Which link.
    pub reach: Reach,
    /// Its values.
    pub link: Link,
    /// Groups that this level leaves apart: 1 at the outermost.
    pub num_groups: u64,
    /// Parts that it joins: devices at the innermost level, groups of the level within elsewhere; the most of any.
    pub width: u64,
}

/// How a group of devices is joined.
#[derive(Debug, Clone, PartialEq)]
pub struct Route {
    /// Devices of the group.
    pub num_devices: u64,
    /// Innermost first; never empty.
    pub levels: Vec<Level>,
}

impl Accelerator {
    /// The links that join `num_devices` devices; `None` where none reaches so far.
    ///
    /// The scale-up link while it reaches, then the host's bus, then the network. A level that joins no more devices than
    /// the one within is passed over.
    pub fn route(&self, num_devices: u64) -> Option<Route> {
        let mut levels: Vec<Level> = Vec::new();
        let links = [(Reach::ScaleUp, self.link), (Reach::Host, self.host_link), (Reach::Network, self.network)];
        let mut within = num_devices;
        for (reach, link) in links {
            let Some(link) = link else { continue };
            if levels.last().is_some_and(|inner| inner.link.num_devices >= link.num_devices) {
                continue;
            }
            let num_groups = num_devices.div_ceil(link.num_devices);
            levels.push(Level { reach, link, num_groups, width: within.div_ceil(num_groups) });
            within = num_groups;
            if num_groups == 1 {
                return Some(Route { num_devices, levels });
            }
        }
        None
    }
}

impl Route {
    /// The level that joins everything.
    pub fn outermost(&self) -> &Level {
        &self.levels[self.levels.len() - 1]
    }

    /// Whether the scale-up link alone joins the group.
    pub fn scales_up(&self) -> bool {
        self.outermost().reach == Reach::ScaleUp
    }

    /// Whether the group fits a node.
    pub fn is_local(&self) -> bool {
        self.outermost().reach != Reach::Network
    }
}
