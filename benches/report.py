"""Writes RESULTS.md from what the benches of one run left behind.

`report.py PACKAGE SEARCH [--core CRITERION_FOLDER] [--instructions COUNTS] [--commit NAME] [--out FILE]`. Without
the last two parts it is a page of the package alone, which a machine without Rust can make: see `installed.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]


def machine(run: dict[str, Any]) -> str:
    """Processor, cores, memory, load."""
    info = run["machine_info"]
    extra = next(b["extra_info"] for b in run["benchmarks"] if b["name"] == "test_what_this_is")
    sets = extra["instruction_sets"]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    rustc = "of the wheel"
    if shutil.which("rustc"):
        rustc = subprocess.run(["rustc", "--version"], capture_output=True, text=True, check=True).stdout.split()[1]
    return (
        f"{info['cpu'].get('brand_raw', platform.processor())}, {len(os.sched_getaffinity(0))} CPUs, "
        f"{memory:.0f} GiB, instruction set {sets[-1]} (of {', '.join(sets)}), "
        f"rustc {rustc}, Python {platform.python_version()}, load average {extra['load']:.1f}"
    )


def commit() -> str:
    """Name the commit measured."""
    text = subprocess.run(
        ["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    return text.strip()


def label(bench: dict[str, Any]) -> str:
    """Parameters in words."""
    parameters = bench["params"] or {}
    words = [str(v) for k, v in parameters.items() if k not in ("threads", "k", "calibration", "call", "job", "by")]
    if "combinations" in bench["extra_info"]:
        words = [f"{bench['extra_info']['combinations']:,} combinations, {parameters['contexts']} contexts, 2 threads"]
    if "call" in parameters:
        words = [f"`{parameters['call'].split('(')[0]}`: {bench['extra_info']['peak_mb']} MB"]
    if "threads" in parameters:
        words.append(f"{parameters['threads']} thread{'s' * (parameters['threads'] > 1)}")
    return ", ".join(words)


def rate(bench: dict[str, Any], key: str = "configurations") -> float | None:
    """Of the median round."""
    amount = bench["extra_info"].get(key)
    return amount / bench["stats"]["median"] if amount else None


def package(run: dict[str, Any]) -> list[str]:
    """One row a benchmark."""
    lines = [
        "| job | how | configurations/s | GB/s stored | median | spread (IQR) | rounds |",
        "|---|---|---|---|---|---|---|",
    ]
    for bench in run["benchmarks"]:
        if bench["group"] == "machine":
            continue
        configurations, stored = rate(bench), rate(bench, "bytes")
        stats = bench["stats"]
        rates = f"{configurations:.2e}" if configurations else "", f"{stored / 1e9:.1f}" if stored else ""
        median = f"{stats['median'] * 1e3:.4g} ms" if stats["median"] > 1e-4 else f"{stats['median'] * 1e6:.3g} us"
        spread = f"{stats['iqr'] / stats['median']:.0%}"
        lines.append(
            f"| {bench['group']} | {label(bench)} | {rates[0]} | {rates[1]} | {median} | {spread} | {stats['rounds']} |"
        )
    return lines


def verdicts(run: dict[str, Any]) -> list[str]:
    """Each target beside what was measured."""
    found = {(b["group"], label(b)): b for b in run["benchmarks"]}

    def of(group: str, how: str, key: str = "configurations") -> float:
        bench = found.get((group, how))
        return (rate(bench, key) if bench else None) or float("nan")

    def row(what: str, value: float, target: float, shown: str) -> str:
        verdict = "not measured" if value != value else "yes" if value >= target else "no"
        return f"| {what} | {value:{shown}} | {target:{shown}} | {verdict} |"

    columns, store = "three columns into NumPy", "store bandwidth"
    ideal, calibrated = "best-of, ideal, one thread", "best-of, calibrated, one thread"
    scan, default = "roofsim, full scan", "roofsim, as it answers by default (exact search)"
    lines = ["| what | measured | target | met |", "|---|---|---|---|"]
    for group in ("best-of", "top-100"):
        lines.append(
            row(
                f"{group}, configurations/s, best of 1 and 2 threads",
                max(of(group, "1 thread"), of(group, "2 threads")),
                1e9,
                ".2e",
            )
        )
    group = "Pareto, two objectives"
    lines.append(row(f"{group}, configurations/s", max(of(group, "1 thread"), of(group, "2 threads")), 3e8, ".2e"))
    for threads in ("1 thread", "2 threads"):
        for kind, memory, how in (
            ("memset", "reused", "into memory in use, share of memset"),
            ("fill", "reused", "into memory in use, share of a plain fill"),
            ("fill of fresh memory", "fresh", "into fresh memory, share of filling fresh memory"),
        ):
            ours, theirs = (
                of(columns, f"{memory}, {threads}", "bytes"),
                of(store, f"{kind}, {threads}", "bytes"),
            )
            lines.append(row(f"three columns {how}, {threads}", ours / theirs, 0.6, ".2f"))
    lines.append(
        row("times flat NumPy, `ideal`, full scan, 1 thread", of(ideal, scan) / of(ideal, "flat NumPy"), 50, ".1f")
    )
    for name, group in (("`ideal`", ideal), ("calibrated", calibrated)):
        for what, how in (("full scan", scan), ("by default (exact search)", default)):
            ratio = of(group, how) / of(group, "factored NumPy")
            lines.append(row(f"best-of, {what}: times factored NumPy, {name}, 1 thread", ratio, 8, ".1f"))
    for job in ("three columns", "histogram of time"):
        for law in ("ideal", "calibrated"):
            group = f"{job}, {law}, one thread"
            ratio = of(group, "roofsim") / of(group, "factored NumPy")
            lines.append(row(f"{job}: times factored NumPy, {law}, 1 thread", ratio, 8, ".1f"))
    for group in ("best-of", "top-100", "Pareto, two objectives"):
        lines.append(row(f"{group}, two threads over one", of(group, "2 threads") / of(group, "1 thread"), 1.85, ".2f"))
    return lines


def core(folder: Path) -> list[str]:
    """Criterion's medians."""
    lines = ["| case | configurations/s | median | 95% interval |", "|---|---|---|---|"]
    for path in sorted(folder.glob("sweep/**/new/estimates.json")):
        about = json.loads((path.parent / "benchmark.json").read_text(encoding="utf-8"))
        median = json.loads(path.read_text(encoding="utf-8"))["median"]
        low, high = (median["confidence_interval"][end] * 1e-6 for end in ("lower_bound", "upper_bound"))
        ns, rows = median["point_estimate"], about["throughput"]["Elements"]
        lines.append(
            f"| {about['function_id']} | {rows / ns * 1e9:.2e} | {ns * 1e-6:.4g} ms | {low:.4g} to {high:.4g} ms |"
        )
    return lines


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", type=Path)
    parser.add_argument("search", type=Path)
    parser.add_argument("--core", type=Path)
    parser.add_argument("--instructions", type=Path)
    parser.add_argument("--commit")
    parser.add_argument("--out", type=Path, default=ROOT / "benches" / "RESULTS.md")
    given = parser.parse_args()
    run = json.loads(given.package.read_text(encoding="utf-8"))
    models = (
        "Llama-3.1-70B, Mixtral 8x7B and DeepSeek-V3.1, eight H200 each, 1,024 batch sizes by 16,384 contexts a model"
    )
    page = [
        "# Results",
        "",
        "Written by `scripts/bench.sh`; do not edit. What is measured, and against whom: [README](README.md).",
        "",
        f"Machine: {machine(run)}. Commit {given.commit or commit()}, {run['datetime'][:10]}. Release build.",
        "",
        f"Best-of, top-100 and Pareto: {models}, calibrated, filters `fits` and `time_s <= 0.03` (Pareto: `fits`).",
        "",
        "## Targets",
        "",
        *verdicts(run),
        "",
        "## The package, through Python",
        "",
        *package(run),
        "",
        "## The exact search",
        "",
        *given.search.read_text(encoding="utf-8").strip().splitlines(),
    ]
    if given.core:
        page += ["", "## The core, one thread (criterion)", "", *core(given.core)]
    if given.instructions:
        counts = given.instructions.read_text(encoding="utf-8").strip()
        page += ["", "## Instructions per configuration (callgrind)", "", "```text", counts, "```"]
    given.out.write_text("\n".join(page) + "\n", encoding="utf-8")
    rounds = [b["stats"]["iqr"] / b["stats"]["median"] for b in run["benchmarks"] if b["stats"]["rounds"] > 2]
    print(f"wrote {given.out}; median spread {statistics.median(rounds):.0%}")


if __name__ == "__main__":
    main()
