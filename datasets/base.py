"""What readers share: Location (where a data set was found), Split and Dataset (what is read), pixel statistics.

A View says what a network that was trained on a data set sees of an image.
"""

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
    """Images and their targets.

    images   uint8, N x C x H x W; of a folder that streams, datasets.stream.StreamedImages, which is no tensor but has
             the same shape, and gives an image by its number
    targets  int64, N, an index into the classes; for a regression float32, N
    """

    images: torch.Tensor
    targets: torch.Tensor

    def none(self) -> Split:
        """The split without any of its images, which are in memory."""
        return Split(self.images[:0], self.targets[:0])


@dataclass(frozen=True)
class View:
    """What a network sees of an image, and what its outputs stand for: fixed when it is trained.

    mean, std    of each channel, of pixels from 0 to 1
    side         of the images in pixels
    channels     1: grey, 3: RGB
    classes      names, in the order of the network's outputs
    file_side    the side in pixels to which the image in a file is brought first; from there it is resized to `side`
    middle       whether an image in a file is cut as datasets.stream.middle() does; else its largest square is taken
    degrees      the angle in degrees that an output of 1 stands for (regression)
    target_mean  the mean of the training targets (regression), a guess that takes no network; not a number: unknown
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    side: int
    channels: int
    classes: tuple[str, ...]
    file_side: int
    middle: bool = False
    degrees: float = 1.0
    target_mean: float = math.nan


@dataclass(frozen=True)
class Dataset:
    """A data set that has been loaded.

    mean, std  of each channel over the training images, pixels from 0 to 1
    val        images that choose the best epoch, where the data set has a split of its own for that
    notes      lines for the user about a folder of images: how it was understood, and what of it is left out
    is_split_here  whether the test set is a share of the training images of its source, so that -val is that share
    """

    row: DatasetRow
    classes: tuple[str, ...]
    train: Split
    test: Split
    mean: tuple[float, ...]
    std: tuple[float, ...]
    val: Split | None = None
    notes: tuple[str, ...] = ()
    is_split_here: bool = False


@dataclass(frozen=True)
class Location:
    """Where a data set was found.

    form   "archive", "unpacked", "images" (a folder of images) or "bundled" (comes with a package)
    paths  the files and folders that the reader reads; empty where it is bundled. Of a folder of images: those with the
           training, the test and, where there are any, the validation images; or one that is still to be split
    note   a line for the user about how it was understood
    key    what besides the files decides what is read (datasets/pack.py)
    """

    form: str
    paths: tuple[Path, ...] = ()
    note: str = ""
    key: tuple = ()

    @property
    def is_split_here(self) -> bool:
        """Whether this is a folder of images that has still to be split."""
        return self.form == "images" and len(self.paths) == 1


def channel_statistics(images: torch.Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and (population) standard deviation of each channel of uint8 images, N x C x H x W; pixels from 0 to 1."""
    return statistics_of_parts((images,))


def statistics_of_parts(parts: Iterable[torch.Tensor]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """channel_statistics of the images of several tensors, which need not be in memory together.

    The sums are exact, so the result does not depend on the order, the parts or the number of threads: a part's sums
    are integers below 2^53, which float64 holds without rounding, and Python's integers add them up.
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
    if not count:
        raise ValueError("no image can be read of those whose mean and standard deviation would be the data set's")
    mean = tuple(value / count / 255 for value in total)
    variances = [(count * square - value * value) / count**2 for value, square in zip(total, squares, strict=True)]
    # NOTE: a channel without any variation gets 1: it is divided by, and there is nothing to scale.
    std = tuple(math.sqrt(variance) / 255 if variance > 0 else 1.0 for variance in variances)
    return mean, std


def resized(split: Split, size: int | None) -> Split:
    """The split, its images resized to size x size (bilinear, antialiased) unless they have that size or it is None."""
    if size is None or split.images.shape[2:] == (size, size):
        return split
    images = split.images.new_empty(*split.images.shape[:2], size, size)
    for part, into in zip(split.images.split(256), images.split(256), strict=True):
        into.copy_(resized_images(part, size))
    return Split(images, split.targets)


def resized_images(images: torch.Tensor, side: int) -> torch.Tensor:
    """Images, N x C x H x W, at side x side pixels: bilinear, and antialiased as Pillow does it."""
    if images.shape[2:] == (side, side):
        return images
    return F.interpolate(images, size=(side, side), mode="bilinear", antialias=True)
