"""The batches of a run as its settings ask for them."""

import pytest
import torch

import datasets
from conf.datasets import find_row
from conf.resolve import settings
from datasets.loaders import make_batches
from datasets.stream import decoders
from tests.helpers.drive import write_drive


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
