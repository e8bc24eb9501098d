"""The one table of what a run's checkpoint holds: every key, its type, its bounds and its meaning.

On disk a checkpoint is a plain dict of these keys, with tensors and plain values only (checkpoint.py). Every
reading compares it with the table to its innermost values (check), and its numbers with each other (check_agreement).
Whether its tensors are those of the network: agreement.py.
"""

from __future__ import annotations

import sys
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, TypedDict

import torch
from torch import Tensor

ANGLE = "angle"  # the name in the place of the classes' where the task is a regression
EXACT = 2**53  # up to here every whole number is a float too


@dataclass(frozen=True)
class Within:
    """The bounds of a number, both allowed. They leave out infinity and what is not a number."""

    low: float
    high: float = sys.float_info.max


Count = Annotated[int, Within(0, EXACT)]
Finite = Annotated[float, Within(-sys.float_info.max)]
Positive = Annotated[float, Within(sys.float_info.min)]
NotNegative = Annotated[float, Within(0)]
Weights = dict[str, Tensor]
Setting = bool | Annotated[int, Within(-EXACT, EXACT)] | float | str | None | list[float] | tuple[float, ...]


class TrainedContent(TypedDict):
    """What -test, -predict and -export need of a checkpoint."""

    network: Weights  # state dict of the network that is trained, without the prefix of a wrapper
    settings: dict[str, Setting]  # conf.Settings by name; conf checks the values
    classes: list[str]  # names, in the order of the network's outputs
    mean: list[Annotated[float, Within(0, 1)]]  # of the training images, a number for each channel, pixels in 0..1
    std: list[Annotated[float, Within(sys.float_info.min, 1)]]  # likewise
    image_size: Annotated[int, Within(1, 4096)]  # side in pixels
    in_channels: Literal[1, 3]


class LaterContent(TypedDict, total=False):
    """Keys that checkpoints of older versions lack."""

    revision: Count  # of the network's function (models/registry.py); 1 where it is missing
    task: Literal["classification", "regression"]
    degrees: Positive  # the angle in degrees that a target of 1 stands for (regression)
    target_mean: float  # of the training images (regression)
    fingerprint: dict[str, str | int]  # of the data (datasets/fingerprint.py)
    working_folder: str  # that of the process, from which relative paths in the settings are meant


class OptimizerContent(TypedDict):
    """torch's state dict of an optimizer."""

    state: dict[int, dict[str, Tensor]]  # by the number of the parameter
    param_groups: list[dict[str, object]]  # engine/saved/agreement.py compares them with the settings'


class ScheduleContent(TypedDict):
    last_epoch: Count  # steps of the schedule so far


class ScalerContent(TypedDict, total=False):
    """State dict of the loss scaling for fp16; empty for other types."""

    scale: Positive
    growth_factor: Positive
    backoff_factor: Positive
    growth_interval: Count
    _growth_tracker: Count


class Best(TypedDict, total=False):
    """The best epoch so far; empty before the first."""

    score: float  # infinite where no epoch had a score
    epoch: Annotated[int, Within(1, EXACT)]


class StateContent(TypedDict):
    """What changes while a network trains: written and read by engine/state.py."""

    network: Weights  # as in TrainedContent
    averaged: Weights | None  # state dict of the averaged network; None where weights are not averaged
    averaged_steps: Count  # how often it was averaged
    optimizer: OptimizerContent
    schedule: ScheduleContent
    scaler: ScalerContent
    epoch: Count  # finished epochs
    batch: Count  # finished batches of the current epoch
    step: Count  # optimizer steps since the start
    sums: list[Finite]  # sums of the current epoch's training metrics so far (engine/tasks.py)
    loss: Finite  # training loss of the last step
    rate: NotNegative  # learning rate of the last step
    history: list[dict[str, float]]  # the figures of each finished epoch, as metrics.csv has them
    best: Best
    seconds: NotNegative  # spent in training so far


class RunContent(TrainedContent, StateContent, LaterContent):
    """A whole checkpoint of a run, from which it can go on."""

    steps_per_epoch: Annotated[int, Within(1, EXACT)]


def check(content: dict, keys: type, path: Path) -> None:
    """Raises ValueError that names the place where content lacks a required key of `keys`, a class above, or where
    any key of RunContent that it has holds something else than the table says. Other keys are left alone."""
    for key in typing.get_type_hints(keys):
        if key == "optimizer" and key not in content:
            raise ValueError(f"{path}: holds no optimizer's state, as a run needs that goes on; give last.pth")
        if key in keys.__required_keys__ and key not in content:
            raise ValueError(f"{path}: holds no {key!r}; it was made by another version of this project")
    for key, hint in typing.get_type_hints(RunContent, include_extras=True).items():
        if key in content and (fault := next(_faults(content[key], hint, repr(key)), None)):
            raise ValueError(f"{path}: its {fault}; take another checkpoint")


