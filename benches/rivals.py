"""The rivals in NumPy: the same formulas, one thread, chunks that stay in the caches. Equal answers are asserted.

Both find the best row by tokens per second and device among those that fit and keep a latency limit.

`flat_best` evaluates every operation of the step for every configuration, as a script does that treats the model as a
function of arrays. It holds under the `ideal` calibration, whose law is the same for every operation.

`factored_best` is the best an expert would write: what depends on the batch alone is a table that it is given for
nothing (from `Deployment.decode`), what depends on the context alone is computed once, and only attention broadcasts
over both, in place; all that follows is done for the best row of each batch alone.
"""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from numpy.typing import NDArray

import roofsim as rs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

LIMIT_S = 0.03
Array = NDArray[np.float64]


@dataclasses.dataclass
class Case:
    """One model on one device: what a rival is told about it."""

    model: str
    device: str
    tensor_parallel_size: int
    calibration: str | None
    batches: range
    contexts: range

    def __post_init__(self) -> None:
        arguments = {"tensor_parallel_size": self.tensor_parallel_size, "calibration": self.calibration}
        self.deployment = rs.Deployment(self.model, self.device, **arguments)
        capacity = self.deployment.capacity()
        self.most = np.asarray([capacity.max_sequences(s) for s in self.contexts], dtype=np.float64)
        self.space = rs.SweepSpace(
            self.model, self.device, batch_size=self.batches, context_tokens=self.contexts, **arguments
        )

    def ops(self, batch: int, context: int) -> list:
        return list(self.deployment.decode(batch_size=batch, context_tokens=context).ops)

    def rows_s(self) -> Array:
        """Time of everything but attention, batch by batch."""
        steps = (self.ops(b, self.contexts[0]) for b in self.batches)
        return np.asarray([sum(o.count * o.time_s for o in ops if not is_attention(o)) for ops in steps])

    def best(self, method: str = "scan") -> tuple[float, int]:
        """Ask the sweep: `auto` is what the package does when it is not told how."""
        found = self.space.top_k(
            1, by="tokens_per_s_per_gpu", where=["fits", f"time_s <= {LIMIT_S}"], num_threads=1, method=method
        )
        return (found.values[0], found.indices[0]) if found.values else (-np.inf, -1)


def is_attention(op: object) -> bool:
    return op.name in ("attention", "latent_attention")


def line(value: Callable[[int], float], x: int, y: int) -> tuple[float, float]:
    """Constant and slope of an affine quantity."""
    slope = (value(y) - value(x)) / (y - x)
    return value(x) - slope * x, slope


