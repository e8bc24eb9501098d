"""Varied batches of a drive: against a version that works image by image, and drawn the same way again."""

import colorsys
import math

import numpy
import pytest
import torch
from PIL import Image

from conf.datasets import find_row
from datasets import driving, driving_batches
from datasets.batches import TrainingBatches
from datasets.driving_batches import DrivingAugmentation, DrivingBatches, DrivingDraws, DrivingSource
from tests.helpers.drive import REAL, write_drive

ROW = find_row("driving")
ORIGINAL = DrivingAugmentation(correction=0.25, brightness=0.1, flip=True)
SIDE = 12


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return REAL if REAL.is_dir() else write_drive(tmp_path_factory.mktemp("drive"))


@pytest.fixture(scope="module")
def train(place):
    return driving.read(ROW, driving.find(ROW, place), SIDE)[1]


def source(train, augmentation=ORIGINAL) -> DrivingSource:
    return DrivingSource(train.images, train.targets, *driving.pixel_range(train.images), augmentation, "cpu")


def literal(row: driving.LogRow, folder, camera: int, brightness: float, flip: bool):
    """One image as the original makes it: a frame is opened, cut, resized, darkened in HSV, mirrored, scaled."""
    frame = Image.open(folder / "IMG" / row.frames[camera]).convert("RGB")
    pixels = numpy.asarray(frame.crop((0, 80, 320, 140)).resize((SIDE, SIDE), Image.Resampling.BILINEAR)) / 255
    angle = row.angle
    if camera == 1:
        angle = math.atan(math.tan(angle) + 0.25)
    elif camera == 2:
        angle = math.atan(math.tan(angle) - 0.25)
    darker = numpy.empty_like(pixels)
    for y in range(SIDE):
        for x in range(SIDE):
            hue, saturation, value = colorsys.rgb_to_hsv(*pixels[y, x])
            darker[y, x] = colorsys.hsv_to_rgb(hue, saturation, value * brightness)
    if flip:
        darker, angle = darker[:, ::-1], -angle
    return torch.from_numpy((darker - 0.5).transpose(2, 0, 1).copy()).float(), angle


def test_a_batch_is_the_literal_version_of_each_image(place, train):
    """All three cameras, both ways round, over the whole range of brightness, with angles of either sign."""
    rows = driving.read_log(place / "driving_log.csv")
    testing = driving.held_out_stretches(len(rows))
    rows = [row for row, is_test in zip(rows, testing, strict=True) if not is_test]
    turning = [number for number, row in enumerate(rows) if row.angle]
    index = torch.tensor([*turning[:8], 0, 1, 2, 3])
    count = len(index)
    draws = DrivingDraws(torch.arange(count) % 3, torch.linspace(0.1, 1.0, count), torch.arange(count) % 4 >= 2)
    images, angles = source(train).apply(index, draws)
    assert images.is_contiguous(memory_format=torch.channels_last)
    for number in range(count):
        camera, brightness, flip = (each[number].item() for each in (draws.camera, draws.brightness, draws.flip))
        expected, angle = literal(rows[index[number]], place, camera, brightness, flip)
        torch.testing.assert_close(images[number], expected, atol=1e-6, rtol=0)
        assert angles[number].item() == pytest.approx(angle, abs=1e-6)


def test_plain_is_the_centre_frame(train):
    images, angles = source(train).plain(torch.tensor([3, 0]))
    expected = train.images[[9, 0]].float() / 255 - 0.5
    torch.testing.assert_close(images, expected)
    assert torch.equal(angles, train.targets[[9, 0]])


def test_chance_has_the_odds_it_should():
    draws = driving_batches.draw(30_000, ORIGINAL, torch.Generator().manual_seed(0))
    shares = torch.bincount(draws.camera, minlength=3) / 30_000
    assert shares.tolist() == pytest.approx([1 / 3] * 3, abs=0.015)
    assert draws.flip.float().mean().item() == pytest.approx(0.5, abs=0.015)
    assert 0.1 <= draws.brightness.min() < 0.101 and 0.999 < draws.brightness.max() <= 1
    assert draws.brightness.mean().item() == pytest.approx(0.55, abs=0.01)
    together = torch.stack([draws.camera.float(), draws.flip.float(), draws.brightness])
    assert (torch.corrcoef(together) - torch.eye(3)).abs().max() < 0.03


