//! Groups of rows: which columns may make them, and the number of the group a row belongs to.

use std::ops::Range;

use super::super::block::Block;
use super::super::column::{Column, ColumnKind, names};
use super::super::kernel::BLOCK;
use super::super::part::Part;
use super::super::space::{Axis, Space};
use crate::error::{Error, Result};

/// Most groups of one reduction: what it keeps must stay small however many rows there are.
pub const MAX_GROUPS: usize = 1 << 20;

/// Values of the grouping columns, in their order; codes of named columns, 0 and 1 of flags, `None` where null.
pub type GroupKey = Vec<Option<f64>>;

/// The values that a column can take, in order; one more place is for null.
#[derive(Debug, Clone)]
enum Domain {
    /// Codes, each with the first code of its name.
    Codes(Vec<usize>),
    /// An arithmetic progression.
    Range { start: f64, step: f64, len: usize },
    /// Rising values.
    Values(Vec<f64>),
}

impl Domain {
    fn new(space: &Space, field: &str, column: Column) -> Result<Self> {
        let counts = |axis: &[u64]| Self::sorted(axis.iter().map(|&n| n as f64));
        Ok(match column {
            _ if column.kind() == ColumnKind::Code => {
                let names = names(space, column);
                let first = |name| names.iter().position(|known| known == name).unwrap_or(0);
                Self::Codes(names.iter().map(first).collect())
            }
            Column::Fits => Self::Values(vec![0.0, 1.0]),
            Column::TensorParallelSize => counts(&space.tensor_parallel_size),
            Column::PipelineParallelSize => counts(&space.pipeline_parallel_size),
            Column::DataParallelSize => counts(&space.data_parallel_size),
            Column::ExpertParallelSize => counts(&space.expert_parallel_size),
            Column::NumDevices => {
                let (tensor, pipeline) = (&space.tensor_parallel_size, &space.pipeline_parallel_size);
                let products = tensor.iter().flat_map(|t| pipeline.iter().map(move |p| t * p));
                let data = &space.data_parallel_size;
                Self::sorted(products.flat_map(|n| data.iter().map(move |d| (n * d) as f64)))
            }
            Column::GpuMemoryUtilization => Self::sorted(space.gpu_memory_utilization.iter().copied()),
            Column::BlockSize => counts(&space.block_size),
            Column::MaxNumBatchedTokens => counts(&space.max_num_batched_tokens),
            Column::MaxNumSeqs => counts(&space.max_num_seqs),
            Column::BatchSize => Self::numeric(&space.batch_size),
            Column::ContextTokens => Self::numeric(&space.context_tokens),
            Column::QueryTokens => Self::numeric(&space.query_tokens),
            _ => {
                let rule = "makes no groups: group by axes, names (bound, status, ...), fits or num_devices";
                return Err(Error::spec(field, column.name(), rule));
            }
        })
    }

    fn numeric(axis: &Axis) -> Self {
        match axis {
            Axis::Range { start, step, len } => Self::Range { start: *start as f64, step: *step as f64, len: *len },
            Axis::List(values) => Self::sorted(values.iter().map(|&n| n as f64)),
        }
    }

    fn sorted(values: impl Iterator<Item = f64>) -> Self {
        let mut values: Vec<f64> = values.collect();
        values.sort_by(f64::total_cmp);
        values.dedup();
        Self::Values(values)
    }

    const fn len(&self) -> usize {
        match self {
            Self::Codes(codes) => codes.len(),
            Self::Range { len, .. } => *len,
            Self::Values(values) => values.len(),
        }
    }

    /// The place of a value; null has the last one.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "whole numbers below 2^53")]
    fn place(&self, value: f64) -> usize {
        if value.is_nan() {
            return self.len();
        }
        match self {
            Self::Codes(codes) => codes.get(value as usize).copied().unwrap_or(codes.len()),
            Self::Range { start, step, .. } => ((value - start) / step) as usize,
            Self::Values(values) => values.partition_point(|&x| x < value),
        }
    }

    /// The places of all values from `least` to `most`.
    fn span(&self, least: f64, most: f64) -> Range<usize> {
        match self {
            // Codes have no order: one, or any.
            Self::Codes(codes) if least == most => {
                let place = self.place(least);
                place..(place + 1).min(codes.len() + 1)
            }
            Self::Codes(codes) => 0..codes.len(),
            // Equal values are all in the first place.
            Self::Range { step, .. } if *step == 0.0 => 0..1,
            Self::Range { len, .. } => self.place(least).min(*len)..(self.place(most) + 1).min(*len),
            Self::Values(values) => self.place(least)..values.partition_point(|&x| x <= most),
        }
    }

    fn value(&self, place: usize) -> Option<f64> {
        match self {
            Self::Codes(codes) => (place < codes.len()).then_some(place as f64),
            Self::Range { start, step, len } => (place < *len).then(|| start + step * place as f64),
            Self::Values(values) => values.get(place).copied(),
        }
    }
}

/// The groups that some columns make.
#[derive(Debug, Clone)]
pub(in super::super) struct Keys {
    columns: Vec<Column>,
    domains: Vec<Domain>,
    num_groups: usize,
}

