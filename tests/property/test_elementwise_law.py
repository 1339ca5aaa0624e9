"""The law of element-wise kernels: a norm waits for the sum of its row, whatever else it moves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

import roofsim as rs
from roofsim import testing

NUM_BYTES = st.integers(1, 10**10)
WIDTHS = st.integers(1, 1 << 20)


@given(st.just("calibrated") | testing.calibrations(), NUM_BYTES, NUM_BYTES, WIDTHS, WIDTHS)
def test_a_norm_never_takes_less_for_more_bytes_or_a_wider_row(calibration, num_bytes, more, width, wider):
    acc = rs.Accelerator.load("h100-sxm").with_calibration(calibration)

    def seconds(moved: int, row_elements: int | None) -> float:
        cost = acc.elementwise(read_bytes=moved, write_bytes=0, row_elements=row_elements)
        assert cost.time_s >= cost.time_low_s
        assert cost.time_s >= acc.with_calibration("ideal").elementwise(read_bytes=moved, write_bytes=0).time_s
        return cost.time_s

    plain, norm = seconds(num_bytes, None), seconds(num_bytes, width)
    assert plain <= norm <= seconds(num_bytes, width + wider)
    assert norm <= seconds(num_bytes + more, width)


@given(NUM_BYTES, WIDTHS)
def test_the_roofline_has_no_row_to_wait_for(num_bytes, width):
    ideal = rs.Accelerator.load("h100-sxm").with_calibration("ideal")
    plain = ideal.elementwise(read_bytes=num_bytes, write_bytes=0)
    norm = ideal.elementwise(read_bytes=num_bytes, write_bytes=0, row_elements=width)
    assert (norm.time_s, norm.overhead_s, norm.bytes) == (plain.time_s, 0.0, plain.bytes)


def test_a_worked_number():
    law = {"elementwise.launch_s": 2e-6, "elementwise.e_m": 0.5, "elementwise.reduce_s": 0.6e-6}
    acc = rs.Accelerator.load("h100-sxm")
    acc = acc.with_calibration(acc.calibration.with_constants(law))
    norm = acc.elementwise(read_bytes=3.35e6, write_bytes=0, row_elements=8192)
    # 3.35 MB at half of 3.35 TB/s is 2 us; a row of 8192 takes twice what one of 4096 does.
    assert norm.time_s == pytest.approx(2e-6 + 2e-6 + 1.2e-6, rel=1e-12)
    assert norm.overhead_s == pytest.approx(3.2e-6, rel=1e-12)
