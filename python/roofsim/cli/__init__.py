"""The command line: `roofsim`. Nothing of it is imported by `import roofsim`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

own_process = False
"""Whether this process runs one command and nothing else, so that its age is the command's."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run one command and leave with its exit code.

    Exit codes: 0 an answer ("nothing fits" is one), 2 a refused argument or value, 130 interrupted.

    Parameters
    ----------
    arguments
        Words after ``roofsim``; ``sys.argv[1:]`` by default.
    """
    global own_process
    own_process = arguments is None
    try:
        from roofsim.cli.app import app

        app(None if arguments is None else list(arguments), prog_name="roofsim")
    except KeyboardInterrupt:  # while importing: the commands themselves answer Ctrl-C in their group
        sys.exit(130)
