//! The space: axes, their sizes, and the configuration behind a row number.

use std::ops::Range;
use std::sync::Arc;

use crate::calibration::{CalibrationChoice, mixed_libraries};
use crate::capacity::{CapacityLimits, CapacityMode};
use crate::deployment::DeploymentSpec;
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::format::{KvFormat, WeightFormat};
use crate::hardware::Accelerator;
use crate::model::Model;
use crate::parallel::Layout;
use crate::workload::MAX_TOKENS;

/// A numeric axis: an arithmetic progression or a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Axis {
    /// `start, start + step, ...`, `len` values.
    Range {
        /// First value.
        start: u64,
        /// Difference of neighbours.
        step: u64,
        /// Number of values.
        len: usize,
    },
    /// Any values in any order.
    List(Vec<u64>),
}

impl Axis {
    /// Number of values.
    pub fn len(&self) -> usize {
        match self {
            Self::Range { len, .. } => *len,
            Self::List(values) => values.len(),
        }
    }

    /// True without values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The value at a position below `len`.
    pub fn at(&self, index: usize) -> u64 {
        match self {
            Self::Range { start, step, .. } => start + step * index as u64,
            Self::List(values) => values.get(index).copied().unwrap_or(0),
        }
    }

    /// Least and greatest value at some positions, of which there is one at least.
    pub(super) fn extent(&self, positions: &Range<usize>) -> (u64, u64) {
        match self {
            Self::Range { .. } => (self.at(positions.start), self.at(positions.end.saturating_sub(1))),
            Self::List(values) => {
                let values = values.get(positions.clone()).unwrap_or(&[]);
                values.iter().fold((u64::MAX, 0), |(least, most), &x| (least.min(x), most.max(x)))
            }
        }
    }

    /// All values in order.
    pub fn values(&self) -> impl Iterator<Item = u64> + '_ {
        (0..self.len()).map(|index| self.at(index))
    }

    fn check(&self, field: &'static str) -> Result<()> {
        if self.is_empty() {
            return Err(Error::spec(field, "[]", "an axis needs at least one value"));
        }
        for index in [0, self.len() - 1] {
            check_tokens(field, self.at(index))?;
        }
        if let Self::List(values) = self {
            for &value in values {
                check_tokens(field, value)?;
            }
        }
        Ok(())
    }
}

fn check_tokens(field: &'static str, value: u64) -> Result<()> {
    if (1..=MAX_TOKENS).contains(&value) {
        Ok(())
    } else {
        Err(Error::spec(field, value, format!("must be between 1 and {MAX_TOKENS}")))
    }
}

/// All axes, in the order that numbers the rows: the last varies fastest.
#[derive(Debug, Clone)]
pub struct Space {
    /// Models.
    pub models: Vec<Arc<Model>>,
    /// Accelerators.
    pub accelerators: Vec<Arc<Accelerator>>,
    /// Tensor-parallel sizes.
    pub tensor_parallel_size: Vec<u64>,
    /// Pipeline-parallel sizes.
    pub pipeline_parallel_size: Vec<u64>,
    /// Data-parallel sizes.
    pub data_parallel_size: Vec<u64>,
    /// Expert-parallel sizes.
    pub expert_parallel_size: Vec<u64>,
    /// Weight formats; `None` is as published.
    pub weight_dtype: Vec<Option<WeightFormat>>,
    /// KV formats; `None` is as published.
    pub kv_cache_dtype: Vec<Option<KvFormat>>,
    /// Calibrations.
    pub calibration: Vec<CalibrationChoice>,
    /// Engines.
    pub engine: Vec<Engine>,
    /// KV accounting.
    pub capacity_mode: Vec<CapacityMode>,
    /// Share of memory.
    pub gpu_memory_utilization: Vec<f64>,
    /// Tokens of a block.
    pub block_size: Vec<u64>,
    /// Rows of the largest step.
    pub max_num_batched_tokens: Vec<u64>,
    /// Sequences of the largest step.
    pub max_num_seqs: Vec<u64>,
    /// Sequences per replica.
    pub batch_size: Axis,
    /// Context of each.
    pub context_tokens: Axis,
    /// New tokens of each.
    pub query_tokens: Axis,
    /// US dollars per device-hour, one per accelerator; `None` is unknown.
    pub usd_per_hour: Vec<Option<f64>>,
}

