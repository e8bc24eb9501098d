"""datasets/augment.py against torchvision's transforms on PIL images, and its draws against their distribution."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torch import Tensor
from torchvision import transforms
from torchvision.transforms import functional

from datasets.augment import Augmentation, Draws, ImageSource, draw

CPU = torch.device("cpu")
FULL = Augmentation(crop=4, flip=True, rotation=15)
MEAN, STD = (0.507, 0.487, 0.441), (0.267, 0.256, 0.276)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(count: int, channels: int, height: int, width: int) -> Tensor:
    """Without black pixels, so that every black pixel of a result is one that the transforms made."""
    return torch.randint(1, 256, (count, channels, height, width), dtype=torch.uint8, generator=seeded(0))


@pytest.fixture(scope="module")
def photos() -> Tensor:
    """300 of CIFAR-100's training images, 3 of each class, where they are laid out; generated noise where not."""
    paths = sorted(Path("data/cifar100/train").glob("*/00[0-2].png"))
    if len(paths) < 300:
        return noise(300, 3, 32, 32)
    return torch.from_numpy(np.stack([np.asarray(Image.open(path).convert("RGB")) for path in paths])).permute(
        0, 3, 1, 2
    )


def source_of(images: Tensor, augmentation: Augmentation = FULL) -> ImageSource:
    """With pixels scaled to 0 ... 1 and not normalised; the target of an image is its number."""
    channels = images.shape[1]
    return ImageSource(images, torch.arange(len(images)), [0.0] * channels, [1.0] * channels, augmentation, CPU)


def pil(image: Tensor) -> Image.Image:
    pixels = image.permute(1, 2, 0).numpy()
    return Image.fromarray(pixels if len(image) == 3 else pixels[:, :, 0])


def by_torchvision(images: Tensor, draws: Draws, crop: int) -> Tensor:
    """uint8 N x C x H x W: pad, crop, flip and rotate each image by its draw, as torchvision does with PIL."""
    results = []
    for image, top, left, flip, angle in zip(
        images, draws.top.tolist(), draws.left.tolist(), draws.flip.tolist(), draws.angle.tolist(), strict=True
    ):
        result = functional.crop(functional.pad(pil(image), crop), top, left, *image.shape[1:])
        result = functional.hflip(result) if flip else result
        results.append(functional.pil_to_tensor(functional.rotate(result, angle)))
    return torch.stack(results)


def as_bytes(images: Tensor) -> Tensor:
    return (images * 255).round().to(torch.uint8)


def hard_draws() -> Draws:
    """Every corner, edge and middle crop, flipped or not, at angles that round in ways of their own."""
    angles = [0.0, -0.0, 15.0, -15.0, 1e-30, -1e-30, 1e-6, -1e-4, 1e-3, 0.5, -7.0, 14.999]
    grid = torch.cartesian_prod(torch.tensor([0, 4, 8]), torch.tensor([0, 4, 8]), torch.tensor([0, 1]))
    top, left, flip = grid.repeat_interleave(len(angles), dim=0).unbind(1)
    return Draws(top, left, flip.bool(), torch.tensor(angles).repeat(len(grid)))


def test_given_draws_give_the_pixels_of_torchvision(photos: Tensor) -> None:
    index = torch.randperm(len(photos), generator=seeded(1))
    draws = draw(len(index), FULL, seeded(2))
    images, targets = source_of(photos).apply(index, draws)
    assert torch.equal(as_bytes(images), by_torchvision(photos[index], draws, crop=4))
    assert torch.equal(targets, index)


def test_corner_crops_and_odd_angles_give_the_pixels_of_torchvision(photos: Tensor) -> None:
    draws = hard_draws()
    index = torch.arange(len(draws.top)) % len(photos)
    images, _ = source_of(photos).apply(index, draws)
    assert torch.equal(as_bytes(images), by_torchvision(photos[index], draws, crop=4))


