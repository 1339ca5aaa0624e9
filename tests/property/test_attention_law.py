"""The law of attention where its kernels meet: packed rows and tiles, prefixes, equal batches, small steps."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import roofsim as rs
from roofsim import testing

LAYOUTS = [(8, 1, 128), (32, 8, 128), (32, 32, 64), (16, 8, 256), (56, 8, 128), (64, 8, 64)]


def laws() -> st.SearchStrategy[Any]:
    return st.just("calibrated") | testing.calibrations()


def attention(acc: rs.Accelerator, layout: tuple[int, int, int], batch: int, query: int, context: int) -> float:
    heads, kv_heads, head_dim = layout
    return acc.attention(
        batch_size=batch,
        query_tokens=query,
        context_tokens=context,
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
    ).time_s


@given(laws(), st.sampled_from(LAYOUTS), st.integers(1, 300), st.integers(70, 100_000))
def test_more_rows_than_one_pass_packs_never_take_less_time(calibration, layout, batch, context):
    acc = rs.Accelerator.load("h100-sxm").with_calibration(calibration)
    most = 64 // (layout[0] // layout[1])
    times = [attention(acc, layout, batch, query, context) for query in (1, most, most + 1, most + 2)]
    assert times == sorted(times)


@given(laws(), st.sampled_from(LAYOUTS), st.integers(1, 64), st.integers(1, 40), st.integers(0, 127))
def test_a_chunk_never_takes_longer_than_its_whole_context(calibration, layout, batch, blocks, odd):
    acc = rs.Accelerator.load("h200-sxm").with_calibration(calibration)
    context = 128 * blocks + odd
    queries = sorted(
        {1, 64, 65, *range(max(1, context - 700), context + 1, 50), context - 1, context} & set(range(1, context + 1))
    )
    times = [attention(acc, layout, batch, query, context) for query in queries]
    assert times == sorted(times)


@given(
    laws(),
    st.sampled_from(LAYOUTS),
    st.integers(1, 400),
    st.integers(1, 400),
    st.integers(1, 2_000),
    st.integers(0, 60_000),
)
def test_equal_requests_together_cost_no_more_than_apart(calibration, layout, one, other, query, cached):
    acc = rs.Accelerator.load("h100-sxm").with_calibration(calibration)
    together, *apart = (attention(acc, layout, n, query, query + cached) for n in (one + other, one, other))
    assert together <= 1.02 * sum(apart)


@given(
    laws(),
    st.sampled_from([(14, 2, 64), (14, 2, 128), (28, 4, 128), (40, 8, 128), (7, 1, 128)]),
    st.integers(1, 120),
    st.integers(1, 12),
    st.integers(1, 12),
    st.integers(-3, 3),
    st.integers(1_000, 90_000),
)
def test_equal_chunks_behind_long_prefixes_lose_nothing_together(calibration, layout, one, other, tiles, odd, cached):
    # Where one request more begins another wave of tiles.
    acc = rs.Accelerator.load("h100-sxm").with_calibration(calibration)
    query = 128 * tiles + odd
    together, *apart = (attention(acc, layout, n, query, query + cached) for n in (one + other, one, other))
    assert together <= 1.02 * sum(apart)


def test_tiles_of_one_length_are_worked_off_in_waves_whose_last_one_may_be_split():
    acc = rs.Accelerator.load("h100-sxm")  # 132 units; 44 tiles a request
    alone, full, more, most = (attention(acc, (44, 11, 128), batch, 128, 16_512) for batch in (1, 3, 4, 6))
    assert 1.3 * full <= more <= full + alone
    assert more <= most <= 2 * full


@given(laws(), testing.batches(max_requests=5), testing.batches(max_requests=2), st.randoms(use_true_random=False))
def test_waves_of_unequal_requests_do_not_depend_on_their_order(calibration, some, more, random):
    deployment = rs.Deployment("llama-3.1-8b", "h100-sxm", calibration=calibration)
    requests = [*some, *more, *some]
    time = deployment.step(requests).time_s
    assert deployment.step(random.sample(requests, len(requests))).time_s == pytest.approx(time, rel=1e-12)


@pytest.mark.parametrize("model", ["qwen3-1.7b", "phi-3-mini-4k"])
@given(testing.batches(max_requests=4), st.integers(17, 64), st.integers(0, 500), st.integers(65, 3_000))
def test_rows_that_a_pass_packs_may_be_tiled_beside_longer_requests(model, some, packed, cached, longer):
    deployment = rs.Deployment(model, "h100-sxm")
    step = deployment.step([*some, (packed, packed + cached), (65, longer)])
    for op in step.ops:
        testing.check_bounds(op)
    alone = deployment.step([(65, longer)])
    assert step.time_s >= alone.time_s


RAGGED = [
    ([(172, 79_489), (423, 423)], [(403, 3836)] * 2 + [(357, 11_245)] * 8 + [(391, 726)] * 8 + [(406, 406)] * 4),
    ([(5, 664)] * 8 + [(1, 1179)] + [(881, 881)] * 2, [(151, 21_242)]),
    ([(162, 551)] * 8, [(1, 6)] * 2 + [(550, 563)] * 23 + [(480, 480)] + [(26, 64)] * 2),
    ([(534, 34_287)] * 2, [(1658, 1658)] * 8 + [(23, 27)]),
]


@pytest.mark.parametrize("model", ["qwen2.5-0.5b", "llama-3.1-8b"])
@pytest.mark.parametrize("device", ["h100-sxm", "h200-sxm"])
@pytest.mark.parametrize(("one", "other"), RAGGED)
def test_requests_that_prefer_different_kernels_lose_little_together(model, device, one, other):
    deployment = rs.Deployment(model, device)

    def attended(requests: list[tuple[int, int]]) -> float:
        return sum(op.count * op.time_s for op in deployment.step(requests).ops if op.name == "attention")

    assert attended([*one, *other]) <= 1.03 * (attended(one) + attended(other))


def chunks() -> st.SearchStrategy[list[tuple[int, int]]]:
    """Batches of chunks that fill their last tile of 128 queries just, or barely begin it."""
    query = st.integers(1, 1_700) | st.sampled_from([1, 127, 128, 129, 130, 256, 257])
    request = st.tuples(query, st.integers(0, 60_000)).map(lambda chunk: (chunk[0], sum(chunk)))
    run = st.tuples(request, st.sampled_from([1, 2, 8, 16, 23])).map(lambda run: [run[0]] * run[1])
    return st.lists(run, min_size=1, max_size=4).map(lambda runs: [request for run in runs for request in run])


@pytest.mark.parametrize("model", ["qwen2.5-0.5b", "llama-3.1-8b"])
@given(chunks(), chunks())
def test_ragged_batches_together_lose_no_more_than_docs_attention_states(model, one, other):
    deployment = rs.Deployment(model, "h100-sxm")
    together, *apart = (deployment.step(requests).time_s for requests in ([*one, *other], one, other))
    assert together <= 1.1 * sum(apart)  # 7.3% is the most that was found


@given(laws(), st.integers(1, 8), st.integers(1, 3_000), st.integers(0, 60_000), st.integers(1, 200))
def test_latent_attention_never_takes_less_time_for_more(calibration, batch, query, cached, more):
    deployment = rs.Deployment("deepseek-v2.5", "h200-sxm", tensor_parallel_size=8, calibration=calibration)
    requests = [(query, query + cached)] * batch
    grown = [(min(q + more, s), s) for q, s in requests]
    testing.check_monotone(deployment, requests, grown)
    testing.check_monotone(deployment, requests, [(q, s + more) for q, s in requests])
    testing.check_monotone(deployment, requests, [*grown[:1], *requests[1:]])


def test_long_prompts_attend_expanded_heads_at_the_pace_of_tiles():
    deployment = rs.Deployment("deepseek-v3.1", "h200-sxm", tensor_parallel_size=8, pipeline_parallel_size=2)
    for query, least in ((16_384, 0.6), (1, 0.0)):
        (op,) = {op.name: op for op in deployment.step([(query, 16_384)]).ops if op.name == "latent_attention"}.values()
        assert least < op.mfu < 0.9
    assert op.bound == "memory" or op.mfu < 0.1  # one row reads the latent


@pytest.mark.parametrize("device", ["h100-sxm", "h200-sxm"])
@given(st.sampled_from(LAYOUTS), st.integers(1, 600), st.integers(1, 130_000))
def test_decode_has_no_cliffs(device, layout, batch, context):
    acc = rs.Accelerator.load(device)
    time = attention(acc, layout, batch, 1, context)
    more = max(1, batch // 100), max(1, context // 100)
    assert attention(acc, layout, batch, 1, context + more[1]) <= 1.03 * time
    # One request more is at most its share of the cache, and its heads' share of what crowding costs.
    assert attention(acc, layout, batch + more[0], 1, context) <= (1 + more[0] / batch) * time


@given(st.sampled_from(LAYOUTS), st.integers(1, 512), st.integers(1, 130_000))
def test_constants_at_their_limits_give_the_roofline_or_more(layout, batch, context):
    ideal = rs.Accelerator.load("h100-sxm").with_calibration("ideal")
    own = {**h100_constants(), "attention": LIMITS}
    perfect = rs.Accelerator.load("h100-sxm").with_calibration(own)
    for query in (1, 200):
        bound = attention(ideal, layout, batch, query, context + query)
        time = attention(perfect, layout, batch, query, context + query)
        assert time >= bound
        if query == 1:
            assert time == pytest.approx(bound, rel=1e-6)  # no overhead, nothing streamed: memory alone


LIMITS = {
    "law": "kernels",
    **dict.fromkeys(("e_m", "split_e_c", "tile_e_c", "latent_e_c"), 1.0),
    **dict.fromkeys(("stream_bytes_per_s", "tile_exp_per_s", "crowd_heads"), 1e17),
    **dict.fromkeys(("crowd_s", "pass_t0_s", "split_t0_s", "split_c_s", "split_rows_s", "tile_t0_s"), 0.0),
    **dict.fromkeys(("prefix_tile_s", "tile_start", "tile_spread", "tile_last", "tile_end", "latent_t0_s"), 0.0),
}


@pytest.mark.parametrize("model", ["qwen2.5-0.5b", "llama-3.1-8b"])
@given(
    testing.calibrations(),
    st.lists(
        st.tuples(st.integers(65, 1_500), st.integers(0, 1_500), st.sampled_from([1, 2, 8])), min_size=1, max_size=3
    ),
    st.integers(1, 700),
    st.booleans(),
)
def test_a_batch_gains_nothing_by_one_request_that_asks_for_more(model, calibration, runs, more, longer):
    """Whether its context grows or more of it is new, behind a prefix or not, beside equal and unequal requests."""
    deployment = rs.Deployment(model, "h100-sxm", calibration=calibration)
    batch = [(new, new + cached) for new, cached, count in runs for _ in range(count)]
    new, context = batch[0]
    grown = (new, context + more) if longer else (min(new + more, context), context)
    less, most = (
        sum(op.count * op.time_s for op in deployment.step(requests).ops if op.name == "attention")
        for requests in (batch, [grown, *batch[1:]])
    )
    assert most >= less * (1 - 1e-12)


def h100_constants() -> dict[str, Any]:
    return json.loads(rs.Accelerator.load("h100-sxm").calibration.to_json())
