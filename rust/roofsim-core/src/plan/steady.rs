//! The steady state of continuous batching: decodes share some steps with the prefill chunks that replace finished
//! requests.
//!
//! Of every `output_tokens` steps, `N = ceil(B input_tokens / (budget - B))` are mixed and the rest are pure decodes.
//! Decodes sit at `input_tokens + output_tokens / 2`. TPOT is the mean step time; the mixed step is the largest gap
//! between two tokens of one user; TTFT is `ceil(input_tokens / (budget - B))` mixed steps, without queueing.

use super::{Limit, Refusal};
use crate::deployment::Deployment;
use crate::error::{Error, Result};
use crate::roofline::OpCost;
use crate::workload::{Batch, MAX_TOKENS, Request};

/// Traffic and its limits.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Workload {
    /// Prompt tokens of a request.
    pub input_tokens: u64,
    /// Generated tokens of a request.
    pub output_tokens: u64,
    /// Limit on the time to first token, seconds.
    pub ttft_s: Option<f64>,
    /// Limit on the time per output token, seconds.
    pub tpot_s: Option<f64>,
    /// Rows that one step may hold.
    pub token_budget: u64,
}

/// The steady state at one batch size.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Steady {
    /// Time to first token without queueing, seconds.
    pub ttft_s: f64,
    /// Mean time per output token, seconds.
    pub tpot_s: f64,
    /// Largest gap between two tokens of one user, seconds.
    pub itl_max_s: f64,
    /// Lower and upper end of `ttft_s`, from the intervals of its steps.
    pub ttft_interval_s: [f64; 2],
    /// Lower and upper end of `tpot_s`, from the intervals of its steps.
    pub tpot_interval_s: [f64; 2],
    /// Mixed steps among `output_tokens` steps.
    pub mixed_steps: u64,
    /// Cost of a pure decode step.
    pub decode: OpCost,
    /// Cost of a mixed step.
    pub mixed: OpCost,
}

impl Workload {
    pub(super) fn check(&self) -> Result<()> {
        for (field, value) in [("input_tokens", self.input_tokens), ("output_tokens", self.output_tokens)] {
            if !(1..=MAX_TOKENS / 4).contains(&value) {
                return Err(Error::spec(field, value, format!("must be between 1 and {}", MAX_TOKENS / 4)));
            }
        }
        for (field, value) in [("ttft_s", self.ttft_s), ("tpot_s", self.tpot_s)] {
            if let Some(seconds) = value
                && !(seconds > 0.0 && seconds.is_finite())
            {
                return Err(Error::spec(field, seconds, "must be a positive number of seconds"));
            }
        }
        Ok(())
    }

    /// Mixed steps that a batch needs among `output_tokens` steps.
    fn mixed_steps(&self, batch: u64) -> Option<u64> {
        let chunk = self.token_budget.checked_sub(batch).filter(|&chunk| chunk > 0)?;
        Some(batch.saturating_mul(self.input_tokens).div_ceil(chunk)).filter(|&n| n <= self.output_tokens)
    }

    /// The largest batch whose prompts fit between its decodes.
    pub(super) fn largest_batch_in_budget(&self) -> u64 {
        // B input <= output (budget - B): the ceiling keeps the inequality for whole N.
        let product = u128::from(self.output_tokens) * u128::from(self.token_budget);
        let most = product / (u128::from(self.input_tokens) + u128::from(self.output_tokens));
        u64::try_from(most).unwrap_or(u64::MAX).min(self.token_budget.saturating_sub(1))
    }

    fn decodes(&self, batch: u64) -> Result<Batch> {
        Batch::uniform(batch, Request::new(1, self.input_tokens + self.output_tokens.div_ceil(2))?)
    }

    pub(super) fn decode_s(&self, deployment: &Deployment, batch: u64) -> Result<f64> {
        Ok(deployment.step.cost(&self.decodes(batch)?).time_s)
    }

    /// Decodes plus the prompt tokens that one mixed step must take in.
    fn mixed_batch(&self, batch: u64, mixed_steps: u64) -> Result<Batch> {
        let mut step = self.decodes(batch)?;
        let prompt_rows = (batch * self.input_tokens).div_ceil(mixed_steps);
        let (whole, part) = (prompt_rows / self.input_tokens, prompt_rows % self.input_tokens);
        if whole > 0 {
            step.push(whole, Request::new(self.input_tokens, self.input_tokens)?)?;
        }
        if part > 0 {
            // Chunks of one prompt end anywhere between their own length and the whole prompt: the mean.
            step.push(1, Request::new(part, (part + self.input_tokens).div_ceil(2))?)?;
        }
        Ok(step)
    }

