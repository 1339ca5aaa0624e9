"""The measuring harness end to end on its CPU backend: points, order, records, resumption, error rows."""

from __future__ import annotations

import gzip
import itertools
import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roofsim.validate import CPU_FAMILIES, CUDA_FAMILIES, Point, build_plan, load_measurements, measure
from roofsim.validate.cpu.kernels import attention, attention_reference, relative_error
from roofsim.validate.points import rounds, thin, unique
from roofsim.validate.record import MeasurementFile
from roofsim.validate.runner import run_points

POINTS = [
    Point("gemm", {"dtype": "fp32", "m": 8, "n": 64, "k": 64}, {"shape_group": "(64,64)"}),
    Point(
        "decode_attention",
        {
            "dtype": "fp32",
            "batch_size": 2,
            "query_tokens": 1,
            "context_tokens": 64,
            "num_heads": 4,
            "num_kv_heads": 2,
            "head_dim": 64,
        },
    ),
    Point("elementwise", {"op": "rotary", "dtype": "fp32", "rows": 4, "width": 2}),
    Point(
        "grouped_gemm",
        {
            "dtype": "fp32",
            "num_tokens": 6,
            "num_experts": 5,
            "experts_per_token": 2,
            "expert_ranks": 1,
            "n": 48,
            "k": 32,
        },
    ),
    Point("system", {"op": "read", "num_bytes": 1 << 20}),
    Point("step", {"model": "tiny", "dtype": "fp32", "batch_size": 1, "query_tokens": 2, "context_tokens": 8}),
]


class Faulty:
    """A backend that fails on some points and can lose its device."""

    name = "faulty"

    def __init__(self, *, alive: bool = True) -> None:
        self.alive = alive
        self.seen: list[str] = []

    def describe(self) -> dict[str, object]:
        return {"device": "none"}

    def recover(self) -> bool:
        return self.alive

    def measure(self, point: Point) -> list[dict[str, object]]:
        self.seen.append(point.point_id)
        if point.params["m"] == 1:
            raise RuntimeError("no such kernel")
        return [{"backend": "a", "median_s": 1e-6}, {"backend": "b", "median_s": float("nan"), "error": "wrong"}]


def gemms(count: int) -> list[Point]:
    return [Point("gemm", {"m": m, "n": 8, "k": 8}) for m in range(count)]


def test_cpu_backend_end_to_end(tmp_path: Path) -> None:
    path = tmp_path / "cpu.jsonl.gz"
    summary = measure(path, backend="cpu", points=POINTS)
    header, rows = load_measurements(path)
    assert summary["measured"] == len(POINTS)
    assert summary["errors"] == 0
    assert header["device"]
    assert header["numpy"] == np.__version__
    assert [row["family"] for row in rows] == [point.family for point in POINTS]
    for row in rows:
        assert row["error"] is None
        assert 0 < row["p10_s"] <= row["median_s"] <= row["p90_s"]
        assert row["repeats"] >= 5
        assert row["rotations"] >= 2
        assert row["backend"] == "numpy"


def test_built_in_plan_stops_on_its_budget(tmp_path: Path) -> None:
    path = tmp_path / "cpu.jsonl"
    summary = measure(path, backend="cpu", families=["gemm"], budget_seconds=5.0)
    assert summary["reason"] == "budget"
    assert 1 <= summary["measured"] < len(build_plan("cpu", ["gemm"]))
    assert load_measurements(path)[1][0]["family"] == "gemm"


def test_resume_skips_what_is_there(tmp_path: Path) -> None:
    path = tmp_path / "cpu.jsonl.gz"
    measure(path, backend="cpu", points=POINTS[:2])
    summary = measure(path, backend="cpu", points=POINTS, resume=True)
    header, rows = load_measurements(path)
    assert summary["skipped"] == 2
    assert len(rows) == len({row["point_id"] for row in rows}) == len(POINTS)
    assert [record["record"] for record in header["sessions"]] == ["end", "session", "end"]


def test_without_resume_the_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "cpu.jsonl"
    for _ in range(2):
        measure(path, backend="cpu", points=POINTS[:1])
    assert len(load_measurements(path)[1]) == 1


def test_errors_are_rows_and_the_run_goes_on(tmp_path: Path) -> None:
    file = MeasurementFile(tmp_path / "x.jsonl", resume=False)
    summary = run_points(Faulty(), gemms(3), file)
    rows = load_measurements(file.finish())[1]
    assert summary["errors"] == 1
    assert [row["error"] for row in rows if row["m"] == 1] == ["RuntimeError: no such kernel"]
    assert [row["median_s"] for row in rows if row["m"] == 2] == [1e-6, None]


