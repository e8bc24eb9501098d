"""Reads CIFAR-10 and CIFAR-100 as published: a tar.gz of pickles, or the folder to which it unpacks.

A pickle runs code when it is read. Nothing is unpickled before its checksum has been compared with the data set's row:
that of the whole file for the archive, that of each pickle for the unpacked folder.
https://www.cs.toronto.edu/~kriz/cifar.html. CIFAR-100 has its 100 fine classes here, not the 20 coarse ones.
"""

from __future__ import annotations

import io
import pickle
from pathlib import Path, PurePosixPath

import numpy as np
import torch

from conf.datasets import DatasetRow
from datasets.archives import check, read_members
from datasets.base import Location, Split
from datasets.files import open_file, read_file
from datasets.places import bases


def find(row: DatasetRow, data: Path) -> Location | None:
    """The official archive, else its unpacked files, under data or the data set's folders in it.

    The folder to which the archive unpacks may lie in another of its name, as some programs unpack it, and may be data
    itself or the data set's folder.
    """
    (official,) = row.files
    top = PurePosixPath(row.members[0][0]).parent.name
    folders = [base / inner for inner in ("", top, f"{top}/{top}") for base in bases(row, data)]
    for folder in folders:
        if (folder / official.name).is_file():
            return Location("archive", (folder / official.name,))
    for folder in folders:
        paths = tuple(folder / PurePosixPath(name).name for name, _ in row.members)
        if all(path.is_file() for path in paths):
            return Location("unpacked", paths)
    return None


def read(
    row: DatasetRow, location: Location, size: int | None, train: bool = True
) -> tuple[tuple[str, ...], Split, Split]:
    """Classes, training and test images (3 x 32 x 32). Raises ValueError for a file that is not the published one.

    train: False leaves the training images out.
    """
    names = [name for name, _ in row.members if train or not PurePosixPath(name).name.startswith(("train", "data_"))]
    read_files = _from_archive if location.form == "archive" else _from_folder
    contents = read_files(row, location, names)
    training, test, classes = [], [], ()
    for name in names:
        # latin1: the pickles are Python 2's; their keys are ASCII.
        batch = pickle.loads(contents.pop(name), encoding="latin1")
        file = PurePosixPath(name).name
        if "meta" in file:
            classes = tuple(batch.get("fine_label_names") or batch["label_names"])
        else:
            (test if file.startswith("test") else training).append(batch)
    tested = _split(test)
    return classes, _split(training) if train else tested.none(), tested


def _from_archive(row: DatasetRow, location: Location, names: list[str]) -> dict[str, bytes]:
    (path,) = location.paths
    with open_file(path) as file:  # opened once: what is read is what was checked
        return read_members(file, path, row.files[0].checksum, set(names).__contains__)


def _from_folder(row: DatasetRow, location: Location, names: list[str]) -> dict[str, bytes]:
    contents = {}
    for (name, checksum), path in zip(row.members, location.paths, strict=True):
        if name in names:
            contents[name] = read_file(path)
            check(io.BytesIO(contents[name]), path, checksum)
    return contents


def _split(batches: list[dict]) -> Split:
    targets = [target for batch in batches for target in batch.get("fine_labels") or batch["labels"]]
    pixels, start = np.empty((len(targets), 3, 32, 32), dtype=np.uint8), 0
    for batch in batches:
        values = batch.pop("data").reshape(-1, 3, 32, 32)  # freed when the next one is copied
        pixels[start : start + len(values)] = values
        start += len(values)
    return Split(torch.from_numpy(pixels), torch.tensor(targets, dtype=torch.int64))
