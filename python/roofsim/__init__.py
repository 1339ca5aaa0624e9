"""roofsim: a cost oracle for LLM inference.

Say a model, an accelerator and a layout; get the time of a forward step, what limits it, and how many sequences fit.

>>> import roofsim as rs
>>> dep = rs.Deployment("llama-3.1-70b", "h100-sxm", tensor_parallel_size=4, calibration="ideal")
>>> step = dep.decode(batch_size=32, context_tokens=4096)
>>> step.bound
'memory'
"""

from __future__ import annotations

from roofsim import _core
from roofsim._core import Accelerator, Calibration, Capacity, Deployment, Model, OpCost, StepCost
from roofsim.advice.levers import Levers, levers
from roofsim.advice.regimes import Regimes, regimes
from roofsim.batches import RecordBatches
from roofsim.columns import Columns
from roofsim.errors import (
    CountOverflowError,
    RoofsimError,
    SpecError,
    UnsupportedError,
    ValidationUnavailableError,
)
from roofsim.parquet import ParquetParts
from roofsim.planning import Plan, plan
from roofsim.reductions import Counts, Groups, Histogram, QuantileSketch
from roofsim.search import SearchReport
from roofsim.sweep import Front, SweepSpace, TopK

__version__: str = _core.__version__

if _core.DEBUG_BUILD:
    import warnings

    warnings.warn(
        "roofsim was built without optimisation: its answers are right, its speed means nothing. "
        "Build with `maturin develop --release` before you measure.",
        RuntimeWarning,
        stacklevel=2,
    )

__all__ = [
    "Accelerator",
    "Calibration",
    "Capacity",
    "Columns",
    "CountOverflowError",
    "Counts",
    "Deployment",
    "Front",
    "Groups",
    "Histogram",
    "Levers",
    "Model",
    "OpCost",
    "ParquetParts",
    "Plan",
    "QuantileSketch",
    "RecordBatches",
    "Regimes",
    "RoofsimError",
    "SearchReport",
    "SpecError",
    "StepCost",
    "SweepSpace",
    "TopK",
    "UnsupportedError",
    "ValidationUnavailableError",
    "__version__",
    "levers",
    "plan",
    "regimes",
]
