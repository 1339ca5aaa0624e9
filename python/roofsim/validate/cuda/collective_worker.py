"""One rank of a group that measures collectives; a program, started once a device.

Arguments: plan (JSON list of points), result (JSON lines, written by rank 0), backend, seconds it may take. RANK,
WORLD_SIZE, MASTER_ADDR and MASTER_PORT come from the environment, as torch.distributed reads them.

A time is that of the slowest rank: ranks meet at a barrier, and the medians of all are compared. Under NCCL the calls
are replayed from a CUDA graph where it can be captured, and launched one by one where not; which is in the row.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

REPEATS = 9
TARGET_SECONDS = 4e-3
"""Of one timed batch of calls: it hides the events, and a small message's jitter."""
MAX_CALLS = 200
POINT_SECONDS = 4.0
BYTES = 2


def operands(torch: Any, device: Any, op: str, elements: int, ranks: int) -> tuple[Any, Any]:
    """Return (input, output) of a collective over `elements` elements in all, bf16; gloo's check uses float32."""
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    part = elements // ranks
    sizes = {"all_gather": (part, elements), "reduce_scatter": (elements, part), "all_to_all": (elements, elements)}
    given, taken = sizes.get(op, (elements, elements))
    source = torch.randn(given, dtype=torch.float32, device=device).to(dtype)
    return source, source if op == "all_reduce" else torch.empty(taken, dtype=dtype, device=device)


def call(distributed: Any, op: str, source: Any, out: Any) -> None:
    """Run one collective, in place for an all-reduce."""
    if op == "all_reduce":
        distributed.all_reduce(source)
    elif op == "all_gather":
        distributed.all_gather_into_tensor(out, source)
    elif op == "reduce_scatter":
        distributed.reduce_scatter_tensor(out, source)
    else:
        distributed.all_to_all_single(out, source)


def expected_sum(torch: Any, distributed: Any, op: str, device: Any, ranks: int, rank: int) -> bool:
    """Whether a small collective of rank numbers gives what arithmetic says."""
    count = 4 * ranks
    source = torch.full((count // ranks if op == "all_gather" else count,), float(rank + 1), device=device)
    out = source if op == "all_reduce" else torch.empty(4 if op == "reduce_scatter" else count, device=device)
    call(distributed, op, source, out)
    total = float(ranks * (ranks + 1) // 2)
    if op in ("all_reduce", "reduce_scatter"):
        return bool((out == total).all())
    expected = torch.arange(1, ranks + 1, device=device, dtype=out.dtype).repeat_interleave(4)
    return bool((out == expected).all())


class Clock:
    """Times batches of calls: by events on a device, by the host's clock without one."""

    def __init__(self, torch: Any, device: Any) -> None:
        self.torch, self.cuda = torch, device.type == "cuda"

    def __call__(self, run: Any) -> float:
        """Return the seconds of one run."""
        torch = self.torch
        if not self.cuda:
            start = time.perf_counter()
            run()
            return time.perf_counter() - start
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        return float(start.elapsed_time(end)) * 1e-3


def agreed(torch: Any, distributed: Any, device: Any, value: float, how: str) -> float:
    """Return the sum or the largest of a number over all ranks."""
    held = torch.tensor([value], dtype=torch.float32, device=device)
    distributed.all_reduce(held, op=getattr(distributed.ReduceOp, how))
    return float(held.item())


def measured(torch: Any, distributed: Any, device: Any, point: dict[str, Any], *, graphs: bool) -> dict[str, Any]:
    """Time one collective; every rank takes the same decisions, from figures that all agreed on."""
    op, ranks = point["op"], distributed.get_world_size()
    source, out = operands(torch, device, op, point["num_bytes"] // BYTES // ranks * ranks, ranks)
    clock = Clock(torch, device)

    def once() -> None:
        call(distributed, op, source, out)

    for _ in range(3):
        once()
    each = agreed(torch, distributed, device, clock(once), "MAX")
    count = max(1, min(MAX_CALLS, round(TARGET_SECONDS / max(each, 1e-7))))
    repeats = max(3, min(REPEATS, round(POINT_SECONDS / (count * max(each, 1e-7)))))

    def several() -> None:
        for _ in range(count):
            once()

    run, how = several, "launches"
    if graphs:
        graph, captured = None, 1.0
        try:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, capture_error_mode="thread_local"):
                several()
        except Exception:  # this NCCL, or this operation, cannot be captured: launches are timed instead
            captured = 0.0
        if agreed(torch, distributed, device, captured, "SUM") == ranks and graph is not None:
            run, how = graph.replay, "graph"
    run()
    samples = []
    for _ in range(repeats):
        distributed.barrier()
        samples.append(clock(run) / count)
    median = agreed(torch, distributed, device, statistics.median(samples), "MAX")
    ordered = sorted(samples)
    return {
        "median_s": median,
        "p10_s": ordered[round(0.1 * (len(ordered) - 1))],
        "p90_s": ordered[round(0.9 * (len(ordered) - 1))],
        "repeats": repeats,
        "rotations": 1,
        "calls_per_repeat": count,
        "timed": how,
        "bytes": point["num_bytes"],
        "algorithm_bytes_per_s": point["num_bytes"] / median,
        "error": None,
    }


def main(arguments: list[str]) -> int:
    """Measure every point of the plan in order."""
    began = time.monotonic()
    plan, result, backend, limit = arguments
    import torch
    from torch import distributed

    rank, ranks = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    device = torch.device("cuda", rank) if backend == "nccl" else torch.device("cpu")
    if backend == "nccl":
        torch.cuda.set_device(device)
    patience = datetime.timedelta(seconds=float(limit))
    extra = {"device_id": device} if backend == "nccl" else {}
    distributed.init_process_group(backend, rank=rank, world_size=ranks, timeout=patience, **extra)
    torch.manual_seed(rank)
    right: dict[str, bool] = {}
    points = json.loads(Path(plan).read_text(encoding="utf-8"))
    for point in points:
        op = point["op"]
        spent = agreed(torch, distributed, device, time.monotonic() - began, "MAX")
        if spent > 0.9 * float(limit):
            break
        try:
            if op not in right:
                own = expected_sum(torch, distributed, op, device, ranks, rank)
                right[op] = agreed(torch, distributed, device, float(own), "SUM") == ranks
            values = measured(torch, distributed, device, point, graphs=backend == "nccl")
        except (RuntimeError, ValueError, NotImplementedError) as error:
            if backend == "nccl" and "not support" not in str(error):
                raise  # ranks may have parted ways: only a new group would be sound
            values = {"error": f"{type(error).__name__}: {error}"[:200]}
        if not right.get(op, True):
            values["error"] = "incorrect: the ranks' sum or order is wrong"
        if rank == 0:
            version = ".".join(map(str, torch.cuda.nccl.version())) if backend == "nccl" else torch.__version__
            row = {"id": point["id"], "backend": f"{backend} {version}", **values}
            with Path(result).open("a", encoding="utf-8") as sink:
                sink.write(json.dumps(row) + "\n")
    if backend == "nccl":
        torch.cuda.synchronize()
    sys.stdout.flush()
    with contextlib.suppress(Exception):
        distributed.barrier()
    os._exit(0)  # tearing a group down can wait for ranks that are gone


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
