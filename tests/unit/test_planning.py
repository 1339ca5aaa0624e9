"""What stands behind a ranking is said: kernel libraries, kinds of price, options that are another one twice."""

from __future__ import annotations

import json
import pickle

import pytest

import roofsim as rs
from roofsim.catalog import calibration_names

WORKLOAD = {"input_tokens": 4000, "output_tokens": 500, "ttft_s": 1.0, "tpot_s": 0.03}
ON_DEMAND_ONLY, RESERVED_TOO = "a100-sxm-80gb", "b200-sxm"


def plan(*accelerators: object, **arguments: object) -> rs.Plan:
    return rs.plan("llama-3.1-70b", list(accelerators), **{**WORKLOAD, **arguments})


def elsewhere(one):
    """Take a value to another process and back."""
    return pickle.loads(pickle.dumps(one))  # noqa: S301


def about(answer: rs.Plan, words: str) -> list[str]:
    return [note for note in answer.notes if words in note]


def test_a_comparison_of_libraries_is_called_one():
    answer = plan("h100-sxm", "b200-sxm")
    (said,) = about(answer, "Kernel libraries differ")
    assert {"torch (h100-sxm)", "tensorrt-llm (b200-sxm)"} <= {
        part.rstrip(".") for part in said.split(": ")[1].split(". ")[0].split(", ")
    }
    assert [offer["kernel_library"] for offer in answer.offers] == ["torch", "tensorrt-llm"]
    assert answer.to_dict()["notes"] == answer.notes
    assert json.loads(json.dumps(answer.to_dict())) == answer.to_dict()


def test_one_library_for_all_leaves_nothing_to_say_and_is_each_device_s_own():
    answer = plan("h100-sxm", "b200-sxm", calibration="tensorrt-llm")
    assert about(answer, "Kernel libraries") == []
    assert {offer["kernel_library"] for offer in answer.offers} == {"tensorrt-llm"}
    for name in ("h100-sxm", "b200-sxm"):
        own = rs.Accelerator.load(name).with_calibration("tensorrt-llm").calibration
        assert own == rs.Calibration.load(f"{name}-tensorrt-llm")


@pytest.mark.parametrize(
    ("device", "library", "found", "basis"),
    [
        ("h100-sxm", "vllm", "vllm", "published"),
        ("h100-pcie", "sglang", "sglang", "borrowed"),  # of the H100 SXM, same family
        ("l40s", "sglang", "tensorrt-llm", "published"),  # the family was measured, this library was not
        ("mi300x", "vllm", "vllm", "borrowed"),  # nobody measured the family
        ("h100-sxm", "torch", "torch", "measured"),
    ],
)
def test_where_a_library_was_not_measured_something_stated_stands_in(device, library, found, basis):
    own = rs.Accelerator.load(device).with_calibration(library).calibration
    assert (own.kernel_library, own.provenance["basis"]) == (found, basis)
    assert (f"{library} was not measured" in own.provenance["note"]) == (found != library)
    (offer,) = plan(device, calibration=library, tpot_s=None, ttft_s=None).offers
    assert (offer["calibration"], offer["note"]) == (own.name, own.provenance["note"])
    # A step of its own and a row of a sweep know the word too, and mean the same.
    step = rs.Deployment("llama-3.1-8b", device, calibration=library).decode(batch_size=4, context_tokens=1000)
    space = rs.SweepSpace("llama-3.1-8b", [device, "l40s"], calibration=library, batch_size=4, context_tokens=1000)
    assert space.run(["time_s"])["time_s"][0] == step.time_s
    assert space[0]["calibration"] == library


def test_every_library_in_the_box_is_a_word_and_others_are_refused():
    assert set(rs.Calibration.kernel_libraries()) == {"torch", "tensorrt-llm", "vllm", "sglang"}
    with pytest.raises(rs.SpecError, match="tensorrt-llm"):
        plan("h100-sxm", calibration="cutlass")


def test_a_sweep_over_libraries_says_so_too():
    axes = {"models": "llama-3.1-8b", "accelerators": ["h100-sxm", "b200-sxm"]}
    assert "Kernel libraries differ" in rs.SweepSpace(**axes).notes[0]
    assert rs.SweepSpace(**axes, calibration="tensorrt-llm").notes == []
    assert rs.SweepSpace(**axes, calibration="ideal").notes == []
    again = elsewhere(rs.SweepSpace(**axes, calibration=["sustained", "vllm"]))
    assert again.description()["calibration"] == '["sustained", "vllm"]'


