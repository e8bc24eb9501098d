"""Weights without the run that trained them: what a checkpoint would say beside them, the command line says.

Their classes, mean, standard deviation and image size are taken from the data set that it names.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import datasets
from conf import TOLD, UNTRAINED, Settings, option
from conf.resolve import chosen_row
from conf.resolve import settings as resolve
from engine.saved import checkpoint
from engine.saved.schema import LaterContent, TrainedContent
from engine.saved.state_dicts import find_weights
from engine.saved.weights import check_fits
from engine.views import how_made, streaming, to_content, view_of_data


class LoadedContent(TrainedContent, LaterContent):
    """What is known of weights that are only used."""


def load_content(path: Path, given: dict[str, object], free: tuple[str, ...] = ()) -> LoadedContent:
    """The content of a run's checkpoint, or of a file of weights, as if a run had trained them.

    given  the settings of the command line. For a run's checkpoint none of conf.TOLD may be among them, but for those
           of `free`; for weights alone -net and -dataset must be.
    Raises ValueError for a file that cannot be read, or whose weights are not the network's.
    """
    content = checkpoint.load(path)
    if checkpoint.is_run(content):
        checkpoint.check_run(content, TrainedContent, path)
        for name in TOLD:
            if name in given and name not in free:
                raise ValueError(f"{option(name)}: {path} is of a run and says it itself; leave {option(name)} out")
        return content
    if not {"net", "dataset"} <= set(given):
        raise ValueError(
            f"{path}: holds weights only; say with -net NAME and -dataset D what network they are of, and whose "
            "classes and normalisation they were trained with"
        )
    return _told(content, path, resolve(UNTRAINED | given))


def _told(content: dict, path: Path, settings: Settings) -> LoadedContent:
    """What a run with these settings would have saved beside the weights in content."""
    row = chosen_row(settings)
    data = datasets.load(row, Path(settings.data), settings.size or None, streaming(settings))
    view = view_of_data(settings, data)
    made = how_made(settings, view)
    own = made.without_values()
    state = find_weights(content, own, path)
    check_fits(own, state, path, made, advise=True)
    return {
        "network": state,
        "settings": dataclasses.asdict(settings) | {"ema": 0.0},
        "task": row.task,
        **to_content(view),
    }
