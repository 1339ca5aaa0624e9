//! Parts of a space: any range of row numbers as a few spaces whose rows are contiguous in the whole.
//!
//! Row numbers are numbers in a mixed radix, one digit per axis. A range of them falls apart into boxes that fix the
//! digits before some axis, take a range of that axis, and all of the axes after it: at most two per axis.

use std::borrow::Cow;
use std::ops::Range;

use super::column::Column;
use super::filter::Filter;
use super::space::{Axis, Space};
use crate::error::{Error, Result};

/// Axes of a space, numeric ones last.
const AXES: usize = 18;

/// A contiguous range of rows of a space, itself a space.
#[derive(Debug)]
pub(super) struct Part<'a> {
    /// Its rows are those of the whole from `first_row` on, in the same order.
    pub(super) space: Cow<'a, Space>,
    pub(super) first_row: u128,
    /// Where its axes start on those of the whole.
    origin: [usize; AXES],
}

impl Part<'_> {
    /// What to add to a column's value in the part to have it in the whole: codes of named axes are positions.
    pub(super) fn offset(&self, column: Column) -> f64 {
        let [model, accelerator, .., _, _, _] = self.origin;
        match column {
            Column::Model => model as f64,
            Column::Accelerator => accelerator as f64,
            Column::Calibration => self.origin.get(8).copied().unwrap_or(0) as f64,
            _ => 0.0,
        }
    }

    /// Filters of the whole for this part.
    pub(super) fn filters(&self, filters: &[Filter]) -> Vec<Filter> {
        filters.iter().map(|filter| filter.shifted(self.offset(filter.column))).collect()
    }
}

/// All rows, or the range that was asked for.
pub(super) fn rows_of(space: &Space, rows: Option<Range<u128>>) -> Result<Range<u128>> {
    space.check()?;
    let total = space.num_configurations().unwrap_or(u128::MAX);
    let Some(rows) = rows else { return Ok(0..total) };
    if rows.start > rows.end || rows.end > total {
        let rule = format!("must be a rising range within the {total} rows of the space");
        return Err(Error::spec("rows", format!("{}..{}", rows.start, rows.end), rule));
    }
    Ok(rows)
}

/// The parts that make up a range of rows, in order.
pub(super) fn parts(space: &Space, rows: Range<u128>) -> Vec<Part<'_>> {
    let lengths = lengths(space);
    let mut strides = [1_u128; AXES];
    for axis in (0..AXES - 1).rev() {
        strides[axis] = strides[axis + 1] * lengths[axis + 1] as u128;
    }
    let mut found = Vec::new();
    let mut row = rows.start;
    while row < rows.end {
        let axis =
            (0..AXES).find(|&a| row.is_multiple_of(strides[a]) && row + strides[a] <= rows.end).unwrap_or(AXES - 1);
        let mut ranges: [Range<usize>; AXES] = std::array::from_fn(|a| {
            let digit = usize::try_from(row / strides[a] % lengths[a] as u128).unwrap_or(0);
            if a < axis { digit..digit + 1 } else { 0..lengths[a] }
        });
        let digit = usize::try_from(row / strides[axis] % lengths[axis] as u128).unwrap_or(0);
        let most = usize::try_from((rows.end - row) / strides[axis]).unwrap_or(usize::MAX);
        let count = most.min(lengths[axis] - digit);
        ranges[axis] = digit..digit + count;
        let whole = ranges.iter().zip(lengths).all(|(range, len)| range.len() == len);
        let space = if whole { Cow::Borrowed(space) } else { Cow::Owned(slice(space, &ranges)) };
        found.push(Part { space, first_row: row, origin: ranges.map(|range| range.start) });
        row += count as u128 * strides[axis];
    }
    found
}

fn lengths(space: &Space) -> [usize; AXES] {
    let numeric = [space.batch_size.len(), space.context_tokens.len(), space.query_tokens.len()];
    let mut all = [0; AXES];
    for (slot, len) in all.iter_mut().zip(space.categorical_lengths().into_iter().chain(numeric)) {
        *slot = len;
    }
    all
}

fn slice(space: &Space, ranges: &[Range<usize>; AXES]) -> Space {
    fn cut<T: Clone>(axis: &[T], range: &Range<usize>) -> Vec<T> {
        axis.get(range.clone()).unwrap_or(&[]).to_vec()
    }
    let numeric = |axis: &Axis, range: &Range<usize>| match axis {
        Axis::Range { start, step, .. } => {
            Axis::Range { start: start + step * range.start as u64, step: *step, len: range.len() }
        }
        Axis::List(values) => Axis::List(cut(values, range)),
    };
    let [m, a, tp, pp, dp, ep, w, kv, cal, engine, mode, share, block, tokens, seqs, batch, context, query] = ranges;
    Space {
        models: cut(&space.models, m),
        accelerators: cut(&space.accelerators, a),
        usd_per_hour: cut(&space.usd_per_hour, a),
        tensor_parallel_size: cut(&space.tensor_parallel_size, tp),
        pipeline_parallel_size: cut(&space.pipeline_parallel_size, pp),
        data_parallel_size: cut(&space.data_parallel_size, dp),
        expert_parallel_size: cut(&space.expert_parallel_size, ep),
        weight_dtype: cut(&space.weight_dtype, w),
        kv_cache_dtype: cut(&space.kv_cache_dtype, kv),
        calibration: cut(&space.calibration, cal),
        engine: cut(&space.engine, engine),
        capacity_mode: cut(&space.capacity_mode, mode),
        gpu_memory_utilization: cut(&space.gpu_memory_utilization, share),
        block_size: cut(&space.block_size, block),
        max_num_batched_tokens: cut(&space.max_num_batched_tokens, tokens),
        max_num_seqs: cut(&space.max_num_seqs, seqs),
        batch_size: numeric(&space.batch_size, batch),
        context_tokens: numeric(&space.context_tokens, context),
        query_tokens: numeric(&space.query_tokens, query),
    }
}
