"""-dry: the settings of a new run, checked as far as they can be without its data set, and nothing else."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from conf import Settings
from conf.datasets import find_row
from datasets import View
from engine.checks import check_run, check_sizes, prepare_network
from engine.device import Precision
from engine.distillation import load_teacher
from engine.job import matched, use_kernels
from engine.processes.count import wanted_processes
from engine.saved import checkpoint
from engine.saved.folders import Folders
from engine.saved.weights import check_fits, weights_in
from engine.views import how_made


def dry(settings: Settings) -> None:
    """Prints the settings. Raises ValueError where a run of them could not start; no run is begun."""
    shown = dataclasses.asdict(check_new_run(settings))
    if settings.match and not find_row(settings.dataset).classes:
        shown["width"] = "found by -match, once the images are read"
    for name, value in shown.items():
        print(f"{name}: {value}")


def check_new_run(settings: Settings) -> Settings:
    """Device, places to write, a network that can be built, and weights that fit it. Raises ValueError for the first
    that is wrong.

    Returns the settings, with the width that -match finds for a data set whose images and classes are known by name.
    """
    row = find_row(settings.dataset)
    device = check_run(settings, row, wanted_processes(settings.procs, settings.gpu, settings.batch_size))
    for name in ("out", "data"):
        place = Path(getattr(settings, name))
        if place.exists() and not place.is_dir():
            raise ValueError(f"-{name} {place}: not a folder")
    Folders.new(settings)
    if settings.distill:
        load_teacher(settings)
    weights = checkpoint.load(Path(settings.weights)) if settings.weights else None
    side = settings.size or row.size
    classes = tuple(map(str, range(row.classes or 100)))  # or any other number and size
    mean = (0.5,) * row.channels
    view = View(mean, mean, side or 224, row.channels, classes, file_side=side or 224)
    if row.classes:
        settings = matched(settings, view)
    made = how_made(settings, view)
    network = made.network()
    prepare_network(network, settings)
    if side:
        check_sizes(network, made, settings)
    if settings.kernels:
        use_kernels(network, settings, Precision.choose(settings.amp, device))
    if weights is not None and side:
        path, own = Path(settings.weights), network.state_dict()
        state = weights_in(weights, own, path)
        classifier = {key: own[key] for key in made.classifier() if key in state}
        check_fits(own, {**state, **classifier}, path, made, advise=True)  # a run may have other classes
    return settings
