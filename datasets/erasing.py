"""Random erasing (Zhong et al. 2017, arXiv 1708.04896) for a whole batch at once: of each image a rectangle of its own.

Rectangles are drawn as torchvision's v2.RandomErasing draws them. Given a batch, that class erases the same rectangle
of all its images, and given one image after the other it takes longer than all the rest of the augmentation. Here the
numbers for the whole batch are drawn together, and one mask erases all rectangles.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from datasets.lookup import to_device

AREA, RATIO = (0.02, 0.33), (0.3, 3.3)  # of the image's area; height over width
TRIES = 10  # for a rectangle that is smaller than the image on both sides


@dataclass(frozen=True)
class Rectangles:
    """What is erased of a batch: one entry an image, int64, in pixels. A height of 0: nothing."""

    top: Tensor
    left: Tensor
    height: Tensor
    width: Tensor

    def of(self, rows: Tensor) -> Rectangles:
        return Rectangles(self.top[rows], self.left[rows], self.height[rows], self.width[rows])


def draw_rectangles(count: int, probability: float, height: int, width: int, generator: torch.Generator) -> Rectangles:
    """Draws for `count` images of height x width pixels, from a generator on the CPU; each is erased with this
    probability.

    An image none of whose tries gives a rectangle that is smaller than it stays whole.
    """
    wanted = torch.rand(count, generator=generator) < probability
    area = torch.empty(count, TRIES).uniform_(*AREA, generator=generator) * (height * width)
    ratio = torch.empty(count, TRIES).uniform_(*map(math.log, RATIO), generator=generator).exp_()
    heights, widths = (area * ratio).sqrt_().round_().long(), (area / ratio).sqrt_().round_().long()
    fits = (heights < height) & (widths < width)
    first = fits.int().argmax(1, keepdim=True)
    tall, wide = heights.gather(1, first).squeeze(1), widths.gather(1, first).squeeze(1)
    place = torch.rand(2, count, generator=generator, dtype=torch.float64)
    top = (place[0] * (height - tall + 1)).long()
    left = (place[1] * (width - wide + 1)).long()
    return Rectangles(top, left, torch.where(wanted & fits.any(1), tall, 0), wide)


def erase(images: Tensor, rectangles: Rectangles) -> Tensor:
    """Sets rectangles of normalised images (float, B x C x H x W) to 0, which is their mean, in place; returns them."""
    given = (rectangles.top, rectangles.left, rectangles.height, rectangles.width)
    top, left, tall, wide = to_device(torch.stack(given), images.device)[:, :, None, None].unbind()
    rows = torch.arange(images.shape[2], device=images.device)[:, None]
    columns = torch.arange(images.shape[3], device=images.device)
    inside = (rows >= top) & (rows < top + tall) & (columns >= left) & (columns < left + wide)  # B x H x W
    return images.masked_fill_(inside[:, None], 0.0)
