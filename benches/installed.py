"""Measures an installed roofsim through Python and writes the page that `scripts/bench.sh` writes, without Rust.

For machines that a wheel was copied to: `pip install roofsim-*.whl pytest pytest-benchmark pyarrow`, this folder, and
`python installed.py --commit NAME [--quick] [FOLDER]`; the page is FOLDER/RESULTS.md. The core's own benches and the
instruction counts need cargo and are left out. `--quick` leaves out the minutes of the long scans and searches.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent


def main() -> None:
    """Run the benches, then the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, nargs="?", default=Path("bench"))
    parser.add_argument("--commit", required=True, help="what the wheel was built from")
    parser.add_argument("--quick", action="store_true")
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    package, search = given.folder / "package.json", given.folder / "search.md"
    chosen = ["-k", "not memory and not many_combinations"] if given.quick else []
    tests = [HERE / "test_sweep.py", "-p", "no:xdist", "-p", "no:cacheprovider", f"--benchmark-json={package}"]
    columns = ["--benchmark-columns=min,median,iqr,rounds", "--benchmark-sort=name"]
    subprocess.run([sys.executable, "-m", "pytest", "-q", *tests, *columns, *chosen], check=True)
    text = "Not measured in a quick run.\n"
    if not given.quick:
        done = subprocess.run([sys.executable, HERE / "bench_search.py"], capture_output=True, text=True, check=True)
        text = done.stdout
    search.write_text(text, encoding="utf-8")
    report = [sys.executable, HERE / "report.py", package, search, "--commit", given.commit]
    subprocess.run([*report, "--out", given.folder / "RESULTS.md"], check=True)


if __name__ == "__main__":
    main()