def test_an_engine_does_not_choose_kernels_and_says_whose_they_are():
    (said,) = about(plan("h100-sxm", engine="vllm"), "Engine vllm")
    assert "torch (h100-sxm)" in said
    assert about(plan("h100-sxm", engine="vllm", calibration="vllm"), "Engine vllm") == []
    assert about(plan("h100-sxm", engine="vllm", calibration="ideal"), "Engine vllm") == []


@pytest.mark.parametrize("device", ["a100-sxm-80gb", "l40s", "h100-sxm", "h200-sxm", "b200-sxm", "gb200"])
def test_the_default_of_a_device_is_the_profile_that_is_least_far_off(device):
    def off(name):
        classes = rs.Calibration.load(name).provenance["errors"]
        total = 0.0
        for common in ("gemm.bf16", "decode_attention.bf16", "prefill_attention.bf16"):
            errors = classes[common]
            points, left_out = errors["num_points"], errors["left_out"]
            total += (errors["unseen_percent"] * points + 100 * left_out) / (points + left_out)
        return total

    own = [name for name in calibration_names() if name.startswith(f"{device}-")]
    assert rs.Accelerator.load(device).calibration.name.replace("/", "-") == min(own, key=off)


def test_auto_takes_the_kind_that_most_devices_have_and_says_what_the_others_have():
    answer = plan("h100-sxm", ON_DEMAND_ONLY, RESERVED_TOO)
    assert answer.request["price_kind"] == "on-demand"
    (said,) = about(answer, "No on-demand price of b200-sxm")
    reserved = rs.Accelerator.load(RESERVED_TOO).usd_per_hour("reserved")
    assert f"reserved ${reserved:.2f}" in said
    unpriced = [option for option in answer.options if option["usd_per_mtok"] is None]
    assert {option["accelerator"] for option in unpriced} == {RESERVED_TOO}
    assert answer.options[-len(unpriced) :] == unpriced
    assert all("no on-demand price" in option["why_not_first"] for option in unpriced)
    both = plan("h100-sxm", RESERVED_TOO)
    assert both.request["price_kind"] == "reserved"
    assert about(both, "price of") == []


def test_prices_of_two_kinds_never_stand_side_by_side_unsaid():
    answer = plan("h100-sxm", "h200-sxm", prices={"h100-sxm": 2.0}, price_kind="reserved")
    (said,) = about(answer, "Prices of different kinds")
    assert "given (h100-sxm)" in said
    assert "reserved (h200-sxm)" in said
    assert {option["price_kind"] for option in answer.options} == {"given", "reserved"}


def test_a_sweep_names_the_kind_of_its_prices():
    axes = {"models": "llama-3.1-8b", "accelerators": ["h100-sxm", "mi300x"], "batch_size": 8}
    assert rs.SweepSpace(**axes).price_kind == "reserved"
    dear = rs.SweepSpace(**axes, price_kind="on-demand")
    assert dear.price_kind == "on-demand"
    assert dear.run(["usd_per_mtok"])["usd_per_mtok"].mask.tolist() == [False, True]
    assert elsewhere(dear).price_kind == "on-demand"
    with pytest.raises(rs.SpecError, match="price_kind = spot"):
        rs.SweepSpace(**axes, price_kind="spot")


