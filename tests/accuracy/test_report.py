"""The accuracy report and the calibrations in the box, recomputed from the raw files: stale ones fail."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest

import roofsim as rs

pytest.importorskip("scipy", reason="the fit needs scipy (extra roofsim[calibrate])")

from roofsim.report import device_accuracies, render

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "tests" / "accuracy" / "measurements").glob("*.jsonl.gz"))
PAGE = ROOT / "docs" / "ACCURACY.md"
NUMBER = re.compile(r"[-+]?\d[\d,]*\.?\d*")
WORST = "### Worst cases"


@pytest.fixture(scope="module")
def devices():
    return device_accuracies(FILES)


def figures(text):
    return [float(number.replace(",", "")) for number in NUMBER.findall(text)]


def without_worst(page):
    """The page without its lists of single points, whose order hangs on the last digits of a fit."""
    return re.sub(rf"{WORST}.*?(?=\n##)", "", page, flags=re.DOTALL)


def test_the_page_is_what_the_raw_files_give(devices):
    written, computed = without_worst(PAGE.read_text(encoding="utf-8")), without_worst(render(devices, pictures=None))
    written = re.sub(r"!\[[^\n]*\n\n", "", written)
    assert NUMBER.sub("#", computed) == NUMBER.sub("#", written), "run scripts/calibrations.sh"
    # Optimisers on different processors end a little apart; a changed law or fit does not hide in that.
    for here, there in zip(figures(computed), figures(written), strict=True):
        assert math.isclose(here, there, rel_tol=0.05, abs_tol=0.35), (here, there, "run scripts/calibrations.sh")


def test_the_box_holds_what_the_raw_files_give(devices):
    for device in devices:
        box = {c["path"]: c["value"] for c in rs.Accelerator.load(device.device).calibration.constants()}
        assert rs.Accelerator.load(device.device).calibration.provenance["basis"] == "measured"
        for each in device.classes:
            stated = rs.Accelerator.load(device.device).calibration.provenance["errors"][each.name]
            assert math.isclose(stated["unseen_percent"], each.unseen.mean, rel_tol=0.05, abs_tol=0.3)
        fitted = {c["path"] for c in device.profile.calibration.constants()}
        assert set(box) == fitted


@pytest.mark.parametrize("name", ["gemm.bf16", "gemm.fp8", "decode_attention.bf16", "prefill_attention.bf16"])
def test_unseen_shapes_are_predicted_several_times_better_than_by_the_bare_roofline(devices, name):
    for device in devices:
        each = next(c for c in device.classes if c.name == name)
        assert each.unseen.mean < each.roofline.mean / 4


def test_bars_hold_what_they_state_on_unseen_shapes(devices):
    for device in devices:
        for each in device.classes:
            if each.unseen.num_points >= 100 and "_step." not in each.name:
                assert 0.75 <= each.coverage <= 0.88, (device.device, each.name, each.coverage)


@pytest.mark.parametrize("family", ["prefill_step", "decode_step"])
def test_bars_of_whole_steps_hold_what_they_state_on_unseen_models(devices, family):
    for device in devices:
        own = [each for each in device.classes if each.name.startswith(f"{family}.")]
        for kind in ("dense", "moe"):
            # Operand types share a bar: what it holds of all of them together is what it states.
            parts = [part for each in own for part in each.parts if part.name == f"{kind} models"]
            inside = sum(part.coverage * part.unseen.num_points for part in parts)
            coverage = inside / sum(part.unseen.num_points for part in parts)
            assert 0.75 <= coverage <= 0.88, (device.device, kind, coverage)


@pytest.mark.parametrize("name", ["gemm.bf16", "gemm.fp8"])
def test_bars_hold_what_they_state_of_random_shapes_and_of_those_of_models_alike(devices, name):
    for device in devices:
        each = next(each for each in device.classes if each.name == name)
        assert [part.name for part in each.parts] == ["model shapes", "random shapes"]
        for part in each.parts:
            assert 0.75 <= part.coverage <= 0.88, (device.device, part.name, part.coverage)


@pytest.mark.parametrize(
    ("name", "kind", "limit", "transfer_limit"),
    [
        ("decode_step.bf16", "dense", 2.0, 4.0),
        ("prefill_step.bf16", "dense", 3.5, 4.0),
        ("decode_step.bf16", "moe", 5.0, 5.0),
        ("prefill_step.bf16", "moe", 8.0, 12.0),
        ("decode_step.fp8", "dense", 2.5, 4.0),
        ("prefill_step.fp8", "dense", 4.5, 6.0),
    ],
)
def test_steps_of_unseen_models_are_as_close_as_promised(devices, name, kind, limit, transfer_limit):
    for device in devices:
        each = next(c for c in device.classes if c.name == name)
        part = next(part for part in each.parts if part.name == f"{kind} models")
        assert part.unseen.mean <= limit, (device.device, part.unseen.mean)
        if part.transfer is not None:
            assert part.transfer.mean <= transfer_limit, (device.device, part.transfer.mean)


def test_the_quick_plan_fits_nearly_as_well_as_the_whole_one(devices):
    for device in devices:
        assert device.quick_prior not in (None, device.device)
        for each in device.classes:
            assert each.quick.mean <= each.full.mean + 2.0, (device.device, each.name)
            assert each.quick.num_points == each.full.num_points < each.unseen.num_points


def test_unbroken_load_takes_longer_as_measured_and_costs_the_joules_measured(devices):
    for device in devices:
        names = {f"{phase}_step.{dtype}" for phase in ("decode", "prefill") for dtype in ("bf16", "fp8")}
        assert {each.name for each in device.under_load} == names
        for each in device.under_load:
            # Five steps of each phase in fp8, and a rate and powers that those of bf16 determine.
            limits = (3.0, 10.0) if each.name.endswith("bf16") else (5.0, 16.0)
            assert each.sustained.mean <= limits[0], (device.device, each.name)
            assert each.energy.mean <= limits[1], (device.device, each.name)
        prefill = next(each for each in device.under_load if each.name == "prefill_step.bf16")
        assert prefill.default.bias < -5.0 < prefill.sustained.bias


def test_every_measured_point_is_scored_or_listed(devices):
    for device in devices:
        stated = rs.Accelerator.load(device.device).calibration.provenance
        # Collectives are another calibration's: the raw files hold none.
        own = [error for name, error in stated["errors"].items() if not name.startswith("collective.")]
        left = sum(error["left_out"] for error in own)
        assert left == len(device.left_out)
        page = PAGE.read_text(encoding="utf-8")
        assert all(lost.reason in page for lost in device.left_out)


def test_calibration_files_are_the_core_s_own_text():
    for path in sorted((ROOT / "python" / "roofsim" / "catalog" / "calibrations").glob("*.json")):
        text = path.read_text(encoding="utf-8")
        assert rs.Calibration.from_json(text).to_json() == text.rstrip("\n")
        # What others measured and published is not called this tool's measurement.
        basis = "measured" if path.stem.endswith("-torch") else "published"
        assert json.loads(text)["provenance"]["basis"] == basis