    /// The steady state of a deployment at one batch size, checked: what a server does at this concurrency a replica.
    ///
    /// # Errors
    /// [`Error::Spec`] for tokens out of range, and for a batch whose prompts do not fit between its decodes.
    pub fn steady_state(&self, deployment: &Deployment, batch: u64) -> Result<Steady> {
        self.check()?;
        if batch == 0 {
            return Err(Error::spec("batch_size", batch, "must be at least 1"));
        }
        self.steady(deployment, batch)
    }

    /// Mean time to first token of `batch` requests that arrive at once at an idle server: prompts are taken whole, as
    /// many as the budget holds (one at least), step after step; of n equal steps the mean request waits (n + 1) / 2.
    ///
    /// # Errors
    /// As [`Self::steady_state`], but for the budget.
    pub fn burst_ttft_s(&self, deployment: &Deployment, batch: u64) -> Result<f64> {
        self.check()?;
        if batch == 0 {
            return Err(Error::spec("batch_size", batch, "must be at least 1"));
        }
        let whole = (self.token_budget / self.input_tokens).clamp(1, batch);
        let prompt = Request::new(self.input_tokens, self.input_tokens)?;
        let step = deployment.step.cost(&Batch::uniform(whole, prompt)?);
        Ok(step.time_s * (batch as f64 / whole as f64 + 1.0) / 2.0)
    }

    /// The steady state at a batch that the budget allows.
    pub(super) fn steady(&self, deployment: &Deployment, batch: u64) -> Result<Steady> {
        let mixed_steps = self.mixed_steps(batch).ok_or_else(|| {
            Error::spec("batch_size", batch, "its prompts do not fit between its decodes under the token budget")
        })?;
        let decode = deployment.step.cost(&self.decodes(batch)?);
        let mixed = deployment.step.cost(&self.mixed_batch(batch, mixed_steps)?);
        let chunks = self.input_tokens.div_ceil(self.token_budget - batch);
        let pure = (self.output_tokens - mixed_steps) as f64;
        let ttft = |mixed_s: f64| chunks as f64 * mixed_s;
        let tpot =
            |mixed_s: f64, decode_s: f64| (mixed_steps as f64 * mixed_s + pure * decode_s) / self.output_tokens as f64;
        Ok(Steady {
            ttft_s: ttft(mixed.time_s),
            tpot_s: tpot(mixed.time_s, decode.time_s),
            itl_max_s: mixed.time_s,
            // Every step is predicted by the same law: their errors go together, so the ends add.
            ttft_interval_s: [ttft(mixed.time_low_s), ttft(mixed.time_high_s)],
            tpot_interval_s: [tpot(mixed.time_low_s, decode.time_low_s), tpot(mixed.time_high_s, decode.time_high_s)],
            mixed_steps,
            decode,
            mixed,
        })
    }

    /// The limit that a steady state breaks, the time per token first.
    pub(super) fn broken_limit(&self, steady: &Steady) -> Option<Limit> {
        if self.tpot_s.is_some_and(|limit| steady.tpot_s > limit) {
            Some(Limit::Tpot)
        } else if self.ttft_s.is_some_and(|limit| steady.ttft_s > limit) {
            Some(Limit::Ttft)
        } else {
            None
        }
    }

    /// Which latency is missed at batch 1, and by what factor.
    pub(super) fn explain(&self, steady: &Steady) -> Refusal {
        let factor = |value: f64, limit: Option<f64>| limit.map_or(0.0, |limit| value / limit);
        let (tpot, ttft) = (factor(steady.tpot_s, self.tpot_s), factor(steady.ttft_s, self.ttft_s));
        if tpot >= ttft {
            let reason = format!("TPOT is {:.1} ms at batch 1, {tpot:.2} times the limit", 1e3 * steady.tpot_s);
            (Limit::Tpot, reason, tpot)
        } else {
            let reason = format!("TTFT is {:.3} s at batch 1, {ttft:.2} times the limit", steady.ttft_s);
            (Limit::Ttft, reason, ttft)
        }
    }
}
