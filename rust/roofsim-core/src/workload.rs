//! The work of one step: a flat batch of requests. There is no prefill or decode phase, only numbers of rows.

use crate::error::{Error, Result};

/// Longest context and largest batch accepted: products of the two stay exact in `u64` and in `f64`.
pub const MAX_TOKENS: u64 = 1 << 30;

/// One request's share of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Request {
    /// Rows: tokens computed in this step.
    pub query_tokens: u64,
    /// Tokens attended to at the end of the step, the new ones included.
    pub context_tokens: u64,
}

impl Request {
    /// Checks `1 <= query_tokens <= context_tokens <= MAX_TOKENS`.
    pub fn new(query_tokens: u64, context_tokens: u64) -> Result<Self> {
        if query_tokens == 0 {
            return Err(Error::spec("query_tokens", query_tokens, "must be at least 1"));
        }
        if context_tokens > MAX_TOKENS {
            return Err(Error::spec("context_tokens", context_tokens, format!("must be at most {MAX_TOKENS}")));
        }
        if query_tokens > context_tokens {
            let rule = format!("must be at most context_tokens = {context_tokens}, which counts the new tokens too");
            return Err(Error::spec("query_tokens", query_tokens, rule));
        }
        Ok(Self { query_tokens, context_tokens })
    }
}

/// A flat batch: runs of equal requests, so that uniform batches of any size cost one entry.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    runs: Vec<(u64, Request)>,
    rows: u64,
    requests: u64,
}

impl Batch {
    /// `count` equal requests.
    pub fn uniform(count: u64, request: Request) -> Result<Self> {
        let mut batch = Self::default();
        batch.push(count, request)?;
        Ok(batch)
    }

    /// One request per pair `(query_tokens, context_tokens)`.
    pub fn from_pairs(pairs: impl IntoIterator<Item = (u64, u64)>) -> Result<Self> {
        let mut batch = Self::default();
        for (query, context) in pairs {
            batch.push(1, Request::new(query, context)?)?;
        }
        if batch.requests == 0 {
            return Err(Error::spec("requests", "[]", "must hold at least one (query_tokens, context_tokens) pair"));
        }
        Ok(batch)
    }

    /// Adds `count` equal requests.
    pub fn push(&mut self, count: u64, request: Request) -> Result<()> {
        if !(1..=MAX_TOKENS).contains(&count) {
            return Err(Error::spec("batch_size", count, format!("must be between 1 and {MAX_TOKENS}")));
        }
        let rows = count * request.query_tokens;
        if self.rows.saturating_add(rows) > MAX_TOKENS {
            let rule = format!("the rows of one step (sum of query_tokens) must be at most {MAX_TOKENS}");
            return Err(Error::spec("query_tokens", self.rows.saturating_add(rows), rule));
        }
        self.rows += rows;
        self.requests += count;
        match self.runs.last_mut() {
            Some((n, last)) if *last == request => *n += count,
            _ => self.runs.push((count, request)),
        }
        Ok(())
    }

    /// T: new tokens of the step.
    pub const fn rows(&self) -> u64 {
        self.rows
    }

    /// R: rows that need logits, one a request.
    pub const fn requests(&self) -> u64 {
        self.requests
    }

    /// Runs of equal requests, as `(count, request)`.
    pub fn runs(&self) -> &[(u64, Request)] {
        &self.runs
    }
}
