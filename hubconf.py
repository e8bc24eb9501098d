"""Every network of models/ for torch.hub, without an installation:

    torch.hub.load("path/to/this/folder", "cheapV3", source="local", num_classes=10)

An entry point takes the arguments of models.create() but the name. The networks come untrained.
"""

from __future__ import annotations

# As modules only: torch.hub.list() takes everything that can be called for an entry point.
import collections.abc
import functools
import inspect
import pathlib
import sys
import types

dependencies = ["torch"]  # all that models/ needs


def _own_models() -> types.ModuleType:
    """models/ of this folder, also in a program that has imported a `models` or `utils` of its own.

    Such a program's modules step aside for the import and come back after it. In any other program the networks'
    modules stay importable by their names, which saving a whole network with pickle needs.
    """
    theirs = {name: module for name, module in _loaded().items() if not _is_ours(module)}
    for name in theirs:
        del sys.modules[name]
    try:
        import models
    finally:
        taken = {name.partition(".")[0] for name in theirs}
        for name in _loaded():
            if name.partition(".")[0] in taken:
                del sys.modules[name]
        sys.modules.update(theirs)
    return models


def _loaded() -> dict[str, types.ModuleType]:
    return {name: module for name, module in sys.modules.items() if name.partition(".")[0] in ("models", "utils")}


def _is_ours(module: types.ModuleType) -> bool:
    folder = pathlib.Path(__file__).resolve().parent
    file = getattr(module, "__file__", None)
    if file is None:
        return False
    path = pathlib.Path(file).resolve()
    return path.parent == folder or folder / "models" in path.parents


def _entry_point(models: types.ModuleType, name: str) -> collections.abc.Callable:
    """models.create(name, ...), with the text that torch.hub.help() shows."""
    entry_point = functools.partial(models.create, name)
    about_file = models.registry.entry(name).builder.__globals__["__doc__"]
    about_arguments = inspect.getdoc(models.create)
    entry_point.__doc__ = f"{name}{inspect.signature(entry_point)}\n\n{about_file}\n{about_arguments}"
    return entry_point


def _entry_points() -> dict[str, collections.abc.Callable]:
    models = _own_models()
    return {name: _entry_point(models, name) for name in models.names()}


globals().update(_entry_points())
