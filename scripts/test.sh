#!/usr/bin/env bash
# Builds roofsim into .venv, installs the test needs and runs every test, Rust and Python. Arguments go to pytest.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

build
need test

say "Rust tests"
cargo test --workspace --quiet

say "Python tests"
# GPU tests skip themselves, with the reason, where there is no GPU.
python -m pytest -q -n auto "$@"
