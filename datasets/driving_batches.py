"""Augmented batches of the driving data set: random camera, random brightness, random mirror image.

Each row has three frames (datasets/driving.py). Of each row in a batch chance decides
- the camera, each with the same probability. A side camera sees the road as if the car stood beside its track, so
  its angle steers back: atan(tan(angle) + correction) for the left camera, - correction for the right one.
- the brightness: V of the frame in HSV is multiplied by a factor. H and S stay; R, G and B are then proportional to V,
  so each of them is multiplied by the same factor.
- with probability 1/2 a mirror image, with the negative angle.

The angle of most rows is zero. Each pass over the data leaves out a share of these rows, chosen anew.
"""

# NOTE: tan and atan take the angle in the log's unit for radians, as the original does.

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from datasets.augment import NO_AUGMENTATION, ImageSource, settled
from datasets.batches import TrainingBatches
from datasets.driving_log import CAMERAS
from datasets.lookup import to_device


@dataclass(frozen=True)
class DrivingAugmentation:
    """How the rows of the driving data set are augmented.

    correction  what is added to the angle's tangent for the left camera, and subtracted for the right one; 0: only the
                centre camera is used
    brightness  the smallest factor on HSV's V, which is uniform between it and 1; 1: the brightness stays
    flip        whether left and right may be mirrored: with probability 1/2, where nothing else decides it
    """

    correction: float
    brightness: float
    flip: bool


@dataclass(frozen=True)
class DrivingDraws:
    """The random draws for a batch: one entry a row, on the CPU.

    camera      int64: 0 centre, 1 left, 2 right
    brightness  float32, the factor
    flip        bool
    """

    camera: Tensor
    brightness: Tensor
    flip: Tensor

    def of(self, rows: Tensor) -> DrivingDraws:
        return DrivingDraws(self.camera[rows], self.brightness[rows], self.flip[rows])


def draw(count: int, augmentation: DrivingAugmentation, generator: torch.Generator) -> DrivingDraws:
    """Draws for `count` rows, each independent of the others, from a generator on the CPU."""
    camera = torch.zeros(count, dtype=torch.int64)
    brightness = torch.ones(count)
    flip = torch.zeros(count, dtype=torch.bool)
    if augmentation.correction:
        camera = torch.randint(CAMERAS, (count,), generator=generator)
    if augmentation.brightness < 1:
        brightness = brightness.uniform_(augmentation.brightness, 1.0, generator=generator)
    if augmentation.flip:
        flip = torch.rand(count, generator=generator) < 0.5
    return DrivingDraws(camera, brightness, flip)


def corrected(angles: Tensor, camera: Tensor, correction: float) -> Tensor:
    """The angles, in the log's unit, that fit the frames of these cameras (0 centre, 1 left, 2 right)."""
    shift = correction * ((camera == 1).float() - (camera == 2).float())
    return torch.where(camera == 0, angles, torch.atan(torch.tan(angles) + shift))


class DrivingSource(ImageSource):
    """The rows of the driving data set on one device: an ImageSource whose index counts rows of three frames each.

    images   uint8, 3N x 3 x H x W: of each row the frames of the centre, left and right camera
    targets  float32, 3N: the row's angle for each of them
    """

    def __init__(
        self,
        images: Tensor,
        targets: Tensor,
        mean: Sequence[float],
        std: Sequence[float],
        augmentation: DrivingAugmentation,
        device: torch.device,
    ) -> None:
        assert len(images) % CAMERAS == 0 and images.shape[1] == 3, tuple(images.shape)
        super().__init__(images, targets, mean, std, NO_AUGMENTATION, device)
        self.row_augmentation = augmentation
        self.angles = targets[::CAMERAS]  # of the rows, on the CPU

    def __len__(self) -> int:
        return len(self.images) // CAMERAS

    def plain(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """The centre frames of the rows (int64) without augmentation, and their angles."""
        return super().plain(index * CAMERAS)

    def augmented(
        self,
        index: Tensor,
        generator: torch.Generator,
        count: int = 0,
        rows: Tensor | None = None,
        mirrored: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """A randomly chosen and augmented frame of each of the rows (int64), and the angles that fit them.

        count, rows, mirrored: as ImageSource.augmented takes them.
        """
        return self.apply(index, settled(draw(count or len(index), self.row_augmentation, generator), rows, mirrored))

    def apply(self, index: Tensor, draws: DrivingDraws) -> tuple[Tensor, Tensor]:
        """A frame of each of the rows (int64), chosen and augmented by the draws, and the angles that fit them."""
        images, angles = super().plain(index * CAMERAS + draws.camera)
        camera, flip, brightness = (
            to_device(each, self.device) for each in (draws.camera, draws.flip, draws.brightness)
        )
        angles = corrected(angles, camera, self.row_augmentation.correction)
        mean, std = (each[: self.channels].view(1, -1, 1, 1) for each in (self.mean, self.std))
        # (f (x std + mean) - mean) / std, in place: a batch is large
        factor = brightness.view(-1, 1, 1, 1)
        images.mul_(factor).add_((factor - 1) * (mean / std))
        images = torch.where(flip.view(-1, 1, 1, 1), images.flip(3), images)
        return images, torch.where(flip, -angles, angles)


class DrivingBatches(TrainingBatches):
    """TrainingBatches whose passes leave out the share zero_drop of the rows with an angle of zero."""

    def __init__(self, source: DrivingSource, index: Tensor, *others, zero_drop: float = 0.0, **options) -> None:
        straight = source.angles[index] == 0
        self.straight, self.turning = index[straight], index[~straight]
        self.kept = len(self.straight) - round(zero_drop * len(self.straight))
        super().__init__(source, index, *others, **options)

    def pass_length(self) -> int:
        return len(self.turning) + self.kept

    def one_pass(self, generator: torch.Generator) -> Tensor:
        chosen = torch.randperm(len(self.straight), generator=generator)[: self.kept]
        rows = torch.cat([self.turning, self.straight[chosen]]).sort().values
        return rows[torch.randperm(len(rows), generator=generator)] if self.shuffle else rows
