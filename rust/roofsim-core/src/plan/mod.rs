//! Plans: which accelerators, layouts and formats serve a workload within its latencies, and at what price.

mod notes;
mod steady;

use std::sync::Arc;

pub use steady::{Steady, Workload};

use crate::calibration::Calibration;
use crate::capacity::{Capacity, CapacityLimits};
use crate::deployment::{Deployment, DeploymentSpec};
use crate::engine::Engine;
use crate::error::{Error, Result};
use crate::format::{KvFormat, WeightFormat};
use crate::hardware::Accelerator;
use crate::model::{FeedForward, Model};
use crate::parallel::Layout;
use crate::roofline::Bound;

/// Options whose objective lies within this share of the best are ranked by their number of devices.
pub const INDISTINCT: f64 = 0.01;

/// What is ranked first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Objective {
    /// Cheapest million output tokens.
    UsdPerMtok,
    /// Most output tokens per second per device.
    TokensPerSPerGpu,
    /// Fastest stream of one user.
    TokensPerSPerUser,
    /// Earliest first token.
    Ttft,
}

impl Objective {
    /// The name used in specs and results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UsdPerMtok => "usd_per_mtok",
            Self::TokensPerSPerGpu => "tokens_per_s_per_gpu",
            Self::TokensPerSPerUser => "tokens_per_s_per_user",
            Self::Ttft => "ttft_s",
        }
    }

    /// Parses a name.
    pub fn parse(field: &str, text: &str) -> Result<Self> {
        [Self::UsdPerMtok, Self::TokensPerSPerGpu, Self::TokensPerSPerUser, Self::Ttft]
            .into_iter()
            .find(|objective| objective.name() == text.trim())
            .ok_or_else(|| {
                Error::spec(
                    field,
                    text,
                    "must be one of usd_per_mtok, tokens_per_s_per_gpu, tokens_per_s_per_user, ttft_s",
                )
            })
    }

    /// Smaller is better; `None` (an unknown price) ranks last.
    fn key(self, option: &PlanOption) -> f64 {
        match self {
            Self::UsdPerMtok => option.usd_per_mtok.unwrap_or(f64::INFINITY),
            Self::TokensPerSPerGpu => -option.tokens_per_s_per_gpu,
            Self::TokensPerSPerUser => option.steady.tpot_s,
            Self::Ttft => option.steady.ttft_s,
        }
    }
}

/// One accelerator offered to the plan.
#[derive(Debug, Clone)]
pub struct Offer {
    /// The device.
    pub accelerator: Arc<Accelerator>,
    /// The laws; `None` is the device's default.
    pub calibration: Option<Arc<Calibration>>,
    /// US dollars per device-hour; `None` is unknown.
    pub usd_per_hour: Option<f64>,
    /// What kind of price that is: the kind that was looked for, where none is known.
    pub price_kind: String,
}

/// What is asked.
#[derive(Debug, Clone)]
pub struct PlanRequest {
    /// The model.
    pub model: Arc<Model>,
    /// The devices to choose from.
    pub offers: Vec<Offer>,
    /// The traffic and its limits.
    pub workload: Workload,
    /// What is ranked first.
    pub objective: Objective,
    /// Most devices of one deployment.
    pub max_devices: u64,
    /// Weight formats to try; `None` is as published.
    pub weight_formats: Vec<Option<WeightFormat>>,
    /// KV formats to try; `None` is as published.
    pub kv_formats: Vec<Option<KvFormat>>,
    /// Runtime rules.
    pub engine: Engine,
    /// Memory rules; `max_num_batched_tokens` is also the token budget of a step.
    pub limits: CapacityLimits,
}

/// What keeps the batch from growing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Limit {
    /// The time per output token.
    Tpot,
    /// The time to first token.
    Ttft,
    /// KV memory.
    Capacity,
    /// The engine's limit on sequences.
    MaxNumSeqs,
    /// Prefill work no longer fits between the decodes.
    TokenBudget,
    /// The objective itself: latency is least for a lone sequence.
    Objective,
}

