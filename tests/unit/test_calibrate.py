"""Calibrating: constants by path, synthetic measurements recovered, points left out, end to end on the CPU."""

from __future__ import annotations

import gzip
import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import roofsim as rs
from roofsim.calibrate import (
    calibrate,
    costs,
    fold_numbers,
    measured_device,
    observe,
    read_files,
    read_kernel_tables,
    score,
)
from roofsim.calibrate.bars import bar, even_weights, honest_bar, spreads
from roofsim.calibrate.energy import steady_power
from roofsim.calibrate.profile import Source

SMOOTH = {"law": "smooth", "t0_s": 4e-6, "e_c": 0.7, "e_m": 0.85}


SPEC = {"memory_bytes": 10**11, "memory_bandwidth_bytes_per_s": 4e12, "peak_flops_per_s": {"bf16": 1e15}}


def gemm_rows(seconds, shapes):
    return [
        {
            "family": "gemm", "dtype": "bf16", "m": m, "n": n, "k": k, "point_id": f"{m},{n},{k}", "error": None,
            "backend": "made", "median_s": seconds(m, n, k), "shape_group": f"({n},{k})", "source": "model:x",
        }
        for m, n, k in shapes
    ]  # fmt: skip


SHAPES = [(m, n, k) for m in (1, 16, 256, 2048) for n in (1024, 4096, 14336) for k in (2048, 4096, 8192)]


def test_constants_are_reached_by_path_and_checked():
    calibration = rs.Calibration.assumed()
    paths = {c["path"]: c for c in calibration.constants()}
    assert {"step.compute_rate", "elementwise.e_m", "collective.e_link"} <= set(paths)
    assert all(c["unit"] and c["meaning"] for c in paths.values())
    changed = calibration.with_constants({"elementwise.e_m": 0.5})
    assert json.loads(changed.to_json())["elementwise"]["e_m"] == 0.5
    for path, value in (("elementwise.e_m", 1.5), ("elementwise.e_m", math.nan), ("elementwise.nothing", 1.0)):
        with pytest.raises(rs.SpecError) as caught:
            calibration.with_constants({path: value})
        assert caught.value.field == path


def test_batches_equal_single_operations():
    h100 = rs.Accelerator.load("h100-sxm")
    one = observe(gemm_rows(lambda *_: 1e-3, SHAPES))[0]
    found = costs(h100, one)
    for i in range(len(one)):
        single = h100.gemm(**{name: int(column[i]) for name, column in one.columns.items()})
        fields = ("time_s", "time_low_s", "time_high_s", "ideal_s", "flops", "bytes")
        assert [found[f][i] for f in fields] == [getattr(single, f) for f in fields]


def test_a_fit_recovers_the_constants_that_made_the_times():
    pytest.importorskip("scipy", reason="the fit needs scipy")
    from roofsim.calibrate import fit

    h100 = rs.Accelerator.load("h100-sxm")
    tree = json.loads(h100.calibration.to_json()) | {"gemm": {"bf16": SMOOTH}}
    truth = h100.with_calibration(tree)
    one = observe(gemm_rows(lambda m, n, k: truth.gemm(m=m, n=n, k=k).time_s, SHAPES))[0]
    start = truth.calibration.with_constants({"gemm.bf16.t0_s": 9e-6, "gemm.bf16.e_c": 0.4, "gemm.bf16.e_m": 0.6})
    found = fit(h100.with_calibration(start), [one], ["gemm.bf16."])
    for constant in found.constants:
        assert math.isclose(constant.value, SMOOTH[constant.path.rpartition(".")[2]], rel_tol=1e-3)
    again = fit(h100.with_calibration(start), [one], ["gemm.bf16."])
    assert [c.value for c in again.constants] == [c.value for c in found.constants]


