"""Exceptions: one root, and every one names the field, the value and the rule."""

from __future__ import annotations

__all__ = ["CountOverflowError", "RoofsimError", "SpecError", "UnsupportedError", "ValidationUnavailableError"]


class RoofsimError(Exception):
    """Root of everything that roofsim raises on purpose.

    Parameters
    ----------
    field
        Dotted path of what was wrong, for example ``text_config.num_hidden_layers``.
    value
        The value as the user wrote it; ``missing`` when there was none.
    rule
        The rule it broke, in words.

    Examples
    --------
    >>> str(RoofsimError("batch_size", "0", "must be at least 1"))
    'batch_size = 0: must be at least 1'
    """

    field: str
    value: str
    rule: str

    def __init__(self, field: str, value: object, rule: str) -> None:
        # The three arguments stay in `args`, from which pickle and copy build the exception again.
        super().__init__(field, str(value), rule)
        self.field = field
        self.value = str(value)
        self.rule = rule

    def __str__(self) -> str:
        return f"{self.field} = {self.value}: {self.rule}"


class SpecError(RoofsimError, ValueError):
    """A specification (model, accelerator, layout, workload) holds a value that cannot be right."""


class UnsupportedError(RoofsimError):
    """The request is well formed but names something this library has no law or reader for."""


class CountOverflowError(RoofsimError, OverflowError):
    """An exact count left the range of its integer type."""


class ValidationUnavailableError(RoofsimError):
    """A measurement was asked for on a machine that cannot take it (no CUDA device, no torch)."""
