//! How a scale-up link is wired: a switch, a mesh, a torus, a cube of two meshes; and what a group of devices gets of it.
//!
//! A device behind a switch sends all it has to any peer. Without one, what a link carries goes to one neighbour, and a
//! group that leaves neighbours out leaves their links idle: two MI300X of eight meet over one link of seven.
//! Sources: AMD, "Understanding RCCL Bandwidth and xGMI Performance on MI300X", 2025 (mesh); Google, Cloud TPU
//! documentation, and Jouppi et al., "TPU v4", ISCA 2023 (torus); NVIDIA, DGX-1 with V100 whitepaper, 2017 (cube mesh).

/// Largest number of axes of a torus.
pub const MAX_AXES: usize = 3;

/// How the devices of a link are wired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Topology {
    /// Every device reaches every other at its whole bandwidth.
    #[default]
    Switch,
    /// Every device has links of its own to every other, all alike: bridged pairs are a mesh of two.
    Mesh,
    /// Two fully joined groups of four, each device with a partner in the other: six links, two of them to one
    /// neighbour within the group and two to the partner.
    CubeMesh,
    /// Rings along up to three axes.
    Torus(Torus),
}

impl Topology {
    /// Names in a spec file.
    pub const NAMES: [&'static str; 4] = ["switch", "mesh", "cube-mesh", "torus"];

    /// The name in a spec file.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Switch => "switch",
            Self::Mesh => "mesh",
            Self::CubeMesh => "cube-mesh",
            Self::Torus(_) => "torus",
        }
    }

    /// Share of a device's bandwidth that leads to the other members of the best placed group of `group` devices, of
    /// `domain` that the link joins; of the member that has least.
    pub fn group_share(&self, group: u64, domain: u64) -> f64 {
        let (n, all) = (group as f64, domain as f64);
        match self {
            Self::Switch => 1.0,
            _ if group >= domain && !matches!(self, Self::Torus(_)) => 1.0,
            Self::Mesh => (n - 1.0) / (all - 1.0),
            Self::CubeMesh => cube_share(group),
            Self::Torus(torus) => torus.best(group, |slice| torus.degree(slice)) / torus.all_links(),
        }
    }

    /// The same for an exchange where every member sends something else to each other one. Messages between members far
    /// apart in a torus pass the links of those between them.
    pub fn exchange_share(&self, group: u64, domain: u64) -> f64 {
        match self {
            Self::Torus(torus) => torus.best(group, |slice| torus.exchange(slice)) / torus.all_links(),
            _ => self.group_share(group, domain),
        }
    }

    /// Share of a device's bandwidth that leads to its nearest neighbour.
    pub fn pair_share(&self, domain: u64) -> f64 {
        self.group_share(2, domain)
    }

    /// Whether every member of a group reaches every other without another device between.
    pub const fn is_mesh(&self) -> bool {
        matches!(self, Self::Mesh)
    }
}

/// Of six links two lead to the best neighbour, four to the rest of the group of four that has least of them.
const fn cube_share(group: u64) -> f64 {
    match group {
        0..=2 => 1.0 / 3.0,
        3 | 4 => 2.0 / 3.0,
        _ => 1.0,
    }
}

/// A torus; unused axes have length 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Torus {
    /// Devices along each axis.
    pub shape: [u64; MAX_AXES],
    /// Where switches close the rings of slices made of cubes: devices along an edge of such a cube. A slice whose
    /// every axis is a multiple of it has rings, any other has lines. Absent: an axis is a ring where the slice has
    /// all of it.
    pub cube: Option<u64>,
}

type Slice = [u64; MAX_AXES];

impl Torus {
    /// Links of a device: two for each axis.
    fn all_links(&self) -> f64 {
        2.0 * self.shape.iter().filter(|&&length| length > 1).count() as f64
    }

    fn is_ring(&self, slice: Slice, axis: usize) -> bool {
        match self.cube {
            None => slice[axis] == self.shape[axis],
            Some(cube) => slice.iter().zip(self.shape).all(|(own, all)| all == 1 || own.is_multiple_of(cube)),
        }
    }

