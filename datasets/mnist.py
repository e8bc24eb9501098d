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
from datasets.files import open_file

CLASSES = {
    "mnist": tuple("0123456789"),
    "fashion-mnist": tuple("T-shirt/top,Trouser,Pullover,Dress,Coat,Sandal,Shirt,Sneaker,Bag,Ankle boot".split(",")),
}
LIMIT = 1 << 30  # bytes in one file; the official ones hold 47 million at most
STEP = 1 << 20  # bytes read at a time: gzip makes a copy of what it is asked for


def find(row: DatasetRow, data: Path) -> Location | None:
    """The four files in a folder of the data set's name under data, in its folder raw, or nested once more.

    data itself may be that folder, by its name: both data sets have files of the same names.
    """
    names = dict.fromkeys((row.folder, row.name))
    bases = [data / first / second for second in ("", *names) for first in names]
    here = data.absolute()
    here = here.parent if here.name == "raw" else here
    bases += [here] if here.name in names else []
    for base in bases:
        for folder in (base / "raw", base):
            paths = [_idx_file(folder, file.name.removesuffix(".gz")) for file in row.files]
            if all(paths):
                return Location("unpacked", tuple(paths))
    return None


def _idx_file(folder: Path, name: str) -> Path | None:
    """The file of that name in a folder, with a dot in it or not, gzipped or not, alone or in a folder of its name."""
    for spelling in (name, name.replace("-idx", ".idx")):
        for path in (folder / spelling, folder / f"{spelling}.gz", folder / spelling / spelling):
            if path.is_file():
                return path
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
        with open_file(path) as file:
            return _parse_idx(gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file, dimensions)
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
    values = np.empty(length, dtype=np.uint8)
    filled = 0
    while filled < length and (count := file.readinto(memoryview(values)[filled : filled + STEP])):
        filled += count
    if filled < length or file.read(1):
        raise ValueError(f"its header says {length:,} values, it holds {'fewer' if filled < length else 'more'}")
    return values.reshape(shape)


def _split(images_path: Path, labels_path: Path, classes: tuple[str, ...]) -> Split:
    images, labels = read_idx(images_path, 3), read_idx(labels_path, 1)
    if len(images) != len(labels):
        raise ValueError(f"{labels_path} has {len(labels):,} labels for the {len(images):,} images of {images_path}")
    if labels.max() >= len(classes):
        raise ValueError(f"{labels_path} is damaged (label {labels.max()} of {len(classes)} classes): replace it")
    return Split(torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels).to(torch.int64))
