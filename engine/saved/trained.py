"""Weights that are only used: what -test, -export and -predict take from a checkpoint, and all of them alike.

The checkpoint alone decides what its network sees (datasets.View); the data set that is found today gives images.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

import datasets
from conf import TOLD, UNTRAINED, Settings
from conf.resolve import chosen_row, saved_settings
from datasets.batches import EvaluationBatches
from datasets.loaders import evaluation_batches
from datasets.stream import decoders
from engine.device import Precision, choose_device, keep_freed_memory, to_device
from engine.saved import checkpoint
from engine.saved.bare import load_content
from engine.saved.places import Places
from engine.saved.weights import load_weights
from engine.tasks import TASKS, Task
from engine.views import how_made, streaming, task_name, view_of_content


@dataclass(frozen=True)
class Trained:
    """A network with the weights of a checkpoint, on its device and in eval mode. places: where its data may lie."""

    settings: Settings
    view: datasets.View
    task: Task
    network: nn.Module
    precision: Precision
    places: Places

    @property
    def layout(self) -> torch.memory_format:
        """The memory format of the images that the network is given."""
        return torch.channels_last if self.settings.channels_last else torch.contiguous_format

    def test_batches(self, downloads: bool = True) -> EvaluationBatches:
        """The test images of the settings' data set, as the network sees them; nothing of the training images is built.

        Raises ValueError as datasets.load_test does.
        """
        settings = self.places.find_data(self.settings)
        row = chosen_row(settings)
        if row.task != self.task.name:
            raise ValueError(f"-dataset {settings.dataset}: is for {row.task}, and the network for {self.task.name}")
        with self.places.told(settings):
            test = datasets.load_test(row, Path(settings.data), self.view, streaming(settings), downloads)
        return evaluation_batches(test, self.view, self.precision.device, decoders(settings.workers, 1), self.layout)


def load_trained(weights: Path, overrides: dict[str, object]) -> Trained:
    """The network of a run's checkpoint, or of weights alone.

    overrides: settings that do not change the network, or what weights alone are of (engine/saved/bare.py).
    Raises ValueError as load_content() does.
    """
    content = load_content(weights, overrides, free=("dataset",))
    overrides = {name: value for name, value in overrides.items() if name not in TOLD or name == "dataset"}
    settings = saved_settings(content["settings"], weights, UNTRAINED | overrides)
    trained_on = saved_settings(content["settings"], weights, {})
    view = view_of_content(trained_on, content)
    device = choose_device(settings.gpu)
    if device.type == "cpu":
        keep_freed_memory()
    made = how_made(settings, view)
    network = made.network()
    load_weights(network, checkpoint.network_weights(content), weights, made)
    return Trained(
        settings=settings,
        view=view,
        task=TASKS[task_name(trained_on, content)].make(settings, view),
        network=to_device(network, device, settings.channels_last).eval(),
        precision=Precision.choose(settings.amp, device),
        places=Places.of(weights.parent, content, overrides),
    )
