"""Errors on shapes that the fit did not see: whole groups are left out in turn, never single rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from roofsim.calibrate.fit import fit, log_residuals

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from roofsim import Accelerator, Calibration
    from roofsim.calibrate.observations import Observations

__all__ = ["FOLDS", "fold_numbers", "unseen_residuals"]

FOLDS = 5


def fold_numbers(groups: NDArray[np.str_], folds: int = FOLDS) -> dict[str, int]:
    """Divide groups over folds of about equal numbers of points; equal inputs give equal folds.

    Examples
    --------
    >>> fold_numbers(np.array(["a", "a", "b", "c"]), 2)
    {'a': 0, 'b': 1, 'c': 1}
    """
    names, counts = np.unique(groups, return_counts=True)
    order = sorted(zip(names.tolist(), counts.tolist(), strict=True), key=lambda pair: (-pair[1], pair[0]))
    filled = [0] * min(folds, len(order))
    numbers: dict[str, int] = {}
    for name, count in order:
        fold = filled.index(min(filled))
        numbers[name] = fold
        filled[fold] += count
    return numbers


def unseen_residuals(
    fitted: Accelerator,
    observed: Sequence[Observations],
    prefixes: Sequence[str],
    *,
    fixed: Sequence[str] = (),
    folds: int = FOLDS,
    prior: Calibration | None = None,
) -> tuple[list[NDArray[np.float64]], list[NDArray[np.int64]]]:
    """Return ln(measured / predicted) of every point by a fit without its group, and its fold, class by class.

    The fits of the folds start from the constants of the whole fit: that saves time, and the optimiser forgets it.
    `fixed` are paths that stay as they are; with as many `folds` as groups each is left out alone; `prior` is as in
    `fit`.
    """
    numbers = fold_numbers(np.concatenate([one.groups for one in observed]), folds)
    own = [np.array([numbers[str(group)] for group in one.groups], np.int64) for one in observed]
    residuals = [np.empty(len(one)) for one in observed]
    for fold in range(max(numbers.values()) + 1):
        seen = [one.take(number != fold) for one, number in zip(observed, own, strict=True)]
        accelerator = fit(fitted, seen, prefixes, starts=1, fixed=fixed, prior=prior).accelerator
        for one, number, residual in zip(observed, own, residuals, strict=True):
            residual[number == fold] = log_residuals(accelerator, [one.take(number == fold)])
    return residuals, own