@pytest.mark.parametrize("points", [2, 6, 50])
def test_few_points_move_only_what_they_determine(points):
    pytest.importorskip("scipy", reason="the fit needs scipy")
    from roofsim.calibrate import fit

    h100 = rs.Accelerator.load("h100-sxm")
    known = h100.with_calibration(json.loads(h100.calibration.to_json()) | {"gemm": {"bf16": SMOOTH}})
    # A slower memory than expected, and every shape bound by memory: nothing is said about compute.
    truth = known.with_calibration(known.calibration.with_constants({"gemm.bf16.e_m": 0.7}))
    shapes = [(1, n, 8192) for n in range(4096, 65536, 512)][:points]
    one = observe(gemm_rows(lambda m, n, k: truth.gemm(m=m, n=n, k=k).time_s, shapes))[0]
    found = {c.path: c for c in fit(known, [one], ["gemm.bf16."], prior=known.calibration).constants}
    memory, compute = found["gemm.bf16.e_m"], found["gemm.bf16.e_c"]
    assert abs(memory.value - 0.7) < abs(memory.value - SMOOTH["e_m"])
    assert math.isclose(compute.value, SMOOTH["e_c"], rel_tol=0.02)
    assert compute.basis in ("borrowed", "start")


def test_a_prior_counts_for_nothing_where_points_are_many():
    pytest.importorskip("scipy", reason="the fit needs scipy")
    from roofsim.calibrate import fit
    from roofsim.calibrate.prior import ENOUGH_POINTS

    h100 = rs.Accelerator.load("h100-sxm")
    truth = h100.with_calibration(json.loads(h100.calibration.to_json()) | {"gemm": {"bf16": SMOOTH}})
    start = h100.with_calibration(truth.calibration.with_constants({"gemm.bf16.t0_s": 9e-6, "gemm.bf16.e_c": 0.5}))
    shapes = [(m, n, 4096) for m in (1, 64, 2048) for n in range(1024, 1024 + 128 * ENOUGH_POINTS, 128)]
    one = observe(gemm_rows(lambda m, n, k: truth.gemm(m=m, n=n, k=k).time_s, shapes))[0]
    alone, leaning = (fit(start, [one], ["gemm.bf16."], prior=prior) for prior in (None, start.calibration))
    assert len(one) == ENOUGH_POINTS * len(alone.constants)
    assert [c.value for c in leaning.constants] == [c.value for c in alone.constants]
    assert {c.basis for c in alone.constants} == {"fitted"}


def test_a_quick_file_is_judged_by_another_device_s_calibration_only():
    from roofsim.calibrate.prior import known_before, relative

    h100 = rs.Accelerator.load("h100-sxm")
    other = relative(h100)
    assert (other.name, other.family) == ("h200-sxm", h100.family)
    assert known_before(h100, "torch") == h100.calibration
    assert known_before(h100, "numpy") is None
    assert relative(rs.Accelerator.load("tpu-v5e")) is None


def test_points_below_the_bound_are_listed_and_not_fitted():
    pytest.importorskip("scipy", reason="the fit needs scipy")
    h100 = rs.Accelerator.load("h100-sxm")
    ideal = h100.with_calibration("ideal")
    rows = gemm_rows(lambda m, n, k: 1.3 * ideal.gemm(m=m, n=n, k=k).time_s + 3e-6, SHAPES)
    rows[0]["median_s"] = 1e-9
    rows[1]["error"] = "incorrect"
    profile = calibrate(h100, Source(rows, "made", "2026-11-24"))
    assert len(profile.left_out) == 2
    assert {one.reason.split(":")[0] for one in profile.left_out} == {"faster than the bare roofline", "no kernel ran"}
    (result,) = profile.results
    assert len(result.observed) == len(SHAPES) - 2
    assert profile.calibration.provenance["errors"]["gemm.bf16"]["left_out"] == 2
    assert profile.calibration.provenance["num_points"] == len(SHAPES) - 2


def test_the_best_kernel_of_a_point_counts():
    rows = gemm_rows(lambda *_: 1e-3, SHAPES[:1])
    other = [{**rows[0], "backend": "faster", "median_s": 5e-4}, {**rows[0], "backend": "wrong", "median_s": 1e-6}]
    other[1]["error"] = "incorrect"
    (one,) = observe([*rows, *other])
    assert one.measured_s.tolist() == [5e-4]
    assert one.kernels.tolist() == ["faster"]


