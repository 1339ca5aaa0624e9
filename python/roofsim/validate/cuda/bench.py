"""What every family of the CUDA backend shares: torch, the pool, the stopwatch, the checks, one candidate's row."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from ..plan_quick import keeps_kernel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .check import Checks
    from .nvml import Nvml
    from .pool import OperandPool
    from .timing import Call, Stopwatch

__all__ = ["Bench", "Candidate"]

SLOW_FACTOR = 5.0  # a candidate this much slower than the best so far is recorded from one eager run
SLOW_FLOOR_S = 200e-6  # below this an eager run measures the host
ROUGH_FLOPS_PER_S = 6e14  # only sizes the number of launches of a replay
ROUGH_BYTES_PER_S = 3e12


@dataclass(frozen=True)
class Candidate:
    """One way to compute an operation.

    Parameters
    ----------
    backend
        Its name in the record.
    call
        Takes one operand set, returns the result.
    extra
        Further columns (split count, block sizes).
    """

    backend: str
    call: Callable[..., Any]
    extra: Mapping[str, Any]


@dataclass
class Bench:
    """The device in hand.

    Besides the tools of measuring it holds `resident`, the model whose steps are being measured, `constants`, readings
    that are taken once a run, and whether the run is a quick one.
    """

    torch: Any
    nvml: Nvml
    pool: OperandPool
    stopwatch: Stopwatch
    checks: Checks
    sms: int
    resident: dict[Any, Any] = field(default_factory=dict)
    constants: dict[str, Any] = field(default_factory=dict)
    quick: bool = False

    def dtype(self, name: str) -> Any:
        """Return torch's dtype for a format's name.

        Raises
        ------
        ValueError
            torch has no such format.
        """
        torch = self.torch
        names = {"bf16": "bfloat16", "fp16": "float16", "fp32": "float32", "fp8": "float8_e4m3fn", "int8": "int8"}
        found = getattr(torch, names.get(name, name), None)
        if found is None:
            raise ValueError(f"dtype = {name!r}: torch {torch.__version__} has none")
        return found

    @staticmethod
    def estimate_s(flops: float, num_bytes: float) -> float:
        """Return a rough time that only sizes a replay; it is never recorded."""
        return 2e-6 + max(flops / ROUGH_FLOPS_PER_S, num_bytes / ROUGH_BYTES_PER_S)

    def worth_timing(self, family: str, candidates: list[Candidate]) -> list[Candidate]:
        """Return the candidates of a family that the run times: all, or in a quick run those that mostly win.

        All, too, where none of these is at hand.
        """
        if not self.quick:
            return candidates
        kept = [each for each in candidates if keeps_kernel(family, each.backend, each.extra.get("tile"))]
        return kept or candidates

    def time_candidate(
        self, candidate: Candidate, sets: Sequence[tuple[Any, ...]], bytes_per_call: float, best_s: float | None
    ) -> dict[str, Any]:
        """Time one candidate over the operand sets; an exception becomes its row's error."""
        row: dict[str, Any] = {"backend": candidate.backend, **candidate.extra}
        try:
            once = self.stopwatch.once(lambda: candidate.call(*sets[0]))
            if best_s is not None and once > max(SLOW_FACTOR * best_s, SLOW_FLOOR_S):
                eager = {"median_s": once, "p10_s": once, "p90_s": once, "repeats": 1, "rotations": 1}
                return {**row, **eager, "screened": True}
            calls: list[Call] = [partial(candidate.call, *operands) for operands in sets]
            return {**row, **self.stopwatch.measure(calls, bytes_per_call, repeats=5 if once > 3e-3 else 7)}
        except Exception as error:  # an unsupported shape or a full memory is a result of this candidate alone
            self.release()
            return {**row, "error": f"{type(error).__name__}: {error}"[:240]}

    def release(self) -> None:
        """Wait for the device and give cached memory back; raises if the device no longer answers."""
        self.torch.cuda.synchronize()
        self.torch.cuda.empty_cache()
