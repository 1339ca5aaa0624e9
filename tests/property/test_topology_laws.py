"""Laws of collectives over any wiring, and an independent bound from every cut of a small group."""

from __future__ import annotations

import itertools
import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

import roofsim as rs
from roofsim import testing

KINDS = ["all_reduce", "all_gather", "reduce_scatter", "all_to_all", "point_to_point"]
TORI = [[4, 4], [16, 16], [8], [2, 4, 4], [3, 5]]


@st.composite
def wired(draw) -> dict:
    """A device with a scale-up link of any topology, a bus of eight and a network."""
    spec = draw(testing.accelerators())
    link = dict(spec["link"])
    link["topology"] = draw(st.sampled_from(["switch", "mesh", "cube-mesh", "torus"]))
    link["num_devices"] = draw(st.integers(2, 16))
    if link["topology"] == "cube-mesh":
        link["num_devices"] = 8
    if link["topology"] == "torus":
        link["shape"] = draw(st.sampled_from(TORI))
        link["num_devices"] = math.prod(link["shape"])
        if draw(st.booleans()):
            link["cube"] = draw(st.sampled_from([2, 4]))
    spec["link"] = link
    if draw(st.booleans()):
        spec["host_link"] = {"bandwidth_bytes_per_s": 1e9 * draw(st.integers(1, 200)), "num_devices": 8}
    spec["network"] = {"bandwidth_bytes_per_s": 1e9 * draw(st.integers(1, 200)), "latency_s": 1e-6}
    return spec


calibrations = st.sampled_from(["ideal", "calibrated", "h100-sxm-torch", "h100-sxm-vllm"])


@given(wired(), calibrations, st.sampled_from(KINDS), st.integers(2, 300), st.integers(0, 10**9))
def test_calibrated_never_beats_ideal_and_time_rises_with_bytes(spec, calibration, kind, devices, size):
    device = rs.Accelerator(**spec)
    acc = device.with_calibration(calibration)
    cost = acc.collective(kind, num_bytes=size, num_devices=devices)
    testing.check_bounds(cost)
    ideal = device.with_calibration("ideal").collective(kind, num_bytes=size, num_devices=devices)
    assert cost.time_s >= ideal.time_s
    for more in (size + 1, 2 * size + 1):
        assert acc.collective(kind, num_bytes=more, num_devices=devices).time_s >= cost.time_s


@given(
    wired(), calibrations, st.sampled_from(KINDS), st.integers(2, 300), st.integers(1, 10**9),
    st.sampled_from(["link", "host_link", "network"]), st.floats(1.0, 50.0),
)  # fmt: skip
def test_time_never_rises_with_a_faster_link(spec, calibration, kind, devices, size, table, factor):
    if table not in spec:
        return
    faster = spec[table] | {"bandwidth_bytes_per_s": factor * spec[table]["bandwidth_bytes_per_s"]}
    base, better = (
        rs.Accelerator(**one).with_calibration(calibration).collective(kind, num_bytes=size, num_devices=devices)
        for one in (spec, spec | {table: faster})
    )
    assert better.time_s <= base.time_s * (1 + 1e-12)


def links_of(spec: dict, members: tuple) -> dict[tuple, int]:
    """Links between the members of a group, by pair; members are places in a mesh or a torus."""
    found: dict[tuple, int] = {}
    shape = spec["link"].get("shape")
    for a, b in itertools.combinations(members, 2):
        if shape is None:
            found[a, b] = 1
            continue
        apart = [axis for axis in range(len(shape)) if a[axis] != b[axis]]
        if len(apart) != 1:
            continue
        (axis,) = apart
        step, length = abs(a[axis] - b[axis]), shape[axis]
        # Rings close where the group has the whole axis; with two on it the same two meet twice.
        whole = len({m[axis] for m in members}) == length
        count = int(step == 1) + int(whole and step == length - 1)
        if count:
            found[a, b] = count
    return found


def least_time(spec: dict, kind: str, size: int, groups: list[tuple]) -> Fraction:
    """The least over placements of the worst cut: bytes that must leave a part over the links that leave it."""
    link = spec["link"]
    per_device = 2 * len(link["shape"]) if "shape" in link else link["num_devices"] - 1
    rate = Fraction(link["bandwidth_bytes_per_s"]) / per_device
    best = None
    for members in groups:
        links, n = links_of(spec, members), len(members)
        worst = Fraction(0)
        for count in range(1, n):
            for part in itertools.combinations(members, count):
                width = sum(w for (a, b), w in links.items() if (a in part) != (b in part))
                pairs = count if kind == "all_to_all" else 1
                crossing = Fraction(pairs * (n - count) * size, n)
                if width == 0:
                    worst = None
                    break
                worst = max(worst, crossing / (width * rate))
            if worst is None:
                break
        if worst is not None and (best is None or worst < best):
            best = worst
    assert best is not None
    return best


def placements(shape: list[int] | None, group: int) -> list[tuple]:
    """Boxes of a torus with so many members, or any members of a mesh."""
    if shape is None:
        return [tuple(range(group))]
    boxes = [box for box in itertools.product(*(range(1, s + 1) for s in shape)) if math.prod(box) == group]
    return [tuple(itertools.product(*(range(b) for b in box))) for box in boxes]


@pytest.mark.parametrize("kind", ["all_gather", "reduce_scatter", "all_to_all"])
@pytest.mark.parametrize(("shape", "group"), [
    (None, 2), (None, 5), (None, 8), ([4, 4], 2), ([4, 4], 4), ([4, 4], 8), ([8], 4), ([8], 8),
    ([3, 5], 3), ([3, 5], 5), ([2, 4, 4], 8), ([16, 16], 6), ([16, 16], 8),
])  # fmt: skip
def test_the_ideal_time_is_that_of_the_worst_of_all_cuts(shape, group, kind):
    """Exact where the worst cut is around a device or across the middle of an axis; a bound everywhere."""
    link = {"bandwidth_bytes_per_s": 120e9, "num_devices": math.prod(shape) if shape else 8}
    link |= {"topology": "torus", "shape": shape} if shape else {"topology": "mesh"}
    spec = {
        "name": "wired", "memory_bytes": 10**10, "memory_bandwidth_bytes_per_s": 1e12,
        "peak_flops_per_s": {"bf16": 1e14}, "link": link,
    }  # fmt: skip
    size = 7 * 10**8
    ideal = rs.Accelerator(**spec).with_calibration("ideal").collective(kind, num_bytes=size, num_devices=group).time_s
    bound = float(least_time(spec, kind, size, placements(shape, group)))
    assert ideal <= bound * (1 + 1e-12)
    assert ideal >= 0.999 * bound
