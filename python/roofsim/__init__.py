"""roofsim: a cost oracle for LLM inference.

Say a model, an accelerator and a layout; get the time of a forward step, what limits it, and how many sequences fit.

>>> import roofsim as rs
>>> dep = rs.Deployment("llama-3.1-70b", "h100-sxm", tensor_parallel_size=4, calibration="ideal")
>>> step = dep.decode(batch_size=32, context_tokens=4096)
>>> step.bound
'memory'
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from roofsim import _core
from roofsim._core import Accelerator, Calibration, Capacity, Deployment, Model, OpCost, StepCost
from roofsim.errors import (
    CountOverflowError,
    RoofsimError,
    SpecError,
    UnsupportedError,
    ValidationUnavailableError,
)
from roofsim.planning import Plan, plan

if TYPE_CHECKING:
    from roofsim.advice.levers import Levers, levers
    from roofsim.advice.regimes import Regimes, regimes
    from roofsim.batches import RecordBatches
    from roofsim.columns import Columns
    from roofsim.parquet import ParquetParts
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

_LATER = {
    "Columns": "columns",
    "Counts": "reductions",
    "Front": "sweep",
    "Groups": "reductions",
    "Histogram": "reductions",
    "Levers": "advice.levers",
    "ParquetParts": "parquet",
    "QuantileSketch": "reductions",
    "RecordBatches": "batches",
    "Regimes": "advice.regimes",
    "SearchReport": "search",
    "SweepSpace": "sweep",
    "TopK": "sweep",
    "levers": "advice.levers",
    "regimes": "advice.regimes",
}
"""Names whose modules need NumPy, which takes far longer to import than a step to cost: loaded when first asked for."""

_MODULES = (
    "advice",
    "arguments",
    "batches",
    "catalog",
    "columns",
    "identity",
    "parquet",
    "reducing",
    "reductions",
    "search",
    "sweep",
)


def __getattr__(name: str) -> object:
    if name in _LATER:
        value: object = getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
        globals()[name] = value
        return value
    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_MODULES})
