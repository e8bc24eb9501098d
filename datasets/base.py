"""What every reader returns and what it reads from: Split, Dataset, Source; and the figures taken from the pixels."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from conf.datasets import DatasetRow


@dataclass(frozen=True)
class Split:
    """Images with what is to be told of them.

    images is uint8, N x C x H x W; targets is int64, N, an index into the classes; for a regression float32, N.

    A folder that streams has datasets.stream.StreamedImages for images: the same shape and images[number], no tensor.
    """

    images: torch.Tensor
    targets: torch.Tensor


@dataclass(frozen=True)
class Dataset:
    """A data set in memory. mean and std are per channel over the training images, on the scale 0 to 1."""

    row: DatasetRow
    classes: tuple[str, ...]
    train: Split
    test: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]


@dataclass(frozen=True)
class Source:
    """Where a data set was found.

    kind   "archive", "unpacked", "images" (a folder of images) or "bundled" (comes with a package)
    paths  the files and folders that the reader reads; empty where it is bundled
    """

    kind: str
    paths: tuple[Path, ...] = ()


def channel_statistics(images: torch.Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation (of the population) of each channel of N x C x H x W uint8 images, in 0..1."""
    return statistics_of_parts((images,))


def statistics_of_parts(parts: Iterable[torch.Tensor]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """channel_statistics of all images of several tensors, which need not be in memory together.

    The sums are exact, so that the figures depend neither on the order, the parts nor the number of threads: a
    part's are integers below 2^53, which float64 holds without rounding, and they are added as Python's integers.
    """
    count, total, squares = 0, [], []
    for images in parts:
        channels, pixels = images.shape[1], images.shape[2] * images.shape[3]
        total, squares = total or [0] * channels, squares or [0] * channels
        count += len(images) * pixels
        for part in images.split(max(1, (1 << 18) // pixels)):
            values = part.to(torch.float64)
            sums, square_sums = values.sum((0, 2, 3)), values.square_().sum((0, 2, 3))
            for channel in range(channels):
                total[channel] += int(sums[channel])
                squares[channel] += int(square_sums[channel])
    mean = tuple(value / count / 255 for value in total)
    variances = [(count * square - value * value) / count**2 for value, square in zip(total, squares, strict=True)]
    # NOTE: a channel without any variation gets 1: it is divided by, and there is nothing to scale.
    std = tuple(math.sqrt(variance) / 255 if variance > 0 else 1.0 for variance in variances)
    return mean, std


def resized(split: Split, size: int | None) -> Split:
    """The split with its images resized to size x size (bilinear, antialiased); itself where they are, or for None."""
    if size is None or split.images.shape[2:] == (size, size):
        return split
    parts = [
        F.interpolate(part, size=(size, size), mode="bilinear", antialias=True) for part in split.images.split(1024)
    ]
    return Split(torch.cat(parts), split.targets)
