"""Regimes and levers: they agree with single steps and capacity, row by row, and say why where there is no answer."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

import roofsim as rs
from roofsim.advice.regimes import _stretches
from roofsim.cli.app import app

CASES = [
    ("llama-3.1-8b", "h100-sxm", {}),
    ("llama-3.1-70b", "h200-sxm", {"tensor_parallel_size": 4, "kv_cache_dtype": "fp8"}),
    ("deepseek-v3", "h200-sxm", {"tensor_parallel_size": 8}),
    ("mixtral-8x7b", "mi300x", {"tensor_parallel_size": 2, "calibration": "ideal"}),
]


@pytest.mark.parametrize(("model", "accelerator", "settings"), CASES)
@pytest.mark.parametrize("context_tokens", [512, 32768])
def test_stretches_are_what_steps_and_capacity_say(model, accelerator, settings, context_tokens):
    (one,) = rs.regimes(model, accelerator, context_tokens=context_tokens, **settings).contexts
    deployment = rs.Deployment(model, accelerator, **settings)
    assert one["max_sequences"] == deployment.capacity("runtime").max_sequences(context_tokens)
    assert one["ends"] == "capacity"
    position = 1
    for stretch in one["stretches"]:
        assert stretch["first_batch"] == position
        position = stretch["last_batch"] + 1
        for batch, end in ((stretch["first_batch"], "at_first"), (stretch["last_batch"], "at_last")):
            step = deployment.decode(batch_size=batch, context_tokens=context_tokens)
            assert step.bound in stretch["bound"].split("/")
            assert stretch[end]["time_s"] == step.time_s
            assert stretch[end]["mfu"] == step.mfu
    assert position == one["max_sequences"] + 1


def test_a_long_context_goes_from_memory_to_capacity():
    found = rs.regimes("llama-3.1-8b", "h100-sxm", context_tokens=[64, 131072], calibration="ideal")
    assert found.path(64) == ["memory", "compute", "capacity"]
    assert found.path(131072) == ["memory", "capacity"]
    with pytest.raises(rs.SpecError, match=r"context_tokens = 4096: must be one of those asked for: 64, 131072"):
        found.path(4096)


def test_no_answer_has_its_reason():
    (full,) = rs.regimes("llama-3.1-70b", "h100-sxm", context_tokens=1024).contexts
    assert (full["ends"], full["max_sequences"], full["stretches"]) == ("capacity", 0, [])
    assert "leave no KV block" in full["reason"]
    (short,) = rs.regimes("llama-3.1-8b", "l4", context_tokens=1 << 20).contexts
    assert "less than one sequence" in short["reason"]
    (never,) = rs.regimes("llama-3.1-8b", "h100-sxm", context_tokens=1024, tensor_parallel_size=3).contexts
    assert never["ends"] == "status"
    assert "tensor_parallel_size" in never["reason"] or "divisible" in never["reason"]


def test_alternating_bounds_are_one_crossing():
    def text(*runs: tuple[str, int]) -> list[tuple[str, int, int]]:
        return list(_stretches([bound for bound, count in runs for _ in range(count)]))

    assert text(("memory", 100), ("compute", 100)) == [("memory", 0, 99), ("compute", 100, 199)]
    alternating = text(("memory", 100), ("compute", 5), ("memory", 10), ("compute", 100))
    assert alternating == [("memory", 0, 99), ("compute/memory", 100, 114), ("compute", 115, 214)]
    assert text(("overhead", 1), ("memory", 9)) == [("overhead", 0, 0), ("memory", 1, 9)]


@pytest.mark.parametrize(("model", "accelerator", "settings"), CASES)
def test_levers_are_what_steps_say(model, accelerator, settings):
    found = rs.levers(model, accelerator, batch_size=8, context_tokens=4096, **settings)
    base = rs.Deployment(model, accelerator, **settings).decode(batch_size=8, context_tokens=4096)
    assert found.base["time_s"] == base.time_s
    assert {one["family"] for one in found.options} >= {"work", "bytes"}
    for one in found.options:
        change = dict(one["change"])
        batch, context = change.pop("batch_size", 8), change.pop("context_tokens", 4096)
        query = change.pop("query_tokens", 1)
        deployment = rs.Deployment(model, accelerator, **{**settings, **change})
        step = deployment.step([(query, context)] * batch)
        assert one["time_s"] == step.time_s
        assert one["time_ratio"] == step.time_s / base.time_s
        assert one["fits"] == (deployment.capacity("runtime").max_sequences(context) >= batch)
        if one["family"] == "work":
            assert one["time_ratio"] >= 1
        else:
            assert one["bytes_ratio"] < 1
        assert ("break_even_tokens" in one) == (query > 1)


def test_levers_that_cannot_be_pulled_say_why():
    found = rs.levers("llama-3.1-8b", "a100-sxm-80gb", batch_size=8, context_tokens=4096)
    assert {"lever": "weights in fp8", "reason": "format_not_supported"} in found.refused
    published = rs.levers("deepseek-v3", "h200-sxm", batch_size=8, context_tokens=4096, tensor_parallel_size=8)
    assert {"lever": "weights in fp8", "reason": "reads about as many bytes as now"} in published.refused
    with pytest.raises(rs.SpecError, match=r"^deployment = llama-3\.1-8b on h100-sxm"):
        rs.levers("llama-3.1-8b", "h100-sxm", batch_size=8, context_tokens=4096, tensor_parallel_size=3)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"context_tokens": []}, "context_tokens"),
        ({"context_tokens": 0}, "context_tokens"),
        ({"context_tokens": 1.5}, "context_tokens"),
        ({"context_tokens": "4096"}, "context_tokens"),
        ({"context_tokens": b"12"}, "context_tokens"),
        ({"context_tokens": [True]}, "context_tokens"),
        ({"batch_size": 4}, "batch_size"),
        ({"models": "qwen3-8b"}, "models"),
        ({"tensor_parallel_size": [1, 2]}, "settings"),
        ({"colour": "red"}, "colour"),
        ({"capacity_mode": "maybe"}, "capacity_mode"),
    ],
)
def test_bad_settings_are_refused_by_name(change, field):
    with pytest.raises(rs.SpecError) as caught:
        rs.regimes("llama-3.1-8b", "h100-sxm", **change)
    assert caught.value.field == field
    if field in ("settings", "colour", "capacity_mode", "models"):
        with pytest.raises(rs.SpecError) as caught:
            rs.levers("llama-3.1-8b", "h100-sxm", batch_size=8, **{"context_tokens": 4096, **change})
        assert caught.value.field == ("tensor_parallel_size" if field == "settings" else field)


@pytest.mark.parametrize("command", ["regimes", "levers"])
def test_json_is_the_library_and_tables_fit_the_terminal(command, monkeypatch):
    words = [command, "-m", "llama-3.1-8b", "-a", "h100-sxm"]
    library = (
        rs.regimes("llama-3.1-8b", "h100-sxm")
        if command == "regimes"
        else rs.levers("llama-3.1-8b", "h100-sxm", batch_size=8, context_tokens=4096)
    )
    told = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    known = json.loads(json.dumps(library.to_dict()))
    for answer in (told, known):
        answer.pop("base", None)  # the command names every setting
    assert told == known
    for columns in (60, 100, 200):
        monkeypatch.setenv("COLUMNS", str(columns))
        lines = CliRunner().invoke(app, words).stdout.splitlines()
        assert any("memory" in line for line in lines)
        assert max(len(line) for line in lines) <= columns


def test_a_rank_holds_one_batch_for_each_stage_of_a_pipeline():
    settings = {"pipeline_parallel_size": 2, "capacity_mode": "runtime"}
    (one,) = rs.regimes("llama-3.1-8b", "h100-sxm", context_tokens=8192, **settings).contexts
    last = one["stretches"][-1]["last_batch"]
    space = rs.SweepSpace("llama-3.1-8b", "h100-sxm", context_tokens=8192, batch_size=range(1, last + 2), **settings)
    assert space.run(["fits"])["fits"].tolist() == [True] * last + [False]
    assert f"{one['max_sequences']} sequences, one batch for each of 2 stages" in one["reason"]
    found = rs.levers("llama-3.1-8b", "h100-sxm", batch_size=8, context_tokens=8192, **settings)
    (full,) = (option for option in found.options if "fills the memory" in option["lever"])
    assert (full["change"], full["fits"]) == ({"batch_size": last}, True)


def test_several_contexts_may_be_an_array_and_settings_lists_of_one():
    found = rs.regimes("llama-3.1-70b", "h100-sxm", context_tokens=np.array([512, 1024]), tensor_parallel_size=[1])
    assert [one["context_tokens"] for one in found.contexts] == [512, 1024]
    assert "leave no KV block" in found.contexts[0]["reason"]


def test_a_lever_past_the_limits_of_an_axis_is_refused():
    found = rs.levers("llama-3.1-8b", "h100-sxm", batch_size=1, context_tokens=1 << 30)
    assert [one["lever"] for one in found.refused if "context_tokens" in one["reason"]] == [
        "verify 2 draft tokens",
        "verify 4 draft tokens",
    ]
