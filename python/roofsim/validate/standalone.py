"""Run the harness from a source tree, without the compiled core: `python .../validate/standalone.py --help`.

`python -m roofsim.validate` does the same where roofsim is installed. This file loads the package under its own name
so that roofsim's `__init__`, which imports the core, is never executed.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

NAME = "roofsim_validate"


def load() -> None:
    """Import the package that holds this file as `roofsim_validate`."""
    folder = Path(__file__).resolve().parent
    sys.path[:] = [entry for entry in sys.path if Path(entry or ".").resolve() != folder]
    spec = importlib.util.spec_from_file_location(
        NAME, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    if spec is None or spec.loader is None:
        raise ImportError(f"{folder}: is not a package")
    module = importlib.util.module_from_spec(spec)
    sys.modules[NAME] = module
    spec.loader.exec_module(module)


if __name__ == "__main__":
    load()
    main = importlib.import_module(f"{NAME}.command").main
    sys.exit(main())
