"""What several test files share: real images, with a stand-in where they are not laid out, and a finished run."""

import importlib
import os
import shutil
from pathlib import Path

# Tests run in several processes (pytest-xdist). Threads of all of them on the same cores would wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy
import pytest
import torch
from PIL import Image

from tests.helpers import runs
from tests.helpers.made_data import pixels, save_image
from tests.helpers.mistaken import write_mistaken

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def cifar_images() -> torch.Tensor:
    """4 real CIFAR-100 images, normalised, 4 x 3 x 32 x 32; generated ones where the data is not laid out."""
    paths = sorted((ROOT / "data" / "cifar100" / "test").glob("*/0*1.png"))[:80:20]
    if paths:
        images = torch.stack([torch.from_numpy(numpy.array(Image.open(path).convert("RGB"))) for path in paths])
        images = images.permute(0, 3, 1, 2).double() / 255
    else:
        images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0)).double()
    return (images - images.mean((0, 2, 3), keepdim=True)) / images.std((0, 2, 3), keepdim=True)


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """The folder in which the run of tests/helpers/runs.py has been run to its end. Not to be written to."""
    out = tmp_path_factory.mktemp("finished")
    runs.start(runs.RUN, out)
    return out


@pytest.fixture(scope="module")
def without_pictures():
    """Runs leave out the graph and the pictures of the test set, which take longer than training so small a network.

    For modules whose tests look at neither. One that uses `finished` names that fixture as well, which has them, and
    which pytest makes first.
    """
    from engine.shown.logs import RunLog
    from engine.tasks import TASKS

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunLog, "graph", lambda *_: None)
        for task in TASKS.values():
            patch.setattr(task, "figures", lambda *_: {})
        yield


@pytest.fixture
def downloads_without_waiting(monkeypatch):
    """Another attempt at a download follows at once, and not after one second, then two."""
    module = importlib.import_module("datasets.download")  # datasets.download is a function
    monkeypatch.setattr(module, "sleep", lambda seconds: None)


@pytest.fixture
def threads_put_back():
    """For tests of what sets the number of threads for all of torch."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Two classes, two training images and one test image each, 20 x 20."""
    for number, name in enumerate(("cat", "dog")):
        for index, values in enumerate(pixels(2, side=20, seed=number)):
            save_image(tmp_path / "images" / "train" / name / f"{index}.png", values)
        save_image(tmp_path / "images" / "test" / name / "a.png", pixels(1, side=20, seed=9 + number)[0])
    return tmp_path / "images"


@pytest.fixture(scope="session")
def mistaken(tmp_path_factory) -> Path:
    """The files of tests/helpers/mistaken.py. Not to be written to."""
    folder = tmp_path_factory.mktemp("mistaken")
    write_mistaken(folder)
    return folder


@pytest.fixture
def place(mistaken, tmp_path, monkeypatch) -> Path:
    """A working folder with files to be mistaken about."""
    shutil.copytree(mistaken, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path
