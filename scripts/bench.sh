#!/usr/bin/env bash
# Measures everything that benches/RESULTS.md says and writes that page. For a quiet machine; takes a few minutes.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

build
need bench
out=target/bench
mkdir -p "$out"

say "the package, through Python"
python -m pytest -q benches/test_sweep.py -p no:xdist --benchmark-json="$out/package.json" \
    --benchmark-columns=min,median,iqr,rounds --benchmark-sort=name

say "the exact search"
python benches/bench_search.py | tee "$out/search.md"

say "the core"
cargo bench --quiet -p roofsim-bench --bench core -- --noplot

say "instructions"
python benches/instructions.py | tee "$out/instructions.txt"

say "the report"
python benches/report.py "$out/package.json" "$out/search.md" --core target/criterion --instructions "$out/instructions.txt"