/// Names of the categorical axes in row order.
pub const CATEGORICAL: [&str; 15] = [
    "models",
    "accelerators",
    "tensor_parallel_size",
    "pipeline_parallel_size",
    "data_parallel_size",
    "expert_parallel_size",
    "weight_dtype",
    "kv_cache_dtype",
    "calibration",
    "engine",
    "capacity_mode",
    "gpu_memory_utilization",
    "block_size",
    "max_num_batched_tokens",
    "max_num_seqs",
];

/// One row of a space.
#[derive(Debug, Clone)]
pub struct Configuration {
    /// Positions on the categorical axes.
    pub position: [usize; 15],
    /// The deployment.
    pub deployment: DeploymentSpec,
    /// The capacity limits.
    pub limits: CapacityLimits,
    /// Sequences per replica.
    pub batch_size: u64,
    /// Context of each.
    pub context_tokens: u64,
    /// New tokens of each.
    pub query_tokens: u64,
}

impl Space {
    /// Lengths of the categorical axes.
    pub fn categorical_lengths(&self) -> [usize; 15] {
        [
            self.models.len(),
            self.accelerators.len(),
            self.tensor_parallel_size.len(),
            self.pipeline_parallel_size.len(),
            self.data_parallel_size.len(),
            self.expert_parallel_size.len(),
            self.weight_dtype.len(),
            self.kv_cache_dtype.len(),
            self.calibration.len(),
            self.engine.len(),
            self.capacity_mode.len(),
            self.gpu_memory_utilization.len(),
            self.block_size.len(),
            self.max_num_batched_tokens.len(),
            self.max_num_seqs.len(),
        ]
    }

    /// Refuses empty axes, values out of range, and more rows than can be numbered.
    pub fn check(&self) -> Result<()> {
        self.check_axes()?;
        self.numbered_rows().map(|_| ())
    }

    /// Number of rows, refused where a row number would not hold it.
    fn numbered_rows(&self) -> Result<u128> {
        self.num_configurations().ok_or_else(|| {
            let rule = "rows must stay below 2^128 and combinations of the other axes than batch, context and query \
                        below 2^64: narrow the axes";
            Error::overflow("num_configurations", "product of the axes", rule)
        })
    }

    /// Refuses empty axes and values out of range.
    pub fn check_axes(&self) -> Result<()> {
        for (name, len) in CATEGORICAL.iter().zip(self.categorical_lengths()) {
            if len == 0 {
                return Err(Error::spec(*name, "[]", "an axis needs at least one value"));
            }
        }
        self.batch_size.check("batch_size")?;
        self.context_tokens.check("context_tokens")?;
        self.query_tokens.check("query_tokens")?;
        for index in 0..self.usd_per_hour.len() {
            if self.usd_per_hour.get(index).copied().flatten().is_some_and(|usd| !(usd.is_finite() && usd >= 0.0)) {
                return Err(Error::spec("usd_per_hour", "not finite", "must be a finite number of at least 0"));
            }
        }
        self.check_layouts_and_limits()
    }

    fn check_layouts_and_limits(&self) -> Result<()> {
        for &size in &self.tensor_parallel_size {
            Layout::new(size, 1, 1, 1)?;
        }
        for &size in &self.pipeline_parallel_size {
            Layout::new(1, size, 1, 1)?;
        }
        for &size in &self.data_parallel_size {
            Layout::new(1, 1, size, 1)?;
        }
        for &size in &self.expert_parallel_size {
            Layout::new(1, 1, 1, size)?;
        }
        let fine = CapacityLimits::default();
        for &gpu_memory_utilization in &self.gpu_memory_utilization {
            CapacityLimits { gpu_memory_utilization, ..fine }.check()?;
        }
        for &block_size in &self.block_size {
            CapacityLimits { block_size, ..fine }.check()?;
        }
        for &max_num_batched_tokens in &self.max_num_batched_tokens {
            CapacityLimits { max_num_batched_tokens, ..fine }.check()?;
        }
        for &max_num_seqs in &self.max_num_seqs {
            CapacityLimits { max_num_seqs, ..fine }.check()?;
        }
        Ok(())
    }

