"""Small spaces, columns and filters for the laws of sweeps."""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

from roofsim import testing

NUMERIC = ["time_s", "tokens_per_s_per_gpu", "tokens_per_s_per_user", "memory_s", "flops", "bytes", "mfu", "mbu"]
NUMERIC += ["max_sequences", "num_devices", "batch_size", "context_tokens", "usd_per_mtok", "weight_bytes"]
FILTERS = ["fits", "not fits", "bound == memory", "bound != memory", "tensor_parallel_size < 4", "query_tokens >= 2"]
FILTERS += ["time_s <= 0.003", "time_s > 1e-3", "max_sequences > 10", "status == ok", "mbu >= 0.3", "batch_size != 3"]


@st.composite
def spaces(draw: st.DrawFn, *, calibrated: bool = True) -> dict[str, Any]:
    """Axes of a small space, infeasible rows among them."""
    sizes = st.lists(st.sampled_from([1, 2, 3, 4, 8, 16]), min_size=1, max_size=3, unique=True)
    axes: dict[str, Any] = {
        "models": draw(st.lists(testing.models(), min_size=1, max_size=2)),
        "accelerators": draw(st.lists(testing.accelerators(), min_size=1, max_size=2)),
        "tensor_parallel_size": draw(sizes),
        "pipeline_parallel_size": draw(st.sampled_from([[1], [1, 2], [3]])),
        "data_parallel_size": draw(st.sampled_from([[1], [2], [1, 2]])),
        "expert_parallel_size": draw(st.sampled_from([[1], [1, 2], [4]])),
        "weight_dtype": draw(st.lists(testing.weight_dtypes(), min_size=1, max_size=2, unique=True)),
        "kv_cache_dtype": draw(st.sampled_from([["auto"], ["bf16", "fp8"]])),
        "calibration": [draw(testing.calibrations()), "ideal"] if calibrated and draw(st.booleans()) else ["ideal"],
        "capacity_mode": draw(st.sampled_from(["ideal", "runtime", ["ideal", "runtime"]])),
        "gpu_memory_utilization": draw(st.sampled_from([0.9, [0.5, 0.92]])),
        "block_size": draw(st.sampled_from([16, [16, 64]])),
        "batch_size": draw(st.sampled_from([[1], [1, 2, 3, 200], range(1, 4), range(5, 300, 97)])),
        "context_tokens": draw(st.sampled_from([[4096], [1, 8, 4096], range(1, 9_000, 2_999)])),
        "query_tokens": draw(st.sampled_from([[1], [1, 7], [5, 1, 129]])),
    }
    return axes
