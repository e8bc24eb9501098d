"""A folder of images that streams: worker processes decode it while the network trains, and it is not held in memory.

The rule: a folder named by its path (-dataset PATH) streams where its training and test images, as uint8 pixels of
the training size, come to more than -memory allows; or where the recipe has a random_resized_crop, which cuts from
the images as large as they are on disk. Every other data set is held in memory.

Workers decode and cut. All other augmentation is done to batches on the device, by the code for images in memory
(datasets/augment.py) and with the same draws. Without a random_resized_crop the batches are therefore the same, bit
for bit, whether a folder streams or not. The random cut of an image depends on (seed, epoch, image) only, so neither
the number of workers nor the step at which a run is resumed changes a batch.

With a random_resized_crop, images are tested on the middle of the image resized so that 0.875 of its shorter side is
the training size (256 and 224 pixels for ImageNet); without, on the largest square in the middle.

Memory: each worker has at most two batches of uint8 pixels in work or waiting, in shared memory; the names and
classes of all images stay in memory, about 100 bytes an image. Where shared memory is too small for that, and where a
worker dies or hangs, this process decodes the rest of the pass itself, and a line says so.

An image that cannot be read stops the run with its name, unless row.skip_broken is true: then it is left out of every
evaluation, and in training another image of its batch takes its place, with that image's target.
"""

from __future__ import annotations

import functools
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from conf.datasets import DatasetRow
from datasets.augment import Augmentation, ImageSource
from datasets.images import Unreadable, decode_image, read_image_file
from datasets.listing import Listing
from datasets.workers import decoded

TEST_SHARE = 0.875  # 224 of 256, as AlexNet's successors test on ImageNet
MEND = "repair the images, and start anew"
GO_ON = "leave it out with -skip-broken true, which goes with -resume too, or repair it and start anew"


@dataclass(frozen=True)
class Streaming:
    """When a folder streams, and how.

    limit       the bytes of pixels above which a folder streams; None: it never streams because of its size
    workers     the number of processes that decode
    least_area  the smallest share of an image's area that a random resized crop keeps; 0: no such crop
    """

    limit: int | None = None
    workers: int = 0
    least_area: float = 0.0

    def wanted(self, listing: Listing, channels: int) -> bool:
        """Whether the images of a folder stream."""
        size = len(listing.names()) * channels * listing.side**2
        return self.least_area > 0 or (self.limit is not None and size > self.limit)


NEVER = Streaming()


@dataclass
class Batch:
    """Decoded images. pixels: uint8, N x C x H x W. broken: the errors of those that cannot be read, by place."""

    pixels: Tensor
    broken: dict[int, Unreadable] = field(default_factory=dict)

    def readable(self) -> Tensor:
        """The places of the others, int64."""
        return torch.tensor([place for place in range(len(self.pixels)) if place not in self.broken], dtype=torch.int64)

    def pin_memory(self) -> Batch:
        """The DataLoader calls this where batches go to a CUDA device."""
        return Batch(self.pixels.pin_memory(), self.broken)


