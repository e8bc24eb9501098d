"""Pictures at the end of a run: the mistakes and the confusion matrix of classes; predicted angles and true ones."""

from __future__ import annotations

import itertools
import math

import numpy
import torch
import torch.nn.functional as F
from matplotlib.figure import Figure
from sklearn.metrics import ConfusionMatrixDisplay
from torch import Tensor

from engine.shown.confusions import worst_pairs
from utils import printable

# TensorBoard shows a picture about 300 pixels wide, half of what is drawn here: letters are of 11 points and more.
MATRIX_CLASSES = 20  # with more, the numbers of a confusion matrix could not be read

# Where the ranges of the true angle begin and end, as shares of the largest angle: narrow where most angles are.
RANGE_EDGES = (-1.0, -0.6, -0.3, -0.1, -0.02, 0.02, 0.1, 0.3, 0.6, 1.0)
TRUE_COLOUR, PREDICTED_COLOUR = "tab:green", "tab:red"


def label(name: str, longest: int = 40) -> str:
    """A class's name as matplotlib takes it: on one line, not too long, and a $ is no formula's beginning."""
    return printable(name, longest=longest).replace("$", r"\$")


def class_figures(matrix: numpy.ndarray, classes: tuple[str, ...]) -> dict[str, Figure]:
    """The picture, by its name, of what classes are taken for: all of them, or of many the worst.

    matrix: numbers of images (confusions.py).
    """
    if len(classes) <= MATRIX_CLASSES:
        return {"confusion matrix": confusion_figure(matrix, classes)}
    return {"most confused pairs": pairs_figure(matrix, classes)}


def confusion_figure(matrix: numpy.ndarray, classes: tuple[str, ...]) -> Figure:
    """The confusion matrix of up to MATRIX_CLASSES classes: rows are true classes, columns predicted ones.

    matrix: numbers of images (confusions.py). Drawn are shares of the true class in percent, where above 0.
    """
    shares = 100 * matrix / matrix.sum(1, keepdims=True).clip(1)
    names = [label(name, 14) for name in classes]
    figure = Figure(figsize=(6, 5.5), layout="constrained")
    axes = figure.add_subplot()
    size = 13 if len(classes) <= 12 else 9
    display = ConfusionMatrixDisplay(shares, display_labels=names)
    form = dict(values_format=".0f", cmap="Blues", xticks_rotation="vertical")
    display.plot(ax=axes, **form, im_kw=dict(vmin=0, vmax=100), text_kw=dict(fontsize=size))
    for text, share in zip(display.text_.flat, shares.flat, strict=True):
        text.set_visible(bool(share > 0))
    axes.tick_params(labelsize=size)
    axes.set_xlabel("predicted", fontsize=13)
    axes.set_ylabel("true", fontsize=13)
    display.im_.colorbar.set_label("% of the true class", fontsize=13)
    return figure


def pairs_figure(matrix: numpy.ndarray, classes: tuple[str, ...], count: int = 20) -> Figure:
    """The `count` pairs of classes that are confused most: bars of how many images of the first class were taken for
    the second. matrix: numbers of images (confusions.py)."""
    pairs = worst_pairs(matrix, count)
    figure = Figure(figsize=(6, 6.5), layout="constrained")
    axes = figure.add_subplot()
    names = [f"{label(classes[true], 16)}, taken for {label(classes[guess], 16)}" for true, guess, _ in pairs]
    axes.bar_label(axes.barh(range(len(pairs)), [images for *_, images in pairs]), fontsize=12, padding=2)
    axes.set_yticks(range(len(pairs)), names, fontsize=12)
    axes.set_ylim(max(len(pairs), 1) - 0.5, -0.5)  # the worst on top
    axes.margins(x=0.15)
    axes.set_xlabel("images", fontsize=12)
    return figure


