"""Links as they are built: published rates of meshes, tori and several servers; layouts across nodes."""

from __future__ import annotations

import json

import pytest

import roofsim as rs

GB = 10**9
MOVED = {"all_reduce": 2.0, "all_gather": 1.0, "reduce_scatter": 1.0, "all_to_all": 1.0}


def bus_bandwidth(device: rs.Accelerator, kind: str, ranks: int, calibration: str = "ideal") -> float:
    """Bytes per second that each rank moves, as NCCL's tests count them."""
    share = MOVED.get(kind, 1.0) * ((ranks - 1) / ranks if kind in MOVED else 1.0)
    cost = device.with_calibration(calibration).collective(kind, num_bytes=GB, num_devices=ranks)
    return share * GB / cost.time_s


@pytest.mark.parametrize("kind", MOVED)
@pytest.mark.parametrize(("ranks", "links"), [(2, 1), (3, 2), (4, 3), (8, 7)])
def test_two_of_a_mesh_of_eight_meet_over_one_link_of_seven(kind, ranks, links):
    """AMD: each of seven peers over a link of 64 GB/s (rocm.blogs.amd.com, mi300x-rccl-xgmi, 2025)."""
    mi300x = rs.Accelerator.load("mi300x")
    assert bus_bandwidth(mi300x, kind, ranks) == pytest.approx(links * 64e9)
    assert bus_bandwidth(mi300x, "point_to_point", ranks) == pytest.approx(64e9)


def test_a_link_of_a_mesh_gives_what_amd_says_it_does_within_the_bar():
    """About 48 of 64 GB/s can be had: the borrowed constants are of another maker's link, their bars hold it."""
    cost = rs.Accelerator.load("mi300x").collective("point_to_point", num_bytes=GB, num_devices=2)
    assert cost.time_low_s < GB / 48e9 < cost.time_high_s
    assert cost.time_s > GB / 64e9


def test_gaudi_reaches_what_intel_measured():
    """docs.habana.ai, Collectives Performance: 256 MB among eight Gaudi 3, NW bandwidth 512.96 and 509.19 GB/s."""
    gaudi = rs.Accelerator.load("gaudi-3")
    for kind, measured in (("all_reduce", 512.957298e9), ("all_gather", 509.189283e9)):
        ideal = bus_bandwidth(gaudi, kind, 8)
        assert ideal == pytest.approx(525e9)
        assert 0.96 * ideal < measured < ideal


def test_several_servers_have_the_peaks_that_intel_states():
    """docs.habana.ai, Network Configuration: 600 GB/s for all-reduces and gathers, 75 for all-to-all."""
    gaudi = rs.Accelerator.load("gaudi-3")
    for ranks in (16, 64, 512):
        for kind in ("all_reduce", "all_gather", "reduce_scatter"):
            assert bus_bandwidth(gaudi, kind, ranks) <= 600e9 * (1 + 1e-9)
    assert bus_bandwidth(gaudi, "all_reduce", 512) == pytest.approx(600e9, rel=0.02)
    assert bus_bandwidth(gaudi, "all_to_all", 4096) == pytest.approx(75e9, rel=0.01)


def test_a_tpu_pod_has_the_bisection_that_google_states():
    """docs.cloud.google.com/tpu/docs/v4: 24 TB/s over the cut of a pod of 4,096; links of 50 GB/s give 25.6."""
    pod = rs.Accelerator.load("tpu-v4").with_calibration("ideal")
    exchanged = pod.collective("all_to_all", num_bytes=GB, num_devices=4096).time_s
    over_the_cut = 4096 / 2 * GB / 2
    assert over_the_cut / exchanged == pytest.approx(25.6e12)
    assert over_the_cut / exchanged == pytest.approx(24e12, rel=0.07)


