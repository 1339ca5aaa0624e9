"""Instructions per configuration, counted by callgrind, against the limits in instructions.csv.

Counts do not depend on what else the machine does. A case runs once and three times; the difference leaves out the
start. `--write` replaces the limits by what is counted now plus a margin: do so when a law changed or a loop got
faster, and say why in the commit. Cases whose instruction set the machine or valgrind lacks are skipped, aloud.
"""

from __future__ import annotations

import csv
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
LIMITS = Path(__file__).with_name("instructions.csv")
PROGRAM = ROOT / "target" / "release" / "instructions"
CASES = (
    *("best", "ideal", "top-100", "front", "categorical"),
    *("columns", "bound", "batches", "counts", "histogram"),
)
SETS = ("baseline", "avx2")
MARGIN = 1.15
"""Room for other compilers and C libraries."""


def counted(case: str, isa: str, times: int) -> tuple[int, int]:
    """Instructions of so many runs, and configurations of one."""
    command = ["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", str(PROGRAM), case, isa, str(times)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found = re.search(r"refs:\s+([\d,]+)", done.stderr)
    assert found, done.stderr
    return int(found[1].replace(",", "")), int(done.stdout)


def per_configuration(case: str, isa: str) -> float:
    """Instructions that one more run takes, for each of its configurations."""
    (once, rows), (thrice, _) = counted(case, isa, 1), counted(case, isa, 3)
    return (thrice - once) / 2 / rows


def main() -> int:
    """Count, compare, say."""
    subprocess.run(
        ["cargo", "build", "--release", "--quiet", "-p", "roofsim-bench", "--bin", "instructions"], cwd=ROOT, check=True
    )
    if shutil.which("valgrind") is None:
        print("skipped: valgrind is not installed (on Debian: apt-get install valgrind)")
        return 0
    known = subprocess.run([PROGRAM, "best", "?"], capture_output=True, text=True, check=False).stderr
    rows, failed = [], False
    with LIMITS.open(newline="", encoding="utf-8") as file:
        limits = {(row["case"], row["isa"]): float(row["limit"]) for row in csv.DictReader(file)}
    for isa in SETS:
        if isa not in known:
            print(f"skipped: this machine has no {isa}")
            continue
        for case in CASES:
            found = per_configuration(case, isa)
            limit = limits.get((case, isa), 0.0)
            rows.append({"case": case, "isa": isa, "limit": f"{found * MARGIN:.2f}"})
            failed |= found > limit
            verdict = "over the limit of" if found > limit else "within"
            print(f"{case:12} {isa:9} {found:7.2f} instructions per configuration, {verdict} {limit:.2f}")
    if "--write" in sys.argv[1:]:
        with LIMITS.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, ["case", "isa", "limit"], lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)
        return 0
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
