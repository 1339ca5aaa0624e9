"""A device that the catalogue does not know: from its first file over a spec and a calibration to a report."""

from __future__ import annotations

import gzip
import json
import sys
import tomllib

import pytest
from typer.testing import CliRunner

import roofsim as rs
from roofsim.calibrate.draft import draft_spec
from roofsim.calibrate.prior import known_before
from roofsim.cli.app import app

TRUTH = {
    "name": "truth", "family": "acme", "memory_bytes": 40e9, "memory_bandwidth_bytes_per_s": 1e12,
    "peak_flops_per_s": {"bf16": 2e14}, "num_compute_units": 100,
}  # fmt: skip
HEADER = {
    "record": "header", "format": "roofsim-measurements/1", "date": "2026-11-24", "backend": "cuda",
    "device": "ACME Runner 40GB", "compute_capability": "9.0", "sms": 100, "memory_bytes": 40_000_000_000,
    "l2_bytes": 30_000_000, "power_limit_w": 300.0, "torch": "2.11.0",
}  # fmt: skip


def truth():
    tree = json.loads(rs.Calibration.assumed().to_json())
    tree["gemm"]["bf16"] = {"law": "smooth", "t0_s": 5e-6, "e_c": 0.7, "e_m": 0.8}
    return rs.Accelerator(**TRUTH).with_calibration(tree)


def measured(path, scale=1.0):
    device = truth()
    rows = []
    for m in (1, 16, 256, 2048):
        for n, k in ((1024, 2048), (4096, 4096), (8192, 2048), (2048, 8192), (6144, 4096), (512, 512), (8192, 8192)):
            seconds = scale * device.gemm(m=m, n=n, k=k).time_s
            sizes = {"dtype": "bf16", "m": m, "n": n, "k": k, "shape_group": f"({n},{k})"}
            rows.append({"family": "gemm", **sizes, "backend": "torch.mm", "median_s": seconds})
    read = {"family": "system", "op": "read", "num_bytes": 10**9, "bytes": 1e9, "backend": "read", "median_s": 1.1e-3}
    records = [
        HEADER,
        *({"record": "point", "point_id": str(i), "error": None, **r} for i, r in enumerate([*rows, read])),
    ]
    with gzip.open(path, "wt") as stream:
        stream.write("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


def run(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_from_a_first_file_to_a_sweep(tmp_path):
    pytest.importorskip("scipy", reason="the fit needs scipy")
    file, spec, own = measured(tmp_path / "m.jsonl.gz"), tmp_path / "acme.toml", tmp_path / "acme.json"
    refused = run("validate", "--report", file)
    assert refused.exit_code == 2
    assert "--draft-spec" in refused.stderr
    drafted = run("validate", "--report", file, "--draft-spec", spec)
    assert drafted.exit_code == 0, drafted.stderr
    # What the datasheet says goes in by hand.
    text = spec.read_text()
    draft = tomllib.loads(text)
    assert (draft["family"], draft["num_compute_units"], draft["power_w"]) == ("hopper", 100, 300)
    assert draft["memory_bandwidth_bytes_per_s"] < TRUTH["memory_bandwidth_bytes_per_s"]
    for before, after in ((draft["memory_bandwidth_bytes_per_s"], 1e12), (draft["peak_flops_per_s"]["bf16"], 2e14)):
        assert f"{before:.4g}" in text
        text = text.replace(f"{before:.4g}", f"{after:g}")
    spec.write_text(text.replace('"hopper"', '"acme"'))
    fitted = run("calibrate", file, "--device", spec, "--prior", "none", "-o", own)
    assert fitted.exit_code == 0, fitted.stderr
    provenance = json.loads(own.read_text())["provenance"]
    assert (provenance["basis"], provenance["family"]) == ("measured", "acme")
    judged = json.loads(run("validate", "--report", file, "--device", spec, "--calibration", own, "--json").stdout)
    borrowed = json.loads(run("validate", "--report", file, "--device", spec, "--json").stdout)
    assert judged["classes"][0]["score"]["mean"] < borrowed["classes"][0]["score"]["mean"]
    space = rs.SweepSpace(models=["llama-3.1-8b"], accelerators=[str(spec)], calibration=str(own), batch_size=[1, 8],
                          context_tokens=[1024])  # fmt: skip
    deployment = rs.Deployment("llama-3.1-8b", str(spec), calibration=str(own))
    assert space.run(columns=["time_s"])["time_s"][1] == deployment.decode(batch_size=8, context_tokens=1024).time_s
    assert run("report", file, "--device", spec, "--calibration", own, "-o", tmp_path / "page.md").exit_code == 0


def test_a_draft_is_a_spec_that_no_measured_rate_exceeds(tmp_path):
    from roofsim.calibrate import read_files

    source, header = read_files([measured(tmp_path / "m.jsonl.gz")])
    device = rs.Accelerator(**tomllib.loads(draft_spec(header, source.rows)))
    bound = device.with_calibration("ideal")
    for row in source.rows:
        if row["family"] == "gemm":
            assert bound.gemm(m=row["m"], n=row["n"], k=row["k"]).compute_s <= 1.001 * row["median_s"]


def test_a_draft_overwrites_nothing(tmp_path):
    file, spec = measured(tmp_path / "m.jsonl.gz"), tmp_path / "mine.toml"
    spec.write_text("name = 'mine'\n")
    assert run("validate", "--report", file, "--draft-spec", spec).exit_code == 2
    assert spec.read_text() == "name = 'mine'\n"


def test_points_that_all_beat_the_bound_are_named(tmp_path):
    pytest.importorskip("scipy", reason="the fit needs scipy")
    file, spec = measured(tmp_path / "m.jsonl.gz", scale=1e-3), tmp_path / "acme.json"
    spec.write_text(json.dumps(TRUTH))
    answer = run("calibrate", file, "--device", spec, "-o", tmp_path / "own.json")
    assert answer.exit_code == 2
    said = " ".join(answer.stderr.split())
    assert "0 of 28 points left" in said
    assert "bare roofline" in said
    assert "m=1 n=" in said


def test_what_a_device_without_relatives_leans_on_has_its_tiles():
    known = known_before(rs.Accelerator(**TRUTH), "torch")
    assert known is not None
    assert {c["path"] for c in known.constants()} >= {"gemm.bf16.stage_s", "gemm.bf16.tail"}
    assert json.loads(known.to_json())["provenance"]["family"] == TRUTH["family"]
    assert known_before(rs.Accelerator(**TRUTH), "numpy") is None


@pytest.mark.parametrize("name", ["ideal", "calibrated", "sustained"])
def test_a_prior_must_be_constants(tmp_path, name):
    pytest.importorskip("scipy", reason="the fit needs scipy")
    file, spec = measured(tmp_path / "m.jsonl.gz"), tmp_path / "acme.json"
    spec.write_text(json.dumps(TRUTH))
    answer = run("calibrate", file, "--device", spec, "--prior", name)
    assert answer.exit_code == 2
    assert answer.stderr.startswith(f"prior = {name}: must be auto")
    assert f"one of {name}" not in answer.stderr


def test_scipy_is_looked_for_before_anything_is_read(tmp_path, monkeypatch):
    # `roofsim.calibrate.fit` is the function of that name
    monkeypatch.setattr(sys.modules["roofsim.calibrate.fit"], "find_spec", lambda _name: None)
    answer = run("calibrate", tmp_path / "no-such-file.jsonl")
    assert answer.exit_code == 2
    assert "scipy = missing" in answer.stderr
    assert "calibrate" in answer.stderr