def mistakes_figure(
    images: Tensor, probabilities: Tensor, targets: Tensor, classes: tuple[str, ...], count: int = 9
) -> Figure:
    """The images that the network took for another class, at most `count` (up to 9): the least probability of their
    true class first.

    images: uint8 N x C x H x W. probabilities: N x classes. targets: N class numbers.
    """
    loss = F.nll_loss(probabilities.clamp_min(1e-12).log(), targets, reduction="none")
    wrong = probabilities.argmax(1) != targets
    worst = loss.masked_fill(~wrong, -1.0).argsort(descending=True)[: min(count, int(wrong.sum()))]
    figure = Figure(figsize=(6, 7), layout="constrained")
    for place, number in enumerate(worst.tolist(), start=1):
        guess = int(probabilities[number].argmax())
        axes = figure.add_subplot(3, 3, place)
        axes.imshow(images[number].permute(1, 2, 0).squeeze(-1).numpy(), cmap="gray")
        axes.set_axis_off()
        true, taken_for = label(classes[targets[number]], 12), label(classes[guess], 12)
        title = f"{true}, taken for\n{taken_for} ({probabilities[number, guess]:.2f})"
        axes.set_title(title, fontsize=11)
    return figure


def scatter_figure(true: Tensor, predicted: Tensor, largest: float) -> Figure:
    """Predicted over true angle, a point for each image, and the line on which perfect predictions lie.

    All angles are in degrees: N true ones, N predicted ones, and the largest that can occur.
    """
    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([-largest, largest], [-largest, largest], color="grey", linewidth=1)
    axes.scatter(true.numpy(), predicted.numpy(), s=12, alpha=0.5)
    axes.set_aspect("equal")
    axes.set_xlabel("true angle (degrees)", fontsize=13)
    axes.set_ylabel("predicted angle (degrees)", fontsize=13)
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
    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.add_subplot()
    places = torch.arange(len(rows)).numpy()
    axes.barh(places - 0.2, [row[3] for row in rows], 0.4, label="the network")
    axes.barh(places + 0.2, [row[4] for row in rows], 0.4, label="always zero", color="lightgrey")
    axes.set_yticks(places, [f"{low:g} to {high:g}\n(of {count})" for low, high, count, *_ in rows], fontsize=12)
    axes.invert_yaxis()
    axes.set_ylabel("true angle (degrees; of how many images)", fontsize=12)
    axes.set_xlabel("mean absolute error (degrees)", fontsize=12)
    axes.legend(fontsize=12)
    return figure


def frames_figure(images: Tensor, true: Tensor, predicted: Tensor, count: int = 12) -> Figure:
    """Frames from the leftmost true angle to the rightmost; a line leans to the side for each of the two angles.

    images: uint8 N x C x H x W; angles in degrees. The figure shows up to `count` frames: those whose true angles are
    nearest to evenly spaced ones. A line starts at the middle of the lower edge, and points upwards for straight on.
    """
    wanted = torch.linspace(true.min().item(), true.max().item(), count)
    chosen = list(dict.fromkeys((true[None] - wanted[:, None]).abs().argmin(1).tolist()))
    height, width = images.shape[2:]
    figure = Figure(figsize=(6.5, 2 * math.ceil(len(chosen) / 3)), layout="constrained")
    for place, number in enumerate(chosen, start=1):
        axes = figure.add_subplot(math.ceil(len(chosen) / 3), 3, place)
        axes.imshow(images[number].permute(1, 2, 0).squeeze(-1).numpy(), cmap="gray")
        lines = (true[number].item(), TRUE_COLOUR, 4), (predicted[number].item(), PREDICTED_COLOUR, 2)
        for angle, colour, thickness in lines:
            across, up = math.sin(math.radians(angle)), math.cos(math.radians(angle))
            start, length = (width - 1) / 2, 0.6 * height
            ends = [start, start + length * across], [height - 1, height - 1 - length * up]
            axes.plot(*ends, color=colour, linewidth=thickness)
        axes.set_axis_off()
        axes.set_title(f"true {true[number]:.1f}\npredicted {predicted[number]:.1f}", fontsize=12)
    figure.suptitle("degrees; green: true, red: predicted", fontsize=12)
    return figure
