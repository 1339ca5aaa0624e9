"""The one error of this package, shared with the rest of roofsim when roofsim is importable."""

from __future__ import annotations

__all__ = ["ValidationUnavailableError"]

try:
    from roofsim.errors import ValidationUnavailableError  # type: ignore[import-not-found, unused-ignore]
except ImportError:  # standalone: the compiled core is absent, and so is its error module

    class ValidationUnavailableError(Exception):  # type: ignore[no-redef, unused-ignore]
        """The machine cannot measure what was asked for.

        Parameters
        ----------
        field
            The name of the argument or capability that is missing.
        value
            What was found in its place.
        rule
            What has to hold for a measurement to be possible.
        """

        def __init__(self, field: str, value: object, rule: str) -> None:
            super().__init__(f"{field} = {value}: {rule}")
            self.field = field
            self.value = value
            self.rule = rule

        def __reduce__(self) -> tuple[object, ...]:
            return (type(self), (self.field, self.value, self.rule))
