"""The one table of what a run's checkpoint holds: every key, its type and its meaning.

On disk a checkpoint is a plain dict of these keys, with tensors and plain values only (engine/checkpoint.py).
"""

from __future__ import annotations

import typing
from pathlib import Path
from typing import TypedDict


class TrainedContent(TypedDict):
    """What -test, -predict and -export need of a checkpoint."""

    network: dict  # state dict of the network that is trained, without the prefix of a wrapper
    settings: dict  # conf.Settings by name
    classes: list  # names, in the order of the network's outputs
    mean: list  # of the training images, a number for each channel, pixels in 0..1
    std: list  # likewise
    image_size: int  # side in pixels
    in_channels: int


class LaterContent(TypedDict, total=False):
    """Keys that checkpoints of older versions lack."""

    revision: int  # of the network's function (models/registry.py); 1 where it is missing
    task: str  # "classification" or "regression"
    degrees: float  # the angle in degrees that a target of 1 stands for (regression)
    target_mean: float  # of the training images (regression)
    fingerprint: dict  # of the data (datasets/fingerprint.py)
    working_folder: str  # that of the process, from which relative paths in the settings are meant


class StateContent(TypedDict):
    """What changes while a network trains: written and read by engine/state.py."""

    network: dict  # as in TrainedContent
    averaged: dict | None  # state dict of the averaged network; None where weights are not averaged
    averaged_steps: int  # how often it was averaged
    optimizer: dict  # state dict
    schedule: dict  # {"last_epoch": steps of the schedule so far}
    scaler: dict  # state dict of the loss scaling for fp16; empty for other types
    epoch: int  # finished epochs
    batch: int  # finished batches of the current epoch
    step: int  # optimizer steps since the start
    sums: list  # sums of the current epoch's training metrics so far (engine/tasks.py)
    loss: float  # training loss of the last step
    rate: float  # learning rate of the last step
    history: list  # a dict of figures for each finished epoch, as metrics.csv has them
    best: dict  # {"score", "epoch"} of the best epoch so far; empty before the first
    seconds: float  # spent in training so far


class RunContent(TrainedContent, StateContent, LaterContent):
    """A whole checkpoint of a run, from which it can go on."""

    steps_per_epoch: int


def check(content: dict, keys: type, path: Path) -> None:
    """Raises ValueError that names the key where content lacks one of `keys`, a class above, or has another type."""
    for key, hint in typing.get_type_hints(keys).items():
        if key not in content:
            if key in keys.__required_keys__:
                raise ValueError(f"{path}: holds no {key!r}; it was made by another version of this project")
            continue
        kinds = typing.get_args(hint) or (hint,)
        if not isinstance(content[key], (*kinds, int) if float in kinds else kinds):
            raise ValueError(f"{path}: its {key!r} is a {type(content[key]).__name__}; take another checkpoint")
