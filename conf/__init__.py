"""The settings of a run, and what is known of each knob by its name.

A run takes the defaults of conf/settings/, then the values of a recipe (conf/recipes/*.yaml), then those of the
command line. Nothing in conf/ imports torch.
"""

from __future__ import annotations

import dataclasses
import typing

from conf import knobs
from conf.knobs import MISSING
from conf.settings import PARTS, Settings

FIELDS = {f.name: f for f in dataclasses.fields(Settings)}
_TYPES = typing.get_type_hints(Settings)
# What replaces the settings that weights were trained with where they are only used, by name.
UNTRAINED = {name: f.metadata["untrained"] for name, f in FIELDS.items() if f.metadata["untrained"] is not MISSING}

# The knobs that say of which network weights without a run are, whose data set's classes they are for, in which order,
# and how images were cut for them.
TOLD = ("net", "dataset", "width", "size", "natural_order", "random_resized_crop", "reuse", *PARTS)


def replaceable(training: bool) -> list[str]:
    """The knobs that a command line may give anew for a run's checkpoint: what was trained does not depend on them.

    training: True where the run goes on, False where its weights are only used.
    """
    return [
        name
        for name, f in FIELDS.items()
        if f.metadata["changes"] != "result"
        and not f.metadata["kept"]
        and (training or name not in UNTRAINED or f.metadata["given"])
    ]


def option(name: str) -> str:
    """The command line's word for a field: batch_size -> -b, weight_decay -> -weight-decay."""
    return knobs.option(FIELDS[name])


def value_type(name: str) -> type:
    """The type of one value of a field: float for tuple[float, ...] and for float | None."""
    return knobs.value_type(_TYPES[name])


def is_list(name: str) -> bool:
    """Whether a field holds several values."""
    return knobs.is_list(_TYPES[name])


def convert(name: str, value: object) -> object:
    """value as the field's type, checked against its bounds. Raises ValueError that names option and bounds."""
    return knobs.convert(FIELDS[name], _TYPES[name], value)
