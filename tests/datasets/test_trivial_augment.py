"""TrivialAugment on batches gives the pixels of torchvision's, image by image, and draws from the same table."""

import pytest
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import TrivialAugmentWide

from datasets.augment import Augmentation, ImageSource
from datasets.trivial_augment import LEVELS, OPERATIONS, Changes, change, draw_changes, strengths

CPU = torch.device("cpu")


def images_of(count: int, channels: int, height: int = 32, width: int = 32) -> Tensor:
    """Smooth images with some noise, which have the brightness and the edges that photographs have."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, channels, 5, 5, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")
    return (smooth * 235 + 20 * torch.rand(smooth.shape, generator=generator)).to(torch.uint8)


def torchvision_s(image: Tensor, name: str, strength: float) -> Tensor:
    transform = TrivialAugmentWide()
    how = dict(interpolation=InterpolationMode.NEAREST, fill=transform._fill)
    return transform._apply_image_or_video_transform(image, name, strength, **how)


@pytest.mark.parametrize("channels,height,width", [(3, 32, 32), (1, 28, 28), (3, 20, 33)])
@pytest.mark.parametrize("name", OPERATIONS)
def test_pixels_are_torchvision_s(name: str, channels: int, height: int, width: int) -> None:
    """Every strength of both signs, all in one batch with other operations between them."""
    table = strengths()[OPERATIONS.index(name)]
    signed = torch.cat([table, -table]) if OPERATIONS.index(name) < 9 else table
    images = images_of(2 * len(signed), channels, height, width)
    operation = torch.full((2 * len(signed),), OPERATIONS.index(name))
    operation[1::2] = torch.arange(len(signed)) % len(OPERATIONS)
    strength = torch.zeros(2 * len(signed))
    strength[::2], strength[1::2] = signed, strengths()[operation[1::2], 7]
    found = change(images.clone(), Changes(operation, strength))
    wanted = torch.stack(
        [
            torchvision_s(image, OPERATIONS[number], float(each))
            for image, number, each in zip(images, operation, strength, strict=True)
        ]
    )
    chosen = operation == OPERATIONS.index(name)
    difference = (found[chosen].int() - wanted[chosen].int()).abs()
    if name in ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"):
        assert (difference > 0).double().mean() < 2e-3  # points halfway between two pixels
    elif name in ("Brightness", "Color", "Contrast", "Sharpness"):
        assert difference.max() <= 1
        assert (difference > 0).double().mean() < (0.5 if name == "Contrast" else 0.01)  # a mean in whole numbers
    else:
        assert difference.max() == 0
    if name != "Identity" and (name, channels) != ("Color", 1):  # grey has no colour
        assert not torch.equal(found[chosen], images[chosen])


def test_strengths_are_torchvision_s() -> None:
    space = TrivialAugmentWide._AUGMENTATION_SPACE
    assert set(space) == set(OPERATIONS)
    for name, row in zip(OPERATIONS, strengths(), strict=True):
        make, signed = space[name]
        values = make(LEVELS, 32, 32)
        wanted = torch.zeros(LEVELS) if values is None else values.float()
        assert torch.equal(row, wanted) and signed == (OPERATIONS.index(name) < 9)


def test_draws_are_even_and_independent() -> None:
    count = 100_000
    changes = draw_changes(count, torch.Generator().manual_seed(1))
    shares = torch.bincount(changes.operation, minlength=14) / count
    assert len(shares) == 14 and (shares - 1 / 14).abs().max() < 4 * (1 / 14 / count) ** 0.5
    rotated = changes.strength[changes.operation == OPERATIONS.index("Rotate")]
    assert rotated.unique().numel() == 2 * LEVELS - 1
    assert abs((rotated < 0).double().mean() - 0.5 * 30 / 31) < 0.03  # zero has no sign
    kept = changes.strength[changes.operation == OPERATIONS.index("Posterize")]
    assert set(kept.tolist()) == set(range(2, 9))


def test_it_comes_after_the_crop_and_before_normalisation() -> None:
    """The batch of a source, its draws made again, one step after the other; a share of a batch has the same images."""
    images, index = images_of(40, 3), torch.randperm(40, generator=torch.Generator().manual_seed(5))
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)
    normalised = [
        ImageSource(images, index, mean, std, Augmentation(4, True, 10.0, trivial), CPU).augmented(
            index, torch.Generator().manual_seed(3)
        )[0]
        for trivial in (False, True)
    ]
    scale, shift = (torch.tensor(each).view(1, 3, 1, 1) for each in (std, mean))
    cropped = ((normalised[0] * scale + shift) * 255).round().to(torch.uint8)
    generator = torch.Generator().manual_seed(3)
    torch.randint(9, (2, 40), generator=generator), torch.rand(40, generator=generator)
    torch.zeros(40).uniform_(-10.0, 10.0, generator=generator)
    wanted = (change(cropped, draw_changes(40, generator)) / 255 - shift) / scale
    torch.testing.assert_close(normalised[1], wanted)
    source = ImageSource(images, index, mean, std, Augmentation(4, True, 10.0, True), CPU)
    rows = torch.arange(7, 19)
    part, _ = source.augmented(index[rows], torch.Generator().manual_seed(3), 40, rows)
    assert torch.equal(part, normalised[1][rows])
