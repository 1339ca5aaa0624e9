"""Collectives of all visible devices by NCCL: a process a device, the whole family in one go, within a time limit.

The processes are programs of their own, not forks: a device that was used cannot be forked, and a hang of theirs ends
with them. Rank 0 writes a row as soon as it has one, so that a run cut short keeps what it measured.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..plan_collective import collective_points

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from ..points import Point
    from .bench import Bench

__all__ = ["collective_rows", "measure_collective"]

LIMIT_SECONDS = 75.0
"""Of all processes together, their start included."""
WORKER = Path(__file__).with_name("collective_worker.py")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _ended(processes: Sequence[subprocess.Popen[bytes]], deadline: float) -> bool:
    """Wait until all processes end, one fails, or the deadline passes; whether all ended well."""
    while time.monotonic() < deadline:
        codes = [process.poll() for process in processes]
        if any(code not in (None, 0) for code in codes):
            return False
        if all(code == 0 for code in codes):
            return True
        time.sleep(0.05)
    return False


def collective_rows(
    ranks: int, points: Sequence[Point], *, backend: str = "nccl", limit_s: float = LIMIT_SECONDS
) -> tuple[dict[str, dict[str, Any]], str | None]:
    """Measure collectives over `ranks` processes; return values by point, and why points are missing if some are.

    Parameters
    ----------
    ranks
        Processes, one a device.
    points
        What to measure, in this order.
    backend
        "nccl", or "gloo" to exercise the same code on CPUs.
    limit_s
        Seconds after which the processes are ended, whatever they do.
    """
    deadline = time.monotonic() + limit_s
    with tempfile.TemporaryDirectory() as folder:
        plan, result = Path(folder) / "plan.json", Path(folder) / "rows.jsonl"
        plan.write_text(json.dumps([{"id": point.point_id, **point.params} for point in points]), encoding="utf-8")
        environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_free_port())}
        environment["WORLD_SIZE"] = str(ranks)
        # NVLink multicast stays as the environment has it, and off where it says nothing.
        environment.setdefault("NCCL_NVLS_ENABLE", "0")
        command = [sys.executable, "-P", str(WORKER), str(plan), str(result), backend, str(limit_s)]
        said = Path(folder) / "said"
        with said.open("wb") as sink:
            processes = [
                subprocess.Popen(command, env={**environment, "RANK": str(rank)}, stdout=sink, stderr=sink)  # noqa: S603
                for rank in range(ranks)
            ]
            try:
                complete = _ended(processes, deadline)
                late = time.monotonic() >= deadline
            finally:
                for process in processes:
                    with contextlib.suppress(OSError):
                        process.kill()
                for process in processes:
                    with contextlib.suppress(subprocess.TimeoutExpired):
                        process.wait(timeout=10.0)
        values = _read(result)
        if complete and len(values) == len(points):
            return values, None
        last = said.read_text(encoding="utf-8", errors="replace").strip().splitlines()[-3:]
    reason = f"not measured within {limit_s:.0f} s" if late else "a process of the group ended early"
    return values, f"{reason}: {' | '.join(last)}"[:240] if last else reason


def _read(path: Path) -> dict[str, dict[str, Any]]:
    """Return the rows written so far, by point; a line cut short is passed over."""
    values: dict[str, dict[str, Any]] = {}
    with contextlib.suppress(OSError):
        for line in path.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(json.JSONDecodeError):
                row = json.loads(line)
                values[row.pop("id")] = row
    return values


def measure_collective(bench: Bench, point: Point) -> Iterator[Mapping[str, Any]]:
    """Return one collective's times; the first point asked for measures the whole family.

    A machine with fewer devices than the point needs gives a row that says so.
    """
    ranks = point.integer("ranks")
    visible = int(bench.torch.cuda.device_count())
    if visible < max(2, ranks):
        yield {"backend": None, "error": f"skipped: {visible} device visible, a collective needs {max(2, ranks)}"}
        return
    key = f"collective:{ranks}"
    if key not in bench.constants:
        bench.resident.clear()
        bench.pool.clear()
        bench.release()
        bench.constants[key] = collective_rows(ranks, collective_points(ranks))
    values, missing = bench.constants[key]
    yield values.get(point.point_id) or {"backend": "nccl", "error": missing or "not measured"}
