//! Sweeps: every combination of categorical and numeric axes, as columns or reduced on the way.
//!
//! `space` says which configurations there are, `combination` compiles one categorical combination, `line` evaluates
//! its configurations, `driver` hands chunks of lines to threads, and `top_k`, `pareto`, `materialize` say what is kept.

mod column;
mod combination;
mod driver;
mod filter;
mod line;
mod materialize;
mod pareto;
mod space;
mod top_k;

pub use column::{Column, ColumnKind, Direction};
pub use driver::{Progress, Runner};
pub use filter::{Filter, parse_filters};
pub use materialize::{ColumnData, Columns};
pub use pareto::Pareto;
pub use space::{Axis, CATEGORICAL, Configuration, Space};
pub use top_k::TopK;
