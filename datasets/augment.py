"""Random crop, flip and rotation for a whole batch at once, on the device that holds the images.

The result is that of torchvision's RandomCrop(size, padding=crop), RandomHorizontalFlip() and
RandomRotation(rotation) on PIL images, one after the other, then ToTensor() and Normalize(mean, std), with nearest
neighbours and black (0 before normalisation) outside the image. The three maps are combined into one affine map for
each image, from a pixel of the result to a pixel of the original, and a batch is one look-up along it. The crop comes
before the rotation: a pixel that the map finds outside the crop is black, even where the original has pixels.

Pillow rotates 8-bit images in integers and counts coordinates in 1/65536 pixel (the matrix: Image.rotate; the steps:
affine_fixed in its Geometry.c). This file computes with the same integers, so the same offsets, flip and angle give
the same pixels.
"""

# NOTE: Pillow rounds sine and cosine to 15 decimals and this file does not. For about one angle in 10^8, at CIFAR's
# size, a coefficient differs by 1/65536 pixel.

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

PIXEL = 65536  # one pixel in the fixed-point coordinates
FAR = 1 << 28  # a row or column that is black counts as this far outside; no batch has as many pixels
PIECE = 1 << 15  # pixels of a batch that are worked on at once on a CPU


@dataclass(frozen=True)
class Augmentation:
    """How training images are augmented.

    crop      pixels of black that are added on each side before a crop of the original size at a random place; 0: none
    flip      whether left and right are mirrored with probability 1/2
    rotation  the image is rotated by an angle that is uniform within +-rotation degrees; 0: none
    """

    crop: int
    flip: bool
    rotation: float

    def __post_init__(self) -> None:
        if self.crop < 0:
            raise ValueError(f"crop is {self.crop}; it takes 0 or more pixels of padding on each side")
        if not 0 <= self.rotation <= 180:
            raise ValueError(f"rotation is {self.rotation}; it takes 0 to 180 degrees")


NO_AUGMENTATION = Augmentation(crop=0, flip=False, rotation=0.0)


@dataclass(frozen=True)
class Draws:
    """The random draws for a batch: one entry an image, on the CPU.

    top, left  int64, the crop's first row and column in the padded image, 0 ... 2 crop
    flip       bool
    angle      float32, degrees counter-clockwise
    """

    top: Tensor
    left: Tensor
    flip: Tensor
    angle: Tensor

    def of(self, rows: Tensor) -> Draws:
        return Draws(self.top[rows], self.left[rows], self.flip[rows], self.angle[rows])


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


