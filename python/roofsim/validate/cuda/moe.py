"""Grouped GEMM: the rows of each expert times that expert's weights, routed uniformly at random."""

from __future__ import annotations

import contextlib
import math
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

from .bench import Bench, Candidate
from .check import relative_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..points import Point

__all__ = ["Routing", "grouped_candidates", "measure_grouped_gemm", "uniform_routing"]

MAX_LOOP_EXPERTS = 8  # beyond it a product an expert is only launches
MAX_ACTUAL_FLOPS = 4e9
MAX_ACTUAL_ELEMENTS = 1 << 25
SMALL = (40, 6, 2, 192, 320)  # tokens, experts, experts a token, n, k: some experts stay empty or ragged
BYTES = {"bf16": 2, "fp16": 2, "fp8": 1}


class Routing(NamedTuple):
    """Rows of each expert of the rank, on the host and as end rows on the device."""

    counts: list[int]
    ends: Any

    @property
    def rows(self) -> int:
        """Rows in all."""
        return sum(self.counts)

    @property
    def hit(self) -> int:
        """Experts with at least one row."""
        return sum(count > 0 for count in self.counts)


def uniform_routing(torch: Any, tokens: int, experts: int, per_token: int, ranks: int) -> Routing:
    """Send each token to `per_token` distinct experts, uniformly; keep the rows of the first rank's experts."""
    chosen = torch.rand((tokens, experts), device="cuda").topk(per_token, dim=-1).indices
    counts = torch.bincount(chosen.flatten(), minlength=experts)[: experts // ranks]
    return Routing([int(count) for count in counts.tolist()], counts.cumsum(0).to(torch.int32))


def _triton(bench: Bench, routing: Routing, tile: Any) -> Any:
    """Return the Triton kernel with the tiles of this routing, listed beforehand."""
    from .triton_moe import Tiles, grouped_matmul

    listed: list[tuple[int, int, int]] = []
    end = 0
    for expert, count in enumerate(routing.counts):
        first, end = end, end + count
        listed += [(expert, row, end) for row in range(first, end, tile.rows)]
    columns = bench.torch.tensor(listed, dtype=bench.torch.int32, device="cuda").t().contiguous()
    tiles = Tiles(columns[0], columns[1], columns[2])
    return lambda x, w, out, _scales: grouped_matmul(x, w, out, None, tiles, tile)


def _torch(bench: Bench, routing: Routing, dtype: str) -> Any:
    """Return torch's grouped kernel (CUTLASS)."""
    torch, ends = bench.torch, routing.ends
    if dtype == "fp8":

        def scaled(x: Any, w: Any, _out: Any, scales: tuple[Any, Any]) -> Any:
            return torch._scaled_grouped_mm(
                x, w.transpose(1, 2), scales[0], scales[1], offs=ends, out_dtype=torch.bfloat16, use_fast_accum=True
            )

        return scaled
    return lambda x, w, _out, _scales: torch._grouped_mm(x, w.transpose(1, 2), offs=ends)


def _loop(bench: Bench, routing: Routing) -> Any:
    """Return one cuBLAS product an expert that is hit."""
    torch = bench.torch

    def call(x: Any, w: Any, out: Any, _scales: Any) -> Any:
        end = 0
        for expert, count in enumerate(routing.counts):
            first, end = end, end + count
            if count:
                torch.mm(x[first:end], w[expert].t(), out=out[first:end])
        return out

    return call


def grouped_candidates(bench: Bench, routing: Routing, dtype: str) -> list[Candidate]:
    """Return every candidate; each takes x [rows, k] sorted by expert, w [experts, n, k], out [rows, n], scales."""
    found: list[Candidate] = []
    with contextlib.suppress(Exception):
        from .triton_moe import tile_configs

        for tile in tile_configs(routing.rows / max(1, routing.hit)):
            found.append(Candidate("triton_grouped", _triton(bench, routing, tile), {"tile": list(tile)}))
    name = "torch._scaled_grouped_mm" if dtype == "fp8" else "torch._grouped_mm"
    found.append(Candidate(name, _torch(bench, routing, dtype), {}))
    if routing.hit <= MAX_LOOP_EXPERTS and dtype != "fp8":
        found.append(Candidate("torch.mm_loop", _loop(bench, routing), {}))
    return bench.worth_timing("grouped_gemm", found)


def _operands(bench: Bench, dtype: str, routing: Routing, n: int, k: int) -> tuple[Any, ...]:
    torch, pool, kind = bench.torch, bench.pool, bench.dtype(dtype)
    experts = len(routing.counts)
    out = pool.scratch(torch.bfloat16 if dtype == "fp8" else kind, routing.rows, n)
    scales = None
    if dtype == "fp8":
        rows, columns = (torch.ones(shape, device="cuda") for shape in ((routing.rows,), (experts, n)))
        scales = (rows, columns)
    return pool.take(kind, routing.rows, k), pool.take(kind, experts, n, k), out, scales


def _error(bench: Bench, candidate: Candidate, dtype: str, routing: Routing, n: int, k: int) -> float:
    """Return the relative error on fresh operands, with the output poisoned beforehand."""
    torch = bench.torch
    x, w, out, scales = _operands(bench, dtype, routing, n, k)
    out.fill_(-7)
    result = candidate.call(x, w, out, scales)
    reference = torch.zeros((routing.rows, n), dtype=torch.float64, device="cuda")
    end = 0
    for expert, count in enumerate(routing.counts):
        first, end = end, end + count
        if count:
            reference[first:end] = x[first:end].to(torch.float64) @ w[expert].to(torch.float64).t()
    error = relative_error(torch, result, reference)
    torch.cuda.synchronize()
    return error


def _small_error(bench: Bench, backend: str, extra: Mapping[str, Any], dtype: str) -> float:
    """Check a candidate of the same name and tile on a small ragged routing."""
    tokens, experts, per_token, n, k = SMALL
    routing = uniform_routing(bench.torch, tokens, experts, per_token, 1)
    if backend == "triton_grouped":
        from .triton_moe import TileConfig

        candidate = Candidate(backend, _triton(bench, routing, TileConfig(*extra["tile"])), extra)
    elif backend == "torch.mm_loop":
        candidate = Candidate(backend, _loop(bench, routing), extra)
    else:
        candidate = Candidate(backend, _torch(bench, routing, dtype), extra)
    return _error(bench, candidate, dtype, routing, n, k)


def measure_grouped_gemm(bench: Bench, point: Point) -> Iterator[Mapping[str, Any]]:
    """Time every candidate on rotating weights; the best one counts, all are recorded.

    The routing is drawn once a point; each row records the rows that reached the rank, the experts hit and the most
    rows of one expert.
    """
    names = ("num_tokens", "num_experts", "experts_per_token", "expert_ranks")
    tokens, experts, per_token, ranks = (point.integer(name) for name in names)
    (n, k), dtype = (point.integer(name) for name in "nk"), point.text("dtype")
    routing = uniform_routing(bench.torch, tokens, experts, per_token, ranks)
    drawn = {"routed_rows": routing.rows, "active_experts": routing.hit, "max_expert_rows": max(routing.counts)}
    if routing.rows == 0:
        yield {"backend": None, **drawn, "error": "no token was routed to this rank"}
        return
    read = float(BYTES[dtype]) * k * (routing.hit * n + routing.rows)
    moved = read + float(max(2, BYTES[dtype])) * routing.rows * n / 2  # outputs count for half, as in a GEMM
    flops = 2.0 * routing.rows * n * k
    count = bench.stopwatch.launches(bench.estimate_s(1.4 * flops, moved), moved)
    sets = [_operands(bench, dtype, routing, n, k) for _ in range(count)]
    best: float | None = None
    small = flops <= MAX_ACTUAL_FLOPS and len(routing.counts) * n * k <= MAX_ACTUAL_ELEMENTS
    for candidate in grouped_candidates(bench, routing, dtype):
        row = {**drawn, **bench.time_candidate(candidate, sets, moved, best)}
        if row.get("error") is None:
            if row["repeats"] > 1:
                best = min(best or math.inf, row["median_s"])
            actual = partial(_error, bench, candidate, dtype, routing, n, k) if small else None
            fallback = partial(_small_error, bench, candidate.backend, candidate.extra, dtype)
            key = f"grouped_gemm:{dtype}:{candidate.backend}:{candidate.extra.get('tile')}"
            row.update(bench.checks.verdict(key, dtype, fallback, actual))
        yield row
