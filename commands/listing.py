"""What there is: -list, -version, -completion, the names in -h, and what a word without an option may have meant."""

from __future__ import annotations

import os
import platform
import re
import shutil
import sys
import textwrap

import torch

from conf import FIELDS, option
from conf.datasets import DATASETS, DatasetRow
from conf.resolve import FOLDER, read_recipe, recipe_names
from engine.processes.count import is_launched
from engine.shown.result import commit
from models.registry import entry, names
from utils import printable


def answer(asked: dict[str, object], parser) -> str:
    """What -list, -version or -completion prints. parser: of the command line.

    Raises ValueError where shtab is not installed, which makes the completion.
    """
    if "completion" in asked:
        return completion(parser, asked["completion"])
    return version() if "version" in asked else inventory()


def inventory() -> str:
    """A line, or as many as the terminal needs, for each network, data set and recipe."""
    described = {
        "networks (-net)": {name: entry(name).about for name in names()},
        "data sets (-dataset)": {row.name: about_data(row) for row in DATASETS.values()}
        | {"PATH": "a folder of train/CLASS/* and val/CLASS/* or test/CLASS/*, of CLASS/*, or a recorded drive"},
        "recipes (-recipe)": {name: about_recipe(name) for name in recipe_names()}
        | {"FILE.yaml": "a recipe of your own, or the settings.yaml of a run to repeat"},
    }
    return "\n\n".join(f"{title}\n{lines(each)}" for title, each in described.items())


def lines(described: dict[str, str]) -> str:
    """The names in one column, what they are in another."""
    columns, indent = shutil.get_terminal_size().columns, 20
    return "\n".join(
        textwrap.fill(text, max(columns - 1, 40), initial_indent=f"  {name:<18}", subsequent_indent=" " * indent)
        for name, text in described.items()
    )


def about_data(row: DatasetRow) -> str:
    kind = "classes" if row.task == "classification" else "steering angles"
    colours = "colour" if row.channels == 3 else "grey"
    source = "downloaded" if row.files else "comes with scikit-learn" if not row.folder else "yours to record"
    default = " (default)" if row.name == FIELDS["dataset"].default else ""
    return f"{row.size}x{row.size} {colours} images, {kind}; {source}; recipe {row.recipe}{default}"


def about_recipe(name: str) -> str:
    """The epochs of a recipe, and the first sentence of its file."""
    text = (FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    comment = " ".join(line[1:].strip() for line in text.split("\nepochs")[0].splitlines() if line.startswith("#"))
    return f"{read_recipe(name)['epochs']} epochs: {re.split(r'(?<=[.:]) ', comment)[0].rstrip('.:')}"


def version() -> str:
    return f"Reuse, commit {commit() or 'unknown'}; torch {torch.__version__}; Python {platform.python_version()}"


def completion(parser, shell: str) -> str:
    """A script for the shell that completes main.py's options, and the words that they take."""
    try:
        import shtab
    except ImportError:
        raise ValueError(f"-completion {shell}: needs a package; pip install shtab") from None
    words = {"net": names(), "dataset": list(DATASETS), "recipe": recipe_names()}
    for action in parser._actions:
        choices = FIELDS[action.dest].metadata["choices"] if action.dest in FIELDS else ()
        if action.dest in words or choices:
            action.choices = words.get(action.dest, choices)
    return shtab.complete(parser, shell)


def explain(word: str) -> str:
    """What a word that belongs to no option may have meant, in a line; empty where it is unlike anything."""
    for knob, known in (("net", names()), ("dataset", list(DATASETS)), ("recipe", recipe_names())):
        found = next((name for name in known if name.lower() == word.lower()), None)
        if found:
            start = "" if knob == "net" else "-net cheapV2 "
            kind = {"net": "network", "dataset": "data set"}.get(knob, knob)
            return f"{word}: a {kind}, given without its option; type python main.py {start}-{knob} {found}"
    if (name := word.replace("-", "_")) in FIELDS and name != "net":
        return f"{word}: an option, given without its dash; type {option(name)}"
    if word.endswith((".pth", ".safetensors")):
        return f"{word}: a file of weights, given without its option; type -weights {word}"
    return ""


def network_name(word: str) -> str:
    """The network of that name, in small or capital letters, which is said; another word as it is."""
    named = {name.lower(): name for name in names()}.get(word.lower(), word)
    if named != word and (not is_launched() or os.environ["RANK"] == "0"):
        print(f"-net {printable(word)}: taken as {named}", file=sys.stderr)
    return named