def test_a_ring_of_tpus_costs_what_the_scaling_book_says():
    """An axis of 16 is a ring: AllGather V / W, AllToAll V / (4 W), with W both directions of a link."""
    v5e = rs.Accelerator.load("tpu-v5e", link={
        "bandwidth_bytes_per_s": 100e9, "num_devices": 16, "topology": "torus", "shape": [16],
    }).with_calibration("ideal")  # fmt: skip
    whole, both_ways = 16 * GB, 100e9
    gather = v5e.collective("all_gather", num_bytes=whole, num_devices=16).time_s
    exchange = v5e.collective("all_to_all", num_bytes=GB, num_devices=16).time_s
    assert gather == pytest.approx(15 / 16 * whole / both_ways)
    assert exchange == pytest.approx(whole / (4 * both_ways))
    # Half a ring is a line: its ends take in everything over one link.
    assert v5e.collective("all_gather", num_bytes=whole, num_devices=8).time_s == pytest.approx(7 / 8 * whole / 50e9)


@pytest.mark.parametrize(("name", "ranks", "links"), [
    ("tpu-v5e", 2, 1), ("tpu-v5e", 4, 2), ("tpu-v5e", 8, 2), ("tpu-v5e", 256, 4),
    ("tpu-v5p", 8, 3), ("tpu-v5p", 64, 6), ("trainium2", 16, 4), ("trainium2", 4, 2),
])  # fmt: skip
def test_slices_have_the_links_of_their_corners(name, ranks, links):
    device = rs.Accelerator.load(name)
    link = json.loads(device.to_json())["link"]
    each = link["bandwidth_bytes_per_s"] / (2 * len(link["shape"]))
    assert bus_bandwidth(device, "all_gather", ranks) == pytest.approx(links * each)


def test_pairs_of_v100_have_two_links_and_groups_of_four_have_four():
    v100 = rs.Accelerator.load("v100-sxm-32gb")
    assert [bus_bandwidth(v100, "all_reduce", n) / 25e9 for n in (2, 4, 8)] == pytest.approx([2, 4, 6])


def test_bridged_pairs_meet_over_the_bus():
    """Four A100 PCIe are two pairs: what leaves a pair crosses two slots of the bus."""
    pairs = rs.Accelerator.load("a100-pcie-80gb").with_calibration("ideal")
    assert pairs.collective("all_gather", num_bytes=GB, num_devices=2).time_s == pytest.approx(GB / 2 / 300e9)
    assert pairs.collective("all_gather", num_bytes=GB, num_devices=4).time_s == pytest.approx(GB / 2 / (2 * 31.5e9))
    assert pairs.collective("all_to_all", num_bytes=GB, num_devices=4).time_s == pytest.approx(GB / 2 / 31.5e9)


def test_two_boards_share_their_network_cards_and_never_have_nvlink_between_them():
    h100 = rs.Accelerator.load("h100-sxm")
    one, two = (h100.collective("all_reduce", num_bytes=GB, num_devices=n) for n in (8, 16))
    assert two.time_s > 1.2 * one.time_s
    # One ring through all sixteen: eight cards of 50 GB/s carry it from board to board.
    ring = h100.with_calibration(h100.calibration.with_constants({"collective.e_switch": 0.0}))
    assert ring.collective("all_reduce", num_bytes=GB, num_devices=16).time_s > 2 * 15 / 16 * GB / 400e9
    # An exchange has half of everything to send over each rank's own card.
    exchange = h100.with_calibration("ideal").collective("all_to_all", num_bytes=GB, num_devices=16)
    assert exchange.time_s == pytest.approx(GB / 2 / 50e9)
    # A domain of 72 holds the same group.
    assert bus_bandwidth(rs.Accelerator.load("gb200"), "all_to_all", 16) == pytest.approx(900e9)


def test_stages_on_one_board_hand_over_by_nvlink_and_boards_by_the_network():
    deployment = rs.Deployment(
        "llama-3.1-70b", "h100-sxm", tensor_parallel_size=4, pipeline_parallel_size=4, calibration="ideal"
    )
    ops = {op.name: op for op in deployment.decode(batch_size=64, context_tokens=100).ops}
    size = 64 * 2 * 8192 / 4
    assert (ops["stage_send"].count, ops["node_send"].count) == (2, 1)
    assert ops["stage_send"].time_s == pytest.approx(size / 450e9)
    assert ops["node_send"].time_s == pytest.approx(size / 50e9)


def test_a_group_that_no_link_reaches_has_a_status():
    space = rs.SweepSpace("llama-3.1-70b", "mi300x", tensor_parallel_size=[8, 16], batch_size=1)
    assert list(space.run(["status"])["status"]) == ["ok", "no_link"]