def test_a_lost_device_stops_the_run_and_a_new_one_passes_the_point_by(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    first = Faulty(alive=False)
    summary = run_points(first, gemms(4), MeasurementFile(path, resume=False))
    assert not summary["alive"]
    assert len(first.seen) == 2
    second = Faulty()
    run_points(second, gemms(4), MeasurementFile(path, resume=True))
    assert second.seen == [point.point_id for point in gemms(4)[2:]]


def test_a_line_cut_short_is_dropped_and_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    run_points(Faulty(), gemms(1), MeasurementFile(path, resume=False))
    with path.open("a", encoding="utf-8") as stream:
        stream.write('{"record":"point","point_id":"dead')
    run_points(Faulty(), gemms(3), MeasurementFile(path, resume=True))
    assert len({row["point_id"] for row in load_measurements(path)[1]}) == 3


def test_reader_refuses_other_files(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as stream:
        stream.write(json.dumps({"record": "header", "format": "other/1"}) + "\n")
    with pytest.raises(ValueError, match="header record"):
        load_measurements(path)


@pytest.mark.parametrize(("backend", "families"), [("cpu", CPU_FAMILIES), ("cuda", CUDA_FAMILIES)])
def test_plan_is_deterministic_and_without_duplicates(backend: str, families: tuple[str, ...]) -> None:
    plan = build_plan(backend, seed=3)
    ids = [point.point_id for point in plan]
    assert ids == [point.point_id for point in build_plan(backend, seed=3)]
    assert ids != [point.point_id for point in build_plan(backend, seed=4)]
    assert len(set(ids)) == len(ids)
    assert {point.family for point in plan} == set(families)


def test_choosing_families_changes_no_point() -> None:
    alone = {point.point_id for point in build_plan("cuda", ["prefill_attention"])}
    among = {point.point_id for point in build_plan("cuda") if point.family == "prefill_attention"}
    assert alone == among


def test_a_cut_run_is_balanced() -> None:
    # steps come in blocks, a model each
    plan = [point for point in build_plan("cuda") if point.family not in ("system", "step")]
    whole = Counter(point.family for point in plan)
    half = Counter(point.family for point in plan[: len(plan) // 2])
    for family, count in whole.items():
        assert abs(half[family] - count / 2) <= 1


def test_cuda_plan_covers_what_the_fit_needs() -> None:
    plan = build_plan("cuda")
    formats = Counter(point.params["dtype"] for point in plan if point.family == "gemm")
    assert formats["bf16"] >= 1400
    assert formats["fp8"] >= 550
    assert formats["fp16"] >= 40
    assert formats["int8"] >= 40
    widths = {point.params["head_dim"] for point in plan if point.family == "prefill_attention"}
    assert widths == {64, 128, 256}
    groups = {point.labels["shape_group"] for point in plan if point.family == "gemm"}
    assert len(groups) > 150


def test_steps_of_a_model_stay_together() -> None:
    models = [point.params["model"] for point in build_plan("cuda") if point.family == "step"]
    changes = sum(a != b for a, b in itertools.pairwise(models))
    assert changes == len(set(models)) - 1
    assert len(models) > 150


def test_routing_of_the_cpu_is_recorded(tmp_path: Path) -> None:
    path = tmp_path / "cpu.jsonl"
    (point,) = [point for point in POINTS if point.family == "grouped_gemm"]
    measure(path, backend="cpu", points=[point])
    (row,) = load_measurements(path)[1]
    assert row["routed_rows"] == 12
    assert 2 <= row["active_experts"] <= 5
    assert row["max_expert_rows"] >= 3


def test_unknown_family_is_refused() -> None:
    with pytest.raises(ValueError, match="nonsense"):
        build_plan("cpu", ["nonsense"])


def test_thin_spreads_over_groups() -> None:
    points = [Point("gemm", {"m": m, "n": n}, {"shape_group": n}) for n in range(5) for m in range(9)]
    rng = random.Random(1)  # noqa: S311 - sampling shapes, not secrets
    taken = thin(points, 10, rng)
    assert set(Counter(point.labels["shape_group"] for point in taken).values()) == {2}
    assert len(unique(points + points)) == len(points)


@pytest.mark.parametrize("rows", [1, 4])
def test_numpy_attention_is_exact(rows: int) -> None:
    rng = np.random.default_rng(rows)
    query = rng.standard_normal((2, 2, 3, rows, 16))
    key, value = (rng.standard_normal((2, 2, 11, 16)) for _ in range(2))
    assert relative_error(attention(query, key, value), attention_reference(query, key, value)) < 1e-12


def test_standalone_needs_no_compiled_core(tmp_path: Path) -> None:
    script = Path(__file__).parents[2] / "python" / "roofsim" / "validate" / "standalone.py"
    path = tmp_path / "x.jsonl"
    arguments = ["--backend", "cpu", "--families", "system", "--budget-seconds", "0.2", "--output", str(path)]
    done = subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert load_measurements(path)[0]["backend"] == "cpu"


class Interrupted(Faulty):
    """A backend whose fourth point is interrupted by the user."""

    def measure(self, point: Point) -> list[dict[str, object]]:
        if len(self.seen) == 3:
            raise KeyboardInterrupt
        self.seen.append(point.point_id)
        return [{"backend": "a", "median_s": 1e-6}]


def test_an_interrupted_run_keeps_its_rows_and_goes_on(tmp_path):
    path = tmp_path / "run.jsonl"
    summary = run_points(Interrupted(), gemms(6), MeasurementFile(path, resume=False))
    assert (summary["reason"], summary["measured"]) == ("interrupted", 3)
    header, rows = load_measurements(path)
    assert len(rows) == 3
    assert header["sessions"][-1]["reason"] == "interrupted"
    rest = run_points(Faulty(), gemms(6), MeasurementFile(path, resume=True))
    assert (rest["reason"], rest["skipped"], rest["measured"]) == ("complete", 3, 3)


def test_an_interrupted_command_leaves_with_130_and_says_how_to_go_on(tmp_path, monkeypatch):
    from typer.testing import CliRunner

    from roofsim.cli.app import app

    # `roofsim.validate.measure` is the function of that name
    monkeypatch.setattr(sys.modules["roofsim.validate.measure"], "open_backend", lambda *_, **__: Interrupted())
    path = tmp_path / "run.jsonl.gz"
    answer = CliRunner().invoke(app, ["validate", "--backend", "cpu", "--output", str(path)])
    assert answer.exit_code == 130
    assert "--resume" in answer.stderr
    assert len(load_measurements(path)[1]) == 3


def test_too_little_to_compare_is_said_with_what_is_missing(tmp_path):
    from typer.testing import CliRunner

    from roofsim.cli.app import app

    path = tmp_path / "run.jsonl"
    runner = CliRunner()
    answer = runner.invoke(app, ["validate", "--backend", "cpu", "--output", str(path), "--budget-seconds", "0"])
    assert answer.exit_code == 2
    assert "a GEMM and a read or a copy" in answer.stderr
    assert "--resume" in answer.stderr


class Slow(Faulty):
    """A backend whose steps take far longer than its products, by the clock of the run."""

    def __init__(self, clock: list[float]) -> None:
        super().__init__()
        self.clock = clock

    def measure(self, point: Point) -> list[dict[str, object]]:
        self.clock[0] += 10.0 if point.family == "step" else 1.0
        return [{"backend": "a", "median_s": 1e-6}]


def test_a_budget_leaves_out_what_would_overrun_it_and_counts_it(tmp_path, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: clock[0])
    steps = [Point("step", {"dtype": "bf16", "m": m}) for m in range(3)]
    points = [steps[0], *gemms(4), steps[1], *gemms(8)[4:], steps[2]]
    path = tmp_path / "run.jsonl"
    summary = run_points(Slow(clock), points, MeasurementFile(path, resume=False), deadline=119.5)
    assert clock[0] <= 119.5
    assert summary["reason"] == "budget"
    assert summary["left_out"] == {"step.bf16": 2}
    assert summary["measured"] == 9
    rest = run_points(Slow(clock), points, MeasurementFile(path, resume=True))
    assert (rest["reason"], rest["measured"], rest["left_out"]) == ("complete", 2, {})


def test_a_file_says_where_its_seconds_went(tmp_path):
    path = tmp_path / "run.jsonl"
    summary = measure(path, backend="cpu", points=POINTS)
    (end,) = load_measurements(path)[0]["sessions"]
    assert list(end["phases"]) == ["start", "device", "plan", *dict.fromkeys(point.family for point in POINTS)]
    assert all(seconds >= 0.0 for seconds in end["phases"].values())
    assert sum(summary["phases"].values()) >= sum(row["wall_s"] for row in load_measurements(path)[1])


@given(
    counts=st.dictionaries(st.sampled_from(["gemm", "decode_attention", "elementwise", "system"]), st.integers(1, 30)),
    models=st.lists(st.integers(1, 4), max_size=4),
)
def test_any_prefix_of_rounds_holds_as_much_of_every_class(counts, models):
    families = {name: [Point(name, {"dtype": "bf16", "m": m}) for m in range(count)] for name, count in counts.items()}
    if models:
        families["step"] = [
            Point("step", {"dtype": "bf16", "m": m}, {"shape_group": str(model)})
            for model, count in enumerate(models)
            for m in range(count)
        ]
    order = rounds(families)
    assert sorted(point.point_id for point in order) == sorted(p.point_id for own in families.values() for p in own)
    seen = dict.fromkeys(counts, 0)
    for point in order:
        if point.family in seen:
            assert point == families[point.family][seen[point.family]]
            seen[point.family] += 1
            least = min([n for name, n in seen.items() if name != "system" and n < counts[name]], default=None)
            if point.family != "system" and least is not None:
                assert seen[point.family] <= least + 1
    groups = [point.labels["shape_group"] for point in order if point.family == "step"]
    assert groups == sorted(groups)
