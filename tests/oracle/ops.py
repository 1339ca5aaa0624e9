"""FLOPs, bytes and ideal times of single operations, in exact fractions.

Sources: Williams, Waterman, Patterson, "Roofline", CACM 52(4), 2009; Dao et al., "FlashAttention", 2022 (what is read
and written); Thakur, Rabenseifner, Gropp, 2005, and Patarasuk, Yuan, 2009 (collectives).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from functools import cache
from math import ceil, log2
from typing import Any

from oracle import formats


@dataclass
class Cost:
    flops: Fraction = Fraction(0)
    bytes: Fraction = Fraction(0)
    time_s: Fraction = Fraction(0)
    count: int = 1
    parts: dict[str, Any] = field(default_factory=dict)


@dataclass
class Machine:
    """Rates as the spec gives them, taken as exact numbers."""

    spec: dict[str, Any]

    def roof(self, flops: Fraction | int, moved: Fraction | int, dtype: str) -> Cost:
        """max(F / P, bytes / W)."""
        bandwidth = Fraction(self.spec["memory_bandwidth_bytes_per_s"])
        peak = Fraction(self.spec["peak_flops_per_s"][dtype])
        flops, moved = Fraction(flops), Fraction(moved)
        return Cost(flops, moved, max(flops / peak, moved / bandwidth))

    def collective(self, kind: str, size: Fraction | int, n: int) -> Cost:
        link = self.spec["link"]
        latency, bandwidth = Fraction(link.get("latency_s", 0.0)), Fraction(link["bandwidth_bytes_per_s"])
        times = [hops * latency + share * Fraction(size) / bandwidth for hops, share in algorithms(kind, n)]
        return Cost(time_s=min(times), parts={"size": size})


def algorithms(kind: str, n: int) -> list[tuple[int, Fraction]]:
    """Ways to do a collective: (hops, buffers that cross one rank's link). Ring first, tree or doubling second."""
    depth = ceil(log2(n))
    rest = Fraction(n - 1, n)
    return {
        "all_reduce": [(2 * (n - 1), 2 * rest), (2 * depth, Fraction(2))],
        "all_gather": [(n - 1, rest), (depth, rest)],
        "reduce_scatter": [(n - 1, rest), (depth, rest)],
        "all_to_all": [(1, rest)],
        "point_to_point": [(1, Fraction(1))],
    }[kind]


def gemm(m: int, n: int, k: int, fmt: str, dtype: str) -> tuple[int, int]:
    """(FLOPs, bytes): a multiply and an add for each of m n k; weight once, rows in and out once."""
    row = formats.up(k * formats.BITS[dtype], 8) + formats.up(n * max(16, formats.BITS[dtype]), 8)
    return 2 * m * n * k, formats.tensor_bytes(fmt, n, k) + m * row


def distinct_experts(experts: int, per_token: int, tokens: int) -> Fraction:
    """Expected number of experts that at least one of `tokens` visits: for each, one minus the chance of no visit."""
    return experts * (1 - Fraction(experts - per_token, experts) ** tokens)


def grouped(tokens: int, experts: int, per_token: int, n: int, k: int, fmt: str, dtype: str, ranks: int = 1,
            active: int | None = None) -> tuple[Fraction, Fraction]:  # fmt: skip
    """(FLOPs, bytes) of one of `ranks` that share the experts evenly."""
    hit = Fraction(active) if active is not None else distinct_experts(experts, per_token, tokens)
    routed = Fraction(tokens * per_token, ranks)
    row = formats.up(k * formats.BITS[dtype], 8) + formats.up(n * max(16, formats.BITS[dtype]), 8)
    return 2 * routed * n * k, hit / ranks * formats.tensor_bytes(fmt, n, k) + routed * row


def seen(position: int, window: int | None, chunk: int | None) -> range:
    """Key positions that the row at `position` sees."""
    first = 0
    if window is not None:
        first = max(0, position - window + 1)
    if chunk is not None:
        first = position // chunk * chunk
    return range(first, position + 1)


@cache
def attended_pairs(query: int, context: int, window: int | None = None, chunk: int | None = None) -> int:
    """Query-key pairs, row by row."""
    return sum(len(seen(p, window, chunk)) for p in range(context - query, context))


@cache
def keys_read(query: int, context: int, window: int | None = None, chunk: int | None = None) -> int:
    """Keys that at least one row sees: rows see intervals that end at themselves, so the union is one interval."""
    return context - min(seen(p, window, chunk).start for p in range(context - query, context))


def attention(query: int, context: int, heads: int, kv_heads: int, h: int, dtype: str, kv: str,
              window: int | None = None, chunk: int | None = None, v: int | None = None,
              ) -> tuple[int, int]:  # fmt: skip
    """(FLOPs, bytes): scores and values of every pair; cache read, new entries written, queries in, outputs out."""
    v = h if v is None else v
    pairs, keys = attended_pairs(query, context, window, chunk), keys_read(query, context, window, chunk)
    cache = (keys + query) * kv_heads * (h + v) * formats.kv_bytes(kv)
    rows = query * heads * (h + v) * max(16, formats.BITS[dtype]) // 8
    return 2 * pairs * heads * (h + v), cache + rows


def latent_flops(query: int, context: int, heads: int, rank: int, nope: int, rope: int, v: int) -> dict[str, int]:
    """FLOPs of both exact forms of latent attention (causal, full)."""
    pairs = attended_pairs(query, context)
    up = 2 * heads * rank * (nope + v)  # one row through the two up-projections
    return {
        "absorbed": 2 * heads * pairs * ((rank + rope) + rank) + query * up,
        "expanded": 2 * heads * pairs * ((nope + rope) + v) + context * up,
    }


def latent_bytes(query: int, context: int, heads: int, rank: int, nope: int, rope: int, v: int,
                 dtype: str, kv: str) -> int:  # fmt: skip
    """Bytes of one request, without the up-projection's weight."""
    cache = (context + query) * (rank + rope) * formats.kv_bytes(kv)
    return cache + query * heads * (nope + rope + v) * max(16, formats.BITS[dtype]) // 8
