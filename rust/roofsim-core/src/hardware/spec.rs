//! The spec file of an accelerator: JSON in, JSON out, an exact round trip.
//!
//! TOML files reach this reader as JSON. A null counts as absent. Units stand in the field names; limits are wide enough
//! for any machine one could build and narrow enough to catch a value in the wrong unit or a sign error.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::table::{self, Limits, Table};
use super::topology::{MAX_AXES, Topology, Torus};
use super::{Accelerator, GENERIC_FAMILY, Link, Price, Source, UNKNOWN_VENDOR};
use crate::error::{Error, Result};
use crate::format::ComputeDType;

/// Largest spec text that is read.
const MAX_TEXT_BYTES: usize = 1 << 20;

const FIELDS: [&str; 15] = [
    "name",
    "aliases",
    "vendor",
    "family",
    "num_compute_units",
    "memory_bytes",
    "memory_bandwidth_bytes_per_s",
    "cache_bytes",
    "peak_flops_per_s",
    "link",
    "host_link",
    "network",
    "power_w",
    "prices",
    "sources",
];
const LINK_FIELDS: [&str; 6] = ["bandwidth_bytes_per_s", "latency_s", "num_devices", "topology", "shape", "cube"];
/// Of a host's bus and a network, which are taken for switches.
const SWITCHED_FIELDS: usize = 3;
const PRICE_FIELDS: [&str; 5] = ["usd_per_hour", "kind", "provider", "source", "date"];
const SOURCE_FIELDS: [&str; 2] = ["source", "date"];

/// The kinds of price, which must never be compared with each other unnamed.
pub const PRICE_KINDS: [&str; 3] = ["on-demand", "reserved", "cost-of-ownership"];

/// The key under which `sources` holds the document that covers every field without an entry of its own.
const EVERY_FIELD: &str = "*";

// Rates start at one per second: a smaller one is a value in the wrong unit and would overflow the times made from it.
const PEAK: Limits = Limits::new(1.0, 1e18, "FLOP/s");
const BANDWIDTH: Limits = Limits::new(1.0, 1e16, "bytes/s");
const LATENCY: Limits = Limits::new(0.0, 10.0, "s");
const MEMORY: Limits = Limits::new(1.0, (1_u64 << 50) as f64, "bytes (2^50)");
const CACHE: Limits = Limits::new(1.0, (1_u64 << 40) as f64, "bytes (2^40)");
const COMPUTE_UNITS: Limits = Limits::new(1.0, 1e9, "");
const DEVICES: Limits = Limits::new(2.0, Link::UNBOUNDED_DEVICES as f64, "devices (2^20)");
/// Devices of the one cube mesh that was built.
const CUBE_MESH_DEVICES: u64 = 8;
const POWER: Limits = Limits::new(1e-3, 1e6, "W");
const DOLLARS: Limits = Limits::new(1e-6, 1e6, "US dollars an hour");

