#!/usr/bin/env bash
# Refits the calibrations of engines (`<device>-<engine>.json`) to published kernel tables, which the repository does not
# hold: aiconfigurator-core's, one Parquet file a device and family. Arguments: their folder, then calibrations (all
# otherwise). Run scripts/calibrations.sh afterwards: it writes the page of errors.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

[ $# -ge 1 ] && [ -d "$1" ] || fail "usage: $0 FOLDER [CALIBRATION...]"
tables=$(realpath "$1")
shift
build
need calibrate

folder=python/roofsim/catalog/calibrations
for device in a100-sxm-80gb l40s h100-sxm h200-sxm b200-sxm gb200; do
    system=${device%-80gb}
    for engine in trtllm:tensorrt-llm vllm:vllm sglang:sglang; do
        name=$device-${engine#*:}
        [ $# -eq 0 ] || [[ " $* " == *" $name "* ]] || continue
        say "calibration $name"
        files=()
        for family in gemm gen_attn ctx_attn gen_mla ctx_mla moe nccl custom_allreduce; do
            files+=("$tables/${system//-/_}__$family.parquet")
        done
        roofsim calibrate "${files[@]}" --kernel-table "${engine%:*}" --device "$device" --prior none \
            --output "$folder/$name.json"
    done
done