def test_a_kernel_that_no_step_can_run_is_no_best_kernel():
    shape = {"num_tokens": 8, "num_experts": 4, "experts_per_token": 2, "expert_ranks": 1, "n": 64, "k": 64}
    row = {**gemm_rows(lambda *_: 1e-3, SHAPES[:1])[0], **shape, "family": "grouped_gemm"}
    (one,) = observe([row, {**row, "backend": "torch.mm_loop", "median_s": 5e-4}])
    assert one.measured_s.tolist() == [1e-3]


def test_norms_are_told_from_kernels_that_reduce_nothing():
    def row(op):
        made = gemm_rows(lambda *_: 1e-5, SHAPES[:1])[0]
        return {**made, "family": "elementwise", "op": op, "bytes": 4096.0, "width": 2048, "point_id": op}

    (one,) = observe([row(op) for op in ("rms_norm", "rotary", "add_rms_norm")])
    assert sorted(one.columns["row_elements"].tolist()) == [0, 2048, 2048]
    acc = rs.Accelerator.load("h100-sxm").with_calibration(rs.Calibration.assumed())
    found = costs(acc, one)["time_s"]
    for seconds, width in zip(found, one.columns["row_elements"].tolist(), strict=True):
        single = acc.elementwise(read_bytes=4096, write_bytes=0, row_elements=width or None)
        assert seconds == single.time_s


@given(st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=40), st.integers(2, 6))
def test_folds_keep_groups_whole_and_balanced(groups, folds):
    numbers = fold_numbers(np.array(groups), folds)
    assert set(numbers) == set(groups)
    sizes = [sum(numbers[g] == fold for g in groups) for fold in range(max(numbers.values()) + 1)]
    largest = max(groups.count(g) for g in set(groups))
    assert max(sizes) - min(sizes) <= largest


@given(st.integers(0, 2**32 - 1), st.floats(0.01, 0.3))
def test_a_bar_holds_its_share_of_the_residuals_it_is_made_from(seed, width):
    rng = np.random.default_rng(seed)
    error, parts = rng.laplace(0.0, width, 400), ({"share": np.ones(400)}, {"share": np.ones(400)})
    held = bar(error, parts, np.ones(400), 0.8).holds(error, parts).mean()
    assert 0.79 <= held <= 0.95


def two_kinds(rng, wide):
    """Residuals of which every fifth is `wide` times as far off, as the part `odd` tells; few of them."""
    odd = np.arange(1000) % 5 == 0
    half = {"share": np.ones(1000), "odd": odd.astype(float)}
    error = rng.laplace(0.0, 0.03, 1000) * np.where(odd, wide, 1.0)
    return error, (half, half), np.where(odd, "odd", "even")


def test_the_spread_follows_what_residuals_depend_on():
    error, parts, kinds = two_kinds(np.random.default_rng(2), 4.0)
    form = spreads(error, parts, even_weights(kinds)).above
    assert math.isclose(form.coefficients["odd"] / form.coefficients["share"], 3.0, rel_tol=0.2)


@pytest.mark.parametrize("known", [True, False])
def test_an_honest_bar_holds_what_it_states_of_every_kind_out_of_sample(known):
    rng = np.random.default_rng(1)
    error, (half, _), kinds = two_kinds(rng, 3.0)
    folds = rng.permutation(1000) % 5
    half = half if known else {"share": half["share"]}
    made, held = honest_bar(error, folds, kinds, (half, half))
    assert all(held[kinds == kind].mean() >= 0.8 for kind in ("odd", "even"))
    # A part that tells the kinds apart spares the even one the width of the odd one.
    assert (held[kinds == "even"].mean() < 0.88) == known
    assert made.below.of(half).min() > 0.0


def test_few_points_take_over_the_form_of_a_bar():
    rng = np.random.default_rng(3)
    error, parts, kinds = two_kinds(rng, 4.0)
    form = spreads(error, parts, even_weights(kinds))
    few = np.arange(60)
    taken = tuple({name: size[few] for name, size in half.items()} for half in parts)
    for lent in (form, None):
        made, _ = honest_bar(error[few], few % 5, kinds[few], taken, lent)
        assert ("odd" in made.above.coefficients) == (lent is not None)


