"""Fit the laws' constants to measurements: `roofsim calibrate`.

Every prediction is the core's: this package holds no cost formula. It needs scipy (extra `roofsim[calibrate]`).

>>> from roofsim.calibrate import fold_numbers
>>> import numpy as np
>>> fold_numbers(np.array(["a", "a", "b", "c"]), 2)
{'a': 0, 'b': 1, 'c': 1}
"""

from __future__ import annotations

from roofsim.calibrate.files import measured_device, read_files
from roofsim.calibrate.fit import Constant, Fit, fit
from roofsim.calibrate.folds import fold_numbers, unseen_residuals
from roofsim.calibrate.kernel_tables import read_kernel_tables
from roofsim.calibrate.observations import CLASSES, LeftOut, Observations, observe
from roofsim.calibrate.predict import costs
from roofsim.calibrate.prior import known_before
from roofsim.calibrate.profile import ClassResult, Profile, Source, calibrate
from roofsim.calibrate.score import Score, score

__all__ = [
    "CLASSES",
    "ClassResult",
    "Constant",
    "Fit",
    "LeftOut",
    "Observations",
    "Profile",
    "Score",
    "Source",
    "calibrate",
    "costs",
    "fit",
    "fold_numbers",
    "known_before",
    "measured_device",
    "observe",
    "read_files",
    "read_kernel_tables",
    "score",
    "unseen_residuals",
]
