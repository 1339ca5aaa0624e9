"""Published kernel tables: which rows count, which are left out and why; the calibrations fitted to them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import roofsim as rs
from roofsim.calibrate import Source, calibrate, costs, observe, read_kernel_tables
from roofsim.calibrate.laws import held_constants, laws, with_own_law
from roofsim.calibrate.observations import drop_off_link, drop_suspect, drop_warm
from roofsim.calibrate.profile import readable
from roofsim.catalog.calibrations import calibration_names
from roofsim.report import render_profiles

ROOT = Path(__file__).resolve().parents[2]
MOE = (
    "src_backend,version,op_name,kernel_source,moe_dtype,num_tokens,hidden_size,inter_size,topk,num_experts,moe_tp_size,"
    "moe_ep_size,distribution,latency_ms"
)
LINKS = "src_backend,version,op_name,kernel_source,nccl_dtype,allreduce_dtype,num_gpus,message_size,latency_ms"


def table(folder, head, *lines):
    path = folder / "table.csv"
    path.write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")
    return path


def gemm_rows(seconds, sizes=range(8, 136, 8)):
    """Rows whose time is a share of what memory alone takes, given by shape."""
    w = rs.Accelerator.load("l40s").memory_bandwidth_bytes_per_s
    rows = []
    for n, k in ((4096, 4096), (8192, 8192), (16384, 16384)):
        for m in sizes:
            moved = 2 * (n * k + m * (n + k))
            rows.append(
                {
                    "family": "gemm", "dtype": "bf16", "m": m, "n": n, "k": k, "point_id": f"{m},{n},{k}",
                    "error": None, "backend": "made", "median_s": seconds(n) * moved / w, "shape_group": f"({n},{k})",
                }
            )  # fmt: skip
    return rows


def test_experts_count_as_a_layer_of_uniform_routing(tmp_path):
    row = "{engine},1.0,moe,{source},{dtype},64,4096,1536,8,128,2,1,{routing},0.1"
    lines = [
        row.format(engine="vllm", source="a", dtype="bfloat16", routing="balanced"),
        row.format(engine="vllm", source="a", dtype="bfloat16", routing="power_law_1.2"),
        row.format(engine="vllm", source="moe_nongated", dtype="bfloat16", routing="balanced"),
        row.format(engine="vllm", source="a", dtype="fp8", routing="balanced"),
        row.format(engine="trtllm", source="a", dtype="fp8", routing="balanced"),
    ]
    (one,) = observe(read_kernel_tables([table(tmp_path, MOE, *lines)], "vllm").rows)
    assert (one.name, len(one)) == ("moe_layer.bf16", 1)
    assert {name: int(column[0]) for name, column in one.columns.items()} == {
        "num_tokens": 64, "num_experts": 128, "experts_per_token": 8, "expert_ranks": 1, "hidden_size": 4096,
        "intermediate_size": 768,
    }  # fmt: skip
    (fp8,) = observe(read_kernel_tables([table(tmp_path, MOE, *lines)], "trtllm").rows)
    assert fp8.name == "moe_layer.fp8"


@pytest.mark.parametrize(("tokens", "hit"), [(4, 32), (64, 128)])
def test_a_layer_of_experts_is_priced_as_a_step_prices_it(tmp_path, tokens, hit):
    lines = [f"vllm,1.0,moe,a,bfloat16,{tokens},4096,1536,8,128,1,1,balanced,0.1"]
    (one,) = observe(read_kernel_tables([table(tmp_path, MOE, *lines)], "vllm").rows)
    h100 = rs.Accelerator.load("h100-sxm")
    # Tokens are dealt out in turn: none of 128 experts is hit twice before all are hit.
    shape = {"num_tokens": tokens, "num_experts": 128, "experts_per_token": 8, "active_experts": hit}
    moved = 2 * (tokens * 8 + tokens) * 4096
    elementwise = json.loads(h100.calibration.to_json())["elementwise"]
    dispatch_s = json.loads(h100.calibration.to_json())["step"]["dispatch_s"] + moved / (
        elementwise["e_m"] * h100.memory_bandwidth_bytes_per_s
    )
    parts = [
        h100.elementwise(read_bytes=tokens * 4 * 128, write_bytes=tokens * 8 * 8).time_s,
        dispatch_s,
        h100.grouped_gemm(**shape, n=3072, k=4096).time_s,
        h100.elementwise(read_bytes=tokens * 8 * 1536 * 4, write_bytes=tokens * 8 * 1536 * 2).time_s,
        h100.grouped_gemm(**shape, n=4096, k=1536).time_s,
        h100.elementwise(read_bytes=moved, write_bytes=0).time_s,
    ]
    assert costs(h100, one)["time_s"][0] == pytest.approx(sum(parts), rel=1e-9)


def test_experts_that_no_step_runs_so_are_passed_over(tmp_path):
    kept = "{engine},1.0,moe,a,bfloat16,64,4096,{inner},8,128,1,{ranks},balanced,0.1"
    lines = [
        kept.format(engine="vllm", inner=1536, ranks=1),
        kept.format(engine="vllm", inner=1536, ranks=4),
        kept.format(engine="vllm", inner=64, ranks=1),
    ]
    (one,) = observe(read_kernel_tables([table(tmp_path, MOE, *lines)], "vllm").rows)
    assert (len(one), one.columns["intermediate_size"].tolist()) == (1, [1536])


def test_the_fixed_time_of_quantising_is_told_from_that_of_the_gemm():
    h100 = rs.Accelerator.load("h100-sxm").with_calibration("h100-sxm-torch")
    wide, narrow = observe(
        [
            *gemm_rows(lambda _: 1.3),
            *(fp8 | {"dtype": "fp8", "point_id": fp8["point_id"] + " fp8"} for fp8 in gemm_rows(lambda _: 1.3)),
        ]
    )
    assert "gemm.fp8.t0_s" in held_constants(h100, "vllm", [wide, narrow])
    assert "gemm.bf16.t0_s" not in held_constants(h100, "vllm", [wide, narrow])
    held = held_constants(h100, "torch", [wide, narrow])
    assert {"gemm.fp8.quantise_s", "gemm.fp8.quantise_bytes"} <= set(held)
    assert "gemm.fp8.t0_s" not in held
    first, second = (paths for _, paths in laws([narrow, wide]))
    assert (first, second) == (["gemm.bf16."], ["gemm.fp8."])
    own = {c["path"]: c["value"] for c in with_own_law(h100, [narrow]).calibration.constants()}
    assert own["gemm.fp8.t0_s"] == own["gemm.bf16.t0_s"]


def test_collectives_of_the_library_and_of_the_engine_are_kept_apart(tmp_path):
    lines = [
        "nccl,2.27,all_gather,NCCL,half,,4,1024,0.02",
        "nccl,2.27,alltoall,NCCL,int8,,4,1024,0.02",
        "vllm,0.24,all_reduce,vLLM_custom_eager,,bfloat16,8,1024,0.04",
        "vllm,0.24,all_reduce,vLLM_custom_graph,,bfloat16,8,1024,0.005",
        "sglang,0.5,all_reduce,other,,bfloat16,8,1024,0.001",
    ]
    source = read_kernel_tables([table(tmp_path, LINKS, *lines)], "vllm")
    found = {one.name: one for one in observe(source.rows)}
    assert set(found) == {"collective.all_gather", "collective.all_to_all", "direct_all_reduce.bf16"}
    assert found["collective.all_gather"].columns["num_bytes"].tolist() == [2048]
    assert found["collective.all_to_all"].columns["num_bytes"].tolist() == [1024]
    assert found["direct_all_reduce.bf16"].measured_s.tolist() == [5e-6]
    assert source.software == "vllm 0.24"


def test_a_class_measured_with_warm_caches_keeps_only_what_no_cache_holds():
    l40s = rs.Accelerator.load("l40s")
    (one,) = observe(gemm_rows(lambda n: 0.6 if n == 4096 else 1.3))
    cost = costs(l40s.with_calibration("ideal"), one)
    kept, ideal_s = drop_warm(one, cost["ideal_s"], cost["bytes"], l40s)
    # 4096 squared in bf16 are 34 MB, the cache holds 100 MB, 8192 squared are 134 MB.
    assert set(kept.groups.tolist()) == {"(8192,8192)", "(16384,16384)"}
    assert len(ideal_s) == len(kept)
    assert {lost.reason for lost in kept.left_out} == {"operands fit the cache, which was not cold"}
    (cold,) = observe(gemm_rows(lambda _n: 1.3))
    untouched, _ = drop_warm(cold, cost["ideal_s"], cost["bytes"], l40s)
    assert len(untouched) == len(cold)


def test_a_group_that_often_beats_the_bound_is_left_out_whole():
    (one,) = observe(gemm_rows(lambda n: 0.6 if n == 16384 else 1.3))
    slower = one.measured_s.copy()
    of_group = np.flatnonzero(one.groups == "(16384,16384)")
    slower[of_group[: len(of_group) // 2]] *= 3
    mixed = replace(one, measured_s=slower)
    ideal_s = costs(rs.Accelerator.load("l40s").with_calibration("ideal"), mixed)["ideal_s"]
    kept, _ = drop_suspect(mixed, ideal_s)
    # What beats the bound is left to the rule that lists it as such.
    assert np.all(kept.measured_s[kept.groups == "(16384,16384)"] < ideal_s.max())
    assert len(kept.left_out) == len(of_group) // 2


def collective_rows(seconds):
    return [
        {
            "family": "collective", "dtype": "all_reduce", "num_bytes": size, "num_devices": n, "error": None,
            "point_id": f"{n},{size}", "backend": "NCCL", "median_s": seconds(n, size), "shape_group": str(size),
        }
        for n in (2, 4, 8) for size in (2**p for p in range(9, 30))
    ]  # fmt: skip


def test_transfers_over_a_host_s_own_paths_are_left_out_and_latencies_stay():
    l40s = rs.Accelerator.load("l40s")

    def seconds(n, size):
        return 5e-6 * n + 2 * (n - 1) / n * size / (20e9 if n == 2 else 2e9)

    (one,) = observe(collective_rows(seconds))
    kept, _ = drop_off_link(one, costs(l40s.with_calibration("ideal"), one)["ideal_s"])
    largest = {int(n): int(kept.columns["num_bytes"][kept.columns["num_devices"] == n].max()) for n in (2, 4, 8)}
    assert largest[2] == 2**29
    assert largest[8] <= largest[4] < 2**14


def test_collectives_are_recovered_and_handed_on():
    h100 = rs.Accelerator.load("h100-sxm")
    truth = {
        "law": "pipelined",
        "t0_s": 5e-6,
        "hop_s": 8e-7,
        "e_link": 0.8,
        "own": 0.3,
        "pipe_s": 1e-5,
        "e_switch": 0.0,
    }
    tree = json.loads(rs.Calibration.assumed().to_json())
    tree["collective"] = truth
    made = h100.with_calibration(tree)

    def seconds(n, size):
        return made.collective("all_reduce", num_bytes=size, num_devices=n).time_s

    source = Source(collective_rows(seconds), "made", "2026-11-24", "made")
    profile = calibrate(h100, source)
    (result,) = profile.results
    assert result.unseen.mean < 1.0
    fitted = json.loads(profile.calibration.to_json())
    assert fitted["collective"]["hop_s"] == pytest.approx(8e-7, rel=0.05)
    assert fitted["collective"]["e_link"] == pytest.approx(0.8, rel=0.05)
    assert "range" not in fitted["intervals"]["collective"]

    gemms = Source(gemm_rows(lambda _n: 1.3), "made", "2026-11-24")
    taken = calibrate(rs.Accelerator.load("l40s"), gemms, collectives=profile.calibration).calibration
    assert json.loads(taken.to_json())["collective"] == fitted["collective"]
    assert (
        taken.provenance["errors"]["collective.all_reduce"]
        == profile.calibration.provenance["errors"]["collective.all_reduce"]
    )
    with pytest.raises(rs.SpecError, match="collectives"):
        calibrate(h100, gemms, collectives=rs.Calibration.assumed())


@pytest.mark.parametrize("name", calibration_names())
def test_every_calibration_in_the_box_prices_a_step_of_its_device_over_links(name):
    device = rs.Calibration.load(name).provenance["device"]
    ranks = [rs.Deployment("llama-3.1-8b", device, tensor_parallel_size=n, calibration=name) for n in (1, 2, 4)]
    alone, two, four = (dep.decode(batch_size=8, context_tokens=1024) for dep in ranks)
    assert alone.network_s == 0
    assert 0 < two.network_s < four.network_s
    assert alone.time_low_s <= alone.time_s <= alone.time_high_s


def test_an_engine_s_all_reduce_is_never_slower_than_the_library_alone():
    name = next(name for name in calibration_names() if name.startswith("h100") and not name.endswith("torch"))
    tree = json.loads(rs.Calibration.load(name).to_json())
    h100 = rs.Accelerator.load("h100-sxm")
    engine = h100.with_calibration(dict(tree))
    tree.pop("direct_all_reduce")
    library = h100.with_calibration(tree)
    for size in (2**p for p in range(8, 32)):
        fast, slow = (acc.collective("all_reduce", num_bytes=size, num_devices=8) for acc in (engine, library))
        assert fast.time_s <= slow.time_s


def test_the_page_of_errors_is_what_the_files_say():
    assert (ROOT / "docs" / "PROFILES.md").read_text(encoding="utf-8") == render_profiles(), (
        "run scripts/calibrations.sh"
    )


def test_rows_without_enough_points_are_named():
    _, skipped = readable(rs.Accelerator.load("l40s"), gemm_rows(lambda _n: 1.3, sizes=[8]))
    assert len(skipped) == 1
    assert "fewer than" in skipped[0]


DEVICES = ("a100-sxm-80gb", "b200-sxm", "gb200", "h100-sxm", "h200-sxm", "l40s")


@pytest.mark.parametrize("name", calibration_names())
def test_one_more_draft_token_falls_off_no_cliff(name):
    device = next(known for known in DEVICES if name.startswith(known))
    deployment = rs.Deployment("llama-3.1-8b", device, calibration=name)
    # 16 new tokens of four query heads each fill the 64 rows that one pass of packed rows takes.
    packed, tiled = (deployment.step([(query, 8192)] * 32).time_s for query in (16, 17))
    assert packed <= tiled < 1.25 * packed


@pytest.mark.parametrize("name", calibration_names())
def test_the_bound_of_a_step_is_that_of_the_datasheet_whatever_the_library(name):
    device = next(known for known in DEVICES if name.startswith(known))
    for model in ("llama-3.1-8b", "deepseek-v2.5"):
        step, bound = (
            rs.Deployment(model, device, calibration=calibration).step([(1, 900), (700, 700), (30, 3000)])
            for calibration in (name, "ideal")
        )
        assert step.ideal_s == bound.time_s <= step.time_s
