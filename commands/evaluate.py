"""-test: the figures of finished weights on the test set of their data set."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn

from engine import loop
from engine.saved.trained import load_trained
from engine.shown.progress import watched
from models.summary import parameter_count


class WithMirrored(nn.Module):
    """A classifier that looks at each image and at its mirror image: flip test-time augmentation.

    N x C x H x W images -> N x classes logarithms of the mean of both images' probabilities. They are logits of that
    mean, so that whatever is measured of logits can be measured of them.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        both = (self.network(each).float().log_softmax(1) for each in (images, images.flip(3)))
        return torch.logaddexp(*both) - math.log(2)


def evaluate(weights: Path, overrides: dict[str, object], mirrored: bool = False) -> dict[str, float]:
    """Evaluates the weights of a checkpoint on the test set, prints the metrics and returns them.

    overrides: settings that do not change the network. mirrored: whether a line more has the metrics with test-time
    augmentation; they are returned as well, by "mirrored <key>".
    Raises ValueError as load_trained() and test_batches() do, and where a network of angles is to be mirrored.
    """
    trained = load_trained(weights, overrides)
    if mirrored and trained.task.name != "classification":
        raise ValueError("-tta true: is for classes; the mirror image of a road has another angle, leave it out")
    batches = trained.test_batches()
    metrics = loop.evaluate(trained.network, watched(batches, "test set"), trained.task, trained.precision)
    print(f"{trained.settings.net} on the {len(batches.index):,} test images of {trained.settings.dataset}")
    print(f"{trained.task.describe(metrics)}  {parameter_count(trained.network):,} parameters")
    if mirrored:
        shown = watched(batches, "test set and its mirror images")
        found = loop.evaluate(WithMirrored(trained.network), shown, trained.task, trained.precision)
        print(f"mean of each image's probabilities and its mirror image's: {trained.task.describe(found)}")
        metrics |= {f"mirrored {key}": value for key, value in found.items()}
    return metrics
