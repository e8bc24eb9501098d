"""Batches of a data set in a seeded order: any batch of any epoch can be drawn without those before it."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from utils import derived_seed


def batch_bounds(count: int, batch_size: int) -> list[tuple[int, int]]:
    """(start, stop) of each batch of one pass over `count` images.

    The last, partial batch is kept; a last batch of one image, which batch norm cannot take, joins the one before.
    """
    starts = list(range(0, count, batch_size))
    if len(starts) > 1 and count - starts[-1] == 1:
        starts.pop()
    return list(zip(starts, [*starts[1:], count], strict=True))


class TrainingBatches:
    """Augmented batches of the images `index` of a source, in an order drawn anew for each epoch.

    The order depends on (seed, epoch) only and the augmentation on (seed, epoch, batch).
    steps: batches an epoch, of as many passes as that takes; 0: one pass.
    """

    def __init__(self, source, index: Tensor, batch_size: int, seed: int, shuffle: bool, steps: int = 0) -> None:
        self.source, self.index, self.seed, self.shuffle = source, index, seed, shuffle
        self.bounds = batch_bounds(self.pass_length(), batch_size)
        if steps:
            self.bounds = [(number * batch_size, (number + 1) * batch_size) for number in range(steps)]

    def __len__(self) -> int:
        return len(self.bounds)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """(images, targets) from batch number `first` of an epoch counted from 0 to its end."""
        order = self.order(epoch)
        for number in range(first, len(self.bounds)):
            start, stop = self.bounds[number]
            step_seed = derived_seed(self.seed, "augmentation", epoch * len(self.bounds) + number)
            yield self.source.augmented(order[start:stop], torch.Generator().manual_seed(step_seed))

    def order(self, epoch: int) -> Tensor:
        """The images of an epoch, in the order they come in: passes over the index, each drawn anew."""
        generator = torch.Generator().manual_seed(derived_seed(self.seed, "order", epoch))
        passes = -(-self.bounds[-1][1] // self.pass_length())
        return torch.cat([self.one_pass(generator) for _ in range(passes)])

    def pass_length(self) -> int:
        return len(self.index)

    def one_pass(self, generator: torch.Generator) -> Tensor:
        return self.index[torch.randperm(len(self.index), generator=generator)] if self.shuffle else self.index


class EvaluationBatches:
    """The images `index` of a source, each exactly once, in order and without augmentation."""

    def __init__(self, source, index: Tensor, batch_size: int = 256) -> None:
        self.source, self.index = source, index
        self.parts = index.split(batch_size)

    def __len__(self) -> int:
        return len(self.parts)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for part in self.parts:
            yield self.source.plain(part)
