#!/usr/bin/env bash
# Builds roofsim into .venv and answers: which accelerators serve Llama-3.1-70B within these latencies, and at what price?
# Arguments replace those of `roofsim plan`.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

build

if [ "$#" -eq 0 ]; then
    set -- --model llama-3.1-70b --accelerators h100-sxm,h200-sxm,mi300x \
        --input-tokens 4000 --output-tokens 500 --ttft 1.0 --tpot 0.03
fi
say ".venv/bin/roofsim plan $*"
echo
roofsim plan "$@"
