"""What a network sees of its data, as datasets.View: read off a data set, or from a checkpoint that holds it."""

from __future__ import annotations

import datasets
from conf import Settings
from conf.datasets import DATASETS
from datasets.stream import decoders
from engine.saved.schema import RunContent
from engine.saved.weights import Made


def task_name(settings: Settings, content: RunContent) -> str:
    """The task of a checkpoint; older ones do not hold it, but their data set has it, where it is no folder."""
    row = DATASETS.get(settings.dataset)
    return content.get("task") or ("classification" if row is None else row.task)


def how_made(settings: Settings, view: datasets.View) -> Made:
    """How the network of the settings is made for what the view shows it."""
    return Made.of(settings, len(view.classes), view.channels, view.side)


def streaming(settings: Settings, processes: int = 1) -> datasets.Streaming:
    """When a folder of images streams, and how, in one of the processes that train on this machine."""
    workers = decoders(settings.workers, processes)
    return datasets.Streaming(round(settings.memory * 1e9), workers, settings.random_resized_crop)


def view_of_data(settings: Settings, data: datasets.Dataset) -> datasets.View:
    """The view of a network that is trained on the data with these settings."""
    _, channels, side, _ = data.train.images.shape
    return datasets.View(
        **_figures(settings, side),
        mean=data.mean,
        std=data.std,
        channels=channels,
        classes=data.classes,
        degrees=data.row.degrees,
        target_mean=data.train.targets.double().mean().item() if data.row.task == "regression" else 0.0,
    )


def view_of_content(settings: Settings, content: RunContent) -> datasets.View:
    """The view that a checkpoint holds. settings: those that it was trained with."""
    names = ("degrees", "target_mean")  # older checkpoints lack them
    return datasets.View(
        **_figures(settings, content["image_size"]),
        mean=tuple(content["mean"]),
        std=tuple(content["std"]),
        channels=content["in_channels"],
        classes=tuple(content["classes"]),
        **{name: content[name] for name in names if name in content},
    )


def _figures(settings: Settings, side: int) -> dict[str, object]:
    """How images in files are cut: those of a published data set are first brought to the size it is published in."""
    row = DATASETS.get(settings.dataset)
    published = row is not None and bool(row.files)
    return {
        "side": side,
        "file_side": row.size if published else side,
        "middle": settings.random_resized_crop > 0,
    }


def to_content(view: datasets.View) -> dict[str, object]:
    """The view as a checkpoint holds it."""
    return {
        "classes": list(view.classes),
        "degrees": view.degrees,
        "mean": list(view.mean),
        "std": list(view.std),
        "target_mean": view.target_mean,
        "image_size": view.side,
        "in_channels": view.channels,
    }
