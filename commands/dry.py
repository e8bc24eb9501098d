"""-dry: the settings of a new run, checked as far as they can be without its data set, and nothing else."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from conf import Settings
from conf.datasets import find_row
from engine import checkpoint
from engine.checks import check_run, check_sizes, prepare_network
from engine.device import Precision
from engine.distillation import load_teacher
from engine.folders import Folders
from engine.job import use_kernels
from engine.process_count import wanted_processes
from engine.weights import Made, check_fits, weights_in


def dry(settings: Settings) -> None:
    """Prints the settings. Raises ValueError where a run of them could not start; no run is begun."""
    check_new_run(settings)
    for name, value in dataclasses.asdict(settings).items():
        print(f"{name}: {value}")


def check_new_run(settings: Settings) -> None:
    """Device, places to write, a network that can be built, and weights that fit it. Raises ValueError for the first
    that is wrong.
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
    made = Made.of(settings, 1 if row.task == "regression" else 100, row.channels, side or 224)  # or any other size
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
        check_fits(own, {**state, **classifier}, path, made, advise=True)  # how many classes there are is not known yet
