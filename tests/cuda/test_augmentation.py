"""What is done to training images on CUDA is what a CPU makes of the same draws."""

import pytest
import torch
from torch import Tensor

from datasets.augment import Augmentation, ImageSource, draw
from datasets.batches import TrainingBatches
from datasets.erasing import draw_rectangles, erase
from datasets.mixing import Mixing
from datasets.trivial_augment import OPERATIONS, Changes, change, strengths

pytestmark = pytest.mark.cuda
CPU = torch.device("cpu")
ROUNDING = dict(rtol=0, atol=1e-6)  # CUDA divides by a number as it multiplies by its inverse; a pixel's step is 1/64


def images_of(count: int) -> Tensor:
    return torch.randint(256, (count, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_augmentation_is_the_cpus_pixel_for_pixel(device):
    generator = torch.Generator().manual_seed(0)
    augmentation = Augmentation(crop=4, flip=True, rotation=15)
    draws, index = draw(300, augmentation, generator), torch.arange(300)
    made = [
        ImageSource(images_of(300), index, [0.5] * 3, [0.25] * 3, augmentation, each).apply(index, draws)
        for each in (CPU, device)
    ]
    for expected, found in zip(*made, strict=True):
        torch.testing.assert_close(found.cpu(), expected, **ROUNDING)


@pytest.mark.parametrize("name", OPERATIONS)
def test_trivial_augment_is_the_cpus(name, device):
    """Every strength of both signs. Differences are of one step of 255, or of the nearer of two equally near pixels."""
    table = strengths()[OPERATIONS.index(name)]
    signed = torch.cat([table, -table]) if OPERATIONS.index(name) < 9 else table
    changes, images = Changes(torch.full((len(signed),), OPERATIONS.index(name)), signed), images_of(len(signed))
    expected, found = (change(images.clone().to(each), changes).cpu() for each in (CPU, device))
    difference = (found.int() - expected.int()).abs()
    if name in ("ShearX", "ShearY", "TranslateX", "TranslateY", "Rotate"):
        assert (difference > 0).double().mean() < 2e-3  # CUDA computes a point's place in one rounding fewer
    elif name in ("Brightness", "Color", "Contrast", "Sharpness"):
        assert difference.max() <= 1  # as it does grey values, and means in another order; both are then cut to a whole
        assert (difference > 0).double().mean() < (0.5 if name == "Contrast" else 0.01)
    else:
        assert difference.max() == 0
    if name != "Identity":
        assert not torch.equal(found, images)


def test_erasing_is_the_cpus_bit_for_bit(device):
    images = torch.randn(300, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    boxes = draw_rectangles(300, 0.6, 32, 32, torch.Generator().manual_seed(1))
    expected, found = (erase(images.clone().to(each), boxes).cpu() for each in (CPU, device))
    assert torch.equal(found, expected) and not torch.equal(found, images)


@pytest.mark.parametrize("kinds", [(0.4, 0.0), (0.0, 1.0)], ids=["mixup", "cutmix"])
def test_mixed_batches_are_the_cpus(kinds, device):
    """With everything else that is done to images before; a plain copy of pixels, and a weighted sum of two."""
    augmentation, targets, made = Augmentation(4, True, 15.0, erase=0.5), torch.arange(48) % 5, []
    for each in (CPU, device):
        source = ImageSource(images_of(48), targets, [0.5] * 3, [0.25] * 3, augmentation, each)
        made.append(list(TrainingBatches(source, torch.arange(48), 16, 1, True, mixing=Mixing(*kinds, 5)).epoch(0)))
    for (images, shares), (own, own_shares) in zip(*made, strict=True):
        assert own.device.type == device.type and shares.shape == (16, 5)
        torch.testing.assert_close(own.cpu(), images, **ROUNDING)
        torch.testing.assert_close(own_shares.cpu(), shares, **ROUNDING)
