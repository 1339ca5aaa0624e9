"""What a collective costs beyond the library's own loop when a captured graph replays it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from roofsim.errors import SpecError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from roofsim import Accelerator

__all__ = ["GRAPH_S", "graph_seconds"]

GRAPH_S = "collective.graph_s"
MOST_S = 20e-6
STEP_S = 0.01e-6


def graph_seconds(accelerator: Accelerator, rows: Sequence[Mapping[str, Any]]) -> float:
    """Return the fixed time, in seconds, that brings the law nearest to replayed collectives.

    Tables of collectives are of loops that launch one call while another runs; a step replays each from a graph, where
    a call waits for the one before. One number serves all kinds, sizes and numbers of devices: the least mean relative
    error over a grid of 10 ns.

    Parameters
    ----------
    accelerator
        The device under the calibration of the loops.
    rows
        Measured rows of the family `collective`: op, num_bytes, ranks, median_s.

    Raises
    ------
    SpecError
        No row was timed in a graph.
    """
    plain = accelerator.with_calibration(accelerator.calibration.with_constants({GRAPH_S: 0.0}))
    timed = [row for row in rows if row.get("family") == "collective" and row.get("timed") == "graph"]
    timed = [row for row in timed if not row.get("error")]
    if not timed:
        raise SpecError("replayed", len(rows), "must hold collectives that were timed in a graph")
    measured = np.array([row["median_s"] for row in timed])
    loop = np.array(
        [plain.collective(row["op"], num_bytes=row["num_bytes"], num_devices=row["ranks"]).time_s for row in timed]
    )
    grid = np.arange(0.0, MOST_S, STEP_S)
    errors = np.abs((loop + grid[:, None]) / measured - 1.0).mean(axis=1)
    return round(float(grid[int(np.argmin(errors))]), 9)
