"""Triton kernels compiled ahead, by processes beside the one that measures.

A kernel's first launch compiles it for a second or so, on one core, while the device waits: half of a quick run. Here
idle cores compile the kernels of the plan into Triton's cache on disk while torch starts and the first points are
measured. They never touch the device: shapes are meta tensors, the target comes from NVML. A kernel that is missed
is compiled where it is launched, as ever.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import zlib
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from ..plan_quick import keeps_kernel
from .ahead_step import step_launches
from .nvml import Nvml

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ..points import Point

__all__ = ["compile_ahead", "start_ahead", "stop_ahead"]

MOST_PROCESSES = 8
NICENESS = 10
MULTIPROCESSORS = 132
"""Assumed where splits are counted: another number compiles a few kernels that are not used."""
STANDALONE = Path(__file__).parents[1] / "standalone.py"


def start_ahead(arguments: Sequence[str]) -> list[subprocess.Popen[bytes]]:
    """Start the processes: one for every two cores, at most eight, none on a small machine.

    Parameters
    ----------
    arguments
        Options of the measuring command that choose its points.
    """
    count = min(MOST_PROCESSES, (os.cpu_count() or 1) // 2)
    if count < 2:
        return []
    command = [sys.executable, str(STANDALONE), *arguments, "--compile-ahead"]
    quiet = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with contextlib.suppress(OSError):
        return [subprocess.Popen([*command, f"{index}/{count}"], **quiet) for index in range(count)]  # type: ignore[call-overload] # noqa: S603
    return []


def stop_ahead(processes: Sequence[subprocess.Popen[bytes]]) -> None:
    """End processes that still compile."""
    for process in processes:
        with contextlib.suppress(OSError):
            process.kill()
    for process in processes:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=5.0)


def compile_ahead(
    points: Sequence[Point], index: int, count: int, *, quick: bool, capability: int | None = None
) -> int:
    """Compile this process's share of the kernels that the points launch; return how many.

    Parameters
    ----------
    points
        Of the run.
    index, count
        Which of how many processes this is: each compiles the variants whose hash falls to it.
    quick
        Only kernels of a quick run.
    capability
        Compute capability times ten, as 90; the device's own by NVML when absent.
    """
    with contextlib.suppress(OSError, AttributeError):
        os.nice(NICENESS)
    capability = capability or Nvml().compute_capability()
    if capability is None:
        return 0
    compiled: list[str] = []
    torch = _dry_triton(capability, index, count, compiled)
    for point in points:
        with contextlib.suppress(Exception):  # compiled where it is launched, then
            for launch in _launches(torch, point, quick=quick):
                with contextlib.suppress(Exception):
                    launch()
    return len(compiled)


def _dry_triton(capability: int, index: int, count: int, names: list[str]) -> Any:
    """Make launches of Triton compile and not run, variants of other processes not even that; return torch.

    Names of compiled kernels are appended to `names`.
    """
    import torch
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.runtime.jit import JITFunction

    target = GPUTarget("cuda", capability, 32)
    driver = SimpleNamespace(
        get_current_target=lambda: target, get_current_device=lambda: 0, get_current_stream=lambda _device: 0
    )
    triton.runtime.driver.set_active(driver)
    run, compiled = JITFunction.run, JITFunction._do_compile

    def only_own(self: Any, key: Any, *rest: Any) -> Any:
        if zlib.crc32(f"{self.fn.__name__}{key}".encode()) % count != index:
            return None
        names.append(self.fn.__name__)
        return compiled(self, key, *rest)

    def dry(self: Any, *arguments: Any, grid: Any, warmup: bool, **named: Any) -> Any:
        del warmup
        return run(self, *arguments, grid=grid, warmup=True, **named)

    JITFunction._do_compile, JITFunction.run = only_own, dry
    return torch


def _launches(torch: Any, point: Point, *, quick: bool) -> Iterator[Callable[[], Any]]:
    """Yield calls of the kernels that a point tries, on tensors without memory."""
    makers: dict[str, Callable[..., Iterator[Callable[[], Any]]]] = {
        "decode_attention": _decode,
        "prefill_attention": _prefill,
        "grouped_gemm": _grouped,
        "elementwise": _elementwise,
        "latent_attention": _latent,
        "step": step_launches,
        "system": _system,
    }
    if point.family in makers:
        yield from makers[point.family](torch, point, quick)


def _empty(torch: Any, *shape: int, dtype: Any = None) -> Any:
    return torch.empty(shape, dtype=dtype or torch.bfloat16, device="meta")


def _decode(torch: Any, point: Point, quick: bool) -> Iterator[Callable[[], Any]]:
    from ..plan_quick import QUICK_WAVES
    from .decode import split_counts
    from .triton_attention import DECODE_CONFIGS, decode_split

    batch, heads, kv_heads = (point.integer(f) for f in ("batch_size", "num_heads", "num_kv_heads"))
    context, width = point.integer("context_tokens"), point.integer("head_dim")
    query = _empty(torch, batch, kv_heads, heads // kv_heads, width)
    key, value = (_empty(torch, batch, kv_heads, context, width) for _ in range(2))
    counts = split_counts(MULTIPROCESSORS, batch * kv_heads, context)[: QUICK_WAVES if quick else None]
    for config in DECODE_CONFIGS[width]:
        for splits in counts:
            yield lambda config=config, splits=splits: decode_split(query, key, value, splits, config)  # type: ignore[misc]


def _prefill(torch: Any, point: Point, quick: bool) -> Iterator[Callable[[], Any]]:
    from .triton_attention import PREFILL_CONFIGS, merge_parts, prefill_causal

    batch, heads, kv_heads = (point.integer(f) for f in ("batch_size", "num_heads", "num_kv_heads"))
    rows, context, width = (point.integer(f) for f in ("query_tokens", "context_tokens", "head_dim"))
    query = _empty(torch, batch, heads, rows, width)
    if rows != context:
        sums = _empty(torch, batch, heads, rows, dtype=torch.float32)
        yield lambda: merge_parts(query, sums, query, sums)
    if keeps_kernel(point.family, "triton_prefill") or not quick:
        key, value = (_empty(torch, batch, kv_heads, context, width) for _ in range(2))
        for config in PREFILL_CONFIGS[width]:
            yield lambda config=config: prefill_causal(query, key, value, config)  # type: ignore[misc]


def _grouped(torch: Any, point: Point, quick: bool) -> Iterator[Callable[[], Any]]:
    from .triton_moe import MIDDLE, NARROW, WIDE, Tiles, grouped_matmul

    dtype = {"fp8": torch.float8_e4m3fn}.get(point.text("dtype"), torch.bfloat16)
    n, k, experts = (point.integer(f) for f in ("n", "k", "num_experts"))
    rows = point.integer("num_tokens") * point.integer("experts_per_token")
    x, w = _empty(torch, rows, k, dtype=dtype), _empty(torch, experts, n, k, dtype=dtype)
    out = _empty(torch, rows, n)
    tiles = Tiles(*(_empty(torch, experts + rows, dtype=torch.int32) for _ in Tiles._fields))
    for tile in (*NARROW, *MIDDLE, *WIDE):
        if not quick or keeps_kernel(point.family, "triton_grouped", list(tile)):
            yield lambda tile=tile: grouped_matmul(x, w, out, None, tiles, tile)  # type: ignore[misc]


def _latent(torch: Any, point: Point, _quick: bool) -> Iterator[Callable[[], Any]]:
    from .decode import split_counts
    from .triton_latent import LATENT_CONFIGS, latent_decode

    batch, context, heads, rank, nope, rope = (
        point.integer(name)
        for name in (
            "batch_size", "context_tokens", "num_heads", "kv_lora_rank", "qk_nope_head_dim", "qk_rope_head_dim",
        )
    )  # fmt: skip
    if point.text("form") != "absorbed":
        return
    latent, query = _empty(torch, batch, heads, rank), _empty(torch, batch, heads, nope + rope)
    cache = _empty(torch, batch, context, rank + rope)
    for config in LATENT_CONFIGS:
        if config[0] <= max(16, heads):
            for splits in split_counts(MULTIPROCESSORS, batch * -(-heads // config[0]), context):
                yield lambda config=config, splits=splits: latent_decode(latent, query, cache, splits, config, 1.0)  # type: ignore[misc]


def _system(torch: Any, point: Point, _quick: bool) -> Iterator[Callable[[], Any]]:
    from .triton_elementwise import empty, read_sum

    if point.text("op").startswith("launch"):
        yield empty
    if point.text("op").startswith("read"):
        x, out = (_empty(torch, count, dtype=torch.float32) for count in (1 << 20, MULTIPROCESSORS * 16))
        yield lambda: read_sum(x, out)


def _elementwise(torch: Any, point: Point, _quick: bool) -> Iterator[Callable[[], Any]]:
    from . import triton_elementwise as kernels

    op, rows, width = point.text("op"), point.integer("rows"), point.integer("width")
    x = _empty(torch, rows, 2 * width if op == "silu_mul" else width * 128 if op == "rotary" else width)
    angles = _empty(torch, rows, 64, dtype=torch.float32)
    table, ids = _empty(torch, 65536, width), _empty(torch, rows, dtype=torch.int64)
    out, weight = _empty(torch, rows, width), _empty(torch, width)
    operands = {
        "rms_norm": (x, weight, out),
        "add_rms_norm": (x, x, weight, out),
        "silu_mul": (x, out),
        "rotary": (x, angles, angles),
        "residual_add": (x, x, out),
        "embedding": (table, ids, out),
    }[op]
    yield lambda: getattr(kernels, op)(*operands)
