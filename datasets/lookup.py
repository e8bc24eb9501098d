"""Where each pixel of an augmented image comes from: crop, flip and rotation as one look-up along an affine map.

The three maps are combined into one for each image, from a pixel of the result to a pixel of the original. The crop
comes before the rotation: a pixel that the map finds outside the crop is black, even where the original has pixels.

Pillow rotates 8-bit images in integers and counts coordinates in 1/65536 pixel (the matrix: Image.rotate; the steps:
affine_fixed in its Geometry.c). This file computes with the same integers, so the same offsets, flip and angle give
the same pixels.
"""

# NOTE: Pillow rounds sine and cosine to 15 decimals and this file does not. For about one angle in 10^8, at CIFAR's
# size, a coefficient differs by 1/65536 pixel.

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

PIXEL = 65536  # one pixel in the fixed-point coordinates
FAR = 1 << 28  # a row or column that is black counts as this far outside; no piece has as many pixels


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


class Lookup:
    """The look-up for images of one size on one device; crop: the pixels of black added on each side before a crop.

    A batch is looked up in pieces of `size` images, whose pixels lie in one row: of each image a black pixel, then its
    own, row by row. shift() and affine() return tensors of an entry an image, and a function that makes of a piece of
    each the positions of the result's pixels in that row, int32, B x H x W.
    """

    def __init__(self, height: int, width: int, crop: int, device: torch.device) -> None:
        assert 2 * (height + width + crop) * PIXEL < 2**31, "fixed-point coordinates overflow"
        self.height, self.width, self.crop, self.device = height, width, crop, device
        self.rows = torch.arange(height, dtype=torch.int32, device=device)
        self.columns = torch.arange(width, dtype=torch.int32, device=device)

    def _first(self, count: int, size: int) -> Tensor:
        """Where the first pixel of each original lies in its piece of the batch; each begins with a black pixel."""
        stride = self.height * self.width + 1
        assert min(count, size) * stride < FAR, "more pixels in a batch than the look-up can number"
        return torch.arange(count) % size * stride + 1

    def shift(self, draws: Draws, size: int) -> tuple[tuple[Tensor, ...], Callable[..., Tensor]]:
        """Without rotation: the position of each row (B x H x 1) and column (B x 1 x W), and what makes pixels of them.

        Rows and columns are then independent of each other: outside is decided for each alone.
        """
        down, right = draws.top - self.crop, draws.left - self.crop
        begin = right + draws.flip * (self.width - 1)
        step = 1 - 2 * draws.flip.long()
        down, begin, step, first = self._coefficients(down, begin, step, self._first(len(step), size))
        rows, columns = self.rows + down, self.columns * step + begin
        rows_outside = (rows < 0) | (rows >= self.height)
        columns_outside = (columns < 0) | (columns >= self.width)
        rows = (rows * self.width + first).masked_fill_(rows_outside, -FAR)
        return (rows, columns.masked_fill_(columns_outside, -FAR)), _cropped

    def affine(self, draws: Draws, size: int) -> tuple[tuple[Tensor, ...], Callable[..., Tensor]]:
        """With rotation: the map from result to original as `_rotated` takes it, and what makes pixels of it."""
        width, height, crop = self.width, self.height, self.crop
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
        return to_device(torch.stack(numbers).int(), self.device)[:, :, None].unbind()


def to_device(tensor: Tensor, device: torch.device) -> Tensor:
    """A small tensor on the device; from pinned memory to CUDA, so that the host does not wait."""
    if device.type == "cuda" and tensor.device.type == "cpu":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def _cropped(rows: Tensor, columns: Tensor) -> Tensor:
    """Where each pixel of the result lies, int32, B x H x W; 0 is black. rows, columns: see Lookup.shift."""
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
