"""What happens when a network's file is run: python models/cheapV3.py prints its networks' costs.

Then models/ is the first place where Python looks for modules, so that the file finds this one although the project is
not installed; run() puts the project's root there instead.
"""

import importlib
import sys
from pathlib import Path

MAINS = {"EffNet": "models.separable"}  # what describes a file's networks, where models.script alone does not


def run(file: str) -> None:
    """Describes the networks of models/<file> and ends the process."""
    path = Path(file).resolve()
    sys.path[0] = str(path.parents[1])
    described_by = importlib.import_module(MAINS.get(path.stem, "models.script"))
    sys.exit(described_by.main(path.stem))