def test_an_option_that_gains_nothing_by_more_devices_points_at_the_better_one_and_is_folded():
    answer = plan("h100-sxm", "h200-sxm", weight_dtypes=["bf16", "fp8"])
    repeats = [option for option in answer.options if option["no_better_than"] is not None]
    assert any(option["pipeline_parallel_size"] > 1 for option in repeats)
    for option in repeats:
        one = answer.options[option["no_better_than"]]
        assert one["no_better_than"] is None
        assert option["num_devices"] > one["num_devices"]
        for name in ("accelerator", "weight_dtype", "kv_cache_dtype", "calibration"):
            assert option[name] == one[name]
        assert min(option[name] / one[name] for name in ("tpot_s", "ttft_s")) >= 0.99
        assert option["tokens_per_s_per_gpu"] <= 1.01 * one["tokens_per_s_per_gpu"]
        assert option not in answer.distinct()
    # What is left has something that no option on fewer devices of the same kind has.
    left = [option for option in answer.options if option["no_better_than"] is None]
    for option in left:
        for other in left:
            kind = ("accelerator", "weight_dtype", "kv_cache_dtype")
            if option["num_devices"] > other["num_devices"] and all(option[key] == other[key] for key in kind):
                assert (
                    option["tpot_s"] < 0.99 * other["tpot_s"]
                    or option["ttft_s"] < 0.99 * other["ttft_s"]
                    or option["tokens_per_s_per_gpu"] > 1.01 * other["tokens_per_s_per_gpu"]
                )


def test_a_device_named_twice_is_one():
    assert plan("h100-sxm", "H100").request["accelerators"] == ["h100-sxm"]


def test_sequences_are_counted_alike():
    """What is in flight and what memory holds are both of one replica, over all its microbatches."""
    for option in plan("h100-sxm").options:
        assert option["sequences"] == option["batch_size"] * option["pipeline_parallel_size"]
        assert option["sequences"] <= option["max_sequences"]


def test_answers_survive_a_process_and_compare():
    dep = rs.Deployment("llama-3.1-8b", "h100-sxm", tensor_parallel_size=2, kv_cache_dtype="fp8", engine="vllm")
    step = dep.step([(1, 500)] * 7 + [(300, 900), (1, 4)])
    answers = [
        dep,
        step,
        dep.decode(batch_size=3, context_tokens=9),
        step.ops[3],
        rs.Accelerator.load("mi300x").gemm(m=1, n=64, k=64),
        dep.capacity("runtime", gpu_memory_utilization=0.8, block_size=32),
        plan("h100-sxm", weight_dtypes=("bf16", "fp8")),
        rs.regimes("llama-3.1-8b", "h100-sxm", context_tokens=4096),
        rs.levers("llama-3.1-8b", "h100-sxm", batch_size=8, context_tokens=4096),
    ]
    for one in answers:
        again = elsewhere(one)
        assert again == one
        assert hash(again) == hash(one)
        assert repr(again) == repr(one)
        assert again != object()
    again = elsewhere(step)
    assert again.ops == step.ops
    assert (again.shapes, again.energy_j, again.calibration) == (step.shapes, step.energy_j, step.calibration)
    assert step != dep.step([(1, 500)] * 7 + [(300, 900), (1, 5)])
    assert dep != rs.Deployment("llama-3.1-8b", "h100-sxm", tensor_parallel_size=2, kv_cache_dtype="fp8")
    assert dep.capacity() != dep.capacity("runtime")
    assert step.ops[3] != step.ops[4]


def test_a_step_s_table_follows_a_forward_pass():
    for name in ("llama-3.1-8b", "deepseek-v3"):
        dep = rs.Deployment(name, "h200-sxm", tensor_parallel_size=8, pipeline_parallel_size=2, calibration="ideal")
        names = [op.name for op in dep.decode(batch_size=8, context_tokens=100).forward_pass]
        assert names[:2] == ["embedding", "embedding_all_reduce"]
        assert names[-2:] == ["lm_head", "logits_all_gather"] or names[-3:-1] == ["lm_head", "logits_all_gather"]
        mixer = "attention" if "attention" in names else "latent_attention"
        order = [
            mixer,
            "o_proj",
            "mixer_all_reduce",
            "gate_up_proj",
            "activation",
            "down_proj",
            "final_norm",
            "lm_head",
        ]
        assert [name for name in names if name in order] == order


@pytest.mark.parametrize("model", rs.catalog.model_names())
def test_every_operation_has_its_place_in_a_forward_pass(model):
    """What the order does not know comes last, behind the clock."""
    step = rs.Deployment(model, "b200-sxm", data_parallel_size=2).decode(batch_size=8, context_tokens=100)
    assert step.forward_pass[-1].name == "clock_slowdown"
    key = lambda op: (op.name, op.count, op.time_s)  # noqa: E731
    assert sorted(step.forward_pass, key=key) == sorted(step.ops, key=key)