impl Accelerator {
    /// Reads a spec file's JSON text.
    ///
    /// Required are `name`, `memory_bytes`, `memory_bandwidth_bytes_per_s` and at least one entry of
    /// `peak_flops_per_s`; everything else may be absent and is then unknown, never guessed. An absent `family` reads as
    /// `generic`, an absent `latency_s` as 0, an absent `network.num_devices` as [`Link::UNBOUNDED_DEVICES`], an absent
    /// `link.topology` as a switch.
    ///
    /// # Errors
    /// [`Error::Spec`] with the dotted path of the first bad field, its value and the rule it broke: an unknown or
    /// missing field, a wrong type, a number that is not finite, not positive or beyond its limit, a fraction where a
    /// whole number belongs, an unknown price kind, a malformed date, a source for a field that does not exist.
    pub fn from_json(text: &str) -> Result<Self> {
        let value = table::parse(text, MAX_TEXT_BYTES)?;
        let spec = Table::open("", &value, &FIELDS)?;
        let bandwidth = spec.number("memory_bandwidth_bytes_per_s", BANDWIDTH)?;
        Ok(Self {
            name: name(&spec)?,
            aliases: aliases(&spec)?,
            vendor: spec.text("vendor")?.unwrap_or_else(|| UNKNOWN_VENDOR.to_owned()),
            family: spec.text("family")?.unwrap_or_else(|| GENERIC_FAMILY.to_owned()),
            num_compute_units: spec.integer("num_compute_units", COMPUTE_UNITS)?,
            memory_bytes: spec.required(
                "memory_bytes",
                spec.integer("memory_bytes", MEMORY)?,
                "device memory in bytes",
            )?,
            memory_bandwidth_bytes_per_s: spec.required(
                "memory_bandwidth_bytes_per_s",
                bandwidth,
                "peak device memory bandwidth",
            )?,
            cache_bytes: spec.integer("cache_bytes", CACHE)?,
            peak_flops_per_s: peaks(&spec)?,
            link: link(&spec, "link")?,
            host_link: link(&spec, "host_link")?,
            network: link(&spec, "network")?,
            power_w: spec.number("power_w", POWER)?,
            prices: prices(&spec)?,
            sources: sources(&spec)?,
        })
    }

    /// Writes the spec as JSON text that [`Accelerator::from_json`] reads back to an equal value.
    pub fn to_json(&self) -> String {
        let mut spec = Map::new();
        spec.insert("name".to_owned(), json!(self.name));
        spec.insert("aliases".to_owned(), json!(self.aliases));
        spec.insert("vendor".to_owned(), json!(self.vendor));
        spec.insert("family".to_owned(), json!(self.family));
        spec.insert("memory_bytes".to_owned(), json!(self.memory_bytes));
        spec.insert("memory_bandwidth_bytes_per_s".to_owned(), json!(self.memory_bandwidth_bytes_per_s));
        let peaks: Map<String, Value> =
            self.peak_flops_per_s.iter().map(|(dtype, peak)| (dtype.name().to_owned(), json!(peak))).collect();
        spec.insert("peak_flops_per_s".to_owned(), Value::Object(peaks));
        let optional = [
            ("num_compute_units", self.num_compute_units.map(|count| json!(count))),
            ("cache_bytes", self.cache_bytes.map(|bytes| json!(bytes))),
            ("link", self.link.as_ref().map(|link| link_json("link", link))),
            ("host_link", self.host_link.as_ref().map(|link| link_json("host_link", link))),
            ("network", self.network.as_ref().map(|link| link_json("network", link))),
            ("power_w", self.power_w.map(|watts| json!(watts))),
        ];
        spec.extend(optional.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?))));
        spec.insert("prices".to_owned(), self.prices.iter().map(price_json).collect());
        let sources: Map<String, Value> =
            self.sources.iter().map(|(field, source)| (field.clone(), source_json(source))).collect();
        spec.insert("sources".to_owned(), Value::Object(sources));
        format!("{:#}", Value::Object(spec))
    }
}

fn link_json(key: &str, link: &Link) -> Value {
    let mut entry = Map::new();
    entry.insert("bandwidth_bytes_per_s".to_owned(), json!(link.bandwidth_bytes_per_s));
    entry.insert("latency_s".to_owned(), json!(link.latency_s));
    // Only a network may leave out how many devices it joins.
    if key != "network" || link.num_devices != Link::UNBOUNDED_DEVICES {
        entry.insert("num_devices".to_owned(), json!(link.num_devices));
    }
    if key == "link" {
        entry.insert("topology".to_owned(), json!(link.topology.name()));
    }
    if let Topology::Torus(Torus { shape, cube }) = link.topology {
        let axes: Vec<u64> = shape.into_iter().filter(|&length| length > 1).collect();
        entry.insert("shape".to_owned(), json!(axes));
        if let Some(cube) = cube {
            entry.insert("cube".to_owned(), json!(cube));
        }
    }
    Value::Object(entry)
}

fn price_json(price: &Price) -> Value {
    json!({
        "usd_per_hour": price.usd_per_hour,
        "kind": price.kind,
        "provider": price.provider,
        "source": price.source.source,
        "date": price.source.date,
    })
}

