"""The exceptions carry field, value and rule, have two bases where Python has one of its own, and pickle."""

from __future__ import annotations

import copy
import pickle

import pytest

from roofsim import errors

CLASSES = [getattr(errors, name) for name in errors.__all__]


@pytest.mark.parametrize("kind", CLASSES)
def test_field_value_rule_survive_pickle_and_copy(kind):
    error = kind("link.num_devices", 1, "must be at least 2")
    for twin in (error, pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):  # noqa: S301
        assert type(twin) is kind
        assert (twin.field, twin.value, twin.rule) == ("link.num_devices", "1", "must be at least 2")
        assert str(twin) == "link.num_devices = 1: must be at least 2"
        assert isinstance(twin, errors.RoofsimError)


def test_bases():
    assert issubclass(errors.SpecError, ValueError)
    assert issubclass(errors.CountOverflowError, OverflowError)
    assert not issubclass(errors.UnsupportedError, ValueError)