def test_a_score_is_in_percent_of_the_measured_time():
    found = score(np.array([1.1, 0.8]), np.array([1.0, 1.0]))
    assert math.isclose(found.mean, 15.0)
    assert math.isclose(found.bias, -5.0)
    assert found.num_points == 2
    assert math.isnan(score(np.empty(0), np.empty(0)).mean)


def test_power_explains_the_steady_measurements_it_is_solved_from():
    h100 = rs.Accelerator.load("h100-sxm")
    gemm = {"dtype": "bf16", "m": 8192, "n": 8192, "k": 8192, "median_s": 1.56e-3, "power_w": 700.0}
    rows = [
        {"family": "system", "op": "power_idle", "error": None, "power_w": 110.0},
        {"family": "system", "op": "read_sustained", "error": None, "bytes": 2e9, "median_s": 7e-4, "power_w": 490.0},
        {"family": "system", "op": "gemm_sustained", "error": None, **gemm},
    ]
    power = steady_power(h100, rows)
    cost = h100.gemm(m=8192, n=8192, k=8192)
    shares = cost.flops / 989e12 / 1.56e-3, cost.bytes / 3.35e12 / 1.56e-3
    watts = power["idle_w"] + power["compute_w"] * shares[0] + power["memory_w"] * shares[1]
    assert math.isclose(watts, 700.0, rel_tol=1e-3)
    assert math.isclose(power["idle_w"] + power["memory_w"] * 2e9 / 7e-4 / 3.35e12, 490.0, rel_tol=1e-9)
    assert steady_power(h100, rows[:2]) is None


def test_energy_of_a_step_adds_idle_arithmetic_and_traffic():
    deployment = rs.Deployment("llama-3.1-8b", "h100-sxm")
    step, p = deployment.decode(batch_size=8, context_tokens=2048), deployment.calibration.power
    expected = p["idle_w"] * step.time_s + p["compute_w"] * step.mfu * step.time_s
    assert math.isclose(step.energy_j, expected + p["memory_w"] * step.mbu * step.time_s, rel_tol=1e-9)
    assert rs.Deployment("llama-3.1-8b", "mi300x").decode(batch_size=8, context_tokens=2048).energy_j is None
    two = rs.Deployment("llama-3.1-8b", "h100-sxm", data_parallel_size=2).decode(batch_size=8, context_tokens=2048)
    assert math.isclose(two.energy_j, 2 * step.energy_j)
    columns = rs.SweepSpace(["llama-3.1-8b"], ["h100-sxm", "mi300x"], batch_size=8, context_tokens=2048).run(
        ["energy_j"]
    )
    assert columns["energy_j"][0] == step.energy_j
    assert columns["energy_j"].mask.tolist() == [False, True]


def test_bars_widen_outside_what_was_measured_and_where_constants_are_borrowed():
    h100 = rs.Accelerator.load("h100-sxm")

    def width(device, m):
        op = device.gemm(m=m, n=8192, k=8192)
        return op.time_high_s / op.time_s - 1

    assert width(h100, 1 << 20) > 1.5 * width(h100, 1 << 13)
    assert width(rs.Accelerator.load("h100-pcie"), 1 << 13) > 1.9 * width(h100, 1 << 13)


def test_kernel_tables_are_read_by_engine(tmp_path):
    table = tmp_path / "gemm.csv"
    head = "src_backend,version,op_name,kernel_source,gemm_dtype,m,n,k,latency_ms\n"
    lines = ["trtllm,1.0,gemm,a,bfloat16,8,64,128,0.02", "trtllm,1.0,gemm,b,bfloat16,8,64,128,0.01"]
    lines += ["vllm,1.0,gemm,a,bfloat16,8,64,128,0.5", "trtllm,1.0,gemm,a,int8_wo,8,64,128,0.5"]
    table.write_text(head + "\n".join(lines) + "\n", encoding="utf-8")
    source = read_kernel_tables([table], "trtllm")
    (one,) = observe(source.rows)
    assert one.measured_s.tolist() == [1e-5]
    assert source.kernel_library == "tensorrt-llm"
    with pytest.raises(rs.SpecError, match="engine"):
        read_kernel_tables([table], "unheard")
    with pytest.raises(rs.SpecError, match="no row"):
        read_kernel_tables([table], "sglang")