/// The groups that the rows of a region may be in: places of every column's values.
#[derive(Debug, Clone, Default)]
pub(in super::super) struct Span(Box<[Range<usize>]>);

impl Span {
    /// Number of places of each column.
    pub(in super::super) fn widths(&self) -> impl Iterator<Item = usize> + '_ {
        self.0.iter().map(ExactSizeIterator::len)
    }
}

/// Groups of the rows of a block.
pub(in super::super) enum Places<'a> {
    /// All rows are in one.
    One(usize),
    /// One per row.
    Each(&'a [usize]),
}

impl Keys {
    /// Refusals name the argument that the columns came in.
    pub(in super::super) fn new(space: &Space, field: &str, columns: &[Column]) -> Result<Self> {
        space.check()?;
        if let Some((at, column)) = columns.iter().enumerate().find(|(at, c)| columns[..*at].contains(c)) {
            return Err(Error::spec(field, column.name(), format!("stands twice (the second time in place {at})")));
        }
        let domains = columns.iter().map(|&column| Domain::new(space, field, column)).collect::<Result<Vec<_>>>()?;
        let product = domains.iter().try_fold(1_usize, |product, domain| product.checked_mul(domain.len() + 1));
        let Some(num_groups) = product.filter(|&n| n <= MAX_GROUPS) else {
            let each: Vec<String> =
                columns.iter().zip(&domains).map(|(c, d)| format!("{} {}", d.len(), c.name())).collect();
            let rule = format!("make more than {MAX_GROUPS} groups: group by fewer columns or shorter axes");
            return Err(Error::spec(field, each.join(" x "), rule));
        };
        Ok(Self { columns: columns.to_vec(), domains, num_groups })
    }

    pub(in super::super) const fn num_groups(&self) -> usize {
        self.num_groups
    }

    /// Groups without a null among their values, at most.
    pub(in super::super) fn num_known(&self) -> usize {
        self.domains.iter().map(Domain::len).product()
    }

    /// The grouping columns.
    pub(in super::super) fn columns(&self) -> &[Column] {
        &self.columns
    }

    /// The groups that rows may be in whose columns lie in these intervals.
    pub(in super::super) fn span(&self, mut interval: impl FnMut(Column) -> (f64, f64)) -> Span {
        let each = self.columns.iter().zip(&self.domains).map(|(&column, domain)| {
            let (least, most) = interval(column);
            domain.span(least, most)
        });
        Span(each.collect())
    }

    /// Whether a test holds for all groups of a span.
    pub(in super::super) fn all(&self, span: &Span, test: &mut impl FnMut(usize) -> bool) -> bool {
        self.all_from(span, 0, 0, test)
    }

    fn all_from(&self, span: &Span, at: usize, group: usize, test: &mut impl FnMut(usize) -> bool) -> bool {
        let (Some(places), Some(domain)) = (span.0.get(at), self.domains.get(at)) else { return test(group) };
        let first = group * (domain.len() + 1);
        places.clone().all(|place| self.all_from(span, at + 1, first + place, test))
    }

    /// The values of a group.
    pub(in super::super) fn key(&self, group: usize) -> GroupKey {
        let mut rest = group;
        let mut key: GroupKey = self
            .domains
            .iter()
            .rev()
            .map(|domain| {
                let places = domain.len() + 1;
                let value = domain.value(rest % places);
                rest /= places;
                value
            })
            .collect();
        key.reverse();
        key
    }

    /// The groups of the rows of a part's block.
    pub(super) fn places<'s>(&self, part: &Part<'_>, block: &Block<'_>, each: &'s mut [usize; BLOCK]) -> Places<'s> {
        self.places_from(|column| part.offset(column), block, each)
    }

    /// The groups of a block's rows, where codes of a column start at an offset.
    pub(in super::super) fn places_from<'s>(
        &self,
        offset: impl Fn(Column) -> f64,
        block: &Block<'_>,
        each: &'s mut [usize; BLOCK],
    ) -> Places<'s> {
        let constant = |column: Column| block.same(column).map(|value| value + offset(column));
        let mut one = 0;
        let mut varies = false;
        for (&column, domain) in self.columns.iter().zip(&self.domains) {
            let value = constant(column);
            varies |= value.is_none();
            one = one * (domain.len() + 1) + value.map_or(0, |value| domain.place(value));
        }
        if !varies {
            return Places::One(one);
        }
        let Some(each) = each.get_mut(..block.len) else { return Places::One(one) };
        each.fill(0);
        let mut values = [0.0; BLOCK];
        for (&column, domain) in self.columns.iter().zip(&self.domains) {
            let places = domain.len() + 1;
            if let Some(value) = constant(column) {
                let place = domain.place(value);
                for group in each.iter_mut() {
                    *group = *group * places + place;
                }
            } else if let Some(values) = values.get_mut(..block.len) {
                block.fill(column, values);
                // Neighbours are alike: a value is looked up where it differs from the one before.
                let (mut last, mut place) = (f64::NAN, domain.len());
                for (group, &mut x) in each.iter_mut().zip(values) {
                    if x != last {
                        (last, place) = (x, domain.place(x));
                    }
                    *group = *group * places + place;
                }
            }
        }
        Places::Each(each)
    }
}