impl Limit {
    /// The name used in results.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tpot => "tpot",
            Self::Ttft => "ttft",
            Self::Capacity => "capacity",
            Self::MaxNumSeqs => "max_num_seqs",
            Self::TokenBudget => "token_budget",
            Self::Objective => "objective",
        }
    }
}

/// One way to serve the workload.
#[derive(Debug, Clone)]
pub struct PlanOption {
    /// The device.
    pub accelerator: Arc<Accelerator>,
    /// Parallel sizes.
    pub layout: Layout,
    /// Storage of the weights; `None` is as published.
    pub weight_format: Option<WeightFormat>,
    /// Storage of the KV cache in force.
    pub kv_format: KvFormat,
    /// Calibration in force.
    pub calibration: String,
    /// Sequences per replica and microbatch: a pipeline has one microbatch in flight for each stage.
    pub batch_size: u64,
    /// The steady state at that batch.
    pub steady: Steady,
    /// What binds a pure decode step.
    pub bound: Bound,
    /// What keeps the batch from growing.
    pub limit: Limit,
    /// Sequences in flight in one replica: `batch_size` in each microbatch.
    pub sequences: u64,
    /// Sequences that the memory of one replica would hold, over all its microbatches.
    pub max_sequences: u64,
    /// Memory of the fullest rank.
    pub capacity: Capacity,
    /// Output tokens per second of the deployment.
    pub tokens_per_s: f64,
    /// Output tokens per second per device.
    pub tokens_per_s_per_gpu: f64,
    /// US dollars per million output tokens.
    pub usd_per_mtok: Option<f64>,
    /// What kind of price.
    pub price_kind: String,
    /// Position of an option of the same device and formats than which this one, on more devices, is no better in
    /// anything: rate per device and both latencies, within [`INDISTINCT`].
    pub no_better_than: Option<usize>,
    /// Why it does not rank first; empty for the winner.
    pub why_not_first: String,
}

impl PlanOption {
    /// Whether this option takes more devices than another one and gains nothing by them.
    fn wastes_devices_beside(&self, other: &Self) -> bool {
        self.accelerator.name == other.accelerator.name
            && self.weight_format == other.weight_format
            && self.kv_format == other.kv_format
            && self.calibration == other.calibration
            && self.layout.num_devices() > other.layout.num_devices()
            && self.steady.tpot_s >= (1.0 - INDISTINCT) * other.steady.tpot_s
            && self.steady.ttft_s >= (1.0 - INDISTINCT) * other.steady.ttft_s
            && self.tokens_per_s_per_gpu <= (1.0 + INDISTINCT) * other.tokens_per_s_per_gpu
    }
}

/// One way that does not work.
#[derive(Debug, Clone)]
pub struct Miss {
    /// The device.
    pub accelerator: Arc<Accelerator>,
    /// Parallel sizes.
    pub layout: Layout,
    /// Storage of the weights.
    pub weight_format: Option<WeightFormat>,
    /// Storage of the KV cache.
    pub kv_format: Option<KvFormat>,
    /// Why.
    pub reason: String,
    /// Which limit is missed; `None` where the layout or a format rules it out whatever the limits.
    pub limit: Option<Limit>,
    /// By what factor the worst limit is missed at batch 1; infinite where no factor makes sense.
    pub factor: f64,
}

impl Miss {
    /// 0 where the memory holds the model and a limit of time or rows is missed, 1 where it does not, 2 where no
    /// engine runs it.
    fn kind(&self) -> u8 {
        match self.limit {
            Some(Limit::Capacity) => 1,
            Some(_) => 0,
            None => 2,
        }
    }
}

