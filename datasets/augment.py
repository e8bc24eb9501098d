"""The augmentation of a whole batch at once, on the device that holds the images: first random crop, flip, rotation.

The result is that of torchvision's RandomCrop(size, padding=crop), RandomHorizontalFlip() and
RandomRotation(rotation) on PIL images, one after the other, then ToTensor() and Normalize(mean, std), with nearest
neighbours and black (0 before normalisation) outside the image. Where each pixel comes from: datasets/lookup.py.
Where they are wanted, TrivialAugment changes the pixels before they are normalised (datasets/trivial_augment.py), and
random erasing the normalised images (datasets/erasing.py).
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from datasets.erasing import draw_rectangles, erase
from datasets.lookup import FAR, Draws, Lookup, to_device
from datasets.trivial_augment import Changes, change, draw_changes

PIECE = 1 << 15  # pixels of a batch that are worked on at once on a CPU


@dataclass(frozen=True)
class Augmentation:
    """How training images are augmented.

    crop      pixels of black that are added on each side before a crop of the original size at a random place; 0: none
    flip      whether left and right may be mirrored: with probability 1/2, where nothing else decides it
    rotation  the image is rotated by an angle that is uniform within +-rotation degrees; 0: none
    trivial_augment  whether each image is then changed by a random operation of TrivialAugment
    erase     the probability with which a random rectangle of an image is erased
    """

    crop: int
    flip: bool
    rotation: float
    trivial_augment: bool = False
    erase: float = 0.0

    def __post_init__(self) -> None:
        if self.crop < 0:
            raise ValueError(f"crop is {self.crop}; it takes 0 or more pixels of padding on each side")
        if not 0 <= self.rotation <= 180:
            raise ValueError(f"rotation is {self.rotation}; it takes 0 to 180 degrees")


NO_AUGMENTATION = Augmentation(crop=0, flip=False, rotation=0.0)


def draw(count: int, augmentation: Augmentation, generator: torch.Generator) -> Draws:
    """Draws for `count` images, each independent of the others, from a generator on the CPU."""
    top = left = torch.full((count,), augmentation.crop)
    flip = torch.zeros(count, dtype=torch.bool)
    angle = torch.zeros(count)
    if augmentation.crop:
        top, left = torch.randint(2 * augmentation.crop + 1, (2, count), generator=generator)
    if augmentation.flip:
        flip = torch.rand(count, generator=generator) < 0.5
    if augmentation.rotation:
        angle = angle.uniform_(-augmentation.rotation, augmentation.rotation, generator=generator)
    return Draws(top, left, flip, angle)


def settled(draws, rows: Tensor | None, mirrored: Tensor | None):
    """The draws of these rows (int64; None: of all), mirrored as that says (bool) where it says anything."""
    draws = draws if rows is None else draws.of(rows)
    return draws if mirrored is None else replace(draws, flip=mirrored)


class ImageSource:
    """All images of a split on one device, with their targets; it makes normalised float batches of them.

    images   uint8, N x C x H x W, C 1 or 3; where they lie on the device already, they are not copied
    targets  N x ...
    mean, std  of each channel, of pixels scaled to 0 ... 1

    Batches are float32, N x C x H x W, in channels_last memory format; targets come with them.
    """

    def __init__(
        self,
        images: Tensor,
        targets: Tensor,
        mean: Sequence[float],
        std: Sequence[float],
        augmentation: Augmentation,
        device: torch.device,
    ) -> None:
        assert images.dtype == torch.uint8 and images.ndim == 4, f"{images.dtype} {tuple(images.shape)}"
        count, self.channels, self.height, self.width = images.shape
        assert self.channels in (1, 3) and len(mean) == len(std) == self.channels
        assert len(targets) == count
        self.augmentation = augmentation
        self.device = torch.device(device)
        self.targets = targets.to(self.device)
        self.images = images.to(self.device)
        # Mean and std for a row of an image in channels_last: long rows keep the arithmetic vectorised.
        self.mean = torch.tensor(mean, dtype=torch.float32, device=self.device).repeat(self.width)
        self.std = torch.tensor(std, dtype=torch.float32, device=self.device).repeat(self.width)
        self.lookup = Lookup(self.height, self.width, augmentation.crop, self.device)

    def __len__(self) -> int:
        return len(self.images)

    def of(self, images: Tensor, targets: Tensor) -> ImageSource:
        """A source with the same settings for other images of this shape, and their targets."""
        other = copy.copy(self)
        other.images, other.targets = images.to(self.device), to_device(targets, self.device)
        return other

    def fetch(self, parts: Iterable[Tensor], seed: int | None = None) -> Iterator[tuple[ImageSource, Tensor]]:
        """For each part of an index, the source that holds its images, and its index there: here always this source.

        StreamSource (datasets/stream.py) decodes its images in fetch(), and draws random cuts with seed.
        """
        return ((self, part) for part in parts)

    def plain(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """The images of the index (int64) without augmentation, and their targets."""
        index = to_device(index, self.device)
        images = self._empty(len(index))
        self._normalise(self.images.index_select(0, index).permute(0, 2, 3, 1), images)
        return images.permute(0, 3, 1, 2), self.targets.index_select(0, index)

    def augmented(
        self,
        index: Tensor,
        generator: torch.Generator,
        count: int = 0,
        rows: Tensor | None = None,
        mirrored: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The images of the index (int64), each randomly augmented, and their targets.

        Where the index holds only the rows `rows` (int64) of a batch of `count` images, draws are made for the whole
        batch and those of the rows are used. mirrored: bool, whether each is mirrored, in place of the draws.
        """
        count, wanted = count or len(index), self.augmentation
        draws = settled(draw(count, wanted, generator), rows, mirrored)
        changes = draw_changes(count, generator) if wanted.trivial_augment else None
        rectangles = None
        if wanted.erase:
            rectangles = draw_rectangles(count, wanted.erase, self.height, self.width, generator)
        if rows is not None:
            changes, rectangles = (each and each.of(rows) for each in (changes, rectangles))
        images, targets = self.apply(index, draws, changes)
        return images if rectangles is None else erase(images, rectangles), targets

    def apply(self, index: Tensor, draws: Draws, changes: Changes | None = None) -> tuple[Tensor, Tensor]:
        """The images of the index (int64), augmented by the draws and then by the changes, and their targets.

        draws: from draw() for this source's augmentation; what the augmentation leaves out is ignored.
        """
        index = to_device(index, self.device)
        images = self._empty(len(index))
        if changes is None:
            for pixels, into in self._look_up(index, images, draws):
                self._normalise(pixels, into)
        else:
            # channel by channel, in which a CPU makes most changes in half the time that channels_last takes
            found = self.images.new_empty(len(index), self.channels, self.height, self.width)
            for pixels, into in self._look_up(index, found.permute(0, 2, 3, 1), draws):
                into.copy_(pixels[..., : self.channels])
            self._normalise(change(found, changes).permute(0, 2, 3, 1), images)
        return images.permute(0, 3, 1, 2), self.targets.index_select(0, index)

    def _look_up(self, index: Tensor, images: Tensor, draws: Draws) -> Iterator[tuple[Tensor, Tensor]]:
        """Pixels after crop, flip and rotation, uint8 B x H x W x C or more, and their part of images."""
        if not (self.augmentation.crop or self.augmentation.flip or self.augmentation.rotation):
            yield self.images.index_select(0, index).permute(0, 2, 3, 1), images
            return
        # A CPU works on the batch in pieces that stay in a core's cache with all that is computed on the way;
        # elsewhere a piece is as much as the look-up can number.
        area = self.height * self.width
        size = max(1, PIECE // area if self.device.type == "cpu" else (FAR - 1) // (area + 1))
        find = self.lookup.affine if self.augmentation.rotation else self.lookup.shift
        steps, positions_of = find(draws, size)
        for piece, into, *step in zip(*(t.split(size) for t in (index, images, *steps)), strict=True):
            originals = _pack(self.images.index_select(0, piece))
            positions = positions_of(*step)
            pixels = originals.view(-1).index_select(0, positions.view(-1)).unsqueeze(-1).view(torch.uint8)
            yield pixels.view(*into.shape[:3], -1), into

    def _empty(self, count: int) -> Tensor:
        return torch.empty(count, self.height, self.width, self.channels, device=self.device)

    def _normalise(self, pixels: Tensor, images: Tensor) -> None:
        """Pixels (B x H x W x C or more) into images (B x H x W x C) as ToTensor and Normalize make them."""
        for channel in range(self.channels):  # faster, a strided copy each, than all of pixels[..., :channels] at once
            images[..., channel] = pixels[..., channel]
        images.view(-1, self.width * self.channels).div_(255).sub_(self.mean).div_(self.std)


def _pack(images: Tensor) -> Tensor:
    """uint8 B x C x H x W to B x (1 + H W): a black pixel, then the image's, row by row.

    A colour pixel is the four bytes R, G, B, 0 as one int32, so that a look-up moves one number a pixel; a grey one
    stays uint8. This is done to a batch and not once to all images, whose copy would be larger than they are.
    """
    count, channels, height, width = images.shape
    packed = images.new_zeros(count, 1 + height * width, 4 if channels == 3 else 1)
    for channel in range(channels):
        packed[:, 1:, channel] = images[:, channel].flatten(1)
    return (packed.view(torch.int32) if channels == 3 else packed).squeeze(-1)
