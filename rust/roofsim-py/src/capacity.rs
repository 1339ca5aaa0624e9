//! `roofsim.Capacity`.

use pyo3::prelude::*;
use roofsim_core::capacity::Capacity;

use crate::arguments::count;

/// What fits on the fullest rank.
#[pyclass(name = "Capacity", module = "roofsim", frozen)]
pub(crate) struct PyCapacity {
    pub(crate) inner: Capacity,
}

macro_rules! fields {
    ($($name:ident: $type:ty),*) => {
        #[pymethods]
        impl PyCapacity {
            $(#[getter] fn $name(&self) -> $type { self.inner.$name })*

            #[getter]
            fn mode(&self) -> &'static str { self.inner.mode.name() }

            #[getter]
            fn reason(&self) -> &str { &self.inner.reason }

            /// Sequences of this context that fit at once.
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
    usable_bytes: u64,
    weight_bytes: u64,
    activation_bytes: u64,
    overhead_bytes: u64,
    kv_cache_bytes: u64,
    bytes_per_block: u64,
    num_blocks: u64,
    kv_tokens: u64,
    fits: bool
);
