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
classes of all images stay in memory, about 100 bytes an image.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from datasets.augment import Augmentation, ImageSource
from datasets.folder import Listing, read_file
from datasets.images import decode_image
from utils import derived_seed

TEST_SHARE = 0.875  # 224 of 256, as AlexNet's successors test on ImageNet


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
        size = (len(listing.train.names) + len(listing.test.names)) * channels * listing.side**2
        return self.least_area > 0 or (self.limit is not None and size > self.limit)


class StreamedImages(Dataset):
    """Images on disk that take the place of a Split's tensor; shape is N x channels x side x side.

    images[number] is an image as in a test, uint8, channels x side x side. Raises ValueError that names a file that
    cannot be read.
    """

    def __init__(self, names: Sequence[str], channels: int, side: int, least_area: float = 0.0) -> None:
        # One array, not a list: its pages stay shared with the workers, as no reference in it is ever counted.
        self.names = np.array([os.fsencode(name) for name in names])
        self.least_area = least_area
        self.shape = torch.Size((len(names), channels, side, side))

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, number: int) -> Tensor:
        return torch.from_numpy(self._decode(number, None).copy()).permute(2, 0, 1)

    def __getitems__(self, keys: list[tuple[int, int | None]]) -> Tensor | ValueError:
        """A batch, uint8 N x channels x side x side, for keys (number, seed of the random cut; None: as in a test).

        An error is returned and not raised, since it would reach the training process inside a worker's traceback.
        """
        _, channels, side, _ = self.shape
        pixels = np.empty((len(keys), side, side, channels), dtype=np.uint8)
        try:
            for place, (number, seed) in enumerate(keys):
                pixels[place] = self._decode(number, seed)
        except ValueError as error:
            return error
        return torch.from_numpy(pixels).permute(0, 3, 1, 2)

    def batches(
        self, parts: Iterable[Tensor], seed: int | None, workers: int, pinned: bool = False
    ) -> Iterator[Tensor]:
        """Yields the images of each part of an index, in order, which workers decode ahead; seed None: as in a test."""
        loader = DataLoader(
            self,
            batch_sampler=_Keys(parts, seed),
            num_workers=workers,
            collate_fn=_as_it_is,
            pin_memory=pinned,
            worker_init_fn=_leave_signals,
            generator=torch.Generator(),  # or a number would be drawn from the run's own
        )
        for images in loader:
            if isinstance(images, ValueError):
                raise images
            yield images

    def _decode(self, number: int, seed: int | None) -> np.ndarray:
        name = os.fsdecode(self.names[number])
        _, channels, side, _ = self.shape
        try:
            content = read_file(name)
        except OSError as error:
            raise ValueError(f"{name} could not be read: {error.strerror or error}") from error
        if not self.least_area:
            return decode_image(name, content, channels, side)
        if seed is None:
            return decode_image(name, content, channels, side, self._middle)
        from torchvision.transforms import RandomResizedCrop  # here: torchvision takes a second to load

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            cut = RandomResizedCrop(side, (self.least_area, 1.0))
            return decode_image(name, content, channels, side, cut)

    def _middle(self, image: Image.Image) -> Image.Image:
        from torchvision.transforms import InterpolationMode
        from torchvision.transforms import functional as F

        side = self.shape[-1]
        image = F.resize(image, [round(side / TEST_SHARE)], InterpolationMode.BILINEAR)
        return F.center_crop(image, [side])


def decoders(wanted: int | None, processes: int) -> int:
    """The processes that decode images for one of the `processes` that train on this machine.

    wanted, or where that is None one fewer than the cores that each of them has, at least 1 and at most 8.
    """
    if wanted is not None:
        return wanted
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

        seed: of the random cuts, together with the image's number; None: the images are cut as in a test.
        Raises ValueError that names a file that cannot be read.
        """
        parts = list(parts)
        batches = self.images.batches(parts, seed, self.workers, pinned=self.device.type == "cuda")
        for part, images in zip(parts, batches, strict=True):
            images = images.to(self.device, non_blocking=True)
            yield self.empty.of(images, self.targets[part]), torch.arange(len(part))


class _Keys:
    """Yields for each part of an index the keys that StreamedImages takes."""

    def __init__(self, parts: Iterable[Tensor], seed: int | None) -> None:
        self.parts, self.seed = parts, seed

    def __iter__(self) -> Iterator[list[tuple[int, int | None]]]:
        for part in self.parts:
            numbers = part.tolist()
            seeds = [None if self.seed is None else derived_seed(self.seed, "image", number) for number in numbers]
            yield list(zip(numbers, seeds, strict=True))


def _as_it_is(batch: Tensor) -> Tensor:
    return batch


def _leave_signals(worker: int) -> None:
    """Makes a worker ignore SIGINT and SIGTERM.

    Ctrl-C reaches every process of a terminal, and SIGTERM every process of a cluster's job, but only the training
    process decides what to do. A worker ends when the training process says so, or has ended.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
