"""The reader of MNIST and Fashion-MNIST, against torchvision's."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

import datasets
from conf.datasets import DATASETS
from datasets import mnist
from tests.helpers.made_data import DEBIAN, assert_same_test_split_alone, lay_out, pixels, same


def idx(values: np.ndarray) -> bytes:
    return struct.pack(f">4B{values.ndim}I", 0, 0, 8, values.ndim, *values.shape) + values.tobytes()


@pytest.fixture(scope="session")
def idx_files(tmp_path_factory) -> Path:
    """A folder of Fashion-MNIST's four .gz files: Debian's where they are installed, else small ones."""
    if DEBIAN.is_dir():
        return DEBIAN
    folder = tmp_path_factory.mktemp("idx")
    for name, count in (("train", 50), ("t10k", 20)):
        images, labels = pixels(count, side=28, channels=1)[:, 0], np.arange(count, dtype=np.uint8) % 10
        (folder / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx(images)))
        (folder / f"{name}-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels)))
    return folder


@pytest.mark.parametrize(
    ("name", "reference"),
    [("mnist", torchvision.datasets.MNIST), ("fashion-mnist", torchvision.datasets.FashionMNIST)],
)
def test_idx_files_read_as_torchvision_reads_them(tmp_path, idx_files, name, reference):
    row = DATASETS[name]
    for file in row.files:
        lay_out(tmp_path / "gz" / name, {file.name: (idx_files / file.name).read_bytes()})
        plain = gzip.decompress((idx_files / file.name).read_bytes())
        lay_out(tmp_path / "plain" / row.folder / "raw", {file.name.removesuffix(".gz"): plain})
    found = datasets.load(row, tmp_path / "plain")
    for split, train in ((found.train, True), (found.test, False)):
        expected = reference(tmp_path / "plain", train=train)
        assert torch.equal(split.images[:, 0], expected.data)
        assert torch.equal(split.targets, expected.targets)
    assert len(found.classes) == 10
    names = reference.classes if name == "fashion-mnist" else [str(digit) for digit in range(10)]
    assert found.classes == tuple(names)
    assert same(found, datasets.load(row, tmp_path / "gz"))
    assert_same_test_split_alone(found, row, tmp_path / "gz")


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize(
    ("folder", "data"),
    [
        ("MNIST/raw", "MNIST/raw"),
        ("MNIST/raw", "MNIST"),
        ("MNIST/MNIST/raw", ""),
        ("mnist/MNIST/raw", ""),
        ("mnist/mnist", ""),
        ("MNIST/{name}", ""),
    ],
)
def test_idx_files_with_dots_and_nested_once_more(tmp_path, folder, data, gz):
    """{name}: each file lies in a folder of its own name."""
    for split, count in (("train", 4), ("t10k", 3)):
        images, labels = pixels(count, side=28, channels=1)[:, 0], np.arange(count, dtype=np.uint8)
        for kind, content in (("images.idx3", idx(images)), ("labels.idx1", idx(labels))):
            name = f"{split}-{kind}-ubyte"
            file = f"{name}.gz" if gz and "{" not in folder else name
            content = gzip.compress(content) if file.endswith(".gz") else content
            lay_out(tmp_path / folder.format(name=name), {file: content})
    found = datasets.load(DATASETS["mnist"], tmp_path / data)
    assert np.array_equal(found.train.images, pixels(4, side=28, channels=1)) and len(found.test.targets) == 3


def test_files_of_the_other_data_set_are_not_taken(tmp_path):
    for split in ("train", "t10k"):
        lay_out(tmp_path / "FashionMNIST" / "raw", {f"{split}-images.idx3-ubyte": IMAGES})
        lay_out(tmp_path / "FashionMNIST" / "raw", {f"{split}-labels.idx1-ubyte": LABELS})
    assert mnist.find(DATASETS["mnist"], tmp_path / "FashionMNIST" / "raw") is None
    assert mnist.find(DATASETS["fashion-mnist"], tmp_path / "FashionMNIST" / "raw") is not None


IMAGES, LABELS = idx(pixels(4, side=28, channels=1)[:, 0]), idx(np.arange(4, dtype=np.uint8))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("train-images-idx3-ubyte", IMAGES[:-1]),
        ("train-images-idx3-ubyte", IMAGES + b"\0"),
        ("train-images-idx3-ubyte", LABELS),
        ("train-images-idx3-ubyte", b""),
        ("train-images-idx3-ubyte", struct.pack(">4B3I", 0, 0, 8, 3, 1 << 31, 1 << 31, 1 << 31)),
        ("train-labels-idx1-ubyte", idx(np.arange(5, dtype=np.uint8))),
        ("t10k-labels-idx1-ubyte", idx(np.full(4, 10, dtype=np.uint8))),
        ("t10k-images-idx3-ubyte.gz", gzip.compress(IMAGES)[:-9]),
        ("t10k-images-idx3-ubyte.gz", IMAGES),
    ],
)
def test_damaged_idx_files_are_named(tmp_path, name, content):
    for split in ("train", "t10k"):
        files = {f"{split}-images-idx3-ubyte": IMAGES, f"{split}-labels-idx1-ubyte": LABELS}
        lay_out(tmp_path / "MNIST" / "raw", files)
    (tmp_path / "MNIST" / "raw" / name.removesuffix(".gz")).unlink()
    lay_out(tmp_path / "MNIST" / "raw", {name: content})
    with pytest.raises(ValueError, match=name) as caught:
        datasets.load(DATASETS["mnist"], tmp_path)
    assert "\n" not in str(caught.value)
