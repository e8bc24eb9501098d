"""Reads MNIST and Fashion-MNIST: four IDX files, gzipped or not, where torchvision or the user put them.

The format is given at http://yann.lecun.com/exdb/mnist/: two zero bytes, the type (8: unsigned byte), the number
of dimensions, each dimension as a big-endian 32-bit integer, then the values.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch

from conf.datasets import DatasetRow
from datasets.base import Location, Split

CLASSES = {
    "mnist": ("0", "1", "2", "3", "4", "5", "6", "7", "8", "9"),
    "fashion-mnist": (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
}
LIMIT = 1 << 30  # bytes in one file; the official ones hold 47 million at most


def find(row: DatasetRow, data: Path) -> Location | None:
    """The four files in data/<folder>/raw (torchvision's layout), data/<folder> or the same under the row's name."""
    for folder in dict.fromkeys((row.folder, row.name)):
        for base in (data / folder / "raw", data / folder):
            plain = [base / file.name.removesuffix(".gz") for file in row.files]
            paths = [path if path.is_file() else path.with_name(f"{path.name}.gz") for path in plain]
            if all(path.is_file() for path in paths):
                return Location("unpacked", tuple(paths))
    return None


def read(
    row: DatasetRow, location: Location, size: int | None, train: bool = True
) -> tuple[tuple[str, ...], Split, Split]:
    """Classes, training and test images (1 x 28 x 28); train: False leaves the training images out.

    Raises ValueError naming a damaged file.
    """
    train_images, train_labels, test_images, test_labels = location.paths
    classes = CLASSES[row.name]
    test = _split(test_images, test_labels, classes)
    return classes, _split(train_images, train_labels, classes) if train else test.none(), test


def read_idx(path: Path, dimensions: int) -> np.ndarray:
    """The unsigned bytes of an IDX file, gzipped (by its name) or not, with the given number of dimensions.

    Raises ValueError naming the file where its header or its length is wrong.
    """
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return _parse_idx(file, dimensions)
    except (ValueError, OSError, EOFError, zlib.error, struct.error) as error:
        raise ValueError(f"{path} is damaged ({error}): replace it by a good copy") from error


def _parse_idx(file: BinaryIO, dimensions: int) -> np.ndarray:
    magic = file.read(4)
    if magic != bytes((0, 0, 8, dimensions)):
        raise ValueError(f"it starts with {magic.hex()}, an IDX file of these with 000008{dimensions:02}")
    shape = struct.unpack(f">{dimensions}I", file.read(4 * dimensions))
    length = math.prod(shape)
    if not 0 < length <= LIMIT:
        raise ValueError(f"its header says {length:,} values")
    content = file.read(length + 1)
    if len(content) != length:
        raise ValueError(f"its header says {length:,} values, it holds {'more' if len(content) > length else 'fewer'}")
    return np.frombuffer(content, dtype=np.uint8).reshape(shape).copy()


def _split(images_path: Path, labels_path: Path, classes: tuple[str, ...]) -> Split:
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if len(images) != len(labels):
        raise ValueError(f"{labels_path} has {len(labels):,} labels for the {len(images):,} images of {images_path}")
    if labels.max() >= len(classes):
        raise ValueError(f"{labels_path} is damaged (label {labels.max()} of {len(classes)} classes): replace it")
    return Split(torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels).to(torch.int64))