def flat_best(case: Case, chunk: int = 1 << 13) -> tuple[float, int]:
    """Every operation of every configuration, chunk by chunk; `ideal` only."""
    assert case.deployment.calibration.name == "ideal"
    few, many = (1, 2), (1 << 19, 1 << 20)
    lines = []
    for at, op in enumerate(case.ops(1, 2)):
        if is_attention(op):
            continue

        def part(name: str, batch: int, at: int = at) -> float:
            return getattr(case.ops(batch, 1 << 10)[at], name)

        compute = line(lambda b: part("compute_s", b), *few)
        small, large = (line(lambda b: part("network_s", b), *ends) for ends in (few, many))
        experts = grouped(case, op, lambda b: part("memory_s", b))
        memory = experts or line(lambda b: part("memory_s", b), *few)
        lines.append((op.count, compute, memory, small, large))
    attention = [(o.count, *bilinear(case, at)) for at, o in enumerate(case.ops(1, 2)) if is_attention(o)]
    batches, contexts = (np.asarray(axis, dtype=np.float64) for axis in (case.batches, case.contexts))
    best = (-np.inf, -1)
    total = len(batches) * len(contexts)
    for first in range(0, total, chunk):
        rows = np.arange(first, min(first + chunk, total))
        at = rows % len(contexts)
        b, s = batches[rows // len(contexts)], contexts[at]
        time_s = np.zeros(len(rows))
        for count, compute, memory, small, large in lines:
            memory_s = memory(b) if callable(memory) else memory[0] + memory[1] * b
            network_s = np.minimum(small[0] + small[1] * b, large[0] + large[1] * b)
            time_s += count * (np.maximum(compute[0] + compute[1] * b, memory_s) + network_s)
        for count, (f0, f1), (m0, m1), fixed in attention:
            time_s += count * np.maximum(b * (f0 + f1 * s), fixed + b * (m0 + m1 * s))
        value = np.where((time_s <= LIMIT_S) & (b <= case.most[at]), b / time_s / case.deployment.num_devices, -np.inf)
        top = int(np.argmax(value))
        if value[top] > best[0]:
            best = (float(value[top]), first + top)
    return best


def grouped(case: Case, op: object, memory_s: Callable[[int], float]) -> Callable[[Array], Array] | None:
    """Memory time of routed experts: those hit, `E (1 - (1 - k/E)^T)`, and the rows."""
    if not op.name.startswith("experts_") or op.name in ("experts_activation", "experts_combine"):
        return None
    experts, each = EXPERTS[case.model]

    def hit(tokens: Array | float) -> Array | float:
        return experts * (1 - (1 - each / experts) ** tokens)

    matrix = np.asarray([[hit(1), 1], [hit(64), 64]])
    weight, row = np.linalg.solve(matrix, np.asarray([memory_s(1), memory_s(64)]))
    return lambda tokens: weight * hit(tokens) + row * tokens


EXPERTS = {"mixtral-8x7b": (8, 2), "deepseek-v3.1": (256, 8)}
"""Routed experts and how many of them a token visits."""


def bilinear(case: Case, at: int) -> tuple[tuple[float, float], tuple[float, float], float]:
    """Compute and memory seconds of attention for one request, affine in the context, and memory that all share."""

    def memory_s(batch: int, context: int) -> float:
        return case.ops(batch, context)[at].memory_s

    fixed = 2 * memory_s(1, 1 << 10) - memory_s(2, 1 << 10)
    compute = line(lambda s: case.ops(1, s)[at].compute_s, 1 << 10, 1 << 11)
    return compute, line(lambda s: memory_s(1, s) - fixed, 1 << 10, 1 << 11), fixed


class UnknownLawError(Exception):
    """The calibration has constants that the rival does not know."""


KNOWN = {
    *("law", "e_m", "stream_bytes_per_s", "crowd_s", "crowd_heads", "pass_t0_s"),
    *("split_t0_s", "split_c_s", "split_rows_s", "split_e_c", "latent_e_c", "latent_t0_s"),
    "tile_exp_per_s",
    # Of query tiles, which a step of one new token a request has not.
    *("tile_t0_s", "tile_e_c", "tile_start", "tile_spread", "tile_last", "tile_end", "prefix_tile_s"),
}


def factored_best(case: Case, rows_s: Array, chunk: int = 1 << 13) -> tuple[float, int]:
    """Attention over broadcast tables, in place; the rest once for each batch.

    Throughput falls as time grows, so that of the rows of a batch the one of least time is best, and only it is added
    to the rest, tested against the limit and divided. Sequences that fit fall as contexts grow, so that rows that fit
    are the first ones: no mask. Chunks of contexts and all buffers stay in the caches.
    """
    (evaluator, crowding_s), width = attention_of(case), len(case.contexts)
    assert np.all(np.diff(case.most) <= 0)
    batches = np.asarray(case.batches, dtype=np.float64)
    fitting = np.searchsorted(-case.most, -batches, side="right")
    count = sum(o.count for o in case.ops(1, 2) if is_attention(o))
    rest_s = (rows_s + count * crowding_s(batches)).tolist()
    devices = case.deployment.num_devices
    best = (-np.inf, -1)
    for first in range(0, width, chunk):
        attention_s = evaluator(slice(first, min(first + chunk, width)))
        fits = np.clip(fitting - first, 0, chunk).tolist()
        for at, b in enumerate(batches.tolist()):
            attention = attention_s(b)
            if fits[at] == 0:
                continue
            time_s = rest_s[at] + count * attention[: fits[at]].min()
            if time_s > LIMIT_S:
                continue
            value = b / time_s / devices
            if value >= best[0]:
                row = at * width + first + int(attention[: fits[at]].argmin())
                # Chunks of contexts come first, so that ties must look at the row.
                if (value, -row) > (best[0], -best[1]):
                    best = (float(value), row)
    return best


def factored_times(case: Case, rows_s: Array, chunk: int = 1 << 13) -> Iterator[tuple[int, int, Array]]:
    """Yield times of parts of lines: place of the batch, first context, and times that the next part overwrites."""
    (evaluator, crowding_s), width = attention_of(case), len(case.contexts)
    count = sum(o.count for o in case.ops(1, 2) if is_attention(o))
    batches = np.asarray(case.batches, dtype=np.float64)
    rest_s = (rows_s + count * crowding_s(batches)).tolist()
    for first in range(0, width, chunk):
        attention_s = evaluator(slice(first, min(first + chunk, width)))
        for at, b in enumerate(batches.tolist()):
            time_s = attention_s(b)
            np.multiply(time_s, count, out=time_s)
            np.add(time_s, rest_s[at], out=time_s)
            yield at, first, time_s


def factored_columns(case: Case, rows_s: Array, out: list[Array]) -> None:
    """Time, tokens per second and device, and tokens per second and user of every row, into memory that is there."""
    width, devices = len(case.contexts), case.deployment.num_devices
    for at, first, time_s in factored_times(case, rows_s):
        rows = slice(at * width + first, at * width + first + len(time_s))
        out[0][rows] = time_s
        np.divide(1.0, time_s, out=out[2][rows])
        np.multiply(out[2][rows], case.batches[at] / devices, out=out[1][rows])


def factored_histogram(case: Case, rows_s: Array, edges: Array) -> NDArray[np.int64]:
    """Rows by time. Times rise along a line, so that edges are looked up in times and not times among edges."""
    counts = np.zeros(len(edges) - 1, dtype=np.int64)
    upper = np.nextafter(edges[-1], np.inf)
    for _, _, time_s in factored_times(case, rows_s):
        counts += np.diff(np.searchsorted(time_s, [*edges[:-1], upper]))
    return counts


Evaluator: TypeAlias = "Callable[[slice], Callable[[float], Array]]"
"""For a part of the contexts, a function from a batch to the time of attention; it overwrites its last answer."""


def attention_of(case: Case) -> tuple[Evaluator, Callable[[Array], Array]]:
    """Return the time of attention, and what every context of a batch has more."""
    (at,) = (at for at, o in enumerate(case.ops(1, 2)) if is_attention(o))
    contexts = np.asarray(case.contexts, dtype=np.float64)
    if case.calibration == "ideal":
        (f0, f1), (m0, m1), fixed = bilinear(case, at)
        compute, memory = f0 + f1 * contexts, m0 + m1 * contexts

        def ideal(part: slice) -> Callable[[float], Array]:
            f, m = compute[part].copy(), memory[part].copy()
            x, y = np.empty_like(f), np.empty_like(f)

            def evaluate(b: float) -> Array:
                np.multiply(f, b, out=x)
                np.multiply(m, b, out=y)
                if fixed:
                    np.add(y, fixed, out=y)
                return np.maximum(x, y, out=x)

            return evaluate

        return ideal, np.zeros_like
    return calibrated_attention_of(case, at, contexts)


OVERLAP = 0.8
"""Memory time and streaming time overlap so far: see `docs/attention.md`."""


def calibrated_attention_of(case: Case, at: int, contexts: Array) -> tuple[Evaluator, Callable[[Array], Array]]:
    """Do the same under a calibrated law, for one new token a request."""
    law = json.loads(case.deployment.calibration.to_json())
    constants, device = law["attention"], rs.Accelerator.load(case.device)
    if set(constants) != KNOWN:
        raise UnknownLawError(f"attention has the constants {sorted(constants)}")
    heads, kv_heads, width = HEADS[case.model]
    units, latent = device.num_compute_units, case.ops(1, 2)[at].name == "latent_attention"

    def quantity(name: str, batch: int, context: int) -> float:
        return getattr(case.ops(batch, context)[at], name)

    seconds = 1 / (device.memory_bandwidth_bytes_per_s * constants["e_m"] * law["step"]["memory_rate"])
    fixed = (2 * quantity("bytes", 1, 1 << 10) - quantity("bytes", 2, 1 << 10)) * seconds
    m0, m1 = line(lambda s: quantity("bytes", 1, s) * seconds - fixed, 1 << 10, 1 << 11)
    memory = m0 + m1 * contexts
    f0, f1 = line(lambda s: quantity("flops", 1, s), 1 << 10, 1 << 11)
    flops = f0 + f1 * contexts
    heads //= case.tensor_parallel_size
    if latent:
        kv_heads, rows, efficiency, own_t0_s = 1, heads, constants["latent_e_c"], constants["latent_t0_s"]
    else:
        kv_heads //= case.tensor_parallel_size
        rows, efficiency, own_t0_s = heads // kv_heads, constants["split_e_c"], 0.0
        # Query heads that share a KV head are packed as rows, padded to 16.
        flops *= np.ceil(rows / 16) * 16 / rows
    relative = sum(width) / 256
    peak = device.peak_flops_per_s["bf16"]
    # Products and exponentials overlap in part; latent attention's are in its efficiency.
    exponentials_s = 0 if latent else 1 / (constants["tile_exp_per_s"] * units * 2 * sum(width))
    split = flops * np.hypot(1 / (peak * efficiency), exponentials_s) / law["step"]["compute_rate"]
    streaming = (quantity("bytes", 1, 1 << 11) - quantity("bytes", 1, 1 << 10)) / 1024 / kv_heads
    streaming /= constants["stream_bytes_per_s"]
    stream, block = streaming * contexts, streaming * 128
    pass_s = constants["pass_t0_s"] + own_t0_s
    split_s = pass_s + constants["split_t0_s"] + constants["split_c_s"] * np.sqrt(contexts * relative)
    split_s += constants["split_rows_s"] * relative * min(rows, 128) / 128
    crowd_s = constants["crowd_s"] * np.sqrt(relative)
    crowding = kv_heads / (constants["crowd_heads"] * units)

    def calibrated(part: slice) -> Callable[[float], Array]:
        m, f, s, over = (column[part].copy() for column in (memory, split, stream, split_s))
        soft = OVERLAP * s
        x, y, z = (np.empty_like(m) for _ in range(3))

        def evaluate(b: float) -> Array:
            np.multiply(m, b, out=x)
            if fixed:
                np.add(x, fixed, out=x)
            np.multiply(f, b, out=z)
            np.maximum(z, x, out=z)
            np.multiply(x, OVERLAP, out=x)
            np.add(x, soft, out=y)
            np.maximum(y, z, out=y)
            np.maximum(y, s, out=y)
            np.add(y, pass_s, out=y)
            np.add(x, OVERLAP * block, out=x)
            np.maximum(x, z, out=x)
            np.maximum(x, block, out=x)
            np.add(x, over, out=x)
            return np.minimum(x, y, out=x)

        return evaluate

    return calibrated, lambda b: crowd_s * (1 - 1 / (1 + b * crowding))


HEADS = {
    "llama-3.1-70b": (64, 8, (128, 128)),
    "mixtral-8x7b": (32, 8, (128, 128)),
    "deepseek-v3.1": (128, 1, (192, 128)),
}
"""Query heads, KV heads, and the widths of a key head and of a value head."""
