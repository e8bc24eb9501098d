"""Small data sets in the layouts of the real ones, for the tests of the readers and of the packed cache."""

from __future__ import annotations

import hashlib
import io
import pickle
import shutil
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

import datasets
from conf.datasets import DATASETS, DatasetRow, OfficialFile, find_row

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "data"
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
CLASSES = ("apple", "bee", "cup")


def md5(content: bytes) -> str:
    return "md5:" + hashlib.md5(content).hexdigest()


def pixels(count: int, side: int = 32, channels: int = 3, seed: int = 0) -> np.ndarray:
    generator = np.random.default_rng(seed)
    return generator.integers(0, 256, (count, channels, side, side), dtype=np.uint8)


def cifar_pickles(count: int = 6) -> dict[str, bytes]:
    """CIFAR-100's three pickles with a few images; labels in order, as a folder of images has them."""
    labels = [index * len(CLASSES) // count for index in range(count)]
    batches = {
        name: {"data": pixels(count, seed=seed).reshape(count, -1), "fine_labels": labels, "coarse_labels": [0] * count}
        for seed, name in enumerate(("train", "test"))
    }
    batches["meta"] = {"fine_label_names": list(CLASSES), "coarse_label_names": ["things"]}
    return {f"cifar-100-python/{name}": pickle.dumps(batch, protocol=2) for name, batch in batches.items()}


def tar_gz(contents: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, content in contents.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def cifar_row(archive: bytes, contents: dict[str, bytes]) -> DatasetRow:
    file = OfficialFile("cifar-100-python.tar.gz", "http://127.0.0.1:9/cifar-100-python.tar.gz", md5(archive))
    members = tuple((name, md5(content)) for name, content in contents.items())
    return replace(DATASETS["cifar100"], files=(file,), members=members)


def lay_out(folder: Path, contents: dict[str, bytes]) -> None:
    for name, content in contents.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


def save_image(path: Path, values: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.ascontiguousarray(values.transpose(1, 2, 0).squeeze())).save(path)


def same(first: datasets.Dataset, second: datasets.Dataset) -> bool:
    tensors = [(d.train.images, d.train.targets, d.test.images, d.test.targets) for d in (first, second)]
    figures = [(d.classes, d.mean, d.std) for d in (first, second)]
    return figures[0] == figures[1] and all(torch.equal(a, b) for a, b in zip(*tensors, strict=True))


def assert_same_test_split_alone(whole: datasets.Dataset, row: DatasetRow, data: Path) -> None:
    """load_test() gives the test split of the whole data set: from its packed file, then from the files themselves.

    It packs nothing, and targets count the classes that it is given, in whatever order.
    """
    _, channels, side, _ = whole.train.images.shape
    classes = tuple(reversed(whole.classes)) if row.task == "classification" else whole.classes
    view = datasets.View(whole.mean, whole.std, side, channels, classes, file_side=side)
    for _ in ("packed", "from the files"):
        alone = datasets.load_test(row, data, view)
        assert torch.equal(alone.images, whole.test.images)
        turned = len(classes) - 1 - whole.test.targets if row.task == "classification" else whole.test.targets
        assert torch.equal(alone.targets, turned)
        shutil.rmtree(data / "packed", ignore_errors=True)
    assert not (data / "packed").exists()


def load_folder(folder: Path, size: int | None = None) -> datasets.Dataset:
    return datasets.load(find_row(str(folder)), folder.parent / "data", size)


def write_images(folder: Path, train: tuple[str, ...], test: tuple[str, ...]) -> None:
    """Four images of 16x16 pixels for each class of each split, as files."""
    random = np.random.default_rng(0)
    for split, classes in (("train", train), ("test", test)):
        for name in classes:
            (folder / split / name).mkdir(parents=True)
            for number in range(4):
                values = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(values).save(folder / split / name / f"{number}.png")