impl Plan {
    /// Says of each option whether another one does as well on fewer devices; that one itself stands.
    fn find_wasted_devices(&mut self) {
        let mut order: Vec<usize> = (0..self.options.len()).collect();
        order.sort_by_key(|&at| self.options.get(at).map(|option| option.layout.num_devices()));
        let mut standing: Vec<usize> = Vec::new();
        for at in order {
            let Some(option) = self.options.get(at) else { continue };
            let beaten_by =
                |&&other: &&usize| self.options.get(other).is_some_and(|other| option.wastes_devices_beside(other));
            let found = standing.iter().filter(beaten_by).min().copied();
            if found.is_none() {
                standing.push(at);
            }
            if let Some(option) = self.options.get_mut(at) {
                option.no_better_than = found;
            }
        }
    }
}

/// Why no batch will do: the limit, the reason in words, the factor.
type Refusal = (Limit, String, f64);

/// The answer.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Ranked, best first.
    pub options: Vec<PlanOption>,
    /// What was tried in vain: ways that fit the memory, then ways that do not, each nearest miss first.
    pub misses: Vec<Miss>,
    /// What sets the offers apart beside the devices: kernel libraries and kinds of price, one sentence each.
    pub notes: Vec<String>,
}

impl PlanRequest {
    fn check(&self) -> Result<()> {
        self.workload.check()?;
        self.limits.check()?;
        if self.offers.is_empty() {
            return Err(Error::spec("accelerators", "[]", "must name at least one accelerator"));
        }
        if !(1..=4096).contains(&self.max_devices) {
            return Err(Error::spec("max_devices", self.max_devices, "must be between 1 and 4096"));
        }
        if self.workload.token_budget < 2 {
            let rule = "must be at least 2: one decode and one prompt token";
            return Err(Error::spec("max_num_batched_tokens", self.workload.token_budget, rule));
        }
        Ok(())
    }

    /// Layouts worth trying: powers of two. Replicas of a dense model change no ratio, so only models with experts get
    /// data parallelism, with the experts spread over all ranks.
    fn layouts(&self) -> Vec<Layout> {
        let has_experts = self.model.kinds.iter().any(|l| matches!(l.feed_forward, FeedForward::Moe(_)));
        let powers = || (0..13).map(|e| 1_u64 << e).take_while(|&p| p <= self.max_devices);
        let mut layouts = Vec::new();
        for pipeline in powers() {
            for tensor in powers().take_while(|t| t * pipeline <= self.max_devices) {
                layouts.push(Layout { tensor, pipeline, data: 1, expert: 1 });
                if !has_experts {
                    continue;
                }
                for data in powers().take_while(|d| d * tensor * pipeline <= self.max_devices) {
                    let expert = tensor * data;
                    if expert > 1 {
                        layouts.push(Layout { tensor, pipeline, data, expert });
                    }
                }
            }
        }
        layouts
    }

