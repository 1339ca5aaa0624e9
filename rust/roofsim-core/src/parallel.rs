//! Parallel layouts: how many devices share one model, and what each of them holds.

use crate::error::{Error, Result};
use crate::model::{FeedForward, Mixer, Model};

/// Sizes of the parallel groups. `expert` is taken out of `tensor x data`, it adds no devices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Layout {
    /// Ranks that share every layer.
    pub tensor: u64,
    /// Stages that divide the layers.
    pub pipeline: u64,
    /// Replicas of the attention part, each with its own batch.
    pub data: u64,
    /// Ranks that divide the routed experts.
    pub expert: u64,
}

/// Why no engine would run a configuration. `Ok` rows have none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Status {
    /// It runs.
    Ok,
    /// Query or KV heads cannot be divided over the tensor ranks.
    HeadsNotDivisible,
    /// The width of a feed-forward cannot be divided over its ranks.
    WidthNotDivisible,
    /// Experts cannot be divided over the expert ranks, or the model has none.
    ExpertsNotDivisible,
    /// More stages than layers.
    TooManyStages,
    /// The accelerator has no peak for a format the weights need.
    FormatNotSupported,
    /// The accelerator has no link that joins so many devices.
    NoLink,
    /// More new tokens than the context holds.
    QueryExceedsContext,
    /// More rows (batch size times new tokens) than a step may have.
    TooManyRows,
}

impl Status {
    /// All of them; the position is the code used in columns.
    pub const ALL: [Self; 9] = [
        Self::Ok,
        Self::HeadsNotDivisible,
        Self::WidthNotDivisible,
        Self::ExpertsNotDivisible,
        Self::TooManyStages,
        Self::FormatNotSupported,
        Self::NoLink,
        Self::QueryExceedsContext,
        Self::TooManyRows,
    ];

    /// The name used in columns.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::HeadsNotDivisible => "heads_not_divisible",
            Self::WidthNotDivisible => "width_not_divisible",
            Self::ExpertsNotDivisible => "experts_not_divisible",
            Self::TooManyStages => "too_many_stages",
            Self::FormatNotSupported => "format_not_supported",
            Self::NoLink => "no_link",
            Self::QueryExceedsContext => "query_exceeds_context",
            Self::TooManyRows => "too_many_rows",
        }
    }
}

/// A configuration that no engine would run: its status and the field, value and rule behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Infeasible {
    /// The kind of reason.
    pub status: Status,
    /// Field at fault.
    pub field: &'static str,
    /// Its value.
    pub value: String,
    /// The rule it breaks.
    pub rule: String,
}

impl Infeasible {
    /// Builds one.
    #[expect(clippy::needless_pass_by_value, reason = "callers hand over numbers and names alike")]
    pub fn new(status: Status, field: &'static str, value: impl ToString, rule: impl Into<String>) -> Self {
        Self { status, field, value: value.to_string(), rule: rule.into() }
    }
}

impl From<Infeasible> for Error {
    fn from(reason: Infeasible) -> Self {
        Self::spec(reason.field, reason.value, reason.rule)
    }
}

/// Upper limit of each group's size; far above any machine, low enough that products stay exact.
const MAX_GROUP: u64 = 1 << 16;

impl Layout {
    /// One device.
    pub const SINGLE: Self = Self { tensor: 1, pipeline: 1, data: 1, expert: 1 };

    /// A layout whose sizes are all at least one.
    pub fn new(tensor: u64, pipeline: u64, data: u64, expert: u64) -> Result<Self> {
        let sizes = [
            ("tensor_parallel_size", tensor),
            ("pipeline_parallel_size", pipeline),
            ("data_parallel_size", data),
            ("expert_parallel_size", expert),
        ];
        for (field, size) in sizes {
            if !(1..=MAX_GROUP).contains(&size) {
                return Err(Error::spec(field, size, format!("must be between 1 and {MAX_GROUP}")));
            }
        }
        Ok(Self { tensor, pipeline, data, expert })
    }

    /// Devices of the deployment: tensor x pipeline x data.
    pub const fn num_devices(self) -> u64 {
        self.tensor * self.pipeline * self.data
    }

    /// Ranks that share one routed expert: the tensor ranks that expert parallelism leaves over.
    pub const fn expert_tensor(self) -> u64 {
        if self.expert >= self.tensor { 1 } else { self.tensor / self.expert }
    }

    /// Data-parallel replicas whose tokens meet in one group of experts.
    pub const fn expert_replicas(self) -> u64 {
        if self.expert > self.tensor { self.expert / self.tensor } else { 1 }
    }