    /// Links along an axis of the member at its end, where lines are thinnest.
    fn links(&self, slice: Slice, axis: usize) -> f64 {
        match slice[axis] {
            1 => 0.0,
            _ if self.is_ring(slice, axis) => 2.0,
            _ => 1.0,
        }
    }

    /// Links that the member with the fewest has to others.
    fn degree(&self, slice: Slice) -> f64 {
        (0..MAX_AXES).map(|axis| self.links(slice, axis)).sum()
    }

    /// Links a member has the use of while all exchange with all: what the cut across the middle of an axis lets
    /// through, shared among those who send across it, or the links of a corner where those are fewer.
    fn exchange(&self, slice: Slice) -> f64 {
        let n = slice.iter().product::<u64>() as f64;
        let cuts = (0..MAX_AXES).filter(|&axis| slice[axis] > 1).map(|axis| {
            // Of a buffer s: floor(a/2) ceil(a/2) / a^2 of n^2 messages of s/n cross n/a lines, `links` wide.
            let (a, half) = (slice[axis] as f64, (slice[axis] / 2) as f64);
            let crossing = half * (a - half) / a;
            (n - 1.0) / n * self.links(slice, axis) / crossing
        });
        cuts.fold(self.degree(slice), f64::min)
    }

    /// The most of `value` over all slices of `group` devices; what a device has at all where no slice has so many.
    fn best(&self, group: u64, value: impl Fn(Slice) -> f64) -> f64 {
        let [x, y, z] = self.shape;
        let mut most = None;
        for a in (1..=x.min(group)).filter(|a| group.is_multiple_of(*a)) {
            let rest = group / a;
            for b in (1..=y.min(rest)).filter(|b| rest.is_multiple_of(*b)) {
                let c = rest / b;
                if c <= z {
                    let own = value([a, b, c]);
                    most = Some(most.map_or(own, |best: f64| best.max(own)));
                }
            }
        }
        most.unwrap_or_else(|| self.all_links())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POD: Torus = Torus { shape: [16, 16, 1], cube: None };
    const CUBES: Torus = Torus { shape: [16, 20, 28], cube: Some(4) };

    #[test]
    fn a_mesh_of_eight_gives_two_devices_one_link_of_seven() {
        assert!((Topology::Mesh.group_share(2, 8) - 1.0 / 7.0).abs() < 1e-15);
        assert!((Topology::Mesh.group_share(4, 8) - 3.0 / 7.0).abs() < 1e-15);
        assert!((Topology::Mesh.group_share(8, 8) - 1.0).abs() < 1e-15);
    }

    #[test]
    fn slices_of_a_torus_have_the_links_of_their_corner() {
        let links = |n| POD.best(n, |slice| POD.degree(slice));
        // 1x2, 2x2, 2x4, 4x4: no axis is whole, a corner has one link along each; 16x1 and 16x2 close one ring.
        assert_eq!([2, 4, 8, 16, 32, 256].map(links), [1.0, 2.0, 2.0, 2.0, 3.0, 4.0]);
        let links = |n| CUBES.best(n, |slice| CUBES.degree(slice));
        assert_eq!([2, 4, 8, 64, 128, 8960].map(links), [1.0, 2.0, 3.0, 6.0, 6.0, 6.0]);
    }

    #[test]
    fn an_exchange_around_a_ring_costs_a_quarter_of_a_gather() {
        // "How to Scale Your Model", part 3: AllToAll takes V / (4 W) where AllGather takes V / W, V the whole array.
        let ring = Torus { shape: [64, 1, 1], cube: None };
        let n = 64.0;
        let gather_s = (n - 1.0) / n / ring.best(64, |slice| ring.degree(slice));
        let exchange_s = (n - 1.0) / n / n / ring.best(64, |slice| ring.exchange(slice));
        assert!((exchange_s / gather_s - 0.25 * n / (n - 1.0)).abs() < 1e-12);
    }
}
