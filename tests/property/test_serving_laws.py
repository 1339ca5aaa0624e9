"""The steady state of one deployment: what `Deployment.steady_state` promises for any load."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

import roofsim as rs

SERVER = rs.Deployment("llama-3.1-8b", "h100-sxm")


@given(batch=st.integers(1, 400), prompt=st.integers(1, 9000), output=st.integers(400, 4000))
def test_a_burst_never_gets_faster_with_more_requests(batch: int, prompt: int, output: int) -> None:
    few, many = (
        SERVER.steady_state(batch_size=b, input_tokens=prompt, output_tokens=output, max_num_batched_tokens=32768)
        if math.ceil(b * prompt / (32768 - b)) <= output
        else None
        for b in (batch, batch + 1)
    )
    if few is None or many is None:
        return
    assert 0 < few["burst_ttft_s"] <= many["burst_ttft_s"] * (1 + 1e-9)
    for state in (few, many):
        assert state["decode_step"]["time_s"] <= state["tpot_s"] * (1 + 1e-9)
        assert state["tpot_s"] <= state["itl_max_s"] * (1 + 1e-9)
        assert state["tpot_low_s"] <= state["tpot_s"] <= state["tpot_high_s"]


@pytest.mark.parametrize(
    ("field", "value"), [("batch_size", 0), ("input_tokens", 0), ("output_tokens", 0), ("batch_size", 8192)]
)
def test_loads_that_no_server_holds_are_refused(field: str, value: int) -> None:
    load = {"batch_size": 8, "input_tokens": 1000, "output_tokens": 100, field: value}
    with pytest.raises(rs.SpecError) as caught:
        SERVER.steady_state(**load)
    assert caught.value.field == field
