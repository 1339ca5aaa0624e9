"""Hypothesis profiles: `ci` is short and always draws the same; `ROOFSIM_HYPOTHESIS=deep` searches for an hour."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# Generated models are large objects and drawing them is slow beside checking them.
SLOW = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.large_base_example]
settings.register_profile("ci", max_examples=60, deadline=None, derandomize=True, suppress_health_check=SLOW)
EXAMPLES = int(os.environ.get("ROOFSIM_HYPOTHESIS_EXAMPLES", "5000"))
settings.register_profile("deep", max_examples=EXAMPLES, deadline=None, suppress_health_check=SLOW)
settings.load_profile(os.environ.get("ROOFSIM_HYPOTHESIS", "ci"))