    /// Evaluates every offer, layout and format.
    pub fn solve(&self) -> Result<Plan> {
        self.check()?;
        let layouts = self.layouts();
        let notes = notes::notes(&self.offers, self.engine);
        let mut plan = Plan { options: Vec::new(), misses: Vec::new(), notes };
        for offer in &self.offers {
            for &layout in &layouts {
                for &weight_format in &self.weight_formats {
                    for &kv_format in &self.kv_formats {
                        match self.evaluate(offer, layout, weight_format, kv_format)? {
                            Ok(option) => plan.options.push(option),
                            Err(miss) => plan.misses.push(miss),
                        }
                    }
                }
            }
        }
        let key = |option: &PlanOption| {
            // Where no price is known the throughput of a device stands for it.
            let unpriced = if self.objective.key(option).is_finite() { 0.0 } else { -option.tokens_per_s_per_gpu };
            (self.objective.key(option), unpriced, option.layout.num_devices(), option.accelerator.name.clone())
        };
        plan.options.sort_by(|a, b| {
            let (a, b) = (key(a), key(b));
            a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)).then(a.2.cmp(&b.2)).then(a.3.cmp(&b.3))
        });
        // What the model cannot tell apart goes to fewer devices: many shallow stages promise a little more per device.
        if let Some(best) = plan.options.first().map(|option| self.objective.key(option)).filter(|key| key.is_finite())
        {
            let close = plan.options.partition_point(|o| self.objective.key(o) <= best + INDISTINCT * best.abs());
            if let Some(close) = plan.options.get_mut(..close) {
                close.sort_by_key(|option| option.layout.num_devices());
            }
        }
        // A factor of memory and a factor of time say nothing about each other: ways that fit come first.
        plan.misses.sort_by(|a, b| a.kind().cmp(&b.kind()).then(a.factor.total_cmp(&b.factor)));
        plan.find_wasted_devices();
        if let Some((first, rest)) = plan.options.split_first_mut() {
            for option in rest {
                option.why_not_first = self.objective.compare(first, option);
            }
        }
        Ok(plan)
    }

    fn evaluate(
        &self,
        offer: &Offer,
        layout: Layout,
        weight_format: Option<WeightFormat>,
        kv_format: Option<KvFormat>,
    ) -> Result<std::result::Result<PlanOption, Miss>> {
        let miss = |limit: Option<Limit>, reason: String, factor: f64| Miss {
            accelerator: Arc::clone(&offer.accelerator),
            layout,
            weight_format,
            kv_format,
            reason,
            limit,
            factor,
        };
        let spec = DeploymentSpec {
            model: Arc::clone(&self.model),
            accelerator: Arc::clone(&offer.accelerator),
            calibration: offer.calibration.clone(),
            layout,
            weight_format,
            kv_format,
            engine: self.engine,
        };
        let deployment = match spec.try_compile()? {
            Ok(deployment) => deployment,
            Err(reason) => {
                let text = format!("{} = {}: {}", reason.field, reason.value, reason.rule);
                return Ok(Err(miss(None, text, f64::INFINITY)));
            }
        };
        let capacity = Capacity::of(&deployment, &self.limits)?;
        Ok(match self.largest_batch(&deployment, &capacity)? {
            Ok((batch_size, limit)) => {
                Ok(self.option(offer, &deployment, capacity, weight_format, (batch_size, limit))?)
            }
            Err((limit, reason, factor)) => Err(miss(Some(limit), reason, factor)),
        })
    }

    /// The largest batch that holds every limit, and the limit that the next one would break.
    fn largest_batch(
        &self,
        deployment: &Deployment,
        capacity: &Capacity,
    ) -> Result<std::result::Result<(u64, Limit), Refusal>> {
        let workload = &self.workload;
        let resident = capacity.max_sequences(workload.input_tokens + workload.output_tokens);
        let held = resident / deployment.layout.pipeline;
        if held == 0 {
            return Ok(Err(no_room(capacity, workload, deployment)));
        }
        let mut most = held;
        let mut limit = Limit::Capacity;
        for (cap, name) in
            [(self.limits.max_num_seqs, Limit::MaxNumSeqs), (workload.largest_batch_in_budget(), Limit::TokenBudget)]
        {
            if cap < most {
                (most, limit) = (cap, name);
            }
        }
        if matches!(self.objective, Objective::TokensPerSPerUser | Objective::Ttft) && most > 1 {
            (most, limit) = (1, Limit::Objective);
        }
        if most == 0 {
            let rule = "the token budget leaves no room for the prompts between the decodes, even at batch 1";
            return Ok(Err((Limit::TokenBudget, rule.to_owned(), f64::INFINITY)));
        }
        // A pure decode step is the cheapest step and monotone in the batch: no batch beyond its limit can do.
        if let Some(tpot_s) = workload.tpot_s {
            let (mut low, mut high) = (0, most);
            while low < high {
                let middle = low + (high - low).div_ceil(2);
                if workload.decode_s(deployment, middle)? <= tpot_s {
                    low = middle;
                } else {
                    high = middle - 1;
                }
            }
            if low < most {
                (most, limit) = (low, Limit::Tpot);
            }
        }
        // Chunks round up, so the mean over mixed steps is not quite monotone: walk down to the first that holds.
        for batch in (1..=most).rev() {
            match workload.broken_limit(&workload.steady(deployment, batch)?) {
                None => return Ok(Ok((batch, limit))),
                Some(broken) => limit = broken,
            }
        }
        Ok(Err(workload.explain(&workload.steady(deployment, 1)?)))
    }

    fn option(
        &self,
        offer: &Offer,
        deployment: &Deployment,
        capacity: Capacity,
        weight_format: Option<WeightFormat>,
        (batch_size, limit): (u64, Limit),
    ) -> Result<PlanOption> {
        let workload = &self.workload;
        let steady = workload.steady(deployment, batch_size)?;
        let layout = deployment.layout;
        let devices = layout.num_devices() as f64;
        let sequences = batch_size * layout.pipeline * layout.data;
        let tokens_per_s = sequences as f64 / steady.tpot_s;
        Ok(PlanOption {
            accelerator: Arc::clone(&offer.accelerator),
            layout,
            weight_format,
            kv_format: deployment.kv_format,
            calibration: deployment.calibration.name.clone(),
            batch_size,
            bound: steady.decode.bound(),
            steady,
            limit,
            sequences: batch_size * layout.pipeline,
            max_sequences: capacity.max_sequences(workload.input_tokens + workload.output_tokens),
            capacity,
            tokens_per_s,
            tokens_per_s_per_gpu: tokens_per_s / devices,
            usd_per_mtok: offer.usd_per_hour.map(|usd| 1e6 * (usd * devices / 3600.0) / tokens_per_s),
            price_kind: offer.price_kind.clone(),
            no_better_than: None,
            why_not_first: String::new(),
        })
    }
}

