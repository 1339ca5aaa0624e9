#!/usr/bin/env bash
# Refits the calibrations in the box from the raw measurements and writes the accuracy report anew.
# Run it after a law, the fit or a measurement has changed; `scripts/test.sh` fails while they are stale.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/environment.sh"

build
need calibrate

measurements=tests/accuracy/measurements
for device in h100-sxm h200-sxm; do
    say "calibration of $device"
    roofsim calibrate "$measurements/$device"-*.jsonl.gz --device "$device" --prior none --collectives "$device-tensorrt-llm" \
        --replayed-collectives tests/accuracy/collectives/h100-sxm-x2-nccl-2.28.jsonl.gz \
        --output "python/roofsim/catalog/calibrations/$device-torch.json"
done

build # the calibrations are part of the core
say "accuracy report"
roofsim report "$measurements"/*.jsonl.gz --output docs/ACCURACY.md --pictures docs/images --profiles docs/PROFILES.md
