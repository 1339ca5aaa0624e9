//! `roofsim.Capacity`.

use std::hash::{DefaultHasher, Hash, Hasher};

use pyo3::prelude::*;
use roofsim_core::capacity::{Capacity, CapacityLimits};

use crate::arguments::count;
use crate::deployment::PyDeployment;

/// What fits on the fullest rank: made by `Deployment.capacity`. All sizes in bytes, exact.
///
/// Examples
/// --------
/// >>> import roofsim as rs
/// >>> room = rs.Deployment("llama-3.1-70b", "h100-sxm").capacity()
/// >>> room.fits, room.max_sequences(1)
/// (False, 0)
/// >>> room.reason.split(" leave ")[1]
/// 'no KV block in 77.0 GB (0.9 x 85.5 GB of device memory)'
#[pyclass(name = "Capacity", module = "roofsim", frozen)]
pub(crate) struct PyCapacity {
    pub(crate) inner: Capacity,
    pub(crate) owner: Py<PyDeployment>,
    pub(crate) limits: CapacityLimits,
}

/// Arguments of `Deployment.capacity`.
type Arguments = (&'static str, f64, u64, u64, u64);

macro_rules! fields {
    ($($(#[$doc:meta])* $name:ident: $type:ty),*) => {
        #[pymethods]
        impl PyCapacity {
            $($(#[$doc])* #[getter] fn $name(&self) -> $type { self.inner.$name })*

            /// `ideal` or `runtime`.
            #[getter]
            fn mode(&self) -> &'static str { self.inner.mode.name() }

            /// Why it does not fit; empty when it does.
            #[getter]
            fn reason(&self) -> &str { &self.inner.reason }

            /// Sequences of a context that fit at once on every rank of one replica; exact: one more does not fit.
            ///
            /// Parameters
            /// ----------
            /// context_tokens : int
            ///     Tokens of each sequence; at least 1.
            ///
            /// Returns
            /// -------
            /// int
            ///
            /// Raises
            /// ------
            /// SpecError
            ///     A count that is no whole number or below 1.
            fn max_sequences(&self, context_tokens: &Bound<'_, PyAny>) -> PyResult<u64> {
                let tokens = count("context_tokens", context_tokens)?;
                if tokens == 0 {
                    return Err(crate::error::spec("context_tokens", 0, "must be at least 1"));
                }
                Ok(self.inner.max_sequences(tokens))
            }

            fn __repr__(&self) -> String {
                let c = &self.inner;
                format!(
                    "Capacity({}: weights {:.2} GB, activations {:.2} GB, engine {:.2} GB, KV {:.2} GB = {} tokens, {})",
                    c.mode.name(), c.weight_bytes as f64 / 1e9, c.activation_bytes as f64 / 1e9,
                    c.overhead_bytes as f64 / 1e9, c.kv_cache_bytes as f64 / 1e9, c.kv_tokens,
                    if c.fits { "fits" } else { "does not fit" }
                )
            }
        }
    };
}

fields!(
    /// Bytes the engine may use.
    usable_bytes: u64,
    /// Weights of one rank, scales included.
    weight_bytes: u64,
    /// Activation peak of the largest step.
    activation_bytes: u64,
    /// Context, graphs and collectives of the engine; 0 in `ideal`.
    overhead_bytes: u64,
    /// What is left for the KV cache.
    kv_cache_bytes: u64,
    /// Bytes of one block over the layers of the rank; 0 for models without a KV cache.
    bytes_per_block: u64,
    /// Whole blocks in the pool, the null block included.
    num_blocks: u64,
    /// Tokens the pool holds before any window cuts in.
    kv_tokens: u64,
    /// Whether weights, activations and engine leave room for one sequence of one token.
    fits: bool
);

#[pymethods]
impl PyCapacity {
    fn __eq__(&self, other: &Self) -> bool {
        self.inner == other.inner
    }

    fn __hash__(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        (self.inner.weight_bytes, self.inner.kv_cache_bytes, self.inner.num_blocks).hash(&mut hasher);
        hasher.finish()
    }

    /// In another process the same deployment is asked again.
    fn __reduce__<'py>(&self, py: Python<'py>) -> PyResult<(Bound<'py, PyAny>, Arguments)> {
        let l = &self.limits;
        let arguments =
            (l.mode.name(), l.gpu_memory_utilization, l.block_size, l.max_num_batched_tokens, l.max_num_seqs);
        Ok((self.owner.bind(py).getattr("capacity")?, arguments))
    }
}