@pytest.mark.parametrize("channels,height,width", [(1, 28, 28), (1, 16, 16), (3, 64, 64), (3, 15, 15), (3, 20, 33)])
@pytest.mark.parametrize(
    "augmentation",
    [FULL, Augmentation(2, True, 180), Augmentation(0, False, 15), Augmentation(4, True, 0), Augmentation(0, True, 0)],
)
def test_other_sizes_and_augmentations(channels: int, height: int, width: int, augmentation: Augmentation) -> None:
    images = noise(60, channels, height, width)
    index = torch.arange(60).flip(0)
    draws = draw(60, augmentation, seeded(3))
    results, _ = source_of(images, augmentation).apply(index, draws)
    assert results.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(as_bytes(results), by_torchvision(images[index], draws, augmentation.crop))


def test_normalised_as_torchvision_does(photos: Tensor) -> None:
    source = ImageSource(photos, torch.arange(300), MEAN, STD, FULL, CPU)
    to_floats = transforms.Compose([transforms.ToTensor(), transforms.Normalize(MEAN, STD)])
    index = torch.randperm(300, generator=seeded(4))
    images, targets = source.plain(index)
    expected = torch.stack([to_floats(pil(image)) for image in photos[index]])
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-6)
    assert images.is_contiguous(memory_format=torch.channels_last) and torch.equal(targets, index)
    draws = draw(300, FULL, seeded(5))
    varied = by_torchvision(photos[index], draws, crop=4)
    expected = torch.stack([to_floats(pil(image)) for image in varied])
    images, _ = source.apply(index, draws)
    torch.testing.assert_close(images, expected, rtol=0, atol=1e-6)
    assert images.is_contiguous(memory_format=torch.channels_last)


def test_without_augmentation_the_images_are_plain(photos: Tensor) -> None:
    source = source_of(photos, Augmentation(crop=0, flip=False, rotation=0))
    index = torch.arange(40)
    images, targets = source.augmented(index, seeded(6))
    assert torch.equal(as_bytes(images), photos[:40]) and torch.equal(targets, index)


def test_an_image_does_not_depend_on_its_neighbours() -> None:
    images = noise(100, 3, 32, 32)
    source, index, draws = source_of(images), torch.arange(100), draw(100, FULL, seeded(7))
    together, _ = source.apply(index, draws)
    order = torch.randperm(100, generator=seeded(8))
    shuffled = Draws(draws.top[order], draws.left[order], draws.flip[order], draws.angle[order])
    assert torch.equal(source.apply(order, shuffled)[0], together[order])
    for place in (0, 37, 99):
        one = slice(place, place + 1)
        alone, _ = source.apply(index[one], Draws(draws.top[one], draws.left[one], draws.flip[one], draws.angle[one]))
        assert torch.equal(alone, together[one])


def test_a_seed_gives_the_same_batch_whatever_the_number_of_threads() -> None:
    source, index = source_of(noise(100, 3, 32, 32)), torch.arange(100)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        first, _ = source.augmented(index, seeded(9))
        torch.set_num_threads(4)
        second, _ = source.augmented(index, seeded(9))
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(first, second)
    assert not torch.equal(first, source.augmented(index, seeded(10))[0])
    generator = seeded(9)
    assert torch.equal(first, source.augmented(index, generator)[0])
    assert not torch.equal(first, source.augmented(index, generator)[0])  # the next batch is another


