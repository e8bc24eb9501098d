"""A knob: one field of Settings, with its unit, its bounds, its place on the command line, and what it changes."""

from __future__ import annotations

import dataclasses
import math
import typing
from types import UnionType

MISSING = dataclasses.MISSING
RECIPE_GROUPS = ("training", "augmentation")
MANY = 100_000  # the most of what is counted: epochs, steps, images of a step, minutes, gigabytes
# What the knobs of a group change, unless they say otherwise.
CHANGES = {"network": "result", "machine": "machine"} | dict.fromkeys(RECIPE_GROUPS, "result")


def knob(
    help: str,
    *,
    default: object = MISSING,
    group: str,
    changes: str = "",
    kept: bool = False,
    untrained: object = MISSING,
    given: bool = False,
    short: str = "",
    switch: str = "",
    low: float = 0,
    high: float = MANY,
    choices: tuple[str, ...] = (),
):
    """A field of Settings.

    help       one line for -h, with the unit
    group      where -h lists it; the knobs of RECIPE_GROUPS may stand in a recipe
    changes    what another value changes: "result" (what is trained), "machine" (how it is computed, and not what) or
               "output" (what is written or printed); by default what CHANGES has for the group
    kept       a run keeps its value to its end, although another value would not change the result
    untrained  the value for weights that are only used (-test, -export), whatever they were trained with
    given      whether a command that only uses weights may be given another value than `untrained`
    short      the original's short option, where it had one
    switch     the word of `choices` that true and the option alone stand for, where false stands for the default
    low, high  the smallest and the largest number allowed; every number has both, so that none can exhaust the machine
    """
    changes = changes or CHANGES[group]
    assert changes in ("result", "machine", "output"), changes
    meaning = dict(help=help, group=group, changes=changes, kept=kept, untrained=untrained, given=given)
    form = dict(short=short, low=low, high=high, choices=choices, switch=switch)
    return dataclasses.field(default=default, metadata=meaning | form)


def option(field: dataclasses.Field) -> str:
    """The command line's word for a field: batch_size -> -b, weight_decay -> -weight-decay."""
    return "-" + (field.metadata["short"] or field.name.replace("_", "-"))


def value_type(annotation: object) -> type:
    """The type of one value: float for tuple[float, ...], for float | None, and for tuple[float, ...] | None."""
    while typing.get_args(annotation):
        annotation = typing.get_args(annotation)[0]
    return annotation


def is_list(annotation: object) -> bool:
    if isinstance(annotation, UnionType):
        annotation = typing.get_args(annotation)[0]
    return typing.get_origin(annotation) is tuple


def convert(field: dataclasses.Field, annotation: object, value: object) -> object:
    """value as the annotation has it, checked against the field's bounds.

    Raises ValueError that names the option and what is allowed.
    """
    if value is None and isinstance(annotation, UnionType):
        return None
    if not is_list(annotation):
        return _convert_one(field, value_type(annotation), value)
    if not isinstance(value, list | tuple):
        raise ValueError(f"{option(field)} {show(value)}: must be a list of numbers, for example [60, 120]")
    if any("," in item for item in value if type(item) is str):
        apart = " ".join(str(item).replace(",", " ") for item in value).split()
        raise ValueError(f"{option(field)} {show(value)}: give {option(field)} {show(apart)}, without commas")
    return tuple(_convert_one(field, value_type(annotation), item) for item in value)


def show(value: object) -> str:
    """A value as a message shows it, shortened where it is long."""
    try:
        text = " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
    except ValueError:  # Python writes no number of more than 4,300 digits
        return "with thousands of digits"
    return text if len(text) <= 60 else text[:57] + "..."


_EXPECTED = {bool: "true or false", int: "a whole number", float: "a number", str: "a word"}


def _convert_one(field: dataclasses.Field, wanted: type, value: object) -> object:
    limits = field.metadata
    if wanted in (int, float):
        value = _as_number(wanted, value)
    if limits["switch"] and type(value) is bool:
        value = limits["switch"] if value else field.default
    given = f"{option(field)} {show(value)}"
    if type(value) is not wanted:
        raise ValueError(f"{given}: must be {_EXPECTED[wanted]}")
    if wanted is float and not math.isfinite(value):
        raise ValueError(f"{given}: must be a finite number")
    if limits["choices"] and value not in limits["choices"]:
        raise ValueError(f"{given}: must be one of {', '.join(limits['choices'])}")
    if wanted in (int, float) and value < limits["low"]:
        raise ValueError(f"{given}: must be at least {limits['low']}")
    if wanted in (int, float) and value > limits["high"]:
        raise ValueError(f"{given}: must be at most {limits['high']}")
    return value


def _as_number(wanted: type, value: object) -> object:
    """The number that a word stands for, of the command line or in quotes; other values as they are."""
    if type(value) is not str and not (wanted is float and type(value) is int):
        return value
    try:
        return wanted(value)
    except ValueError:
        return value
    except OverflowError:  # a whole number of hundreds of digits
        return math.inf