def _faults(value: object, hint: object, place: str) -> Iterator[str]:
    """What in a value, and in what it holds, is not of a type hint."""
    kind, inner = typing.get_origin(hint), typing.get_args(hint)
    if kind is Annotated:
        yield from _faults(value, inner[0], place)
        if not inner[1].low <= value <= inner[1].high:
            yield f"{place} is not from {inner[1].low:g} to {inner[1].high:g}"
    elif kind in (types.UnionType, typing.Union):
        faults = [next(_faults(value, each, place), None) for each in inner]
        if None not in faults:
            yield faults[0]
    elif kind is Literal:
        if not any(type(value) is type(each) and value == each for each in inner):
            yield f"{place} is none of {', '.join(map(repr, inner))}"
    elif hint is not object and not _is_instance(value, kind or hint):
        yield f"{place} is {_describe(value)}"
    elif typing.is_typeddict(hint):
        for key, each in typing.get_type_hints(hint, include_extras=True).items():
            if key in value:
                yield from _faults(value[key], each, f"{place}[{key!r}]")
            elif key in hint.__required_keys__:
                yield f"{place} holds no {key!r}"
    elif kind is dict:
        for key, each in value.items():
            if type(key) is not inner[0]:
                yield f"{place} has a {type(key).__name__} among its keys"
            else:
                yield from _faults(each, inner[1], f"{place}[{_short(key)}]")
    elif kind in (list, tuple):
        for number, each in enumerate(value):
            yield from _faults(each, inner[0], f"{place}[{number}]")


def _is_instance(value: object, kind: type) -> bool:
    """isinstance, but True is no number, a whole number is a float too, and a tensor has its values in memory."""
    if kind is Tensor:
        return isinstance(value, Tensor) and value.layout is torch.strided and value.device.type == "cpu"
    if kind is float and type(value) is int:
        return abs(value) <= EXACT
    if kind is dict or typing.is_typeddict(kind):
        return isinstance(value, dict)
    return type(value) is kind


def _describe(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of {value.layout} on {value.device.type}"
    return "None" if value is None else f"a {type(value).__name__}"


def _short(key: object) -> str:
    """A key as a message shows it: escaped, and cut where it is long."""
    text = ascii(key)
    return text if len(text) <= 60 else f"{text[:57]}..."


def check_agreement(content: RunContent, keys: type, path: Path) -> None:
    """Raises ValueError for the first of content's values that contradicts another. check() has passed it for `keys`.

    Of a checkpoint that is not to go on, only what TrainedContent holds, and the averaged weights, are compared.
    """
    contradictions = [_contradictions(content)]
    if keys is RunContent:
        contradictions.append(_contradictions_of_state(content))
    for each in contradictions:
        if fault := next(each, None):
            raise ValueError(f"{path}: {fault}; take another checkpoint")


def _contradictions(content: TrainedContent) -> Iterator[str]:
    channels, settings = content["in_channels"], content["settings"]
    for key in ("mean", "std"):
        if len(content[key]) != channels:
            yield f"its {key!r} has {len(content[key])} numbers for images of {channels} channels"
    if settings.get("size") and settings["size"] != content["image_size"]:
        yield f"its 'image_size' is {content['image_size']}, and its settings say -size {settings['size']}"
    if any("\0" in value for value in settings.values() if isinstance(value, str)):
        yield "its 'settings' have a word with a zero byte"
    if "task" in content and (content["task"] == "regression") != (content["classes"] == [ANGLE]):
        yield f"its 'task' is {content['task']} for {len(content['classes'])} classes"
    if bool(settings.get("ema")) != (content.get("averaged") is not None):
        yield "its 'averaged' and the setting 'ema' contradict each other"


def _contradictions_of_state(content: RunContent) -> Iterator[str]:
    epoch, batch, step = content["epoch"], content["batch"], content["step"]
    history, best = content["history"], content["best"]
    if content["schedule"]["last_epoch"] != step:
        yield f"its 'schedule' is at step {content['schedule']['last_epoch']}, and its 'step' is {step}"
    if content["averaged_steps"] != (0 if content["averaged"] is None else step):
        yield f"its 'averaged_steps' is {content['averaged_steps']}, and its 'step' is {step}"
    if bool(content["sums"]) != bool(batch):
        yield f"its 'sums' has {len(content['sums'])} numbers after {batch} batches"
    if [row.get("epoch") for row in history] != list(range(1, epoch + 1)):
        yield f"its 'history' is not of the epochs 1 to {epoch}"
    elif any(row.keys() != history[0].keys() for row in history):
        yield "its 'history' has other columns in some epochs than in the first"
    if (set(best) != {"score", "epoch"} or best["epoch"] > epoch) if epoch else best:
        yield "its 'best' is not one of the finished epochs"
    elif best and best["score"] != best["score"]:
        yield "its 'best' has a score that is not a number"
    if history and not history[-1].get("seconds", -1.0) <= content["seconds"]:
        yield "its 'seconds' are fewer than after its last epoch"