fn source_json(source: &Source) -> Value {
    json!({ "source": source.source, "date": source.date })
}

fn name(spec: &Table) -> Result<String> {
    let name = spec.required("name", spec.text("name")?, "a lower-case name with the variant, like h100-sxm")?;
    if name != name.trim() || name.chars().any(|c| c.is_uppercase() || c.is_control()) {
        return Err(Error::spec("name", name, "must be lower case, without blanks at its ends or control characters"));
    }
    Ok(name)
}

fn aliases(spec: &Table) -> Result<Vec<String>> {
    spec.list("aliases")?.into_iter().map(|(field, value)| table::text(&field, value)).collect()
}

fn peaks(spec: &Table) -> Result<BTreeMap<ComputeDType, f64>> {
    const WANTED: &str = "the dense peak of at least one operand type, in FLOP/s";
    let value = spec.required("peak_flops_per_s", spec.value("peak_flops_per_s"), WANTED)?;
    let table = Table::open("peak_flops_per_s", value, &ComputeDType::ALL.map(ComputeDType::name))?;
    let mut peaks = BTreeMap::new();
    for dtype in ComputeDType::ALL {
        if let Some(peak) = table.number(dtype.name(), PEAK)? {
            peaks.insert(dtype, peak);
        }
    }
    if peaks.is_empty() {
        return Err(Error::spec("peak_flops_per_s", table::shown(value), format!("must hold {WANTED}")));
    }
    Ok(peaks)
}

fn link(spec: &Table, key: &str) -> Result<Option<Link>> {
    let Some(value) = spec.value(key) else { return Ok(None) };
    let known = if key == "link" { &LINK_FIELDS[..] } else { &LINK_FIELDS[..SWITCHED_FIELDS] };
    let table = Table::open(key, value, known)?;
    let bandwidth = table.number("bandwidth_bytes_per_s", BANDWIDTH)?;
    let num_devices = match table.integer("num_devices", DEVICES)? {
        // A network grows by adding switches; a link and a host bus end where the board does.
        None if key == "network" => Link::UNBOUNDED_DEVICES,
        found => table.required("num_devices", found, "how many devices it joins")?,
    };
    Ok(Some(Link {
        bandwidth_bytes_per_s: table.required("bandwidth_bytes_per_s", bandwidth, "per device and direction")?,
        latency_s: table.number("latency_s", LATENCY)?.unwrap_or(0.0),
        num_devices,
        topology: topology(&table, num_devices)?,
    }))
}

/// How a link is wired; an absent `topology` reads as a switch.
fn topology(table: &Table, num_devices: u64) -> Result<Topology> {
    let name = table.text("topology")?.unwrap_or_else(|| Topology::Switch.name().to_owned());
    let wired = match name.as_str() {
        "switch" => Topology::Switch,
        "mesh" => Topology::Mesh,
        "cube-mesh" if num_devices != CUBE_MESH_DEVICES => {
            let rule = format!("must be {CUBE_MESH_DEVICES} where topology is cube-mesh");
            return Err(Error::spec(table.field("num_devices"), num_devices, rule));
        }
        "cube-mesh" => Topology::CubeMesh,
        "torus" => Topology::Torus(torus(table, num_devices)?),
        _ => {
            let rule = format!("must be one of {}", Topology::NAMES.join(", "));
            return Err(Error::spec(table.field("topology"), name, rule));
        }
    };
    for key in ["shape", "cube"] {
        if let (Some(value), false) = (table.value(key), matches!(wired, Topology::Torus(_))) {
            let rule = "describes a torus: topology must be torus";
            return Err(Error::spec(table.field(key), table::shown(value), rule));
        }
    }
    Ok(wired)
}