fn no_room(capacity: &Capacity, workload: &Workload, deployment: &Deployment) -> Refusal {
    if !capacity.fits {
        let needed = capacity.weight_bytes + capacity.activation_bytes + capacity.overhead_bytes;
        return (Limit::Capacity, capacity.reason.clone(), needed as f64 / capacity.usable_bytes as f64);
    }
    let tokens = workload.input_tokens + workload.output_tokens;
    let stages = deployment.layout.pipeline;
    let reason = format!(
        "the KV pool of {:.1} GB holds no {stages} sequence(s) of {tokens} tokens (one per pipeline stage)",
        capacity.kv_cache_bytes as f64 / 1e9
    );
    (Limit::Capacity, reason, (tokens * stages) as f64 / capacity.kv_tokens.max(1) as f64)
}

impl Objective {
    /// Why `option` ranks behind `first`, in words.
    fn compare(self, first: &PlanOption, option: &PlanOption) -> String {
        let percent = |ratio: f64| match 100.0 * (ratio - 1.0) {
            gap if gap < 1.0 => "less than 1%".to_owned(),
            gap => format!("{gap:.0}%"),
        };
        let gap = match self {
            _ if self.key(option) < self.key(first) => "is less than 1% better and needs more devices".to_owned(),
            Self::UsdPerMtok => match (first.usd_per_mtok, option.usd_per_mtok) {
                (_, None) if option.price_kind.is_empty() => "its price is unknown".to_owned(),
                (_, None) => format!("no {} price of it is known", option.price_kind),
                (Some(best), Some(own)) if best > 0.0 => format!("costs {} more per token", percent(own / best)),
                _ => "ties on price and needs more devices or comes later in the list".to_owned(),
            },
            Self::TokensPerSPerGpu => format!(
                "serves {} fewer tokens/s per device",
                percent(2.0 - option.tokens_per_s_per_gpu / first.tokens_per_s_per_gpu)
            ),
            Self::TokensPerSPerUser => {
                format!("takes {} longer per token", percent(option.steady.tpot_s / first.steady.tpot_s))
            }
            Self::Ttft => {
                format!("takes {} longer to the first token", percent(option.steady.ttft_s / first.steady.ttft_s))
            }
        };
        format!("{gap}; its batch stops at {} by {}", option.batch_size, option.limit.name())
    }
}