    /// Layers of one stage, as evenly as possible, earlier stages first: `[start, end)` of each stage.
    pub fn stages(self, num_layers: u64) -> Vec<std::ops::Range<usize>> {
        let (base, extra) = (num_layers / self.pipeline, num_layers % self.pipeline);
        let mut start = 0_usize;
        (0..self.pipeline)
            .map(|stage| {
                let size = usize::try_from(base + u64::from(stage < extra)).unwrap_or(usize::MAX);
                let range = start..start.saturating_add(size);
                start = range.end;
                range
            })
            .collect()
    }

    /// Whether an engine could divide this model so.
    pub fn check(self, model: &Model) -> std::result::Result<(), Infeasible> {
        if self.pipeline > model.num_layers() {
            let rule = format!("must be at most the {} layers of {}", model.num_layers(), model.name);
            return Err(Infeasible::new(Status::TooManyStages, "pipeline_parallel_size", self.pipeline, rule));
        }
        self.check_experts(model)?;
        for layer in &model.kinds {
            self.check_mixer(&layer.mixer)?;
            self.check_width(&layer.feed_forward)?;
        }
        Ok(())
    }

    fn check_experts(self, model: &Model) -> std::result::Result<(), Infeasible> {
        let refuse =
            |rule: String| Err(Infeasible::new(Status::ExpertsNotDivisible, "expert_parallel_size", self.expert, rule));
        if self.expert == 1 {
            return Ok(());
        }
        let world = self.tensor * self.data;
        let nested = if self.expert >= self.tensor {
            self.expert.is_multiple_of(self.tensor) && world.is_multiple_of(self.expert)
        } else {
            self.tensor.is_multiple_of(self.expert)
        };
        if !nested {
            return refuse(format!(
                "must divide or be a multiple of tensor_parallel_size = {} and divide tensor x data = {world}",
                self.tensor
            ));
        }
        let experts = model.kinds.iter().filter_map(|layer| match &layer.feed_forward {
            FeedForward::Moe(m) => Some(m.num_experts),
            _ => None,
        });
        let mut any = false;
        for num_experts in experts {
            any = true;
            if !num_experts.is_multiple_of(self.expert) {
                return refuse(format!("must divide the {num_experts} routed experts of {}", model.name));
            }
        }
        if any { Ok(()) } else { refuse(format!("must be 1: {} has no routed experts", model.name)) }
    }

    fn check_mixer(self, mixer: &Mixer) -> std::result::Result<(), Infeasible> {
        let tp = self.tensor;
        let refuse = |rule: String| Err(Infeasible::new(Status::HeadsNotDivisible, "tensor_parallel_size", tp, rule));
        match mixer {
            Mixer::Attention(a) => {
                if !a.num_heads.is_multiple_of(tp) {
                    return refuse(format!("must divide the {} query heads", a.num_heads));
                }
                // Beyond the number of KV heads each is held by several ranks; both ways the division must be whole.
                if !a.num_kv_heads.is_multiple_of(tp) && !tp.is_multiple_of(a.num_kv_heads) {
                    return refuse(format!("must divide or be a multiple of the {} KV heads", a.num_kv_heads));
                }
            }
            Mixer::Latent(a) if !a.num_heads.is_multiple_of(tp) => {
                return refuse(format!("must divide the {} query heads", a.num_heads));
            }
            Mixer::Recurrent(r) if !r.in_features.is_multiple_of(tp) || !r.out_features.is_multiple_of(tp) => {
                return refuse(format!("must divide the widths {} and {} of the mixer", r.in_features, r.out_features));
            }
            _ => {}
        }
        Ok(())
    }

    fn check_width(self, feed_forward: &FeedForward) -> std::result::Result<(), Infeasible> {
        let refuse = |width: u64, ranks: u64| {
            let rule = format!("must divide the feed-forward width {width} over {ranks} ranks");
            Err(Infeasible::new(Status::WidthNotDivisible, "tensor_parallel_size", self.tensor, rule))
        };
        match feed_forward {
            FeedForward::Dense(f) if !f.intermediate_size.is_multiple_of(self.tensor) => {
                refuse(f.intermediate_size, self.tensor)
            }
            FeedForward::Moe(m) => {
                if !m.intermediate_size.is_multiple_of(self.expert_tensor()) {
                    return refuse(m.intermediate_size, self.expert_tensor());
                }
                if !m.shared_intermediate_size.is_multiple_of(self.tensor) {
                    return refuse(m.shared_intermediate_size, self.tensor);
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
