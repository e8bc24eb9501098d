"""What a finished network makes of images; pictures of classes: the worst mistakes and the confusion matrix."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from sklearn.metrics import confusion_matrix
from torch import Tensor, nn

from datasets.batches import EvaluationBatches
from engine.device import Precision


@torch.inference_mode()
def predictions(network: nn.Module, batches: EvaluationBatches, precision: Precision, task) -> tuple[Tensor, Tensor]:
    """(what the task makes of the outputs, targets N) for all images of batches, on the CPU, in eval mode.

    For a classification that is probabilities, N x classes; for a regression angles, N.
    """
    network.eval()
    found, targets = [], []
    for images, batch_targets in batches:
        with precision.autocast():
            outputs = network(images)
        found.append(task.predictions(outputs).cpu())
        targets.append(batch_targets.cpu())
    return torch.cat(found), torch.cat(targets)


def confusion_figure(probabilities: Tensor, targets: Tensor, classes: tuple[str, ...]) -> Figure:
    """True class down, predicted class across, as shares of each true class; named where names fit."""
    shares = confusion_matrix(
        targets.numpy(), probabilities.argmax(1).numpy(), labels=range(len(classes)), normalize="true"
    )
    figure = Figure(figsize=(8, 8), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(shares, vmin=0, vmax=1, cmap="viridis")
    axes.set(xlabel="predicted", ylabel="true")
    if len(classes) <= 40:
        axes.set_xticks(range(len(classes)), classes, rotation=90)
        axes.set_yticks(range(len(classes)), classes)
    return figure


def mistakes_figure(
    images: Tensor, probabilities: Tensor, targets: Tensor, classes: tuple[str, ...], count: int = 16
) -> Figure:
    """The images that were given the least probability of their true class. images: uint8 N x C x H x W."""
    loss = F.nll_loss(probabilities.clamp_min(1e-12).log(), targets, reduction="none")
    worst = loss.argsort(descending=True)[:count]
    figure = Figure(figsize=(10, 11), layout="constrained")
    for place, number in enumerate(worst.tolist(), start=1):
        guess = int(probabilities[number].argmax())
        axes = figure.add_subplot(4, 4, place)
        axes.imshow(images[number].permute(1, 2, 0).squeeze(-1).numpy(), cmap="gray")
        axes.set_axis_off()
        title = f"{classes[targets[number]]}, taken for\n{classes[guess]} ({probabilities[number, guess]:.2f})"
        axes.set_title(title, fontsize=8)
    return figure
