//! The single operations of `roofsim.Accelerator`, each priced alone and at burst rates.

use pyo3::prelude::*;
use roofsim_core::format::{ComputeDType, KvFormat, WeightFormat};
use roofsim_core::ops::attention::AttentionShape;
use roofsim_core::ops::moe::GroupedShape;
use roofsim_core::ops::{AttentionOp, Collective, CollectiveOp, ElementwiseOp, GemmOp, GroupedGemmOp};
use roofsim_core::roofline::{Machine, OpCost, Pace};
use roofsim_core::workload::Request;
use std::borrow::Cow;

use crate::accelerator::PyAccelerator;
use crate::arguments::{Word, compute_dtype, count, count_or, number};
use crate::cost::PyOpCost;
use crate::error::{IntoPython, spec};

/// Largest size of one dimension of an operation; products of three stay exact.
const MAX_DIMENSION: u64 = 1 << 32;

fn dimension(field: &str, value: &Bound<'_, PyAny>) -> PyResult<u64> {
    let size = count(field, value)?;
    if (1..=MAX_DIMENSION).contains(&size) { Ok(size) } else { Err(spec(field, size, "must be between 1 and 2^32")) }
}

#[pymethods]
impl PyAccelerator {
    /// Cost of a matrix product: m rows times an n by k weight, at burst rates.
    ///
    /// F = 2 m n k FLOPs; bytes = inputs m k, weight n k and outputs m n, each moved once. In `ideal` the time is
    /// max(F / P, bytes / W), a bound for cold caches; otherwise the calibration's law, never below it.
    ///
    /// Parameters
    /// ----------
    /// m, n, k : int
    ///     Rows, output features, input features; 1 to 2^32.
    /// dtype : str
    ///     Operand type: picks the peak P.
    /// weight_dtype : str, optional
    ///     Storage of the weight; as `dtype` by default.
    ///
    /// Returns
    /// -------
    /// OpCost
    ///
    /// Raises
    /// ------
    /// SpecError, UnsupportedError
    ///     A size out of range, an unknown format, a dtype without a peak on this device.
    ///
    /// Notes
    /// -----
    /// Leaves out bias, fused activations and clocks that fall under load (an operation is priced as it runs alone).
    /// Source: Williams, Waterman, Patterson, "Roofline", CACM 52(4), 2009.
    ///
    /// Examples
    /// --------
    /// >>> import roofsim as rs
    /// >>> h100 = rs.Accelerator.load("h100-sxm").with_calibration("ideal")
    /// >>> op = h100.gemm(m=8192, n=8192, k=8192)
    /// >>> op.flops, op.bytes, op.bound
    /// (1099511627776.0, 402653184.0, 'compute')
    #[pyo3(signature = (*, m, n, k, dtype = Word::from("bf16"), weight_dtype = None),
           text_signature = "($self, *, m, n, k, dtype='bf16', weight_dtype=None)")]
    fn gemm(
        &self,
        m: &Bound<'_, PyAny>,
        n: &Bound<'_, PyAny>,
        k: &Bound<'_, PyAny>,
        dtype: Word,
        weight_dtype: Option<Word>,
    ) -> PyResult<PyOpCost> {
        let (m, n, k) = (dimension("m", m)?, dimension("n", n)?, dimension("k", k)?);
        let (format, dtype) = stored(&dtype, weight_dtype.as_ref())?;
        let op = GemmOp::new(&self.machine(), n, k, format, dtype).python()?;
        Ok(self.cost("gemm", op.cost(m)))
    }

    /// Cost of causal attention of a uniform batch against its KV cache, at burst rates.
    ///
    /// Query row i of q attends to S - q + i + 1 keys: F = 2 H (h + h_v) times the attended pairs, no full square. Bytes: queries
    /// and outputs once, the keys and values of every sequence once.
    ///
    /// Parameters
    /// ----------
    /// batch_size : int
    ///     Sequences.
    /// query_tokens, context_tokens : int
    ///     New rows of each sequence, and its context S, which counts them.
    /// num_heads, num_kv_heads, head_dim : int
    ///     Query heads H, KV heads K (a divisor of H) and head width h.
    /// v_head_dim : int, optional
    ///     Width of a value head; `head_dim` by default.
    /// dtype, kv_cache_dtype : str
    ///     Operand type and storage of the cache.
    /// sliding_window : int, optional
    ///     Tokens a row sees, itself included; all by default.
    ///
    /// Returns
    /// -------
    /// OpCost
    ///
    /// Raises
    /// ------
    /// SpecError, UnsupportedError
    ///     A size out of range, query_tokens above context_tokens, heads that do not divide, an unknown or unsupported format.
    ///
    /// Notes
    /// -----
    /// Leaves out latent attention (a `Deployment` costs it), prefixes shared between sequences, and the projections.
    /// Source: Dao, "FlashAttention-2", 2023 (one pass over keys and values, no score matrix in memory).
    ///
    /// Examples
    /// --------
    /// >>> import roofsim as rs
    /// >>> h100 = rs.Accelerator.load("h100-sxm").with_calibration("ideal")
    /// >>> shape = dict(batch_size=1, context_tokens=4096, num_heads=64, num_kv_heads=8, head_dim=128)
    /// >>> h100.attention(query_tokens=1, **shape).bound, h100.attention(query_tokens=4096, **shape).bound
    /// ('memory', 'compute')
    /// >>> h100.attention(query_tokens=4096, **shape).flops  # 2 x 64 x (128 + 128) x 4096 x 4097 / 2
    /// 274945015808.0
    #[pyo3(signature = (*, batch_size, query_tokens, context_tokens, num_heads, num_kv_heads, head_dim,
                        v_head_dim = None, dtype = Word::from("bf16"), kv_cache_dtype = Word::from("bf16"),
                        sliding_window = None),
           text_signature = "($self, *, batch_size, query_tokens, context_tokens, num_heads, num_kv_heads, head_dim, \
                             v_head_dim=None, dtype='bf16', kv_cache_dtype='bf16', sliding_window=None)")]
    #[expect(clippy::too_many_arguments, reason = "the shape of attention")]
    fn attention(
        &self,
        batch_size: &Bound<'_, PyAny>,
        query_tokens: &Bound<'_, PyAny>,
        context_tokens: &Bound<'_, PyAny>,
        num_heads: &Bound<'_, PyAny>,
        num_kv_heads: &Bound<'_, PyAny>,
        head_dim: &Bound<'_, PyAny>,
        v_head_dim: Option<&Bound<'_, PyAny>>,
        dtype: Word,
        kv_cache_dtype: Word,
        sliding_window: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<PyOpCost> {
        let heads = dimension("num_heads", num_heads)?;
        let kv_heads = dimension("num_kv_heads", num_kv_heads)?;
        if !heads.is_multiple_of(kv_heads) {
            return Err(spec("num_kv_heads", kv_heads, &format!("must divide num_heads = {heads}")));
        }
        let head_dim = small("head_dim", head_dim)?;
        let span = match sliding_window {
            Some(window) if !window.is_none() => {
                roofsim_core::model::Span::Sliding(dimension("sliding_window", window)?)
            }
            _ => roofsim_core::model::Span::Full,
        };
        let shape = AttentionShape {
            num_heads: limit_heads(heads)?,
            num_kv_heads: kv_heads,
            head_dim,
            v_head_dim: v_head_dim.map_or(Ok(head_dim), |v| small("v_head_dim", v))?,
            span,
            latent: None,
            dtype: compute_dtype("dtype", dtype.text("dtype")?)?,
            kv_format: KvFormat::parse("kv_cache_dtype", kv_cache_dtype.text("kv_cache_dtype")?).python()?,
            fixed_bytes: 0,
        };
        let batch = dimension("batch_size", batch_size)?;
        let request =
            Request::new(count("query_tokens", query_tokens)?, count("context_tokens", context_tokens)?).python()?;
        let op = AttentionOp::new(&self.machine(), shape).python()?;
        Ok(self.cost("attention", op.request_cost(batch, request)))
    }

    /// Cost of the routed experts of one mixture-of-experts projection, at burst rates.
    ///
    /// F = 2 num_tokens experts_per_token n k. The weights of the experts that are hit are read once: E (1 - (1 - k/E)^tokens)
    /// of them are expected under uniform routing.
    ///
    /// Parameters
    /// ----------
    /// num_tokens : int
    ///     Rows before routing.
    /// num_experts, experts_per_token : int
    ///     Experts E, and how many each row visits.
    /// n, k : int
    ///     Output and input features of one expert.
    /// dtype : str
    ///     Operand type.
    /// weight_dtype : str, optional
    ///     Storage of the weights; as `dtype` by default.
    /// active_experts : int, optional
    ///     Distinct experts hit; their expected number by default.
    ///
    /// Returns
    /// -------
    /// OpCost
    ///
    /// Raises
    /// ------
    /// SpecError, UnsupportedError
    ///     A size out of range, more active experts than there are, an unknown or unsupported format.
    ///
    /// Notes
    /// -----
    /// Leaves out skewed routing and the router itself; `active_experts` prices a given skew.
    ///
    /// Examples
    /// --------
    /// >>> import roofsim as rs
    /// >>> h100 = rs.Accelerator.load("h100-sxm").with_calibration("ideal")
    /// >>> op = h100.grouped_gemm(num_tokens=16, num_experts=8, experts_per_token=2, n=14336, k=4096)
    /// >>> op.flops, op.bound
    /// (3758096384.0, 'memory')
    #[pyo3(signature = (*, num_tokens, num_experts, experts_per_token, n, k, dtype = Word::from("bf16"),
                        weight_dtype = None, active_experts = None),
           text_signature = "($self, *, num_tokens, num_experts, experts_per_token, n, k, dtype='bf16', \
                             weight_dtype=None, active_experts=None)")]
    #[expect(clippy::too_many_arguments, reason = "the shape of a grouped GEMM")]
    fn grouped_gemm(
        &self,
        num_tokens: &Bound<'_, PyAny>,
        num_experts: &Bound<'_, PyAny>,
        experts_per_token: &Bound<'_, PyAny>,
        n: &Bound<'_, PyAny>,
        k: &Bound<'_, PyAny>,
        dtype: Word,
        weight_dtype: Option<Word>,
        active_experts: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<PyOpCost> {
        let (format, dtype) = stored(&dtype, weight_dtype.as_ref())?;
        let num_experts = dimension("num_experts", num_experts)?;
        let active_experts = match active_experts.filter(|a| !a.is_none()) {
            None => None,
            Some(active) => match dimension("active_experts", active)? {
                active if active <= num_experts => Some(active),
                active => {
                    let rule = format!("must be at most num_experts = {num_experts}");
                    return Err(spec("active_experts", active, &rule));
                }
            },
        };
        let shape = GroupedShape {
            num_experts,
            experts_per_token: dimension("experts_per_token", experts_per_token)?,
            expert_ranks: 1,
            token_replicas: 1,
            n: dimension("n", n)?,
            k: dimension("k", k)?,
            format,
            dtype,
            active_experts,
        };
        let op = GroupedGemmOp::new(&self.machine(), shape).python()?;
        Ok(self.cost("grouped_gemm", op.cost(dimension("num_tokens", num_tokens)?)))
    }

    /// Cost of a kernel that only moves memory: (read_bytes + write_bytes) / W, plus a launch where the calibration has one.
    ///
    /// Parameters
    /// ----------
    /// read_bytes, write_bytes : float
    ///     Bytes from and to device memory; 0 to 9e15.
    /// row_elements : int, optional
    ///     Elements of a row that the kernel reduces before it writes it, as a norm does; 1 to 2^32. None: no reduction.
    ///
    /// Returns
    /// -------
    /// OpCost
    ///
    /// Raises
    /// ------
    /// SpecError
    ///     A size out of range.
    ///
    /// Notes
    /// -----
    /// Leaves out the arithmetic, which never binds such kernels.
    ///
    /// Examples
    /// --------
    /// >>> import roofsim as rs
    /// >>> rs.Accelerator.load("h100-sxm").with_calibration("ideal").elementwise(read_bytes=3.35e9, write_bytes=0).time_s
    /// 0.001
    #[pyo3(signature = (*, read_bytes, write_bytes, row_elements = None))]
    fn elementwise(
        &self,
        read_bytes: &Bound<'_, PyAny>,
        write_bytes: &Bound<'_, PyAny>,
        row_elements: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<PyOpCost> {
        let bytes = |field, value| {
            let bytes = number(field, value)?;
            if (0.0..9e15).contains(&bytes) {
                Ok(bytes)
            } else {
                Err(spec(field, bytes, "must be at least 0 and below 9e15"))
            }
        };
        let total = bytes("read_bytes", read_bytes)? + bytes("write_bytes", write_bytes)?;
        let row_elements = row_elements.map_or(Ok(0), |value| dimension("row_elements", value))?;
        Ok(self.cost("elementwise", ElementwiseOp::reducing(&self.machine(), total, 0.0, row_elements).cost(1)))
    }

    /// Cost of a collective between equal devices: the better of ring and tree, hops times latency plus bytes over the link.
    ///
    /// A ring all-reduce of n devices moves 2 (n - 1) / n of the buffer over each link, in 2 (n - 1) hops. How the devices
    /// are wired says how much of a device's links leads to the group: all of it behind a switch, one link of seven
    /// between two of a mesh of eight.
    ///
    /// Parameters
    /// ----------
    /// kind : str
    ///     `all_reduce`, `all_gather`, `reduce_scatter`, `all_to_all` or `point_to_point`.
    /// num_bytes : float
    ///     Size of the whole buffer (`all_to_all`: of one rank's), bytes.
    /// num_devices : int
    ///     Ranks.
    ///
    /// Returns
    /// -------
    /// OpCost
    ///     Its time is in `network_s`.
    ///
    /// Raises
    /// ------
    /// SpecError, UnsupportedError
    ///     An unknown kind, a size out of range, or no link that joins so many devices.
    ///
    /// Notes
    /// -----
    /// Leaves out in-network reduction, contention and relays through third devices. Sources: Thakur, Rabenseifner, Gropp, "Optimization
    /// of Collective Communication Operations in MPICH", 2005; Patarasuk and Yuan, "Bandwidth optimal all-reduce", 2009.
    ///
    /// Examples
    /// --------
    /// >>> import roofsim as rs
    /// >>> op = rs.Accelerator.load("h100-sxm").with_calibration("ideal").collective("all_reduce", num_bytes=1e9, num_devices=8)
    /// >>> round(1e3 * op.time_s, 2)  # 2 x 7/8 x 1 GB / 450 GB/s
    /// 3.89
    #[pyo3(signature = (kind, *, num_bytes, num_devices))]
    fn collective(
        &self,
        kind: Word,
        num_bytes: &Bound<'_, PyAny>,
        num_devices: &Bound<'_, PyAny>,
    ) -> PyResult<PyOpCost> {
        let kind = Collective::parse("kind", kind.text("kind")?).python()?;
        let devices = count_or("num_devices", Some(num_devices), 0)?;
        let bytes = number("num_bytes", num_bytes)?;
        if !(0.0..9e15).contains(&bytes) {
            return Err(spec("num_bytes", bytes, "must be at least 0 and below 9e15"));
        }
        let op = CollectiveOp::new(&self.machine(), kind, devices, bytes).python()?;
        Ok(self.cost("collective", op.cost(1)))
    }
}

fn small(field: &str, value: &Bound<'_, PyAny>) -> PyResult<u64> {
    let size = count(field, value)?;
    if (1..=65_536).contains(&size) { Ok(size) } else { Err(spec(field, size, "must be between 1 and 65536")) }
}

fn limit_heads(heads: u64) -> PyResult<u64> {
    if heads <= 65_536 { Ok(heads) } else { Err(spec("num_heads", heads, "must be at most 65536")) }
}

/// Storage of the weight and operand type: without `weight_dtype` the weight is stored as it is multiplied.
fn stored(dtype: &Word, weight_dtype: Option<&Word>) -> PyResult<(WeightFormat, ComputeDType)> {
    stored_as(dtype.text("dtype")?, weight_dtype.map(|name| name.text("weight_dtype")).transpose()?)
}

/// As [`stored`], of plain text.
pub(crate) fn stored_as(dtype: &str, weight_dtype: Option<&str>) -> PyResult<(WeightFormat, ComputeDType)> {
    let compute = compute_dtype("dtype", dtype)?;
    let format = match weight_dtype {
        Some(name) => WeightFormat::parse("weight_dtype", name).python()?,
        None if compute.name() == "tf32" => WeightFormat::Fp32,
        None => {
            WeightFormat::parse("dtype", dtype).or_else(|_| WeightFormat::parse("dtype", compute.name())).python()?
        }
    };
    Ok((format, compute))
}

impl PyAccelerator {
    fn machine(&self) -> Machine<'_> {
        Machine::new(&self.inner, &self.calibration, Pace::Burst)
    }

    fn cost(&self, name: &'static str, cost: OpCost) -> PyOpCost {
        PyOpCost { name: Cow::Borrowed(name), count: 1, cost, seconds_per_byte: self.machine().seconds_per_byte }
    }
}
