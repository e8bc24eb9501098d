"""Mixup and CutMix: torchvision's, drawn from the run's seed; N processes mix what one does."""

import pytest
import torch
from scipy import stats

from datasets.augment import Augmentation, ImageSource
from datasets.batches import TrainingBatches, shared
from datasets.mixing import Mixing

COUNT, CLASSES, SIDE = 37, 5, 8


def batches(mixing: Mixing | None, share: tuple[int, int] = (0, 1), seed: int = 1) -> TrainingBatches:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (COUNT, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    targets = torch.randint(CLASSES, (COUNT,), generator=generator)
    augmentation = Augmentation(2, True, 10.0, trivial_augment=True, erase=0.5)
    source = ImageSource(images, targets, (0.5,) * 3, (0.25,) * 3, augmentation, torch.device("cpu"))
    return TrainingBatches(source, torch.arange(COUNT), 12, seed, True, share, mixing=mixing)


@pytest.mark.parametrize("seed", range(4))
def test_mixup_by_its_formula(seed: int) -> None:
    """(1 - l) times the image before and l times the image; the labels by the same share."""
    plain, mixed = next(batches(None, seed=seed).epoch(0)), next(batches(Mixing(0.4, 0, CLASSES), seed=seed).epoch(0))
    before, labels = plain[0].roll(1, 0), torch.eye(CLASSES)[plain[1]]
    share = ((mixed[0] - before) * (plain[0] - before)).sum() / (plain[0] - before).square().sum()
    assert 0 <= share <= 1
    torch.testing.assert_close(mixed[0], share * plain[0] + (1 - share) * before, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(mixed[1], share * labels + (1 - share) * labels.roll(1, 0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("seed", range(4))
def test_cutmix_by_its_formula(seed: int) -> None:
    """A rectangle, the same in all images, from the image before; the labels by the share of its area."""
    plain, mixed = next(batches(None, seed=seed).epoch(0)), next(batches(Mixing(0, 1.0, CLASSES), seed=seed).epoch(0))
    before, labels = plain[0].roll(1, 0), torch.eye(CLASSES)[plain[1]]
    cut = (mixed[0] != plain[0]).any(0).any(0)
    rows, columns = cut.any(1), cut.any(0)
    assert torch.equal(cut, rows[:, None] & columns)
    assert torch.equal(mixed[0], torch.where(cut, before, plain[0]))
    share = 1 - cut.double().mean().float()
    torch.testing.assert_close(mixed[1], share * labels + (1 - share) * labels.roll(1, 0))


def test_shares_follow_the_beta_distribution() -> None:
    """Of mixup's label; and where both are wanted, half of the batches are of each."""
    images, targets = torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1])
    mixing = Mixing(0.4, 0, 2)
    shares = [float(mixing(images, targets, seed)[1][0, 0]) for seed in range(2000)]
    assert stats.kstest(shares, stats.beta(0.4, 0.4).cdf).pvalue > 1e-3
    both = Mixing(0.4, 1.0, 2)
    pixels = torch.stack([both(images, targets, seed)[0][0] for seed in range(1000)])
    cut = ((pixels == images[0]) | (pixels == images[1])).flatten(1).all(1)
    assert 0.45 < cut.double().mean() < 0.55


@pytest.mark.parametrize("kinds", [(0.4, 0.0), (0.0, 1.0), (0.4, 1.0)])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_many_processes_mix_what_one_does(kinds: tuple[float, float], count: int) -> None:
    """Each process's slice, bit for bit, of every batch of two epochs; the last batch, of 13, is shared unevenly."""
    mixing = Mixing(*kinds, CLASSES)
    for epoch in range(2):
        whole = list(batches(mixing).epoch(epoch))
        for rank in range(count):
            parts = list(batches(mixing, (rank, count)).epoch(epoch))
            for (images, targets), (own, own_targets) in zip(whole, parts, strict=True):
                rows = shared(len(targets), (rank, count))
                assert torch.equal(own_targets, targets[rows.start : rows.stop])
                assert torch.equal(own[: len(rows)], images[rows.start : rows.stop])
                assert len(own) >= 2


def test_any_batch_can_be_drawn_alone() -> None:
    """As a resumed run draws it, whatever torch's own generator has drawn; which the mixing leaves as it was."""
    made = batches(Mixing(0.4, 1.0, CLASSES))
    whole = list(made.epoch(1))
    torch.rand(3)
    state = torch.get_rng_state()
    images, targets = next(made.epoch(1, first=2))
    assert torch.equal(images, whole[2][0]) and torch.equal(targets, whole[2][1])
    assert torch.equal(torch.get_rng_state(), state)


def test_every_batch_of_every_epoch_has_its_own_share() -> None:
    made = batches(Mixing(1.0, 0, 2))
    made.source.targets = torch.zeros(COUNT, dtype=torch.int64)
    made.source.targets[1::2] = 1
    shares = set()
    for epoch in range(3):
        for _, targets in made.epoch(epoch):
            mixed = targets[(targets > 1e-6).all(1)].amax()  # of a pair with two classes
            shares.add(round(float(mixed), 6))
    assert len(shares) == 3 * len(made)