fn torus(table: &Table, num_devices: u64) -> Result<Torus> {
    let axes = table.list("shape")?;
    let rule = format!("must list the devices along 1 to {MAX_AXES} axes, each from 2, whose product is num_devices");
    let refuse = |value: String| Err(Error::spec(table.field("shape"), value, rule.clone()));
    if axes.is_empty() || axes.len() > MAX_AXES {
        return refuse(table.value("shape").map_or_else(|| "missing".to_owned(), table::shown));
    }
    let mut shape = [1; MAX_AXES];
    for (own, (path, value)) in shape.iter_mut().zip(&axes) {
        *own = table::whole_number(path, value, DEVICES)?;
    }
    if shape.iter().try_fold(1_u64, |all, &length| all.checked_mul(length)) != Some(num_devices) {
        return refuse(table.value("shape").map_or_else(String::new, table::shown));
    }
    Ok(Torus { shape, cube: table.integer("cube", DEVICES)? })
}

fn prices(spec: &Table) -> Result<Vec<Price>> {
    spec.list("prices")?.into_iter().map(|(path, value)| price(&path, value)).collect()
}

fn price(path: &str, value: &Value) -> Result<Price> {
    let table = Table::open(path, value, &PRICE_FIELDS)?;
    let kind = table.required("kind", table.text("kind")?, "on-demand, reserved or cost-of-ownership")?;
    if !PRICE_KINDS.contains(&kind.as_str()) {
        return Err(Error::spec(table.field("kind"), kind, format!("must be one of {}", PRICE_KINDS.join(", "))));
    }
    Ok(Price {
        usd_per_hour: table.required(
            "usd_per_hour",
            table.number("usd_per_hour", DOLLARS)?,
            "the price of one device for one hour",
        )?,
        kind,
        provider: table.required("provider", table.text("provider")?, "who asks this price")?,
        source: source(&table)?,
    })
}

fn sources(spec: &Table) -> Result<BTreeMap<String, Source>> {
    let Some(value) = spec.value("sources") else { return Ok(BTreeMap::new()) };
    let mut known = vec![EVERY_FIELD.to_owned()];
    known.extend(FIELDS.iter().filter(|field| **field != "sources" && **field != "prices").map(|f| (*f).to_owned()));
    known.extend(ComputeDType::ALL.iter().map(|dtype| format!("peak_flops_per_s.{}", dtype.name())));
    known.extend(LINK_FIELDS.iter().map(|field| format!("link.{field}")));
    for link in ["host_link", "network"] {
        known.extend(LINK_FIELDS[..SWITCHED_FIELDS].iter().map(|field| format!("{link}.{field}")));
    }
    let known: Vec<&str> = known.iter().map(String::as_str).collect();
    let table = Table::open("sources", value, &known)?;
    let mut sources = BTreeMap::new();
    for field in known {
        if let Some(value) = table.value(field) {
            let entry = Table::open(&table.field(field), value, &SOURCE_FIELDS)?;
            sources.insert(field.to_owned(), source(&entry)?);
        }
    }
    Ok(sources)
}

/// Reads the `source` and `date` that stand in `table`.
fn source(table: &Table) -> Result<Source> {
    let date = table.required("date", table.text("date")?, "when the source was read or measured")?;
    if !is_iso_date(&date) {
        return Err(Error::spec(table.field("date"), date, "must be YYYY, YYYY-MM or YYYY-MM-DD"));
    }
    Ok(Source { source: table.required("source", table.text("source")?, "the document or measurement")?, date })
}

/// True for `YYYY`, `YYYY-MM` and `YYYY-MM-DD` with a month of the year and a day of the longest month.
fn is_iso_date(date: &str) -> bool {
    let mut parts = date.split('-');
    let within = |part: &str, digits: usize, min: u32, max: u32| {
        part.len() == digits
            && part.bytes().all(|byte| byte.is_ascii_digit())
            && part.parse::<u32>().is_ok_and(|number| (min..=max).contains(&number))
    };
    parts.next().is_some_and(|year| within(year, 4, 1900, 2999))
        && parts.next().is_none_or(|month| within(month, 2, 1, 12))
        && parts.next().is_none_or(|day| within(day, 2, 1, 31))
        && parts.next().is_none()
}
