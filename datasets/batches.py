"""Batches of a data set in a seeded order: any batch of any epoch can be drawn without those before it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from datasets.base import resized_images
from datasets.mixing import Mixing
from utils import derived_seed


def batch_bounds(count: int, batch_size: int) -> list[tuple[int, int]]:
    """(start, stop) of each batch of one pass over `count` images.

    The last, partial batch is kept; a last batch of one image, which batch norm cannot take, joins the one before.
    """
    starts = list(range(0, count, batch_size))
    if len(starts) > 1 and count - starts[-1] == 1:
        starts.pop()
    return list(zip(starts, [*starts[1:], count], strict=True))


def shared(count: int, share: tuple[int, int]) -> range:
    """The slice of a batch of `count` images that one process trains on; the slices are disjoint and cover the batch.

    share: (rank, number of processes). The slices differ by one image at most.
    """
    rank, processes = share
    return range(count * rank // processes, count * (rank + 1) // processes)


class TrainingBatches:
    """Augmented batches of the images `index` of a source, in a new random order for each epoch.

    source: an ImageSource, or what has its methods. The order depends on (seed, epoch) only, and the augmentation on
    (seed, epoch, batch).
    share: (rank, number of processes); the process gets its slice of every batch, see shared().
    layout: the memory format of the images.
    steps: the batches of an epoch, which makes as many passes over the images as they need; 0: one pass.
    alternating: each image of the source is mirrored in every other epoch, in the first one or the second by (seed)
    only; the alternating flip of Jordan's "94% on CIFAR-10 in 3.29 Seconds on a Single GPU" (arXiv 2404.00498). The
    source's own draws decide it otherwise.
    sides: the side in pixels of the images of each epoch, resized when they are augmented; empty: their own.
    mixing: what mixes the images of a batch with one another, or None; their targets are then shares of all classes.
    """

    def __init__(
        self,
        source,
        index: Tensor,
        batch_size: int,
        seed: int,
        shuffle: bool,
        share: tuple[int, int] = (0, 1),
        steps: int = 0,
        layout: torch.memory_format = torch.channels_last,
        alternating: bool = False,
        sides: Sequence[int] = (),
        mixing: Mixing | None = None,
    ) -> None:
        self.source, self.index, self.seed, self.shuffle, self.share = source, index, seed, shuffle, share
        self.layout, self.sides, self.mixing = layout, sides, mixing
        self.before = int(mixing is not None and share[1] > 1)  # images before the share that it is mixed with
        self.mirrored_first: Tensor | None = None
        if alternating:
            generator = torch.Generator().manual_seed(derived_seed(seed, "flip", 0))
            self.mirrored_first = torch.rand(len(source), generator=generator) < 0.5
        self.bounds = batch_bounds(self.pass_length(), batch_size)
        if steps:
            self.bounds = [(number * batch_size, (number + 1) * batch_size) for number in range(steps)]

    def __len__(self) -> int:
        return len(self.bounds)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """(images, targets) from batch number `first` of an epoch counted from 0 to its end.

        Batch norm needs two images. Where the process's share is smaller, images of other shares fill it up: they come
        last, and have no targets.
        """
        order = self.order(epoch)
        rows = [self._rows(stop - start) for start, stop in self.bounds]
        parts = [order[start:stop][own] for (start, stop), own in zip(self.bounds[first:], rows[first:], strict=True)]
        fetched = self.source.fetch(parts, derived_seed(self.seed, "decoding", epoch))
        for number, (part, (source, index)) in enumerate(zip(parts, fetched, strict=True), first):
            start, stop = self.bounds[number]
            step = epoch * len(self.bounds) + number
            generator = torch.Generator().manual_seed(derived_seed(self.seed, "augmentation", step))
            mirrored = None if self.mirrored_first is None else self.mirrored_first[part] ^ bool(epoch % 2)
            images, targets = source.augmented(index, generator, stop - start, rows[number], mirrored)
            if self.sides:
                images = resized_images(images, self.sides[min(epoch, len(self.sides) - 1)])
            if self.mixing is not None:
                mixed = self.mixing(images, targets, derived_seed(self.seed, "mixing", step))
                images, targets = (each[self.before :] for each in mixed)
            yield images.contiguous(memory_format=self.layout), targets[: len(shared(stop - start, self.share))]

    def _rows(self, count: int) -> Tensor:
        """The rows of a batch of `count` images that this process works on: its share, filled up to two images.

        Before them come the images that the share is mixed with and does not hold.
        """
        own = shared(count, self.share)
        fill = [] if self.share[1] == 1 else range(min(count, 2 - len(own)))
        before = [(own.start - 1) % count] * self.before
        return torch.tensor([*before, *own, *fill])

    def order(self, epoch: int) -> Tensor:
        """The images of an epoch in their order: passes over the index, each in a new random order."""
        generator = torch.Generator().manual_seed(derived_seed(self.seed, "order", epoch))
        passes = -(-self.bounds[-1][1] // self.pass_length())
        return torch.cat([self.one_pass(generator) for _ in range(passes)])

    def pass_length(self) -> int:
        return len(self.index)

    def one_pass(self, generator: torch.Generator) -> Tensor:
        return self.index[torch.randperm(len(self.index), generator=generator)] if self.shuffle else self.index


class EvaluationBatches:
    """The images `index` of a source, each exactly once, in order and without augmentation.

    share: (rank, number of processes); the batches are dealt out to the processes in turn.
    layout: the memory format of the images.
    """

    def __init__(
        self,
        source,
        index: Tensor,
        batch_size: int = 256,
        share: tuple[int, int] = (0, 1),
        layout: torch.memory_format = torch.channels_last,
    ) -> None:
        self.source, self.index, self.layout = source, index, layout
        self.parts = index.split(batch_size)[share[0] :: share[1]]

    def whole(self) -> EvaluationBatches:
        """The batches of all processes."""
        return EvaluationBatches(self.source, self.index, layout=self.layout)

    def __len__(self) -> int:
        return len(self.parts)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for source, index in self.source.fetch(self.parts):
            if len(index):  # or no image of the part can be read, and -skip-broken leaves all of them out
                images, targets = source.plain(index)
                yield images.contiguous(memory_format=self.layout), targets
