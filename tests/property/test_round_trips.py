"""Law 10: every spec survives a round trip through its file, and what the strategies draw is valid."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

import roofsim as rs
from roofsim import testing


@given(testing.accelerators())
def test_accelerators(spec):
    acc = rs.Accelerator(**spec)
    assert rs.Accelerator.from_json(acc.to_json()) == acc
    assert rs.Accelerator.load(spec) == acc
    assert json.loads(acc.to_json()).items() >= {k: v for k, v in spec.items() if k != "link"}.items()
    assert pickle.loads(pickle.dumps(acc)) == acc  # noqa: S301 - our own bytes


@given(testing.calibrations())
def test_calibrations(calibration):
    assert rs.Calibration.from_json(calibration.to_json()) == calibration
    assert rs.Calibration.load(json.loads(calibration.to_json())) == calibration


@given(testing.models())
def test_models(config):
    model = rs.Model.load(config)
    assert rs.Model.load(json.loads(json.dumps(config))) == model
    assert pickle.loads(pickle.dumps(model)) == model  # noqa: S301 - our own bytes
    assert model.num_active_parameters <= model.num_parameters
    assert sum(layer["count"] for layer in model.layers) == model.num_layers == config["num_hidden_layers"]


@given(testing.calibrations(), st.data())
def test_every_bad_constant_of_a_calibration_is_refused_with_its_name(calibration, data):
    spec = json.loads(calibration.to_json())
    laws = [("gemm." + dtype, law) for dtype, law in spec["gemm"].items()]
    laws += [(name, spec[name]) for name in ("attention", "grouped_gemm", "elementwise", "collective")]
    path, law = data.draw(st.sampled_from(laws))
    field = data.draw(st.sampled_from(sorted(set(law) - {"law"})))
    law[field] = data.draw(st.sampled_from([-1.0, -1e-9]))
    with pytest.raises(rs.SpecError) as caught:
        rs.Calibration.from_json(json.dumps(spec))
    assert caught.value.field == f"{path}.{field}"


@pytest.mark.parametrize("field", ["compute_rate", "memory_rate", "sustained_compute"])
@pytest.mark.parametrize("value", [0.0, -0.5, 1.0001, 17.0])
def test_rates_inside_a_step_are_shares(field, value):
    spec = json.loads(rs.Accelerator.load("h100-sxm").calibration.to_json())
    spec["step"][field] = value
    with pytest.raises(rs.SpecError) as caught:
        rs.Calibration.from_json(json.dumps(spec))
    assert (caught.value.field, float(caught.value.value)) == (f"step.{field}", value)


def test_testing_says_what_it_needs_when_hypothesis_is_missing():
    code = (
        "import sys; sys.modules['hypothesis'] = None\n"
        "import roofsim\n"
        "try:\n    import roofsim.testing\n"
        "except ImportError as error:\n    print(error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "needs hypothesis" in done.stdout


def test_importing_roofsim_does_not_import_hypothesis():
    code = "import sys, roofsim; print('hypothesis' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
