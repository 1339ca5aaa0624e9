"""Finding a model's config: catalogue names, files, directories and mappings, and what is refused of each."""

from __future__ import annotations

import json
import math

import pytest

from roofsim.catalog import models
from roofsim.catalog.models import read_model
from roofsim.errors import SpecError

INDEX = """
["llama-3.1-8b"]
file = "llama.json"
aliases = ["meta-llama/Llama-3.1-8B", "llama-8b"]
source = "https://huggingface.co/meta-llama/Llama-3.1-8B"
date = "2026-11-24"

["qwen3-8b-nvfp4"]
file = "qwen.json"
hf_quant_config = "qwen-quant.json"
aliases = ["nvidia/Qwen3-8B-NVFP4", "llama-8b"]
source = "https://huggingface.co/nvidia/Qwen3-8B-NVFP4"
date = "2026-11-24"
"""


@pytest.fixture
def catalogue(tmp_path, monkeypatch):
    """A catalogue of two models, so that these tests hold whatever the real one contains."""
    directory = tmp_path / "catalogue"
    directory.mkdir()
    (directory / "index.toml").write_text(INDEX, encoding="utf-8")
    (directory / "llama.json").write_text('{"model_type": "llama"}', encoding="utf-8")
    (directory / "qwen.json").write_text('{"model_type": "qwen3"}', encoding="utf-8")
    (directory / "qwen-quant.json").write_text('{"quantization": {}}', encoding="utf-8")
    monkeypatch.setattr(models, "DIRECTORY", directory)
    models._index.cache_clear()
    yield directory
    models._index.cache_clear()


def refused(source) -> SpecError:
    with pytest.raises(SpecError) as caught:
        read_model(source)
    assert caught.value.field == "model"
    return caught.value


@pytest.mark.parametrize(
    "typed", ["llama-3.1-8b", "LLaMA-3.1-8B", "meta-llama/Llama-3.1-8B", "META-LLAMA/llama_3.1 8b"]
)
def test_names_match_in_any_case(catalogue, typed):
    assert read_model(typed) == ('{"model_type": "llama"}', "llama-3.1-8b", None)


def test_a_quantised_catalogue_model_brings_its_quantization(catalogue):
    assert read_model("nvidia/qwen3-8b-nvfp4") == ('{"model_type": "qwen3"}', "qwen3-8b-nvfp4", '{"quantization": {}}')
    assert models.model_names() == ["llama-3.1-8b", "qwen3-8b-nvfp4"]


def test_an_unknown_or_ambiguous_name_says_what_it_could_be(catalogue):
    assert "llama-3.1-8b" in refused("llama-3.1-9b").rule
    assert "nor is it a file or directory" in refused("llama-3.1-9b").rule
    assert "llama-3.1-8b, qwen3-8b-nvfp4" in refused("llama-8b").rule


@pytest.mark.parametrize("as_text", [False, True])
def test_a_directory_and_a_file(catalogue, tmp_path, as_text):
    directory = tmp_path / "my-model"
    directory.mkdir()
    (directory / "config.json").write_text('{"a": 1}', encoding="utf-8-sig")
    (directory / "other.json").write_text('{"b": 2}', encoding="utf-8")
    kind = str if as_text else lambda path: path
    assert read_model(kind(directory)) == ('{"a": 1}', "my-model", None)
    (directory / "hf_quant_config.json").write_text('{"q": 1}', encoding="utf-8")
    assert read_model(kind(directory)) == ('{"a": 1}', "my-model", '{"q": 1}')
    assert read_model(kind(directory / "config.json")) == ('{"a": 1}', "my-model", '{"q": 1}')
    assert read_model(kind(directory / "other.json")) == ('{"b": 2}', "other", None)


def test_a_mapping():
    text, name, quantization = read_model({"model_type": "llama", "hidden_size": 4096})
    assert json.loads(text) == {"model_type": "llama", "hidden_size": 4096}
    assert (name, quantization) == ("llama", None)
    assert read_model({"_name_or_path": "mine", "model_type": "llama"})[1] == "mine"
    assert read_model({})[1] == "model"
    # The core refuses it by its field; here it must only survive the way.
    assert math.isnan(json.loads(read_model({"rope_theta": float("nan")})[0])["rope_theta"])
    assert "JSON values" in refused({"a": object()}).rule
    endless: dict = {}
    endless["a"] = endless
    assert "JSON values" in refused(endless).rule


@pytest.mark.parametrize("source", [None, 3, 3.5, b"llama", ["llama"], object()])
def test_other_types_are_refused(source):
    assert "must be a name, a path or a mapping" in refused(source).rule


@pytest.mark.parametrize("source", ["", "   "])
def test_an_empty_name_is_refused(source):
    assert "must not be empty" in refused(source).rule


@pytest.mark.parametrize(
    "source", ["a\0b", "x" * 100_000, "/no/such/place", "./no-such", "~nobody-here/x", "no/such.json"]
)
def test_what_is_nowhere_is_refused(catalogue, source):
    refused(source)


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"", "valid JSON"),
        (b"not json", "valid JSON"),
        (b"[" * 200_000, "readable JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "readable JSON"),
        (b"\x7fELF\0\0\0", "binary"),
        (b"\xff\xfe\xfd", "not UTF-8"),
        (b" " * ((64 << 20) + 1), "larger than"),
    ],
    ids=["empty", "text", "deep", "long-integer", "binary", "latin", "large"],
)
def test_a_bad_config_is_refused(tmp_path, content, rule):
    path = tmp_path / "config.json"
    path.write_bytes(content)
    error = refused(path)
    assert rule in error.rule
    assert str(path) in error.value


def test_a_directory_without_a_config_is_refused(tmp_path):
    assert "holds no config.json" in refused(tmp_path).rule
