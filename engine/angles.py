"""Pictures of predicted angles at the end of a run: against the true ones, by range, and on the frames themselves."""

from __future__ import annotations

import math

import torch
from matplotlib.figure import Figure
from torch import Tensor

# Where the ranges of the true angle begin and end, as shares of the largest angle: narrow where most angles are.
EDGES = (-1.0, -0.6, -0.3, -0.1, -0.02, 0.02, 0.1, 0.3, 0.6, 1.0)
TRUE, PREDICTED = "tab:green", "tab:red"


def scatter_figure(true: Tensor, predicted: Tensor, largest: float) -> Figure:
    """A point an image, and the line on which all would lie. Angles in degrees."""
    figure = Figure(figsize=(6, 6), layout="constrained")
    axes = figure.add_subplot()
    axes.plot([-largest, largest], [-largest, largest], color="grey", linewidth=1)
    axes.scatter(true.numpy(), predicted.numpy(), s=12, alpha=0.5)
    axes.set(xlabel="true angle (degrees)", ylabel="predicted angle (degrees)", aspect="equal")
    return figure


def errors_by_range(true: Tensor, predicted: Tensor, largest: float) -> list[tuple[float, float, int, float, float]]:
    """(from, to, images, mean absolute error, that of always zero) for each range of the true angle that has any.

    All but the number of images in degrees. An angle on an edge belongs to the range nearer to zero.
    """
    rows = []
    for low, high in zip(EDGES[:-1], EDGES[1:], strict=True):
        low, high = low * largest, high * largest
        inside = (true >= low if low < 0 < high else true > low if low > 0 else true >= low) & (
            true <= high if high > 0 else true < high
        )
        if inside.any():
            error, of_zero = ((each - true)[inside].abs().mean().item() for each in (predicted, torch.zeros(())))
            rows.append((low, high, int(inside.sum()), error, of_zero))
    return rows


def range_figure(true: Tensor, predicted: Tensor, largest: float) -> Figure:
    """Mean absolute error in each range of the true angle, beside that of always predicting zero. Degrees."""
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
    """Frames from the leftmost true angle to the rightmost, with both angles (degrees) as lines that lean to a side.

    images: uint8 N x C x H x W. Up to `count` are shown: those whose true angles are nearest to evenly spaced ones. A
    line starts at the middle of the lower edge; upwards is straight on.
    """
    wanted = torch.linspace(true.min().item(), true.max().item(), count)
    chosen = list(dict.fromkeys((true[None] - wanted[:, None]).abs().argmin(1).tolist()))
    height, width = images.shape[2:]
    figure = Figure(figsize=(2 * len(chosen), 2.6), layout="constrained")
    for place, number in enumerate(chosen, start=1):
        axes = figure.add_subplot(1, len(chosen), place)
        axes.imshow(images[number].permute(1, 2, 0).squeeze(-1).numpy(), cmap="gray")
        for angle, colour, thickness in ((true[number].item(), TRUE, 4), (predicted[number].item(), PREDICTED, 2)):
            across, up = math.sin(math.radians(angle)), math.cos(math.radians(angle))
            start, length = (width - 1) / 2, 0.6 * height
            ends = [start, start + length * across], [height - 1, height - 1 - length * up]
            axes.plot(*ends, color=colour, linewidth=thickness)
        axes.set_axis_off()
        axes.set_title(f"true {true[number]:.1f}\npredicted {predicted[number]:.1f}", fontsize=8)
    figure.suptitle("degrees; green: true, red: predicted", fontsize=8)
    return figure
