"""Pictures of the accuracy report: predicted against measured time, and the roofline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    from roofsim import Accelerator
    from roofsim.report.accuracy import DeviceAccuracy

__all__ = ["draw_roofline", "draw_scatter"]

DPI = 80
PEAKS = {"bf16": "#1f77b4", "fp8": "#d62728", "int8": "#2ca02c", "fp16": "#9467bd", "fp32": "#8c564b"}


def _figure(columns: int, rows: int, width: float, height: float) -> tuple[Any, Any]:
    # Without pyplot there is no global state and no display: safe in any process.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(columns * width, rows * height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def draw_scatter(device: DeviceAccuracy, path: Path) -> None:
    """Draw unseen predictions over measured times, one panel a class, the bare roofline in grey."""
    columns = 3
    rows = -(-len(device.classes) // columns)
    figure, axes = _figure(columns, rows, 3.4, 3.1)
    for axis in axes.flat[len(device.classes) :]:
        axis.set_axis_off()
    for axis, each in zip(axes.flat, device.classes, strict=False):
        points = device.points[each.name]
        measured = 1e6 * points["measured_s"]
        ends = [measured.min(), measured.max()]
        axis.loglog(measured, 1e6 * points["ideal_s"], ".", color="0.75", markersize=2, label="bare roofline")
        axis.loglog(measured, 1e6 * points["unseen_s"], ".", color="#1f77b4", markersize=2, label="calibrated, unseen")
        axis.loglog(ends, ends, "-", color="black", linewidth=0.6)
        axis.set_title(f"{each.name}: {each.unseen.mean:.1f}% (roofline {each.roofline.mean:.0f}%)", fontsize=9)
        axis.tick_params(labelsize=7)
    axes[0, 0].legend(fontsize=7, loc="upper left")
    figure.supxlabel(f"measured time on {device.device}, microseconds", fontsize=9)
    figure.supylabel("predicted time, microseconds", fontsize=9)
    figure.savefig(path, dpi=DPI, metadata={"Software": None})


def draw_roofline(device: DeviceAccuracy, accelerator: Accelerator, path: Path) -> None:
    """Draw achieved FLOP/s over arithmetic intensity under the datasheet's roofs."""
    figure, axes = _figure(1, 1, 7.0, 4.2)
    axis, bandwidth = axes[0, 0], accelerator.memory_bandwidth_bytes_per_s
    intensities = np.geomspace(0.3, 2e4, 200)
    shown = {each.name.rpartition(".")[2] for each in device.classes}
    for dtype, peak in accelerator.peak_flops_per_s.items():
        if dtype in shown:
            colour = PEAKS.get(dtype, "0.4")
            roof = np.minimum(peak, bandwidth * intensities)
            axis.loglog(intensities, roof / 1e12, "-", color=colour, linewidth=1.2, label=f"{dtype} roof")
    markers = {"gemm": ".", "decode_attention": "v", "prefill_attention": "^", "grouped_gemm": "s"}
    for each in device.classes:
        family, _, dtype = each.name.partition(".")
        points = device.points[each.name]
        if family in markers:
            achieved = points["flops"] / points["measured_s"] / 1e12
            colour = PEAKS.get(dtype, "0.4")
            intensity = points["flops"] / points["bytes"]
            axis.loglog(
                intensity, achieved, markers[family], color=colour, markersize=2.5, alpha=0.5, linestyle="none",
                label=f"{each.name}, measured",
            )  # fmt: skip
    axis.set_xlabel("arithmetic intensity, FLOP/byte")
    axis.set_ylabel("TFLOP/s")
    axis.legend(fontsize=7, ncols=2)
    axis.set_title(f"{device.device}: measured kernels under the datasheet roofline", fontsize=10)
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