def test_draws_follow_their_distribution() -> None:
    """Against the closed forms; the seed is fixed, and a right generator fails at these levels once in a thousand."""
    count = 200_000
    draws = draw(count, FULL, seeded(11))
    # Both offsets and the flip at once: 9 x 9 x 2 equally likely outcomes.
    outcomes = torch.bincount((draws.top * 9 + draws.left) * 2 + draws.flip, minlength=162)
    assert len(outcomes) == 162 and stats.chisquare(outcomes.numpy()).pvalue > 1e-3
    assert stats.kstest(draws.angle.double().numpy(), stats.uniform(-15, 30).cdf).pvalue > 1e-3
    assert draws.angle.abs().max() <= 15
    # The angle is independent of them.
    table = torch.bincount(
        (draws.top * 9 + draws.left) * 20 + ((draws.angle + 15) / 3).long().clamp(max=9) * 2 + draws.flip
    )
    assert stats.chisquare(table.numpy()).pvalue > 1e-3 and len(table) == 81 * 20
    # An image's draws are independent of those of the next image, and of the one after.
    for values in (draws.top, draws.left, draws.flip, draws.angle):
        values = values.double()
        for distance in (1, 2):
            correlation = torch.corrcoef(torch.stack((values[:-distance], values[distance:])))[0, 1]
            assert abs(float(correlation)) < 3.3 / count**0.5


def moments(batches: list[Tensor]) -> tuple[Tensor, Tensor, int]:
    """Mean and variance of each pixel over all images, and how many there are."""
    images = torch.cat(batches).double()
    return images.mean(dim=0), images.var(dim=0), len(images)


def test_pixels_follow_the_distribution_of_the_composed_transforms(photos: Tensor) -> None:
    """An image, and a white one whose black pixels are those that the transforms made: mean over many draws."""
    image = photos[:1].clone()
    image[:, 2] = 255  # blue is white throughout: its mean is the share of draws in which the pixel is not black
    composed = transforms.Compose(
        [
            transforms.RandomCrop(32, padding=4),
            transforms.RandomHorizontalFlip(),
            transforms.RandomRotation(15),
            transforms.ToTensor(),
        ]
    )
    original = pil(image[0])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(12)
        their_mean, their_variance, theirs = moments([torch.stack([composed(original) for _ in range(4000)])])
    source, generator = source_of(image), seeded(13)
    index = torch.zeros(500, dtype=torch.int64)
    our_mean, our_variance, ours = moments([source.augmented(index, generator)[0] for _ in range(40)])
    # Rare events have no normal deviation: the added variance is that of one more draw in each sample.
    error = ((their_variance + 1 / theirs) / theirs + (our_variance + 1 / ours) / ours).sqrt()
    deviation = (our_mean - their_mean) / error
    assert deviation.abs().max() < 5  # of 3072 normal deviations the greatest is above 5 once in 500
    assert deviation.square().mean() < 2  # 1 where both are the same distribution


@pytest.mark.parametrize("crop,rotation", [(-1, 15), (4, -1), (4, 181), (4, float("nan"))])
def test_impossible_augmentations_are_refused(crop: int, rotation: float) -> None:
    with pytest.raises(ValueError, match=str(crop) if crop < 0 else str(rotation)):
        Augmentation(crop, True, rotation)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cuda_gives_the_pixels_of_the_cpu(photos: Tensor) -> None:
    index, targets = torch.arange(300), torch.arange(300)
    draws = draw(300, FULL, seeded(14))
    on_cpu = ImageSource(photos, targets, MEAN, STD, FULL, CPU).apply(index, draws)
    on_cuda = ImageSource(photos, targets, MEAN, STD, FULL, torch.device("cuda")).apply(index, draws)
    torch.testing.assert_close(on_cuda[0].cpu(), on_cpu[0], rtol=0, atol=1e-5)
    assert torch.equal(on_cuda[1].cpu(), on_cpu[1])


def test_images_on_the_device_are_held_once():
    """The source keeps the tensor that it is given: a copy would double what the largest thing in memory takes."""
    images = torch.zeros(4, 3, 8, 8, dtype=torch.uint8)
    source = source_of(images)
    images.fill_(255)
    assert bool((source.plain(torch.arange(4))[0] == 1).all())
    held = {value.untyped_storage().data_ptr() for value in vars(source).values() if isinstance(value, Tensor)}
    assert images.untyped_storage().data_ptr() in held
