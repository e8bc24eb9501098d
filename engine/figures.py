"""Pictures at the end of a run: the mistakes and the confusion matrix of classes; predicted angles and true ones."""

from __future__ import annotations

import itertools
import math

import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from sklearn.metrics import confusion_matrix
from torch import Tensor

from utils import printable

# Where the ranges of the true angle begin and end, as shares of the largest angle: narrow where most angles are.
RANGE_EDGES = (-1.0, -0.6, -0.3, -0.1, -0.02, 0.02, 0.1, 0.3, 0.6, 1.0)
TRUE_COLOUR, PREDICTED_COLOUR = "tab:green", "tab:red"


def label(name: str) -> str:
    """A class's name as matplotlib takes it: on one line, not too long, and a $ is no formula's beginning."""
    return printable(name, longest=40).replace("$", r"\$")


def confusion_figure(probabilities: Tensor, targets: Tensor, classes: tuple[str, ...]) -> Figure:
    """The confusion matrix: rows are true classes, columns predicted ones, values shares of the true class.

    probabilities: N x classes. targets: N class numbers. Up to 40 classes are named on the axes.
    """
    shares = confusion_matrix(
        targets.numpy(), probabilities.argmax(1).numpy(), labels=range(len(classes)), normalize="true"
    )
    figure = Figure(figsize=(8, 8), layout="constrained")
    axes = figure.add_subplot()
    axes.imshow(shares, vmin=0, vmax=1, cmap="viridis")
    axes.set(xlabel="predicted", ylabel="true")
    if len(classes) <= 40:
        names = [label(name) for name in classes]
        axes.set_xticks(range(len(classes)), names, rotation=90)
        axes.set_yticks(range(len(classes)), names)
    return figure


def mistakes_figure(
    images: Tensor, probabilities: Tensor, targets: Tensor, classes: tuple[str, ...], count: int = 16
) -> Figure:
    """The images that the network took for another class, at most `count` (up to 16): the least probability of their
    true class first.

    images: uint8 N x C x H x W. probabilities: N x classes. targets: N class numbers.
    """
    loss = F.nll_loss(probabilities.clamp_min(1e-12).log(), targets, reduction="none")
    wrong = probabilities.argmax(1) != targets
    worst = loss.masked_fill(~wrong, -1.0).argsort(descending=True)[: min(count, int(wrong.sum()))]
    figure = Figure(figsize=(10, 11), layout="constrained")
    for place, number in enumerate(worst.tolist(), start=1):
        guess = int(probabilities[number].argmax())
        axes = figure.add_subplot(4, 4, place)
        axes.imshow(images[number].permute(1, 2, 0).squeeze(-1).numpy(), cmap="gray")
        axes.set_axis_off()
        true, taken_for = label(classes[targets[number]]), label(classes[guess])
        title = f"{true}, taken for\n{taken_for} ({probabilities[number, guess]:.2f})"
        axes.set_title(title, fontsize=8)
    return figure


def scatter_figure(true: Tensor, predicted: Tensor, largest: float) -> Figure:
    """Predicted over true angle, a point for each image, and the line on which perfect predictions lie.

    All angles are in degrees: N true ones, N predicted ones, and the largest that can occur.
    """
    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([-largest, largest], [-largest, largest], color="grey", linewidth=1)
    axes.scatter(true.numpy(), predicted.numpy(), s=12, alpha=0.5)
    axes.set(xlabel="true angle (degrees)", ylabel="predicted angle (degrees)", aspect="equal")
    return figure


def errors_by_range(true: Tensor, predicted: Tensor, largest: float) -> list[tuple[float, float, int, float, float]]:
    """Rows of (from, to, images, mean absolute error, that of always predicting zero), one a range of the true angle.

    Ranges without images are left out. Everything but the number of images is in degrees. An angle on an edge belongs
    to the range nearer to zero.
    """
    rows = []
    for low, high in itertools.pairwise(RANGE_EDGES):
        low, high = low * largest, high * largest
        inside = (true > low if low > 0 else true >= low) & (true <= high if high > 0 else true < high)
        if inside.any():
            error, of_zero = ((each - true)[inside].abs().mean().item() for each in (predicted, torch.zeros(())))
            rows.append((low, high, int(inside.sum()), error, of_zero))
    return rows


def range_figure(true: Tensor, predicted: Tensor, largest: float) -> Figure:
    """Bars of the mean absolute error in each range of the true angle, beside that of always zero. All in degrees."""
    rows = errors_by_range(true, predicted, largest)
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.add_subplot()
    places = torch.arange(len(rows)).numpy()
    axes.bar(places - 0.2, [row[3] for row in rows], 0.4, label="the network")
    axes.bar(places + 0.2, [row[4] for row in rows], 0.4, label="always zero", color="lightgrey")
    axes.set_xticks(places, [f"{low:g} to {high:g}\n(of {count})" for low, high, count, *_ in rows], fontsize=8)
    axes.set(xlabel="true angle (degrees; of how many images)", ylabel="mean absolute error (degrees)")
    axes.legend()
    return figure


def frames_figure(images: Tensor, true: Tensor, predicted: Tensor, count: int = 12) -> Figure:
    """Frames from the leftmost true angle to the rightmost; a line leans to the side for each of the two angles.

    images: uint8 N x C x H x W; angles in degrees. The figure shows up to `count` frames: those whose true angles are
    nearest to evenly spaced ones. A line starts at the middle of the lower edge, and points upwards for straight on.
    """
    wanted = torch.linspace(true.min().item(), true.max().item(), count)
    chosen = list(dict.fromkeys((true[None] - wanted[:, None]).abs().argmin(1).tolist()))
    height, width = images.shape[2:]
    figure = Figure(figsize=(2 * len(chosen), 2.6), layout="constrained")
    for place, number in enumerate(chosen, start=1):
        axes = figure.add_subplot(1, len(chosen), place)
        axes.imshow(images[number].permute(1, 2, 0).squeeze(-1).numpy(), cmap="gray")
        lines = (true[number].item(), TRUE_COLOUR, 4), (predicted[number].item(), PREDICTED_COLOUR, 2)
        for angle, colour, thickness in lines:
            across, up = math.sin(math.radians(angle)), math.cos(math.radians(angle))
            start, length = (width - 1) / 2, 0.6 * height
            ends = [start, start + length * across], [height - 1, height - 1 - length * up]
            axes.plot(*ends, color=colour, linewidth=thickness)
        axes.set_axis_off()
        axes.set_title(f"true {true[number]:.1f}\npredicted {predicted[number]:.1f}", fontsize=8)
    figure.suptitle("degrees; green: true, red: predicted", fontsize=8)
    return figure
