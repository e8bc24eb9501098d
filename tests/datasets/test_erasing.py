"""Random erasing of batches: a rectangle of its own for each image, distributed as torchvision's are."""

import torch
from scipy import stats
from torchvision.transforms.v2 import RandomErasing

from datasets.augment import Augmentation, ImageSource
from datasets.erasing import draw_rectangles, erase


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_rectangles_follow_the_distribution_of_torchvision_s() -> None:
    """Two samples of each measure. The seeds are fixed; a right generator fails at this level once in a thousand."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transform, image = RandomErasing(p=1.0), torch.zeros(3, 24, 32)
        drawn = [transform.make_params([image]) for _ in range(3000)]
    theirs = {key: [params[key] for params in drawn] for key in "ijhw"}
    ours = draw_rectangles(20_000, 1.0, 24, 32, seeded(1))
    pairs = [(theirs["i"], ours.top), (theirs["j"], ours.left), (theirs["h"], ours.height), (theirs["w"], ours.width)]
    pairs.append(([h * w for h, w in zip(theirs["h"], theirs["w"], strict=True)], ours.height * ours.width))
    pairs.append(([h / w for h, w in zip(theirs["h"], theirs["w"], strict=True)], ours.height / ours.width))
    for wanted, found in pairs:
        assert stats.ks_2samp(wanted, found.numpy()).pvalue > 1e-3
    assert int((ours.top + ours.height).max()) == 24 and int((ours.left + ours.width).max()) == 32
    assert int(ours.top.min()) == int(ours.left.min()) == 0


def test_erases_what_torchvision_s_function_erases() -> None:
    from torchvision.transforms.v2.functional import erase as erase_one

    images = torch.randn(50, 3, 24, 32, generator=seeded(2))
    boxes = draw_rectangles(50, 0.6, 24, 32, seeded(3))
    wanted = images.clone()
    for number, (i, j, h, w) in enumerate(zip(boxes.top, boxes.left, boxes.height, boxes.width, strict=True)):
        wanted[number] = erase_one(images[number], int(i), int(j), int(h), int(w), torch.zeros(3, 1, 1))
    for layout in (torch.contiguous_format, torch.channels_last):
        assert torch.equal(erase(images.clone().contiguous(memory_format=layout), boxes), wanted)


def test_each_image_by_its_own_chance() -> None:
    """On images without a zero: the share of them that are erased, all of one batch differently."""
    images = torch.full((4000, 1, 16, 16), 255, dtype=torch.uint8)
    source = ImageSource(images, torch.zeros(4000), (0.5,), (0.5,), Augmentation(0, False, 0.0, erase=0.3), "cpu")
    found, _ = source.augmented(torch.arange(4000), seeded(4))
    holes = (found == 0).flatten(1)
    assert abs(holes.any(1).double().mean() - 0.3) < 0.03
    assert len(holes.unique(dim=0)) > 900
    rows = torch.arange(1000, 1100)
    assert torch.equal(source.augmented(rows, seeded(4), 4000, rows)[0], found[rows])


def test_an_image_too_small_for_its_rectangles_stays_whole() -> None:
    """Of strips two pixels high, where a rectangle may have one: some get none in all tries."""
    boxes = draw_rectangles(2000, 1.0, 2, 80, seeded(5))
    assert set(boxes.height.tolist()) == {0, 1}
