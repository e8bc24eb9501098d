"""The batches of a run as its settings ask for them."""

import numpy
import pytest
import torch
from PIL import Image

import datasets
from conf.datasets import find_row
from conf.resolve import settings
from datasets.loaders import make_batches
from datasets.stream import decoders
from tests.helpers.drive import write_drive
from tests.helpers.made_data import pixels, save_image


@pytest.mark.parametrize("kind", ["in memory", "streamed", "drive"])
@pytest.mark.parametrize("channels_last", [True, False])
def test_images_have_the_memory_format_that_is_asked_for(kind, channels_last, image_folder, tmp_path):
    place = write_drive(tmp_path / "drive", 30) if kind == "drive" else image_folder
    given = {"net": "EffNet", "dataset": str(place), "recipe": "driving" if kind == "drive" else "fast", "workers": 0}
    chosen = settings(given | {"channels_last": channels_last, "batch_size": 4, "val": 0.5})
    limit = datasets.Streaming(0 if kind == "streamed" else 10**9, 0)
    data = datasets.load(find_row(str(place)), tmp_path / "data", 16, limit)
    training, evaluations = make_batches(chosen, data, torch.device("cpu"), (0, 1))
    for images, _ in (next(training.epoch(0)), next(iter(evaluations["Val"])), next(iter(evaluations["Test"].whole()))):
        formats = [torch.channels_last, torch.contiguous_format]
        assert [images.is_contiguous(memory_format=each) for each in formats] == [channels_last, not channels_last]


def test_decoders_follow_the_machine_unless_they_are_given(monkeypatch):
    for cores, processes, expected in ((1, 1, 1), (2, 1, 1), (6, 1, 5), (64, 1, 8), (16, 4, 3), (4, 8, 1)):
        monkeypatch.setattr("os.sched_getaffinity", lambda process, cores=cores: set(range(cores)), raising=False)
        assert decoders(None, processes) == expected
    assert decoders(0, 1) == 0 and decoders(12, 4) == 12
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(32)), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")  # as torch's launcher says on each of four such machines
    assert decoders(None, 16) == 7 and decoders(None, 1) == 8


@pytest.mark.parametrize("kind", ["in memory", "streamed", "drive"])
def test_alternating_flips_mirror_each_image_in_every_other_epoch(kind, image_folder, tmp_path):
    """Nothing else is augmented, so that each batch is its plain images or their mirror images; the seed alone says
    which come first, not the batch, the order or the number of processes."""
    for number, values in enumerate(pixels(24, side=20)):
        save_image(image_folder / "train" / "cat" / f"more{number}.png", values)
    place = write_drive(tmp_path / "drive", 30) if kind == "drive" else image_folder
    given = {"net": "EffNet", "dataset": str(place), "recipe": "driving" if kind == "drive" else "fast", "workers": 0}
    given |= {
        "crop": 0,
        "rotation": 0,
        "batch_size": 8,
        "flip": "alternating",
        "correction": 0,
        "brightness": 1,
        "zero_drop": 0,
    }
    data = datasets.load(
        find_row(str(place)), tmp_path / "data", 16, datasets.Streaming(0 if kind == "streamed" else 10**9, 0)
    )

    def mirrored(epoch: int, share: tuple[int, int] = (0, 1), **more: object) -> dict[int, bool]:
        """By the image's number, whether it was mirrored."""
        training, _ = make_batches(settings(given | more), data, torch.device("cpu"), share)
        order, seen = training.order(epoch), {}
        for number, (images, _) in enumerate(training.epoch(epoch)):
            start, stop = training.bounds[number]
            own = order[start:stop][training._rows(stop - start)]
            source, index = next(training.source.fetch([own]))
            plain, _ = source.plain(index)
            for image, other, row in zip(images, plain, own.tolist(), strict=True):
                seen[row] = torch.allclose(image, other.flip(2), atol=1e-5)
                assert seen[row] or torch.allclose(image, other, atol=1e-5)
        return seen

    first = mirrored(0)
    assert first == mirrored(2) == mirrored(0, batch_size=5) and len(first) > 20
    assert {row: not flip for row, flip in first.items()} == mirrored(1) == mirrored(1, (0, 2)) | mirrored(1, (1, 2))
    assert len(set(first.values())) == 2 and first != mirrored(0, seed=2)


def test_sizes_are_equal_parts_of_the_run(tmp_path):
    """Seven epochs at three sides, against Pillow's resizing of the same images in floating point."""
    given = {"net": "cheapV3", "dataset": "digits", "epochs": 7, "crop": 2, "flip": True, "batch_size": 16, "warm": 0}
    data = datasets.load(find_row("digits"), tmp_path)
    whole, _ = make_batches(settings(given), data, torch.device("cpu"), (0, 1))
    training, evaluations = make_batches(settings(given | {"sizes": [8, 12, 16]}), data, torch.device("cpu"), (0, 1))
    for epoch, side in enumerate([8, 8, 8, 12, 12, 16, 16]):
        (images, targets), (full, same) = next(training.epoch(epoch)), next(whole.epoch(epoch))
        assert images.is_contiguous(memory_format=torch.channels_last) and torch.equal(targets, same)
        expected = [Image.fromarray(each[0].numpy()).resize((side, side), Image.Resampling.BILINEAR) for each in full]
        expected = torch.stack([torch.from_numpy(numpy.array(each)) for each in expected])
        torch.testing.assert_close(images[:, 0], expected, rtol=0, atol=1e-5)
    assert next(iter(evaluations["Test"]))[0].shape[2:] == (16, 16)
