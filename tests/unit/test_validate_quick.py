"""The quick plan: a part of the whole one, with the kernels that mostly win; and the order of a run cut short."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest

from roofsim.validate import build_plan
from roofsim.validate.plan_quick import QUICK_COUNTS, keeps_kernel, quick_rows


@pytest.mark.parametrize("memory", [80e9, 141e9])
@pytest.mark.parametrize("seed", [0, 11])
def test_a_quick_run_is_a_part_of_the_whole_run(seed, memory):
    whole = {point.point_id for point in build_plan("cuda", seed=seed, memory_bytes=memory)}
    quick = build_plan("cuda", seed=seed, quick=True, memory_bytes=memory)
    kinds = Counter((point.family, point.params.get("dtype")) for point in quick)
    assert {key: kinds[key] for key in QUICK_COUNTS} == QUICK_COUNTS
    assert all(point.point_id in whole for point in quick if point.family != "system")
    assert len({point.labels["shape_group"] for point in quick if point.family == "step"}) == 2
    assert build_plan("cuda", seed=seed, quick=True, memory_bytes=memory) == quick


def test_rows_of_a_whole_run_are_cut_to_the_kernels_and_splits_of_a_quick_one():
    point = next(p for p in build_plan("cuda", quick=True) if p.family == "decode_attention")
    base = {"family": "decode_attention", "point_id": point.point_id}
    splits = [{**base, "backend": "triton_split", "splits": count} for count in (8, 2, 4)]
    rows = [*splits, {**base, "backend": "sdpa_math"}, {**base, "point_id": "another", "backend": "triton_split"}]
    assert [row["splits"] for row in quick_rows(rows, [point])] == [2, 4]
    assert keeps_kernel("grouped_gemm", "torch._grouped_mm", None)
    assert not keeps_kernel("grouped_gemm", "triton_grouped", [128, 128, 64, 8, 3])
    assert keeps_kernel("gemm", "torch.mm", None)


def test_a_cpu_run_begins_with_what_a_roofline_and_a_first_fit_need():
    plan = build_plan("cpu")
    first = [point.family for point in itertools.islice(plan, 26)]
    assert Counter(first) == {"system": 2, "gemm": 24}
    assert {point.params["op"] for point in plan[:2]} == {"copy", "read"}
    assert Counter(point.point_id for point in plan).most_common(1)[0][1] == 1


@pytest.mark.parametrize(("devices", "groups"), [(1, {2}), (2, {2}), (8, {2, 4, 8}), (6, {2, 4})])
def test_collectives_cover_groups_of_the_visible_devices(devices, groups):
    points = build_plan("cuda", ["collective"], num_devices=devices)
    assert {point.params["ranks"] for point in points} == groups
    assert len(points) == (1 if devices == 1 else 60 * len(groups))
    assert not any(point.family == "collective" for point in build_plan("cuda", quick=True, num_devices=devices))
