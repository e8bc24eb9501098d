"""Where data sets are taken from: the readers of the formats on disk, the packed cache, a download.

A new format on disk needs a module with two functions, find (where is it?) and read (what is in it?), and a line in
READERS.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from conf.datasets import DatasetRow
from datasets import cifar, digits, driving, folder, mnist, pack, statistics, tiny_imagenet
from datasets.base import Dataset, Location, Split, channel_statistics

T = TypeVar("T")


@dataclass(frozen=True)
class Reader:
    """How a format is read.

    find(row, data)            returns where the data set lies, or None
    read(row, location, size, train)  returns its classes and its training and test split; the former is empty, and
                               nothing of it is decoded or held, where train is False; folder.read gives more than that
    statistics(images)         returns the mean and std that images are normalised with
    """

    find: Callable[[DatasetRow, Path], Location | None]
    read: Callable[[DatasetRow, Location, int | None, bool], tuple[tuple[str, ...], Split, Split]]
    statistics: Callable[[torch.Tensor], tuple[tuple[float, ...], tuple[float, ...]]] = channel_statistics


READERS: dict[str, Reader] = {
    "cifar": Reader(cifar.find, cifar.read),
    "tiny_imagenet": Reader(tiny_imagenet.find, tiny_imagenet.read),
    "mnist": Reader(mnist.find, mnist.read),
    "digits": Reader(digits.find, digits.read),
    "folder": Reader(folder.find, folder.read, statistics=statistics.of_sample),
    "driving": Reader(driving.find, driving.read, statistics=driving.pixel_range),
}


def find(row: DatasetRow, data: Path, store: Path) -> Location | None:
    """Where a data set lies: under data or store, as its reader finds it, or as a folder of images; None: nowhere."""
    reader = READERS[row.reader]
    for place in dict.fromkeys((data, store)):
        location = reader.find(row, place) or folder.find_under(row, place)
        if location is not None:
            return location
    return None


def is_there(row: DatasetRow, data: Path) -> bool:
    """Whether the data set is under data: as its files, or as the packed data of an earlier run."""
    return find(row, data, data) is not None or any((data / "packed").glob(f"{row.name}-*.packed"))


def fetch(row: DatasetRow, data: Path, store: Path) -> Location:
    """Downloads a data set to store, and returns where it lies. Raises ValueError where that is not possible."""
    from datasets.download import download  # here: what it needs takes a while to load, and is seldom used

    download(row, store / row.downloads)
    location = find(row, data, store)
    assert location is not None, f"{row.name}: the download is not where its reader looks"
    return location


def read_safely(row: DatasetRow, data: Path, read: Callable[[], T]) -> T:
    """What read() returns. Raises ValueError where data is no folder or a file cannot be read."""
    if Path(data).exists() and not Path(data).is_dir():
        raise ValueError(f"data folder {data} is not a folder")
    try:
        return read()
    except OSError as error:  # a file that may not be read, a disk that fails
        raise ValueError(f"{row.name} could not be read: {error}") from error


def load_packed(
    row: DatasetRow, data: Path, store: Path, key: dict, size: int | None, limit: int | None, train: bool = True
) -> Dataset | None:
    """The data set from the packed cache under data or store; None where that was made from something else.

    key, limit, train: as pack.load() takes them.
    """
    for place in dict.fromkeys((data, store)):
        path = place / "packed" / pack.file_name(row, data, place, size)
        try:
            dataset = pack.load(path, key, row, limit, train)
        except pack.Damaged as error:
            instead = "it is made again" if train else "its source is read"
            print(f"{path} is damaged ({error}): {instead}", file=sys.stderr)
            continue
        if dataset is not None:
            return dataset
    return None


def save_packed(row: DatasetRow, data: Path, store: Path, key: dict, size: int | None, dataset: Dataset) -> None:
    """Writes a data set to the packed cache under store; where that is not possible, a line says so."""
    path = store / "packed" / pack.file_name(row, data, store, size)
    try:
        pack.save(path, key, dataset)
    except OSError as error:  # a full disk: this run has its data, and the next one reads it anew
        print(f"{path} could not be written ({error.strerror or error}): going on without it", file=sys.stderr)