def test_a_file_that_is_no_measurement_is_refused(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text("{}\n", encoding="utf-8")
    with pytest.raises(rs.SpecError, match="measurement file"):
        read_files([path])


def ten_us(m, n, k):
    return 1e-5


H100 = {"record": "header", "format": "roofsim-measurements/1", "device": "NVIDIA H100 80GB HBM3", "backend": "cuda"}


def written(folder, *rows):
    path = folder / "m.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in (H100, *rows)), encoding="utf-8")
    return path


def test_a_device_other_than_the_measured_one_is_refused(tmp_path):
    _, header = read_files([written(tmp_path)])
    assert measured_device(header).name == measured_device(header, "H100").name == "h100-sxm"
    assert measured_device(header, {"name": "mine", **SPEC}).name == "mine"
    with pytest.raises(rs.SpecError, match="device = h200-sxm: must be what was measured"):
        measured_device(header, "h200-sxm")


@pytest.mark.parametrize(
    ("change", "field"),
    [({"point_id": None}, "point_id"), ({"family": 5}, "family"), ({"m": 1e30}, "gemm.m"), ({"m": -1}, "gemm.m")],
)
def test_a_malformed_row_is_refused_by_field(tmp_path, change, field):
    row = {**gemm_rows(ten_us, [(8, 256, 256)])[0], "record": "point", **change}
    with pytest.raises(rs.SpecError, match=f"^{field} = "):
        observe(read_files([written(tmp_path, row)])[0].rows)


@pytest.mark.parametrize("time", [math.nan, math.inf, 0.0, None, "fast"])
def test_a_time_that_is_none_is_left_out_and_listed(tmp_path, time):
    good, bad = gemm_rows(ten_us, [(8, 256, 256), (16, 256, 256)])
    rows = [{**good, "record": "point"}, {**bad, "record": "point", "median_s": time}]
    (one,) = observe(read_files([written(tmp_path, *rows)])[0].rows)
    assert (len(one), len(one.left_out)) == (1, 1)


def test_a_compressed_file_is_read_up_to_its_cut(tmp_path):
    rows = [{**row, "record": "point"} for row in gemm_rows(ten_us, [(m, 256, 256) for m in range(1, 401)])]
    text = "".join(json.dumps(row) + "\n" for row in (H100, *rows)).encode()
    path = tmp_path / "cut.jsonl.gz"
    path.write_bytes(gzip.compress(text)[:-200])
    assert 0 < len(read_files([path])[0].rows) < 400


def test_end_to_end_on_this_cpu(tmp_path):
    pytest.importorskip("scipy", reason="the fit needs scipy")
    from roofsim.calibrate import measured_device
    from roofsim.report import compare
    from roofsim.validate import build_plan, measure

    path = tmp_path / "cpu.jsonl.gz"
    points = [p for p in build_plan("cpu", ["system", "gemm"], seed=3) if p.params.get("num_bytes", 0) <= 1 << 23]
    small = sorted((p for p in points if p.family == "gemm"), key=lambda p: math.prod(p.params[x] for x in "mnk"))
    measure(path, backend="cpu", points=[*(p for p in points if p.family == "system"), *small[:30]])
    source, header = read_files([path])
    device = measured_device(header, None, source.rows)
    profile = calibrate(device, source)
    assert source.kernel_library == "numpy"
    assert profile.calibration.provenance["basis"] == "measured"
    file = tmp_path / "cpu.json"
    file.write_text(profile.calibration.to_json(), encoding="utf-8")
    found = compare(path, calibration=str(file))
    (each,) = [each for each in found.classes if each.name == "gemm.fp32"]
    # How close it comes is up to the noise of the machine; the fits above have exact times.
    assert 0 < each.score.num_points <= 30
    assert all(row.ideal_s <= row.time_low_s <= row.time_s <= row.time_high_s for row in found.rows)
