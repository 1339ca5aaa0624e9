"""Draw the README's picture and refresh what is pasted into it: `python docs/make_images.py`.

The answer comes from the real command, the table of errors from the accuracy report.
"""

from __future__ import annotations

import io
import re
from pathlib import Path

from rich.console import Console

import roofsim as rs
from roofsim.cli.planning import show

DOCS = Path(__file__).parent
README = DOCS.parent / "README.md"
ACCURACY = DOCS / "ACCURACY.md"
PASTED = re.compile(r"(?<=<!-- plan: written by docs/make_images.py -->\n```text\n).*?(?=```)", re.DOTALL)
ERRORS = re.compile(r"(?<=<!-- errors: written by docs/make_images.py -->\n).*?(?=\n\n)", re.DOTALL)
SHOWN = {
    "gemm.bf16": "GEMM, bf16",
    "gemm.fp8": "GEMM, fp8",
    "decode_attention.bf16": "decode attention",
    "prefill_attention.bf16": "prefill attention",
    "grouped_gemm.bf16": "grouped GEMM of experts, bf16",
    "decode_step.bf16": "whole decode steps",
    "prefill_step.bf16": "whole prefill steps",
}
"""Classes of the accuracy report that the README shows."""
ACCELERATORS = ["h100-sxm", "h200-sxm", "mi300x"]


def draw(width: int, rows: int) -> Console:
    """Print the plan for Llama-3.1-70B into a recording console."""
    model = rs.Model.load("llama-3.1-70b")
    devices = [rs.Accelerator.load(name) for name in ACCELERATORS]
    answer = rs.plan(model, devices, input_tokens=4000, output_tokens=500, ttft_s=1.0, tpot_s=0.03)
    console = Console(record=True, width=width, file=io.StringIO(), highlight=False, force_terminal=True)
    show(console, answer, model, [(device.name, device.calibration) for device in devices], rows)
    return console


def errors(report: str) -> str:
    """Take the README's table of errors out of the text of the accuracy report."""
    devices = dict(re.findall(r"^## (\S+)/torch\n(.*?)(?=^## |\Z)", report, re.MULTILINE | re.DOTALL))
    lines = [
        f"| unseen shapes and models | {' | '.join(f'{device} | bare roofline' for device in devices)} |",
        "|---|" + "---:|---:|" * len(devices),
    ]
    for name, label in SHOWN.items():
        cells = []
        for section in devices.values():
            row = re.search(rf"^\| {re.escape(name)} \| [\d,]+ \| ([\d.]+) \| \*\*([\d.]+)\*\* ", section, re.MULTILINE)
            cells += [f"**{row[2]}%**", f"{row[1]}%"] if row else ["-", "-"]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Write the picture and both pasted parts."""
    picture = draw(width=124, rows=8).export_svg(title="roofsim plan --model llama-3.1-70b ...", unique_id="plan")
    (DOCS / "images" / "plan.svg").write_text(picture, encoding="utf-8")
    answer = "\n".join(line.rstrip() for line in draw(width=80, rows=5).export_text().splitlines()) + "\n"
    text = PASTED.sub(lambda _: answer, README.read_text("utf-8"), count=1)
    text = ERRORS.sub(lambda _: errors(ACCURACY.read_text("utf-8")), text, count=1)
    README.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
