"""Plans against brute force over every batch, with the steady state's definition."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import roofsim as rs
from oracle.plan import Steady, steady
from roofsim import testing


@st.composite
def requests(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "model": draw(testing.models()),
        "accelerators": [draw(testing.accelerators())],
        "input_tokens": draw(st.integers(1, 300) | st.integers(1, 8_000)),
        "output_tokens": draw(st.integers(1, 300) | st.integers(1, 2_000)),
        "ttft_s": draw(st.none() | st.floats(1e-3, 10.0)),
        "tpot_s": draw(st.none() | st.floats(1e-4, 0.1)),
        "max_devices": draw(st.sampled_from([1, 2, 4])),
        "max_num_batched_tokens": draw(st.sampled_from([128, 2048, 8192])),
        "max_num_seqs": draw(st.sampled_from([8, 64])),
        "calibration": draw(st.sampled_from(["ideal", "calibrated"])),
        "capacity_mode": draw(st.sampled_from(["ideal", "runtime"])),
        "prices": {"synthetic": 2.5},
    }


def holds(request: dict[str, Any], found: Steady | None) -> bool:
    if found is None:
        return False
    limits = [(request["tpot_s"], found.tpot_s), (request["ttft_s"], found.ttft_s)]
    # A whisker of slack: the core sums floats, the oracle fractions.
    return all(limit is None or value <= Fraction(limit) * (1 + Fraction(1, 10**12)) for limit, value in limits)


def deployment(request: dict[str, Any], option: dict[str, Any]) -> rs.Deployment:
    keys = ["tensor_parallel_size", "pipeline_parallel_size", "data_parallel_size", "expert_parallel_size"]
    keys += ["weight_dtype", "kv_cache_dtype"]
    layout = {key: option[key] for key in keys}
    return rs.Deployment(request["model"], request["accelerators"][0], calibration=request["calibration"], **layout)


@settings(max_examples=40)
@given(requests())
def test_the_batch_of_every_option_holds_and_no_larger_one_does(request_):
    request = request_
    answer = rs.plan(**request)
    inputs, outputs, budget = (request[k] for k in ("input_tokens", "output_tokens", "max_num_batched_tokens"))
    for option in answer.options:
        dep = deployment(request, option)
        capacity = dep.capacity(request["capacity_mode"], max_num_batched_tokens=budget,
                                max_num_seqs=request["max_num_seqs"])  # fmt: skip
        held = capacity.max_sequences(inputs + outputs) // option["pipeline_parallel_size"]
        most = min(request["max_num_seqs"], held)
        cost = lambda batch, dep=dep: dep.step(batch).time_s  # noqa: E731
        batch = option["batch_size"]
        found = steady(cost, batch, inputs, outputs, budget)
        assert found is not None
        assert 1 <= batch <= most
        for field in ("ttft_s", "tpot_s", "itl_max_s"):
            assert option[field] == pytest.approx(float(getattr(found, field)), rel=1e-12), field
        for field in ("ttft", "tpot"):
            assert 0 < option[f"{field}_low_s"] <= option[f"{field}_s"] <= option[f"{field}_high_s"]
            if request["calibration"] == "ideal":
                assert option[f"{field}_low_s"] == option[f"{field}_s"] == option[f"{field}_high_s"]
        assert option["mixed_steps"] == found.mixed_steps
        assert holds(request, found)
        for larger in range(batch + 1, most + 1):
            assert not holds(request, steady(cost, larger, inputs, outputs, budget)), (option, larger)
        limit = {"capacity": "capacity", "max_num_seqs": "max_num_seqs"}.get(option["limit"])
        if limit:
            assert batch == most
        sequences = batch * option["pipeline_parallel_size"] * option["data_parallel_size"]
        tokens_per_s = sequences / option["tpot_s"]
        assert option["tokens_per_s"] == pytest.approx(tokens_per_s, rel=1e-12)
        assert option["tokens_per_s_per_gpu"] == pytest.approx(tokens_per_s / option["num_devices"], rel=1e-12)
        usd = 2.5 * option["num_devices"] / 3600 / tokens_per_s * 1e6
        assert option["usd_per_mtok"] == pytest.approx(usd, rel=1e-12)
        assert option["price_kind"] == "given"


@settings(max_examples=40)
@given(requests())
def test_every_way_that_misses_holds_no_batch_at_all(request_):
    request = request_
    inputs, outputs, budget = (request[k] for k in ("input_tokens", "output_tokens", "max_num_batched_tokens"))
    for miss in rs.plan(**request).misses:
        assert miss["reason"]
        try:
            dep = deployment(request, miss)
        except rs.SpecError:
            assert miss["factor"] is None
            continue
        capacity = dep.capacity(request["capacity_mode"], max_num_batched_tokens=budget,
                                max_num_seqs=request["max_num_seqs"])  # fmt: skip
        most = min(request["max_num_seqs"], capacity.max_sequences(inputs + outputs) // miss["pipeline_parallel_size"])
        cost = lambda batch, dep=dep: dep.step(batch).time_s  # noqa: E731
        for batch in range(1, most + 1):
            found = steady(cost, batch, inputs, outputs, budget)
            strict = found is not None and all(
                limit is None or value < Fraction(limit) * (1 - Fraction(1, 10**12))
                for limit, value in ((request["tpot_s"], found.tpot_s), (request["ttft_s"], found.ttft_s))
            )
            assert not strict, (miss, batch)


@settings(max_examples=30)
@given(requests(), st.sampled_from(["usd_per_mtok", "tokens_per_s_per_gpu", "tokens_per_s_per_user", "ttft_s"]))
def test_options_are_ranked_by_the_objective(request_, objective):
    answer = rs.plan(**request_, objective=objective)
    sign = -1 if objective.startswith("tokens") else 1
    values = [sign * option[objective] for option in answer.options]
    # Whatever is within 1% of the best is ranked by its number of devices.
    close = sum(value <= min(values) + 0.01 * abs(min(values)) for value in values) if values else 0
    devices = [option["num_devices"] for option in answer.options]
    assert devices[:close] == sorted(devices[:close])
    assert values[close:] == sorted(values[close:])
    assert not values[close:] or max(values[:close]) < values[close]
    assert [bool(option["why_not_first"]) for option in answer.options] == [i > 0 for i in range(len(values))]
    factors = [miss["factor"] if miss["factor"] is not None else float("inf") for miss in answer.misses]
    assert factors == sorted(factors)
    assert (answer.best is None) == (not answer.options)


def test_an_unknown_price_is_null_and_ranks_last():
    unpriced = rs.Accelerator.load("h100-sxm", name="unpriced", prices=[])
    answer = rs.plan("llama-3.1-8b", ["h100-sxm", unpriced], input_tokens=512, output_tokens=128)
    prices = [option["usd_per_mtok"] for option in answer.options]
    known = [price for price in prices if price is not None]
    assert known
    assert prices[: len(known)] == known
    assert None in prices
    assert {o["price_kind"] for o in answer.options if o["usd_per_mtok"] is None} == {"unknown"}


def test_prompts_that_do_not_fit_between_decodes_are_infeasible():
    answer = rs.plan("llama-3.1-8b", "h100-sxm", input_tokens=100_000, output_tokens=2, max_num_batched_tokens=1024)
    assert answer.best is None
    assert any("token budget" in miss["reason"] for miss in answer.misses)


def test_only_published_weight_formats_are_tried_unless_asked():
    question = {"model": "llama-3.1-8b", "accelerators": "h100-sxm", "input_tokens": 512, "output_tokens": 128}
    assert {o["weight_dtype"] for o in rs.plan(**question).options} == {"auto"}
    asked = rs.plan(**question, weight_dtypes=["bf16", "fp8"])
    assert {o["weight_dtype"] for o in asked.options} == {"bf16", "fp8"}


def test_distinct_keeps_the_first_layout_of_equal_devices_and_formats():
    answer = rs.plan("llama-3.1-70b", ["h100-sxm"], input_tokens=1000, output_tokens=200, prices={"H100": 2.0})
    keys = ("accelerator", "num_devices", "weight_dtype", "kv_cache_dtype")
    identity = [tuple(option[key] for key in keys) for option in answer.options]
    kept = answer.distinct()
    assert len(kept) == len(set(identity)) < len(identity)
    for option in kept:
        assert option is answer.options[identity.index(tuple(option[key] for key in keys))]
    assert {option["price_kind"] for option in kept} == {"given"}


def test_the_kind_of_prices_does_not_depend_on_how_a_priced_accelerator_is_named():
    asked = {"input_tokens": 1000, "output_tokens": 200, "tpot_s": 0.05}
    plans = [rs.plan("llama-3.1-8b", ["h100-sxm", "gb200"], prices={name: 3.0}, **asked) for name in ("gb200", "GB200")]
    assert [found.request["price_kind"] for found in plans] == ["on-demand", "on-demand"]
    assert plans[0].options == plans[1].options
