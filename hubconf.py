"""Every network of models/ for torch.hub, without an installation:

    torch.hub.load("path/to/this/folder", "cheapV3", source="local", num_classes=10)

An entry point takes the arguments of models.create() but the name, and weights="FILE": the checkpoint of a run, or
weights alone, of this project or another; or pretrained="DATASET", which takes the file of weights/ here for that data
set. Without either the networks come untrained. The entry point "create" takes the name as well, torchvision:NAME and
timm:NAME among them.
"""

from __future__ import annotations

# As modules only: torch.hub.list() takes everything that can be called for an entry point.
import collections.abc
import functools
import importlib
import inspect
import pathlib
import sys
import types

dependencies = ["torch"]  # all that models/ and the reading of weights need
ABOUT_WEIGHTS = """
weights  a file, .pth or .safetensors: of a run, which then says every argument that is not given, or of weights
         alone, under any of the usual keys and prefixes. Raises ValueError that says how they differ where they do not
         fit.
pretrained  a data set's name, such as "cifar100": the weights are those of weights/<network>-<name>.safetensors here.
         Raises ValueError where there is no such file.
"""


NAMES = ("models", "utils", "conf", "engine")  # of the packages here that an entry point needs


def _own(name: str) -> types.ModuleType:
    """A module of this folder, also in a program that has imported a `models` or `utils` of its own.

    Such a program's modules step aside for the import and come back after it. In any other program the networks'
    modules stay importable by their names, which saving a whole network with pickle needs.
    """
    theirs = {name: module for name, module in _loaded().items() if not _is_ours(module)}
    for other in theirs:
        del sys.modules[other]
    try:
        return importlib.import_module(name)
    finally:
        taken = {other.partition(".")[0] for other in theirs}
        for other in _loaded():
            if other.partition(".")[0] in taken:
                del sys.modules[other]
        sys.modules.update(theirs)


def _loaded() -> dict[str, types.ModuleType]:
    return {name: module for name, module in sys.modules.items() if name.partition(".")[0] in NAMES}


def _is_ours(module: types.ModuleType) -> bool:
    folder = pathlib.Path(__file__).resolve().parent
    # a folder without __init__.py is a package without a file
    place = getattr(module, "__file__", None) or next(iter(getattr(module, "__path__", ())), None)
    if place is None:
        return False
    path = pathlib.Path(place).resolve()
    return path.parent == folder or any(folder / name in path.parents for name in NAMES)


def _entry_point(models: types.ModuleType, name: str) -> collections.abc.Callable:
    """models.create(name, ...) with weights, and with the text that torch.hub.help() shows."""

    def entry_point(*arguments: object, weights: str | None = None, pretrained: str | None = None, **named: object):
        if pretrained is not None:
            weights = _file_of(name, pretrained, weights)
        if weights is None:
            return models.create(name, *arguments, **named)
        named |= dict(zip(signature.parameters, arguments))  # noqa: B905, there may be fewer
        return _own("engine.saved.weights").create_with(name, pathlib.Path(weights), named)

    signature = inspect.signature(functools.partial(models.create, name))
    extra = [
        inspect.Parameter(word, inspect.Parameter.KEYWORD_ONLY, default=None, annotation="str | None")
        for word in ("weights", "pretrained")
    ]
    *named, parts = signature.parameters.values()  # **parts is the last
    entry_point.__signature__ = signature.replace(parameters=[*named, *extra, parts])
    about_file = models.registry.entry(name).builder.__globals__["__doc__"]
    about_arguments = inspect.getdoc(models.create)
    entry_point.__doc__ = f"{name}{inspect.signature(entry_point)}\n\n{about_file}\n{about_arguments}\n{ABOUT_WEIGHTS}"
    return entry_point


def _file_of(name: str, pretrained: str, weights: str | None) -> str:
    """The file of weights/ for a network and a data set. Raises ValueError where there is none, or weights too."""
    if weights is not None:
        raise ValueError("weights and pretrained: each names a file; give one of them")
    folder = pathlib.Path(__file__).resolve().parent / "weights"
    path = folder / f"{name}-{pretrained}.safetensors"
    if not path.is_file():
        known = ", ".join(sorted(each.stem for each in folder.glob("*.safetensors"))) or "none at all"
        raise ValueError(f"pretrained {pretrained!r}: there is no {path}; there are {known}")
    return str(path)


def _entry_points() -> dict[str, collections.abc.Callable]:
    models = _own("models")

    def create(name: str, *arguments: object, **named: object):
        """A network by any name that models.create() takes, torchvision:NAME and timm:NAME too, with weights."""
        return _entry_point(models, name)(*arguments, **named)

    return {"create": create} | {name: _entry_point(models, name) for name in models.names()}


globals().update(_entry_points())
