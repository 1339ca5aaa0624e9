"""Draw the README's picture and refresh its pasted answer, both from the real command: `python docs/make_images.py`."""

from __future__ import annotations

import io
import re
from pathlib import Path

from rich.console import Console

import roofsim as rs
from roofsim.cli.planning import show

DOCS = Path(__file__).parent
README = DOCS.parent / "README.md"
PASTED = re.compile(r"(?<=<!-- plan: written by docs/make_images.py -->\n```text\n).*?(?=```)", re.DOTALL)
ACCELERATORS = ["h100-sxm", "h200-sxm", "mi300x"]


def draw(width: int, rows: int) -> Console:
    """Print the plan for Llama-3.1-70B into a recording console."""
    model = rs.Model.load("llama-3.1-70b")
    devices = [rs.Accelerator.load(name) for name in ACCELERATORS]
    answer = rs.plan(model, devices, input_tokens=4000, output_tokens=500, ttft_s=1.0, tpot_s=0.03)
    console = Console(record=True, width=width, file=io.StringIO(), highlight=False, force_terminal=True)
    show(console, answer, model, [(device.name, device.calibration) for device in devices], rows)
    return console


picture = draw(width=124, rows=8).export_svg(title="roofsim plan --model llama-3.1-70b ...", unique_id="plan")
(DOCS / "images" / "plan.svg").write_text(picture, encoding="utf-8")

lines = [line.rstrip() for line in draw(width=80, rows=5).export_text().splitlines()]
README.write_text(PASTED.sub(lambda _: "\n".join(lines) + "\n", README.read_text("utf-8"), count=1), encoding="utf-8")
