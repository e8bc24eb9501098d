"""Makes Settings: from a recipe and the command line, or from what a checkpoint has saved."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from conf import FIELDS, Settings, convert, option
from conf.combinations import check_combinations
from conf.datasets import DatasetRow, find_row
from conf.knobs import MISSING, RECIPE_GROUPS, show
from conf.yaml_file import read_mapping
from utils import nearest

FOLDER = Path(__file__).parent / "recipes"
SETTINGS = "settings.yaml"  # in the folder of a run's checkpoints
KEYS = [name for name, f in FIELDS.items() if f.metadata["group"] in RECIPE_GROUPS]
# The knobs that tell runs apart: all that change what is trained, except the seed.
KNOBS = [name for name, f in FIELDS.items() if f.metadata["changes"] == "result" and name != "seed"]
WHICH = (
    "-net: which network? for a first run: python main.py -net cheapV2 -dataset digits "
    "(-list names networks, data sets and recipes; -h lists the options)"
)

# Networks that take another recipe than the data set's row has: (network, data set) -> recipe.
# The digit networks keep the recipes they were published with.
NETWORK_RECIPES: dict[tuple[str, str], str] = {
    (net, dataset): recipe
    for net in ("EffNet_digits", "digits_baseline")
    for dataset, recipe in (("mnist", net), ("fashion-mnist", net), ("digits", "port_digits"))
}


def recipe_names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def read_recipe(name: str) -> dict[str, object]:
    """The knobs of a recipe by its name or path. Raises ValueError where it is missing or cannot be used."""
    path = Path(name) if name.endswith((".yaml", ".yml")) else FOLDER / f"{name}.yaml"
    if not os.path.exists(path):
        near = nearest(name, recipe_names())
        raise ValueError(f"-recipe {show(name)}: no such recipe; did you mean {near}? (or a .yaml file)")
    try:
        values = read_mapping(path)
    except ValueError as error:
        raise ValueError(f"recipe {path}: {error}") from None
    for key, value in values.items():
        if key not in KEYS:
            word = show(key)
            raise ValueError(f"recipe {path}: unknown knob {word!r}; did you mean {nearest(word, KEYS)}?")
        try:
            convert(key, value)
        except ValueError as error:
            raise ValueError(f"recipe {path}: {str(error).replace(option(key), key, 1)}") from None
    return values


def settings(given: dict[str, object]) -> Settings:
    """The effective settings of a command line: with_recipe() of the recipe that it names, or of its data set's.

    Raises ValueError for a knob that is unknown, missing, out of bounds, of no use to the data set, or without effect.
    """
    name = str(given.get("recipe", ""))
    if Path(name).name == SETTINGS:
        chosen = repeated(Path(name), given)
        row = find_row(chosen.dataset)
    else:
        if "net" not in given:
            raise ValueError(WHICH)
        dataset = str(given.get("dataset", "cifar100"))
        row = find_row(dataset)
        chosen = with_recipe(name or NETWORK_RECIPES.get((str(given.get("net")), dataset), row.recipe), given)
    reject_unused_settings(chosen, row)
    check_combinations(chosen, given, row)
    return chosen


def repeated(path: Path, given: dict[str, object]) -> Settings:
    """The settings of a run by its settings.yaml, then what is given; where it wrote, and under what name, is left out.

    Raises ValueError where the file cannot be read, or as saved_settings() does.
    """
    try:
        values = read_mapping(path)
    except ValueError as error:
        raise ValueError(f"-recipe {show(path)}: {error}") from None
    return saved_settings(values, path, {"name": "", "out": "."} | {k: v for k, v in given.items() if k != "recipe"})


def with_recipe(name: str, given: dict[str, object]) -> Settings:
    """The defaults, then the recipe of that name or path, then what is given.

    With epochs given, the recipe's warm-up and milestones keep their share of the whole; a warm-up that is given is
    taken as it is.
    Raises ValueError for a knob that is unknown, missing or out of bounds.
    """
    recipe = read_recipe(name)
    share = 1.0
    if "epochs" in given and "epochs" in recipe:
        share = convert("epochs", given["epochs"]) / convert("epochs", recipe["epochs"])
        recipe["warm"] = convert("warm", recipe.get("warm", 0.0)) * share
        recipe["milestones"] = [m * share for m in convert("milestones", recipe.get("milestones", []))]
    if "warm" in given or share >= 1:
        recipe["least_warm_steps"] = 0  # the floor is for a warm-up that -epochs has shortened
    values = {**recipe, **given, "recipe": name}
    missing = [key for key in KEYS if FIELDS[key].default is MISSING and key not in values]
    if missing:
        raise ValueError(
            f"recipe {name}: says nothing of {', '.join(missing)}; add a line, or give {option(missing[0])}"
        )
    return Settings(**values)


def changes(knobs: dict[str, object]) -> dict[str, object]:
    """Of these KNOBS by name, those that differ from what the recipe has for the network and as many epochs.

    Where the recipe is gone, all that differ from the defaults.
    """
    try:
        plain = with_recipe(str(knobs["recipe"]), {name: knobs[name] for name in ("net", "epochs")})
        expected = {name: getattr(plain, name) for name in KNOBS}
    except ValueError:
        expected = {name: FIELDS[name].default for name in KNOBS}
    told = ("net", "dataset", "recipe", "epochs")
    return {name: value for name, value in knobs.items() if name not in told and value != expected[name]}


def chosen_row(settings: Settings) -> DatasetRow:
    """The row of the settings' data set, with their choices for a folder of images. Raises ValueError as find_row."""
    row = find_row(settings.dataset)
    choices = ("natural_order", "skip_broken", "val", "seed")
    return dataclasses.replace(row, **{name: getattr(settings, name) for name in choices})


def reject_unused_settings(settings: Settings, row: DatasetRow) -> None:
    """Raises ValueError for a knob that has no use in the data set of row, unless it has its default."""
    for name in row.unused_settings:
        value, default = getattr(settings, name), FIELDS[name].default
        if value != default:
            given = f"{option(name)} {value:g}"
            raise ValueError(f"{given}: not for -dataset {settings.dataset}; give {option(name)} {default:g}")
    for name in ("label_smoothing", "mixup", "cutmix"):
        if row.task == "regression" and getattr(settings, name):
            given, value = option(name), getattr(settings, name)
            raise ValueError(f"{given} {value:g}: {settings.dataset} has no labels; give {given} 0")
    if row.task == "regression" and settings.distill:
        raise ValueError(f"-distill {show(settings.distill)}: {settings.dataset} has no labels; leave it out")


def saved_settings(values: dict[str, object], path: Path, overrides: dict[str, object]) -> Settings:
    """The settings saved in the checkpoint at path, replaced by overrides; knobs newer than it have their defaults.

    A -gpu true that is saved demanded CUDA of the machine that it was given on, and demands nothing of this one.
    Raises ValueError for knobs that are unknown, missing or out of bounds.
    """
    unknown = [key for key in values if key not in FIELDS]
    if unknown:
        raise ValueError(f"{path}: unknown setting {unknown[0]!r}; it was made by another version of this project")
    try:
        demand = {"gpu": None} if values.get("gpu") is True else {}
        return Settings(**{**values, **demand, **overrides})
    except TypeError as error:
        raise ValueError(f"{path}: made by another version of this project ({error})") from None
