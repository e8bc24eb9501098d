"""A folder of images: train/CLASS/* and test/CLASS/* (or val/CLASS/*), as the user lays it out.

Classes are the names of train's folders in alphabetical order. An image may lie in folders within its class.
Hidden files and folders, and files without an image's extension, are ignored.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import torch

from conf.datasets import DatasetRow
from datasets.base import Location, Split
from datasets.images import EXTENSIONS, common_side, decode_images
from datasets.places import bases

DEFAULT_SIDE = 64  # pixels, where the images differ in size and the user has chosen none


def find(row: DatasetRow, data: Path) -> Location:
    """The folder that the user named by its path; its training images need not be there to test on the others.

    Raises ValueError where it is missing or has no test images.
    """
    folder = Path(row.folder).expanduser()
    if not folder.is_dir():
        raise ValueError(f"{row.name}: no such folder or data set")
    test = _test_folder(folder)
    if test is None:
        raise ValueError(f"{folder} has neither a folder test nor val: images are expected in test/CLASS/")
    return Location("images", (folder / "train", test))


def find_under(row: DatasetRow, data: Path) -> Location | None:
    """A named data set as a folder of images, data/<name or folder>/{train, test or val}/<class>/; None: no such."""
    for base in bases(row, data)[1:] if row.task == "classification" else ():
        test = _test_folder(base)
        if test is not None and (base / "train").is_dir():
            return Location("images", (base / "train", test))
    return None


@dataclass(frozen=True)
class Files:
    """Image files and their classes. names: paths. targets: int64, N, an index into the classes."""

    names: list[str]
    targets: torch.Tensor


@dataclass(frozen=True)
class Listing:
    """The files of a folder of images, none decoded yet. side: the side in pixels to which they will be resized."""

    classes: tuple[str, ...]
    train: Files
    test: Files
    side: int


def read(
    row: DatasetRow, location: Location, size: int | None, train: bool = True
) -> tuple[tuple[str, ...], Split, Split]:
    """Classes, training and test images, row.channels x side x side, with the side and the classes of list_images.

    Raises ValueError as list_images does, and for an image that cannot be read.
    """
    found = list_images(row, location, size, train)
    return found.classes, _decode(row, found.train, found.side), _decode(row, found.test, found.side)


def list_images(row: DatasetRow, location: Location, size: int | None, train: bool = True) -> Listing:
    """The images of a folder and the side to which they are resized.

    train: False leaves the training images out; the classes are then those that the test images have.

    side is the row's; where that is 0, it is size; where that is None too, it is the images' own if all are squares of
    one size, and otherwise 64. Raises ValueError for no classes, an empty class, a test class unknown to train.
    """
    train_folder, test_folder = location.paths
    if train and not train_folder.is_dir():
        folder = train_folder.parent
        raise ValueError(f"{folder} has no folder train: images are expected in train/CLASS/ and test/CLASS/")
    test = {name: images_in(test_folder / name) for name in class_folders(test_folder)}
    training = {name: images_in(train_folder / name) for name in class_folders(train_folder)} if train else test
    _check_classes(train_folder, training, test_folder, test)
    classes = tuple(training)
    files = [_files(images, classes) for images in (training if train else {}, test)]
    side = row.size or size or common_side([*files[0].names, *files[1].names]) or DEFAULT_SIDE
    return Listing(classes, *files, side)


def class_folders(folder: Path) -> list[str]:
    """The names of the folders in a folder, in alphabetical order, without hidden ones."""
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))


def images_in(folder: Path) -> list[str]:
    """The paths of the image files in a folder and its folders, in alphabetical order, without hidden ones."""
    paths = []
    for parent, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths += [
            os.path.join(parent, name)
            for name in names
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in EXTENSIONS
        ]
    return sorted(paths)


def _test_folder(folder: Path) -> Path | None:
    return next((folder / name for name in ("test", "val") if (folder / name).is_dir()), None)


def _check_classes(train_folder: Path, train: dict, test_folder: Path, test: dict) -> None:
    for folder, classes in ((train_folder, train), (test_folder, test)):
        if not classes:
            raise ValueError(f"{folder} holds no classes: images are expected in a folder for each class")
        empty = next((name for name, images in classes.items() if not images), None)
        if empty is not None:
            raise ValueError(f"class folder {folder / empty} holds no images: fill or remove it")
    unknown = next((name for name in test if name not in train), None)
    if unknown is not None:
        raise ValueError(f"class {unknown!r} of {test_folder} is not in {train_folder}: both need the same classes")


def _files(images: dict[str, list[str]], classes: tuple[str, ...]) -> Files:
    labels = [label for label, name in enumerate(classes) for _ in images.get(name, ())]
    names = [path for name in classes for path in images.get(name, ())]
    return Files(names, torch.tensor(labels, dtype=torch.int64))


def _decode(row: DatasetRow, files: Files, side: int) -> Split:
    return Split(decode_images(files.names, read_file, row.channels, side, row.name), files.targets)


def read_file(name: str) -> bytes:
    with open(name, "rb") as file:
        return file.read()
