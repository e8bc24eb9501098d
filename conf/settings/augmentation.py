"""The knobs of what is done to training images; all may stand in a recipe."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from conf import knobs

knob = partial(knobs.knob, group="augmentation")


@dataclass(frozen=True, kw_only=True)
class AugmentationSettings:
    random_resized_crop: float = knob(
        "least share of its area that is cut at random from an image of a folder and resized (0: none; ImageNet: 0.08)",
        default=0.0,
        high=1.0,
    )
    crop: int = knob("pixels of black border before a random crop (0: none)", default=0, low=0, high=64)
    flip: str = knob(
        "horizontal flip; random, which true stands for: each time with probability 1/2; alternating: each image in "
        "every other epoch, its first time by the seed",
        default="off",
        choices=("off", "random", "alternating"),
        switch="random",
    )
    rotation: float = knob("random rotation within +- this many degrees (0: none)", default=0.0, low=0.0, high=180.0)
    trivial_augment: bool = knob("after those, one random operation of TrivialAugment (wide) an image", default=False)
    erase: float = knob("probability that a random rectangle of an image is erased", default=0.0, high=1.0)
    mixup: float = knob(
        "images and labels mixed in pairs by a share from Beta(X, X) a batch (0: not); training accuracy then counts "
        "the larger label",
        default=0.0,
        high=100.0,
    )
    cutmix: float = knob(
        "a rectangle of one image put into another, of an area from Beta(X, X) a batch (0: not); with -mixup, one of "
        "the two a batch",
        default=0.0,
        high=100.0,
    )
    correction: float = knob(
        "driving: correction of the steering angle's tangent for side cameras (0: centre camera only)",
        default=0.0,
        high=1.0,
    )
    brightness: float = knob("driving: smallest factor of the random brightness (1: none)", default=1.0, high=1.0)
    zero_drop: float = knob(
        "driving: share of the rows with an angle of zero that a pass leaves out",
        default=0.0,
        high=0.99,
    )
