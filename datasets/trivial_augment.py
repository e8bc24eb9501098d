"""TrivialAugment (Mueller and Hutter 2021, arXiv 2103.10158) for a whole batch at once, on the device that holds it.

Each image gets one of fourteen operations at one of 31 strengths, drawn as torchvision's v2.TrivialAugmentWide draws
them. That class changes an image after the other. Here all images of a batch with the same operation are changed
together, each by its own strength: torchvision's functions make what an operation blends with, or do the whole of it
where it has no strength. Nearest neighbours, black outside the image.

A pixel may differ by 1 of 255 from torchvision's: brightness, colour, contrast and sharpness are Pillow's blend,
which starts from an image in whole numbers. Nearest neighbours of a point halfway between two may be the other one.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from datasets.lookup import to_device

MOVES = ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate")
BLENDS = ("Brightness", "Color", "Contrast", "Sharpness")
OTHERS = ("Posterize", "Solarize", "AutoContrast", "Equalize", "Identity")
OPERATIONS = MOVES + BLENDS + OTHERS
LEVELS = 31


@dataclass(frozen=True)
class Changes:
    """The random draws for a batch: one entry an image, on the CPU.

    operation  int64, its place in OPERATIONS
    strength   float32, what strengths() has for it, with a random sign for a move or a blend
    """

    operation: Tensor
    strength: Tensor

    def of(self, rows: Tensor) -> Changes:
        return Changes(self.operation[rows], self.strength[rows])


@functools.cache
def strengths() -> Tensor:
    """The strengths of each operation, OPERATIONS x LEVELS: shares of a side's slope, pixels, degrees, what a blend's
    factor differs from 1, bits that are kept, a share of white from which on colours are inverted; 0 for the rest.
    """
    greatest = {"TranslateX": 32.0, "TranslateY": 32.0, "Rotate": 135.0}
    rows = [torch.linspace(0.0, greatest.get(name, 0.99), LEVELS) for name in MOVES + BLENDS]
    bits = (8 - torch.arange(LEVELS) / ((LEVELS - 1) / 6)).round()
    none = torch.zeros(LEVELS)
    return torch.stack([*rows, bits, torch.linspace(1.0, 0.0, LEVELS), none, none, none])


def draw_changes(count: int, generator: torch.Generator) -> Changes:
    """Draws for `count` images, each independent of the others, from a generator on the CPU."""
    operation = torch.randint(len(OPERATIONS), (count,), generator=generator)
    level = torch.randint(LEVELS, (count,), generator=generator)
    negative = (torch.rand(count, generator=generator) < 0.5) & (operation < len(MOVES + BLENDS))
    strength = strengths()[operation, level]
    return Changes(operation, torch.where(negative, -strength, strength))


def change(images: Tensor, changes: Changes) -> Tensor:
    """Changes images (uint8, B x C x H x W) in place, and returns them."""
    found = {name: (changes.operation == place).nonzero().squeeze(1) for place, name in enumerate(OPERATIONS)}
    moved = [(name, changes.strength[found[name]]) for name in MOVES]
    rows = {name: found[name] for name in (*BLENDS, *OTHERS) if name != "Identity"}
    rows["moves"] = torch.cat([found[name] for name in MOVES])
    for name, where in rows.items():
        if not len(where):
            continue
        strength = to_device(changes.strength[where], images.device)[:, None, None, None]
        where = to_device(where, images.device)
        chosen = images.index_select(0, where)
        images[where] = _move(chosen, moved) if name == "moves" else _recolour(chosen, name, strength)
    return images


def _recolour(images: Tensor, name: str, strength: Tensor) -> Tensor:
    """Images of one operation that moves no pixel. strength: B x 1 x 1 x 1."""
    from torchvision.transforms.v2 import functional as V  # here: torchvision takes a second to load

    if name in BLENDS:
        starts = {
            "Brightness": functools.partial(V.adjust_brightness, brightness_factor=0.0),
            "Color": functools.partial(V.adjust_saturation, saturation_factor=0.0),
            "Contrast": functools.partial(V.adjust_contrast, contrast_factor=0.0),
            "Sharpness": _smoothed,
        }
        start = starts[name](images).float()
        return (images - start).mul_(1.0 + strength).add_(start).clamp_(0, 255).to(torch.uint8)
    if name == "Posterize":
        return images & (256 - 2 ** (8 - strength.int())).to(torch.uint8)
    if name == "Solarize":
        return torch.where(images >= 255 * strength, V.invert(images), images)
    return V.autocontrast(images) if name == "AutoContrast" else V.equalize(images)


def _smoothed(images: Tensor) -> Tensor:
    """What sharpness starts from, as torchvision's adjust_sharpness(images, 0.0) makes it; the border stays as it is.

    Made here because torchvision brings its kernel from the host at every call, for which a CUDA device is waited for.
    A sum of whole numbers over 13 is never halfway between two, so that both round alike.
    """
    channels, height, width = images.shape[1:]
    smoothed = images.float()
    if min(height, width) > 2:
        kernel = torch.ones(channels, 1, 3, 3, device=images.device)
        kernel[:, :, 1, 1].fill_(5.0)
        smoothed[:, :, 1:-1, 1:-1] = (F.conv2d(smoothed, kernel, groups=channels) / 13).round()
    return smoothed


def _move(images: Tensor, strengths_of: list[tuple[str, Tensor]]) -> Tensor:
    """Images whose pixels are moved. strengths_of: of each of MOVES, the strengths of its images, in their order."""
    height, width = images.shape[-2:]
    maps = torch.cat([_map(name, strength.double(), height, width) for name, strength in strengths_of])
    maps = to_device(maps.float(), images.device)[:, :, :, None, None]  # B x 2 x 3 x 1 x 1
    x = torch.arange(width, device=images.device) - (width - 1) / 2
    y = (torch.arange(height, device=images.device) - (height - 1) / 2)[:, None]
    places = maps[:, :, 0] * x + maps[:, :, 1] * y + maps[:, :, 2]  # B x 2 x H x W, from the image's middle
    grid = torch.stack((places[:, 0] / (width / 2), places[:, 1] / (height / 2)), dim=-1)
    return F.grid_sample(images.float(), grid, mode="nearest", align_corners=False).to(torch.uint8)


def _map(name: str, strength: Tensor, height: int, width: int) -> Tensor:
    """Where a pixel of the result comes from, B x 2 x 3: x = m00 x' + m01 y' + m02 from the image's middle, y alike.

    A shear leaves the upper left corner where it is, as in torchvision; a rotation is counter-clockwise.
    """
    one, none = torch.ones_like(strength), torch.zeros_like(strength)
    angle = torch.deg2rad(strength)
    pixels = strength.trunc()
    numbers = {
        "ShearX": (one, strength, strength * height / 2, none, one, none),
        "ShearY": (one, none, none, strength, one, strength * width / 2),
        "TranslateX": (one, none, -pixels, none, one, none),
        "TranslateY": (one, none, none, none, one, -pixels),
        "Rotate": (angle.cos(), -angle.sin(), none, angle.sin(), angle.cos(), none),
    }[name]
    return torch.stack(numbers, dim=1).view(-1, 2, 3)