    /// Number of categorical combinations.
    pub fn num_combinations(&self) -> Option<u64> {
        self.categorical_lengths().iter().try_fold(1_u64, |product, &len| product.checked_mul(len as u64))
    }

    /// Rows of one combination.
    pub fn rows_per_combination(&self) -> u128 {
        self.batch_size.len() as u128 * self.context_tokens.len() as u128 * self.query_tokens.len() as u128
    }

    /// All rows.
    pub fn num_configurations(&self) -> Option<u128> {
        u128::from(self.num_combinations()?).checked_mul(self.rows_per_combination())
    }

    /// Positions on the categorical axes of one combination.
    pub fn position(&self, combination: u64) -> [usize; 15] {
        let mut rest = combination;
        let mut position = self.categorical_lengths();
        for slot in position.iter_mut().rev() {
            let len = (*slot).max(1) as u64;
            *slot = usize::try_from(rest % len).unwrap_or(0);
            rest /= len;
        }
        position
    }

    /// One sentence where a calibration of this space prices its devices on kernels of different libraries.
    pub fn mixed_libraries(&self) -> Option<String> {
        self.calibration.iter().find_map(|choice| {
            let own: Vec<_> = self.accelerators.iter().map(|device| choice.on(device)).collect();
            mixed_libraries(self.accelerators.iter().map(AsRef::as_ref).zip(own.iter().map(AsRef::as_ref)))
        })
    }

    /// The deployment and limits of one combination.
    pub fn combination(&self, combination: u64) -> Result<(DeploymentSpec, CapacityLimits)> {
        let p = self.position(combination);
        let layout = Layout::new(
            pick(&self.tensor_parallel_size, p[2])?,
            pick(&self.pipeline_parallel_size, p[3])?,
            pick(&self.data_parallel_size, p[4])?,
            pick(&self.expert_parallel_size, p[5])?,
        )?;
        let accelerator = pick(&self.accelerators, p[1])?;
        let calibration = pick(&self.calibration, p[8])?.on(&accelerator);
        let deployment = DeploymentSpec {
            model: pick(&self.models, p[0])?,
            accelerator,
            layout,
            weight_format: pick(&self.weight_dtype, p[6])?,
            kv_format: pick(&self.kv_cache_dtype, p[7])?,
            calibration: Some(calibration),
            engine: pick(&self.engine, p[9])?,
        };
        let limits = CapacityLimits {
            mode: pick(&self.capacity_mode, p[10])?,
            gpu_memory_utilization: pick(&self.gpu_memory_utilization, p[11])?,
            block_size: pick(&self.block_size, p[12])?,
            max_num_batched_tokens: pick(&self.max_num_batched_tokens, p[13])?,
            max_num_seqs: pick(&self.max_num_seqs, p[14])?,
        };
        Ok((deployment, limits))
    }

    /// Price of a device-hour of the accelerator at a position.
    pub fn price(&self, accelerator: usize) -> Option<f64> {
        self.usd_per_hour.get(accelerator).copied().flatten()
    }

    /// The configuration of one row.
    pub fn configuration(&self, row: u128) -> Result<Configuration> {
        let total = self.numbered_rows()?;
        if row >= total {
            return Err(Error::spec("index", row, format!("must be below the {total} rows of the space")));
        }
        let combination = u64::try_from(row / self.rows_per_combination()).unwrap_or(u64::MAX);
        let within = row % self.rows_per_combination();
        let queries = self.query_tokens.len() as u128;
        let contexts = self.context_tokens.len() as u128;
        let (deployment, limits) = self.combination(combination)?;
        Ok(Configuration {
            position: self.position(combination),
            deployment,
            limits,
            batch_size: self.batch_size.at((within / queries / contexts) as usize),
            context_tokens: self.context_tokens.at((within / queries % contexts) as usize),
            query_tokens: self.query_tokens.at((within % queries) as usize),
        })
    }
}

fn pick<T: Clone>(axis: &[T], index: usize) -> Result<T> {
    axis.get(index).cloned().ok_or_else(|| Error::spec("index", index, "is beyond the axis"))
}
