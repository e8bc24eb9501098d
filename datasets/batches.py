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
    """

    def __init__(self, source, index: Tensor, batch_size: int, seed: int, shuffle: bool) -> None:
        self.source, self.index, self.seed, self.shuffle = source, index, seed, shuffle
        self.bounds = batch_bounds(len(index), batch_size)

    def __len__(self) -> int:
        return len(self.bounds)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """(images, targets) from batch number `first` of an epoch counted from 0 to its end."""
        order = self.index
        if self.shuffle:
            generator = torch.Generator().manual_seed(derived_seed(self.seed, "order", epoch))
            order = self.index[torch.randperm(len(self.index), generator=generator)]
        parts = (order[start:stop] for start, stop in self.bounds[first:])
        fetched = self.source.fetch(parts, derived_seed(self.seed, "decoding", epoch))
        for number, (source, index) in enumerate(fetched, first):
            step_seed = derived_seed(self.seed, "augmentation", epoch * len(self.bounds) + number)
            yield source.augmented(index, torch.Generator().manual_seed(step_seed))


class EvaluationBatches:
    """The images `index` of a source, each exactly once, in order and without augmentation."""

    def __init__(self, source, index: Tensor, batch_size: int = 256) -> None:
        self.source, self.index = source, index
        self.parts = index.split(batch_size)

    def __len__(self) -> int:
        return len(self.parts)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for source, index in self.source.fetch(self.parts):
            yield source.plain(index)