class StreamedImages(Dataset):
    """Images on disk that take the place of a Split's tensor; shape is N x channels x side x side.

    images[number] is an image as in a test, uint8, channels x side x side; images that have been found broken are not
    counted. Raises Unreadable, a ValueError, for a file that cannot be read.
    """

    def __init__(
        self, names: Sequence[str], channels: int, side: int, least_area: float = 0.0, skip_broken: bool = False
    ) -> None:
        # One array, not a list: its pages stay shared with the workers, as no reference in it is ever counted.
        self.names = np.array([os.fsencode(name) for name in names])
        self.least_area, self.skip_broken = least_area, skip_broken
        self.broken: set[int] = set()  # numbers of images, as they are found
        self.shape = torch.Size((len(names), channels, side, side))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, number: int) -> Tensor:
        for broken in sorted(self.broken):
            number += broken <= number
        return torch.from_numpy(self._decode(number, None).copy()).permute(2, 0, 1)

    def __getitems__(self, keys: list[tuple[int, int | None]]) -> Batch:
        """The images of keys (number, seed of the random cut; None: as in a test).

        Errors are returned and not raised, since they would reach the training process inside a worker's traceback.
        """
        _, channels, side, _ = self.shape
        pixels, broken = np.zeros((len(keys), side, side, channels), dtype=np.uint8), {}
        for place, (number, seed) in enumerate(keys):
            try:
                pixels[place] = self._decode(number, seed)
            except Unreadable as error:
                broken[place] = error
                if not self.skip_broken:
                    break
        return Batch(torch.from_numpy(pixels).permute(0, 3, 1, 2), broken)

    def batches(self, parts: Iterable[Tensor], seed: int | None, workers: int, pinned: bool = False) -> Iterator[Batch]:
        """Yields the images of each part of an index, in order, which workers decode ahead; seed None: as in a test.

        Raises ValueError where an image cannot be read, unless skip_broken is true; and in training where none of a
        batch can be.
        """
        parts = list(parts)
        for part, batch in zip(parts, decoded(self, parts, seed, workers, pinned), strict=True):
            if batch.broken and not self.skip_broken:
                raise ValueError(f"{next(iter(batch.broken.values())).fault}: {GO_ON}")
            if seed is not None and len(batch.broken) == len(part):
                raise ValueError(f"{batch.broken[0].fault}, as none of its batch of {len(part)}: {MEND}")
            self._tell(part, batch)
            yield batch

    def _tell(self, part: Tensor, batch: Batch) -> None:
        """Notes the broken images of a batch, and names those that are new."""
        for place, error in batch.broken.items():
            number = int(part[place])
            if number not in self.broken:
                self.broken.add(number)
                print(f"{error.fault}: left out ({len(self.broken):,} so far)", file=sys.stderr)

    def _decode(self, number: int, seed: int | None) -> np.ndarray:
        name = os.fsdecode(self.names[number])
        _, channels, side, _ = self.shape
        try:
            content = read_image_file(name)
        except OSError as error:
            raise Unreadable(name, error.strerror or str(error), "could not be read") from error
        if not self.least_area:
            return decode_image(name, content, channels, side)
        if seed is None:
            return decode_image(name, content, channels, side, functools.partial(middle, side=side))
        from torchvision.transforms import RandomResizedCrop  # here: torchvision takes a second to load

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            cut = RandomResizedCrop(side, (self.least_area, 1.0))
            return decode_image(name, content, channels, side, cut)


def middle(image: Image.Image, side: int) -> Image.Image:
    """What a network that was trained on random cuts is tested on: the middle, side x side pixels."""
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms import functional as F

    image = F.resize(image, [round(side / TEST_SHARE)], InterpolationMode.BILINEAR)
    return F.center_crop(image, [side])


def streamed(row: DatasetRow, names: Sequence[str], side: int, streaming: Streaming) -> StreamedImages:
    """The images of a row that streams."""
    return StreamedImages(names, row.channels, side, streaming.least_area, row.skip_broken)


def decoders(wanted: int | None, processes: int) -> int:
    """The processes that decode images for one of the `processes` that train, on this machine or more.

    wanted, or where that is None one fewer than the cores that each of those on this machine has (torch's launcher says
    how many they are), at least 1 and at most 8.
    """
    if wanted is not None:
        return wanted
    processes = min(processes, int(os.environ.get("LOCAL_WORLD_SIZE") or processes))
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(8, max(1, cores // processes - 1))


class StreamSource:
    """An ImageSource for StreamedImages: fetch() decodes the batches ahead of their use.

    targets  int64, N; mean, std, augmentation, device: see ImageSource; workers: processes that decode
    """

    def __init__(
        self,
        images: StreamedImages,
        targets: Tensor,
        mean: Sequence[float],
        std: Sequence[float],
        augmentation: Augmentation,
        device: torch.device,
        workers: int,
    ) -> None:
        assert len(images) == len(targets)
        self.images, self.targets, self.device, self.workers = images, targets, torch.device(device), workers
        none = torch.empty(0, *images.shape[1:], dtype=torch.uint8)
        self.empty = ImageSource(none, targets[:0], mean, std, augmentation, device)

    def __len__(self) -> int:
        return len(self.images)

    def plain(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """The images of the index (int64) as in a test, and their targets."""
        source, index = next(self.fetch([index]))
        return source.plain(index)

    def fetch(self, parts: Iterable[Tensor], seed: int | None = None) -> Iterator[tuple[ImageSource, Tensor]]:
        """Yields for each part of an index a source that holds its images on the device, and their index there.

        seed: of the random cuts, together with the image's number; None: the images are cut as in a test, and those
        that are broken are left out. With a seed, the batch's first image that can be read stands in for them.
        Raises ValueError that names a file that cannot be read, as StreamedImages.batches() does.
        """
        parts = list(parts)
        batches = self.images.batches(parts, seed, self.workers, pinned=self.device.type == "cuda")
        for part, batch in zip(parts, batches, strict=True):
            index = batch.readable()
            if seed is not None:
                index = torch.arange(len(part))
                index[list(batch.broken)] = int(batch.readable()[0])
            images = batch.pixels.to(self.device, non_blocking=True)
            yield self.empty.of(images, self.targets[part]), index