def test_nothing_is_varied_where_nothing_is_asked_for(train):
    still = source(train, DrivingAugmentation(correction=0.0, brightness=1.0, flip=False))
    index = torch.arange(20)
    varied, plain = still.augmented(index, torch.Generator().manual_seed(0)), still.plain(index)
    assert torch.equal(varied[0], plain[0]) and torch.equal(varied[1], plain[1])


def batches(train, steps=0, seed=1, zero_drop=0.8, shuffle=True, size=10) -> DrivingBatches:
    made = source(train)
    return DrivingBatches(made, torch.arange(len(made)), size, seed, shuffle, steps=steps, zero_drop=zero_drop)


def test_a_pass_has_every_turn_once_and_a_fifth_of_the_rest(train):
    """80 % of the rows with an angle of zero are left out, others in each pass."""
    made = batches(train)
    zero = train.targets[::3] == 0
    kept = int(zero.sum()) - round(0.8 * int(zero.sum()))
    seen = []
    for epoch in range(3):
        order = made.order(epoch)
        assert len(order) == made.pass_length() == int((~zero).sum()) + kept == made.bounds[-1][1]
        assert len(order.unique()) == len(order)
        assert set(order[~zero[order]].tolist()) == set((~zero).nonzero().squeeze(1).tolist())
        seen.append(order)
    dropped = [set(order[zero[order]].tolist()) for order in seen]
    assert dropped[0] != dropped[1] != dropped[2] != dropped[0]
    assert seen[0].tolist() != sorted(seen[0].tolist())


def test_an_epoch_of_many_passes(train):
    """Each pass within it is drawn anew, and whole but for the last."""
    made = batches(train, steps=40, size=16)
    assert len(made) == 40 and made.bounds == [(16 * n, 16 * n + 16) for n in range(40)]
    order, length = made.order(0), made.pass_length()
    zero = train.targets[::3] == 0
    turning = sorted((~zero).nonzero().squeeze(1).tolist())
    passes = order.split(length)
    assert len(passes) > 3
    assert all(sorted(each[~zero[each]].tolist()) == turning for each in passes)
    assert not torch.equal(passes[0], passes[1])


def test_any_batch_can_be_drawn_without_those_before_it(train):
    made = batches(train, steps=9)
    whole = list(made.epoch(2))
    rest = list(batches(train, steps=9).epoch(2, first=4))
    assert len(whole) == 9 and len(rest) == 5
    for one, other in zip(whole[4:], rest, strict=True):
        assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])
    others = [next(batches(train, steps=9).epoch(3)), next(batches(train, steps=9, seed=2).epoch(2)), whole[1]]
    assert not any(torch.equal(whole[0][0], images) for images, _ in others)


def test_without_shuffling_a_pass_is_in_order(train):
    order = batches(train, shuffle=False).order(0)
    assert order.tolist() == sorted(order.tolist())


def test_images_too_come_in_epochs_of_a_given_length():
    """-steps with any data set: whole passes, each in an order of its own, and batches of the same size."""
    made = TrainingBatches(None, torch.arange(20, 30), 4, seed=1, shuffle=True, steps=7)
    passes = made.order(0).split(10)
    assert len(made) == 7 and made.bounds[-1] == (24, 28) and len(passes) == 3
    assert all(sorted(each.tolist()) == list(range(20, 30)) for each in passes)
    assert len({tuple(each.tolist()) for each in passes}) == 3
    whole = TrainingBatches(None, torch.arange(20, 30), 4, seed=1, shuffle=True)
    assert torch.equal(whole.order(0), passes[0]) and whole.bounds == [(0, 4), (4, 8), (8, 10)]
