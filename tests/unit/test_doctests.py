"""Every example in a docstring is run: the Python modules' and the compiled classes'."""

from __future__ import annotations

import doctest
import importlib
import importlib.util
import pkgutil
from typing import TYPE_CHECKING

import pytest

import roofsim
from roofsim import _core

if TYPE_CHECKING:
    from collections.abc import Iterator

NEEDS = {"roofsim.validate": "torch", "roofsim.plot": "matplotlib"}
MODULES = sorted(
    {"roofsim", *(found.name for found in pkgutil.walk_packages(roofsim.__path__, "roofsim.", onerror=lambda _: None))}
    - {"roofsim.__main__", "roofsim._core"}
)
CLASSES = [value for value in vars(_core).values() if isinstance(value, type)]
# What carries an example already must keep it.
WITH_EXAMPLES = {
    "Accelerator.attention",
    "Accelerator.balance",
    "Accelerator.collective",
    "Accelerator.elementwise",
    "Accelerator.gemm",
    "Accelerator.grouped_gemm",
    "Accelerator.load",
    "Accelerator.with_calibration",
    "Deployment.capacity",
    "Deployment.decode",
    "Deployment.prefill",
    "Deployment.step",
    "Model.kv_bytes_per_token",
    "Model.kv_cache_bytes",
    "Model.load",
    "Model.weight_bytes",
}


def compiled() -> Iterator[tuple[str, str]]:
    for kind in CLASSES:
        yield kind.__name__, kind.__doc__ or ""
        for name, member in vars(kind).items():
            if not name.startswith("_"):
                yield f"{kind.__name__}.{name}", getattr(member, "__doc__", None) or ""


@pytest.mark.parametrize("name", MODULES)
def test_module_examples(name):
    for prefix, package in NEEDS.items():
        if name.startswith(prefix) and importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is not installed")
    results = doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert results.failed == 0


@pytest.mark.parametrize(("name", "text"), [pair for pair in compiled() if ">>>" in pair[1]], ids=lambda x: x[:30])
def test_compiled_examples(name, text):
    test = doctest.DocTestParser().get_doctest(text, {}, name, None, 0)
    report: list[str] = []
    assert doctest.DocTestRunner().run(test, out=report.append).failed == 0, "".join(report)


def test_everything_public_is_documented():
    assert [name for name, text in compiled() if not text.strip() and not name.startswith("_")] == []
    assert {name for name, text in compiled() if ">>>" in text} >= WITH_EXAMPLES
