"""Correctness of timed kernels against float64, once a kernel and on actual shapes where they are small."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Checks", "attention_reference", "relative_error", "sampled_attention_error"]

TOLERANCE = {"bf16": 1e-2, "fp16": 2e-3, "fp8": 1e-2, "int8": 0.0, "fp32": 1e-5, "step": 3e-2, "fp8_step": 0.12}
"""Largest relative error of right kernels. In an fp8 step what differs by the rounding of bf16, or of a tensor core's
short accumulator, is often rounded to the next number of fp8, a sixteenth away; over two layers that adds up to 0.05 to
0.08 on an H100, where a product without its scale would be off by more than half."""
MAX_ACTUAL_CHECKS = 24
SAMPLED_ROWS = 64


def relative_error(torch: Any, value: Any, reference: Any) -> float:
    """Return the Frobenius norm of the difference over the reference's; infinite where anything is not finite."""
    wide = value.to(torch.float64)
    if not bool(torch.isfinite(wide).all()):
        return math.inf
    norm = float(torch.linalg.vector_norm(reference))
    return float(torch.linalg.vector_norm(wide - reference)) / max(norm, 1e-300)


def attention_reference(torch: Any, query: Any, key: Any, value: Any, *, causal: bool) -> Any:
    """Attention in float64, aligned to the last key; query [B, H, T, h], key and value [B, K, S, h]."""
    q, k, v = (x.to(torch.float64) for x in (query, key, value))
    group = q.shape[1] // k.shape[1]
    k, v = (x.repeat_interleave(group, dim=1) for x in (k, v))
    scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
    if causal:
        rows, context = q.shape[2], k.shape[2]
        column = torch.arange(context, device=q.device)
        limit = torch.arange(rows, device=q.device)[:, None] + (context - rows)
        scores = scores.masked_fill(column[None, :] > limit, -math.inf)
    return torch.softmax(scores, dim=-1) @ v


def sampled_attention_error(torch: Any, result: Any, query: Any, key: Any, value: Any) -> float:
    """Return the relative error of some rows of causal attention, aligned to the last key.

    First, last and evenly spread rows of the first and the last head of the first and the last request: every tile of
    rows and every end that a kernel treats apart, at a cost that does not grow with the square of the prompt.

    Parameters
    ----------
    torch
        The torch module.
    result
        [B, H, T, v], the kernel's.
    query, key, value
        [B, H, T, h], [B, K, S, h] and [B, K, S, v].
    """
    batch, heads, rows, width = query.shape
    kv_heads, context = key.shape[1], key.shape[2]
    wide, columns = torch.float64, torch.arange(context, device=query.device)
    count = min(rows, SAMPLED_ROWS)
    chosen = torch.linspace(0, rows - 1, count, device=query.device).round().long()
    limit = chosen[:, None] + (context - rows)
    found, references = [], []
    for request in sorted({0, batch - 1}):
        for head in sorted({0, heads - 1}):
            shared = head * kv_heads // heads
            q, k, v = query[request, head, chosen], key[request, shared], value[request, shared]
            scores = q.to(wide) @ k.to(wide).t() / math.sqrt(width)
            scores = scores.masked_fill(columns[None, :] > limit, -math.inf)
            references.append(torch.softmax(scores, dim=-1) @ v.to(wide))
            found.append(result[request, head, chosen])
    return relative_error(torch, torch.stack(found), torch.stack(references))


class Checks:
    """Remembers which kernels were found right.

    A kernel is named by (operation, format, backend, head width). Its first use is checked, on a small instance if
    the point's own shape is large; later points are checked on their own shape where that is small, up to a limit.
    """

    def __init__(self) -> None:
        self.small: dict[str, float] = {}
        self.actual: dict[str, int] = {}

    def verdict(
        self,
        key: str,
        dtype: str,
        small: Callable[[], float] | None,
        actual: Callable[[], float] | None,
    ) -> dict[str, Any]:
        """Return `relative_error`, `checked` ("actual", "small" or "earlier") and `error` where it is too large."""
        kind, value = "earlier", self.small.get(key)
        if actual is not None and self.actual.get(key, 0) < MAX_ACTUAL_CHECKS:
            kind, value = "actual", actual()
            self.actual[key] = self.actual.get(key, 0) + 1
            self.small.setdefault(key, value)
        elif value is None and small is not None:
            kind, value = "small", small()
            self.small[key] = value
        if value is None:
            return {"relative_error": None, "checked": None, "error": None}
        wrong = not value <= TOLERANCE[dtype]
        found = value if math.isfinite(value) else None
        error = f"incorrect: relative error {value:.3g} above {TOLERANCE[dtype]:.3g}" if wrong else None
        return {"relative_error": found, "checked": kind, "error": error}
