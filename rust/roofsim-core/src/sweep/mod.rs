//! Sweeps: every combination of categorical and numeric axes, as columns or reduced on the way.
//!
//! `space` says which configurations there are, `tables` holds what many of them share, `block` evaluates a few hundred
//! at once with the loops of `kernel`, `driver` hands chunks to threads, and `top_k`, `pareto`, `reduce`, `select` and
//! `materialize` say what is kept. Algebra first: for one combination and batch, time is a number that depends on row counts alone plus
//! attention, whose loads per request are tabulated once per context.

mod block;
mod column;
mod combination;
mod driver;
mod filter;
mod front;
pub mod kernel;
mod materialize;
mod pareto;
mod part;
mod rank;
mod reduce;
mod search;
mod select;
mod sort;
mod space;
mod tables;
mod top_k;
mod unranked;

pub use column::{Column, ColumnKind, Direction};
pub use driver::{Progress, Runner};
pub use filter::{Filter, parse_filters};
pub use kernel::Isa;
pub use materialize::{ColumnMeta, Output};
pub use pareto::Pareto;
pub use reduce::{Group, GroupKey, Groups, Histogram, MAX_GROUPS, RELATIVE_ERROR, Scan, Sketch};
pub use search::{Choice, SearchReport};
pub use select::{Batches, Selection, Values};
pub use space::{Axis, CATEGORICAL, Configuration, Space};
pub use top_k::TopK;
pub use unranked::Unranked;