class ImageSource:
    """All images of a split on one device, with their targets; it makes normalised float batches of them.

    images   uint8, N x C x H x W, C 1 or 3; copied, so that the caller may drop them
    targets  N x ...
    mean, std  of each channel, of pixels scaled to 0 ... 1

    Memory on the device: 4 bytes a pixel for colour, 1 for grey (CIFAR-100's training images: 205 MB).
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
        assert 2 * (self.height + self.width + augmentation.crop) * PIXEL < 2**31, "fixed-point coordinates overflow"
        self.augmentation = augmentation
        self.device = torch.device(device)
        self.targets = targets.to(self.device)
        self.pixels = _pack(images, self.device)
        # Mean and std for a row of an image in channels_last: long rows keep the arithmetic vectorised.
        self.mean = torch.tensor(mean, dtype=torch.float32, device=self.device).repeat(self.width)
        self.std = torch.tensor(std, dtype=torch.float32, device=self.device).repeat(self.width)
        self.rows = torch.arange(self.height, dtype=torch.int32, device=self.device)
        self.columns = torch.arange(self.width, dtype=torch.int32, device=self.device)

    def __len__(self) -> int:
        return len(self.pixels)

    def of(self, images: Tensor, targets: Tensor) -> ImageSource:
        """A source with the same settings for other images of this shape, and their targets."""
        other = copy.copy(self)
        other.pixels, other.targets = _pack(images, self.device), self._to_device(targets)
        return other

    def fetch(self, parts: Iterable[Tensor], seed: int | None = None) -> Iterator[tuple[ImageSource, Tensor]]:
        """For each part of an index, the source that holds its images, and its index there: here always this source.

        StreamSource (datasets/stream.py) decodes its images in fetch(), and draws random cuts with seed.
        """
        return ((self, part) for part in parts)

    def plain(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """The images of the index (int64) without augmentation, and their targets."""
        index = self._to_device(index)
        images = self._empty(len(index))
        self._normalise(self.pixels.index_select(0, index)[:, 1:], images)
        return images.permute(0, 3, 1, 2), self.targets.index_select(0, index)

    def augmented(
        self, index: Tensor, generator: torch.Generator, count: int = 0, rows: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The images of the index (int64), each randomly augmented, and their targets.

        Where the index holds only the rows `rows` (int64) of a batch of `count` images, draws are made for the whole
        batch and those of the rows are used.
        """
        draws = draw(count or len(index), self.augmentation, generator)
        return self.apply(index, draws if rows is None else draws.of(rows))

    def apply(self, index: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        """The images of the index (int64), augmented by the draws, and their targets.

        draws: from draw() for this source's augmentation; what the augmentation leaves out is ignored.
        """
        if not (self.augmentation.crop or self.augmentation.flip or self.augmentation.rotation):
            return self.plain(index)
        index = self._to_device(index)
        images = self._empty(len(index))
        # A CPU works on the batch in pieces that stay in a core's cache with all that is computed on the way.
        size = max(1, PIECE // (self.height * self.width)) if self.device.type == "cpu" else max(1, len(index))
        steps, positions_of = self._affine(draws, size) if self.augmentation.rotation else self._shift(draws, size)
        for piece, into, *step in zip(*(t.split(size) for t in (index, images, *steps)), strict=True):
            originals = self.pixels.index_select(0, piece)
            positions = positions_of(*step)
            self._normalise(originals.view(-1).index_select(0, positions.view(-1)), into)
        return images.permute(0, 3, 1, 2), self.targets.index_select(0, index)

    def _first(self, count: int, size: int) -> Tensor:
        """Where the first pixel of each original lies in its piece of the batch; each begins with a black pixel."""
        stride = self.height * self.width + 1
        assert min(count, size) * stride < FAR, "more pixels in a batch than the look-up can number"
        return torch.arange(count) % size * stride + 1

    def _shift(self, draws: Draws, size: int) -> tuple[tuple[Tensor, ...], Callable[..., Tensor]]:
        """Without rotation: the position of each row (B x H x 1) and column (B x 1 x W), and what makes pixels of them.

        Rows and columns are then independent of each other: outside is decided for each alone.
        """
        down, right = draws.top - self.augmentation.crop, draws.left - self.augmentation.crop
        begin = right + draws.flip * (self.width - 1)
        step = 1 - 2 * draws.flip.long()
        down, begin, step, first = self._coefficients(down, begin, step, self._first(len(step), size))
        rows, columns = self.rows + down, self.columns * step + begin
        rows_outside = (rows < 0) | (rows >= self.height)
        columns_outside = (columns < 0) | (columns >= self.width)
        rows = (rows * self.width + first).masked_fill_(rows_outside, -FAR)
        return (rows, columns.masked_fill_(columns_outside, -FAR)), _cropped

    def _affine(self, draws: Draws, size: int) -> tuple[tuple[Tensor, ...], Callable[..., Tensor]]:
        """The map from a pixel of the result to the original, as `_rotated` takes it, and what makes pixels of it."""
        width, height, crop = self.width, self.height, self.augmentation.crop
        # Pillow turns about the centre, from result to source: x' - w/2 = cos (x - w/2) + sin (y - h/2), and takes
        # the middle of each pixel, hence the halves.
        radians = -torch.deg2rad(draws.angle.double())
        cos, sin = radians.cos(), radians.sin()
        x_begin = width / 2 - cos * ((width - 1) / 2) - sin * ((height - 1) / 2)
        y_begin = height / 2 + sin * ((width - 1) / 2) - cos * ((height - 1) / 2)
        # To whole 1/65536 pixels, rounded as Pillow does.
        fixed = torch.stack((x_begin, y_begin, cos, sin, -sin)).mul_(PIXEL).add_(0.5).floor_().long()
        x_begin, y_begin, along, across, opposite = fixed.unbind()
        # The flip mirrors the column: width - 1 - floor(x / 65536) = floor((65536 width - 1 - x) / 65536).
        sign = 1 - 2 * draws.flip.long()
        x_begin = torch.where(draws.flip, width * PIXEL - 1 - x_begin, x_begin)
        # Moved by the crop, the original shows from column max(0, right) on, for width - |right| columns; rows alike.
        down, right = draws.top - crop, draws.left - crop
        x_begin, y_begin = x_begin + right.clamp(max=0) * PIXEL, y_begin + down.clamp(max=0) * PIXEL
        x_end, y_end = (width - right.abs()) * PIXEL, (height - down.abs()) * PIXEL
        first = self._first(len(sign), size) + down.clamp(min=0) * width + right.clamp(min=0)
        x_begin, x_row, x_column, x_end, y_begin, y_row, y_column, y_end, first = self._coefficients(
            x_begin, sign * across, sign * along, x_end, y_begin, along, opposite, y_end, first
        )
        steps = (
            (x_begin + x_row * self.rows)[:, :, None],
            (x_column * self.columns)[:, None, :],
            x_end[:, :, None],
            (y_begin + y_row * self.rows)[:, :, None],
            (y_column * self.columns)[:, None, :],
            y_end[:, :, None],
            first[:, :, None],
        )
        return steps, partial(_rotated, width=width)

    def _coefficients(self, *numbers: Tensor) -> tuple[Tensor, ...]:
        """Numbers of each image on the device, int32, B x 1 each, in one copy that nothing waits for."""
        return self._to_device(torch.stack(numbers).int())[:, :, None].unbind()

    def _to_device(self, tensor: Tensor) -> Tensor:
        """A small tensor on the device; from pinned memory to CUDA, so that the host does not wait."""
        if self.device.type == "cuda" and tensor.device.type == "cpu":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)

    def _empty(self, count: int) -> Tensor:
        return torch.empty(count, self.height, self.width, self.channels, device=self.device)

    def _normalise(self, packed: Tensor, images: Tensor) -> None:
        """Packed pixels into images (B x H x W x C) as ToTensor and Normalize make them."""
        values = packed.unsqueeze(-1).view(torch.uint8)
        values = values.view(len(images), self.height, self.width, values.shape[-1])
        for channel in range(self.channels):  # faster, a strided copy each, than all of values[..., :channels] at once
            images[..., channel] = values[..., channel]
        images.view(-1, self.width * self.channels).div_(255).sub_(self.mean).div_(self.std)


def _cropped(rows: Tensor, columns: Tensor) -> Tensor:
    """Where each pixel of the result lies, int32, B x H x W; 0 is black. rows, columns: see ImageSource._shift."""
    return (rows[:, :, None] + columns[:, None, :]).clamp_(min=0)


def _rotated(
    x_rows: Tensor,
    x_columns: Tensor,
    x_end: Tensor,
    y_rows: Tensor,
    y_columns: Tensor,
    y_end: Tensor,
    first: Tensor,
    width: int,
) -> Tensor:
    """Where each pixel of the result lies, int32, B x H x W; 0 is black.

    x_rows + x_columns is its column in the original, in 1/65536 pixel from the first column that the crop shows;
    x_end is where the crop ends; y alike; first is the position of the first pixel that the crop shows; width, the
    original's, from one row to the next.
    """
    x, y = x_rows + x_columns, y_rows + y_columns
    # Inside where x and y are not negative and x - x_end and y - y_end are: read off the signs, which a shift
    # spreads over all bits (-1 inside, 0 outside). Comparisons that make booleans take several times as long.
    inside = (x | y).bitwise_not_()
    inside.bitwise_and_(x - x_end).bitwise_and_(y - y_end).bitwise_right_shift_(31)
    x.bitwise_right_shift_(16)
    y.bitwise_right_shift_(16)
    return x.add_(y, alpha=width).add_(first).bitwise_and_(inside)


def _pack(images: Tensor, device: torch.device) -> Tensor:
    """uint8 N x C x H x W to N x (1 + H W): a black pixel, then the image's, row by row.

    A colour pixel is the four bytes R, G, B, 0 as one int32, so that a look-up moves one number a pixel; a grey one
    stays uint8.
    """
    count, channels, height, width = images.shape
    packed = torch.zeros(count, 1 + height * width, 4 if channels == 3 else 1, dtype=torch.uint8, device=device)
    for channel in range(channels):
        packed[:, 1:, channel] = images[:, channel].flatten(1).to(device)
    return (packed.view(torch.int32) if channels == 3 else packed).squeeze(-1)
