//! Deployments that were compiled: combinations that differ in capacity limits alone, or in values of an axis that are
//! equal, share one.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::super::space::Space;
use super::super::tables::{Combination, Compiled, DEPLOYMENT_AXES, compile};
use crate::error::Result;

/// Deployments that are kept: all are forgotten when there are more.
const MOST: usize = 1 << 11;

type Position = [usize; DEPLOYMENT_AXES];

/// Compiled deployments of a space.
#[derive(Debug)]
pub(super) struct Known {
    /// For each axis that makes a deployment, the first place of every place's value.
    first: [Vec<usize>; DEPLOYMENT_AXES],
    deployments: Mutex<HashMap<Position, Compiled>>,
    num_compiled: AtomicU64,
}

impl Known {
    pub(super) fn new(space: &Space) -> Self {
        let first = [
            equal(&space.models),
            equal(&space.accelerators),
            same(&space.tensor_parallel_size),
            same(&space.pipeline_parallel_size),
            same(&space.data_parallel_size),
            same(&space.expert_parallel_size),
            equal(&space.weight_dtype),
            equal(&space.kv_cache_dtype),
            equal(&space.calibration),
            equal(&space.engine),
        ];
        Self { first, deployments: Mutex::new(HashMap::new()), num_compiled: AtomicU64::new(0) }
    }

    pub(super) fn combination(&self, space: &Space, index: u64) -> Result<Combination> {
        let mut key: Position = [0; DEPLOYMENT_AXES];
        for ((slot, at), first) in key.iter_mut().zip(space.position(index)).zip(&self.first) {
            *slot = first.get(at).copied().unwrap_or(at);
        }
        let known = self.deployments.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        if let Some(compiled) = known {
            return Combination::of(space, index, &compiled);
        }
        let (spec, _) = space.combination(index)?;
        let compiled = compile(spec)?;
        self.num_compiled.fetch_add(1, Ordering::Relaxed);
        let mut deployments = self.deployments.lock().unwrap_or_else(PoisonError::into_inner);
        if deployments.len() >= MOST {
            deployments.clear();
        }
        deployments.insert(key, compiled.clone());
        drop(deployments);
        Combination::of(space, index, &compiled)
    }

    pub(super) fn num_compiled(&self) -> u64 {
        self.num_compiled.load(Ordering::Relaxed)
    }
}

/// The first place of an equal value, for every place of a short axis.
fn equal<T: PartialEq>(axis: &[T]) -> Vec<usize> {
    axis.iter().map(|value| axis.iter().position(|other| other == value).unwrap_or(0)).collect()
}

/// The same for an axis of any length.
fn same<T: Eq + Hash>(axis: &[T]) -> Vec<usize> {
    let mut first = HashMap::new();
    axis.iter().enumerate().map(|(at, value)| *first.entry(value).or_insert(at)).collect()
}
