//! One forward step: the readable path that every faster path must equal bit for bit.
//!
//! `time = subtotal of everything that depends on rows only, then each attention operation times its count`,
//! in the order of the operation list.

mod compile;
mod order;
mod shapes;

use crate::calibration::Joint;
use crate::engine::Engine;
use crate::ops::{AttentionOp, CollectiveOp, DispatchOp, ElementwiseOp, GemmOp, GroupedGemmOp, QuantiseOp, SlowdownOp};
use crate::roofline::OpCost;
use crate::workload::Batch;

pub use shapes::OpShape;

/// Which rows an operation works on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rows {
    /// All T rows of the step.
    All,
    /// One row per request: the ones that need logits.
    Last,
}

/// An operation whose cost depends on row counts alone.
#[derive(Debug, Clone, PartialEq)]
pub enum RowOp {
    /// Matrix product.
    Gemm(GemmOp),
    /// Routed experts.
    GroupedGemm(GroupedGemmOp),
    /// Element-wise, norm, gather, recurrence.
    Elementwise(ElementwiseOp),
    /// Communication.
    Collective(CollectiveOp),
    /// Tokens sorted by expert.
    Dispatch(DispatchOp),
    /// Attention's result narrowed for the product after it.
    Quantise(QuantiseOp),
    /// What a falling clock adds to the arithmetic of the whole step.
    Slowdown(SlowdownOp),
}

/// An entry of the operation list.
#[derive(Debug, Clone, PartialEq)]
pub struct Entry<Op> {
    /// Name as engines name it.
    pub name: &'static str,
    /// How often it runs in one step.
    pub count: u64,
    /// Its rows.
    pub rows: Rows,
    /// The compiled operation.
    pub op: Op,
}

/// All operations of one step, equal ones collapsed.
#[derive(Debug, Clone, PartialEq)]
pub struct CompiledStep {
    /// Those that depend on rows only, in order.
    pub row_ops: Vec<Entry<RowOp>>,
    /// Attention, in order.
    pub attention: Vec<Entry<AttentionOp>>,
    /// Whose rules say how many rows a step really computes.
    pub engine: Engine,
    /// `1 / W`, for MBU.
    pub seconds_per_byte: f64,
    /// How the errors of different operations join: of decodes alone, and with prefill.
    pub joints: [Joint; 2],
}

/// One row of the operation table.
#[derive(Debug, Clone, PartialEq)]
pub struct OpRow {
    /// Name.
    pub name: &'static str,
    /// How often it runs.
    pub count: u64,
    /// Cost of running it once.
    pub cost: OpCost,
}

impl RowOp {
    /// Cost for `rows` rows.
    pub fn cost(&self, rows: u64) -> OpCost {
        match self {
            Self::Gemm(op) => op.cost(rows),
            Self::GroupedGemm(op) => op.cost(rows),
            Self::Elementwise(op) => op.cost(rows),
            Self::Collective(op) => op.cost(rows),
            Self::Dispatch(op) => op.cost(rows),
            Self::Quantise(op) => op.cost(rows),
            Self::Slowdown(op) => op.cost(rows),
        }
    }

    /// Times for many row counts (whole numbers up to 2^53): the same bits as [`Self::cost`], in loops over rows that
    /// the compiler vectorises. Inlined into every copy of the sweep's loops.
    #[inline(always)]
    pub(crate) fn times(&self, rows: &[f64], out: &mut [f64]) {
        match self {
            Self::Gemm(op) => op.times(rows, out),
            Self::GroupedGemm(op) => op.times(rows, out),
            Self::Elementwise(op) => op.times(rows, out),
            Self::Collective(op) => op.times(rows, out),
            Self::Dispatch(op) => op.times(rows, out),
            Self::Quantise(op) => op.times(rows, out),
            Self::Slowdown(op) => op.times(rows, out),
        }
    }
}

impl CompiledStep {
    /// How the errors of different operations join in a step, of decodes alone or not.
    pub const fn joint(&self, decodes: bool) -> Joint {
        let [alone, mixed] = self.joints;
        if decodes { alone } else { mixed }
    }

    /// How many rows an operation works on in a step of `rows` rows, `requests` of which need logits.
    pub const fn rows_of(&self, which: Rows, rows: u64, requests: u64) -> u64 {
        match which {
            Rows::All => self.engine.padded_rows(rows),
            Rows::Last => requests,
        }
    }

    /// Time alone of [`Self::rows_cost`], the same bits.
    pub fn rows_time_s(&self, rows: u64, requests: u64) -> f64 {
        let mut total = 0.0;
        for entry in &self.row_ops {
            total += entry.count as f64 * entry.op.cost(self.rows_of(entry.rows, rows, requests)).time_s;
        }
        total
    }

    /// The subtotal of everything that depends on rows only: `rows` rows, `requests` of which need logits.
    pub fn rows_cost(&self, rows: u64, requests: u64) -> OpCost {
        let mut total = OpCost::default();
        for entry in &self.row_ops {
            total.add(entry.count as f64, &entry.op.cost(self.rows_of(entry.rows, rows, requests)));
        }
        total
    }

    /// Cost of a flat batch.
    pub fn cost(&self, batch: &Batch) -> OpCost {
        let mut total = self.rows_cost(batch.rows(), batch.requests());
        for entry in &self.attention {
            total.add(entry.count as f64, &entry.op.batch_cost(batch));
        }
        let decodes = batch.runs().iter().all(|(_, request)| request.query_tokens == 1);
        total.with_joint_interval(self.joint(decodes))
    }

    /// The table behind [`Self::cost`], in the order in which that sums.
    pub fn table(&self, batch: &Batch) -> Vec<OpRow> {
        let rows = self.row_ops.iter().map(|entry| OpRow {
            name: entry.name,
            count: entry.count,
            cost: entry.op.cost(self.rows_of(entry.rows, batch.rows(), batch.requests())),
        });
        let attention = self.attention.iter().map(|entry| OpRow {
            name: entry.name,
            count: entry.count,
            cost: entry.op.batch_cost(batch),
        });
        rows.chain(attention).collect()
    }

    /// The same table in the order of a forward pass: how a person reads it.
    pub fn forward_pass(&self, batch: &Batch) -> Vec<OpRow> {
        let mut table = self.table(batch);
        table.sort_by_key(|row| order::place(row.name));
        table
    }
}
