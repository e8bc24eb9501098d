"""Reads Tiny-ImageNet as published: a zip file, or the folder to which it unpacks.

wnids.txt lists the classes in order, words.txt their names; training images are train/<wnid>/images/*.JPEG.
The published test images have no labels, so the validation images are the test split here: they lie in one flat
folder, val/images, and val/val_annotations.txt has their classes; or somebody has sorted them into val/<wnid>/ or
val/<wnid>/images/. Downloads: http://cs231n.stanford.edu/tiny-imagenet-200.zip
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch

from conf.datasets import DatasetRow
from datasets.archives import read_members
from datasets.base import Location, Split
from datasets.images import decode_images, read_image_file
from datasets.places import bases

ANNOTATIONS = "val/val_annotations.txt"


@dataclass(frozen=True)
class _Files:
    """The data set's files, in an archive or a folder: names relative to its folder, and a function that reads one."""

    label: str
    names: frozenset[str]
    read: Callable[[str], bytes]

    def lines(self, name: str) -> list[str]:
        if name not in self.names:
            raise ValueError(f"{self.label} has no {name}: lay the data set out as it is published")
        return self.read(name).decode("utf-8").splitlines()


def find(row: DatasetRow, data: Path) -> Location | None:
    """The official archive, else its unpacked folder, under data or the data set's folder in it."""
    (official,) = row.files
    for base in bases(row, data):
        if (base / official.name).is_file():
            return Location("archive", (base / official.name,))
    for base in bases(row, data):
        for folder in (base / Path(official.name).stem, base):
            if (folder / "wnids.txt").is_file() and (folder / "val").is_dir():
                return Location("unpacked", tuple(folder / name for name in ("wnids.txt", "words.txt", "train", "val")))
    return None


def read(
    row: DatasetRow, location: Location, size: int | None, train: bool = True
) -> tuple[tuple[str, ...], Split, Split]:
    """Classes, training and validation images (3 x 64 x 64). Raises ValueError naming what is missing or damaged.

    train: False leaves the training images out.
    """
    path, is_archive = location.paths[0], location.form == "archive"
    files = _in_archive(row, path, train) if is_archive else _in_folder(path.parent, train)
    wnids = [line.strip() for line in files.lines("wnids.txt") if line.strip()]
    if not wnids:
        raise ValueError(f"{files.label}: wnids.txt lists no class")
    training = _train_images(files, wnids) if train else []
    test = _validation_images(files, wnids)
    return _class_names(files, wnids), _split(row, files, training), _split(row, files, test)


def _in_archive(row: DatasetRow, path: Path, train: bool) -> _Files:
    left_out = ("/test/",) if train else ("/test/", "/train/")
    with path.open("rb") as file:  # opened once: what is read is what was checked
        checksum = row.files[0].checksum
        contents = read_members(file, path, checksum, lambda name: not any(part in name for part in left_out))
    top = next((name.removesuffix("wnids.txt") for name in contents if PurePosixPath(name).name == "wnids.txt"), "")
    contents = {name.removeprefix(top): content for name, content in contents.items()}
    return _Files(str(path), frozenset(contents), contents.__getitem__)


def _in_folder(folder: Path, train: bool) -> _Files:
    patterns = ("*.txt", "val/*.txt", "val/*/*", "val/*/images/*", *(("train/*/images/*",) if train else ()))
    paths = [path for pattern in patterns for path in folder.glob(pattern)]
    names = frozenset(path.relative_to(folder).as_posix() for path in paths)
    return _Files(str(folder), names, lambda name: read_image_file(folder / name))


def _train_images(files: _Files, wnids: list[str]) -> list[tuple[str, int]]:
    by_class: dict[str, list[str]] = {wnid: [] for wnid in wnids}
    for name in files.names:
        parts = name.split("/")
        if len(parts) == 4 and parts[0] == "train" and parts[2] == "images" and parts[1] in by_class:
            if _is_image(parts[3]):
                by_class[parts[1]].append(name)
    for wnid, names in by_class.items():
        if not names:
            raise ValueError(f"{files.label}: class {wnid} of wnids.txt has no images in train/{wnid}/images")
    return [(name, label) for label, names in enumerate(by_class.values()) for name in sorted(names)]


def _validation_images(files: _Files, wnids: list[str]) -> list[tuple[str, int]]:
    labels = {wnid: label for label, wnid in enumerate(wnids)}
    if not any(name.startswith("val/images/") for name in files.names):
        return _sorted_validation_images(files, labels)
    images = []
    for number, line in enumerate(files.lines(ANNOTATIONS), start=1):
        fields = line.split("\t")  # file name, wnid, then the bounding box
        if not line.strip():
            continue
        if len(fields) < 2 or fields[1] not in labels:
            raise ValueError(f"{files.label}: line {number} of {ANNOTATIONS} has no class of wnids.txt: {line[:60]!r}")
        name = f"val/images/{fields[0]}"
        if name not in files.names:
            raise ValueError(f"{files.label}: {name}, which {ANNOTATIONS} lists, is missing")
        images.append((name, labels[fields[1]]))
    if not images:
        raise ValueError(f"{files.label}: {ANNOTATIONS} lists no image")
    return images


def _sorted_validation_images(files: _Files, labels: dict[str, int]) -> list[tuple[str, int]]:
    """The validation images of a data set in which they lie in a folder for each class."""
    images = []
    for name in sorted(files.names):
        parts = name.split("/")
        inner = parts[2:-1]
        if parts[0] == "val" and len(parts) > 2 and inner in ([], ["images"]) and _is_image(parts[-1]):
            if parts[1] not in labels:
                raise ValueError(f"{files.label}: val/{parts[1]} is no class of wnids.txt: lay it out as published")
            images.append((name, labels[parts[1]]))
    if not images:
        raise ValueError(f"{files.label}: val holds no images, neither in val/images nor in val/<wnid>")
    return sorted(images, key=lambda image: (image[1], image[0]))


def _is_image(name: str) -> bool:
    return name.lower().endswith((".jpeg", ".jpg")) and not name.startswith(".")


def _class_names(files: _Files, wnids: list[str]) -> tuple[str, ...]:
    """The first of each class's names in words.txt; the wnid where it has none, and behind a name that two share."""
    words = {}
    if "words.txt" in files.names:
        words = dict(line.split("\t", 1) for line in files.lines("words.txt") if "\t" in line)
    names = [words.get(wnid, wnid).split(",")[0].strip() for wnid in wnids]
    return tuple(
        name if names.count(name) == 1 else f"{name} ({wnid})" for name, wnid in zip(names, wnids, strict=True)
    )


def _split(row: DatasetRow, files: _Files, images: list[tuple[str, int]]) -> Split:
    names = [name for name, _ in images]
    pixels = decode_images(names, files.read, row.channels, row.size, row.name)
    return Split(pixels, torch.tensor([label for _, label in images], dtype=torch.int64))
