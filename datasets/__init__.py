"""Loads a data set, given its row in conf/datasets.py: uint8 tensors in memory, or images that stream from disk.

A new format on disk needs a module with two functions, find (where is it?) and read (what is in it?), and a line in
READERS. Where its batches are made in another way than those of images with classes: datasets/loaders.py.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch

from conf.datasets import DatasetRow
from datasets import cifar, digits, driving, folder, mnist, pack, statistics, tiny_imagenet
from datasets.base import Dataset, Location, Split, View, channel_statistics, resized
from datasets.files import sweep
from datasets.places import storage
from datasets.stream import Streaming, streamed

__all__ = ["Dataset", "Split", "Streaming", "View", "is_there", "load", "load_test"]

T = TypeVar("T")

LARGEST_SIDE = 4096  # pixels
NEVER = Streaming()


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


def load(row: DatasetRow, data: Path, size: int | None = None, streaming: Streaming = NEVER) -> Dataset:
    """The data set of a row: uint8 images, int64 targets, and mean and std of the training images.

    data       the folder that holds data sets; downloads and packed data go there too (to the user's cache folder
               where it is read-only)
    size       the side in pixels that images are resized to; None: the row's own
    streaming  when a folder of images streams (datasets/stream.py has the rule); by default never

    It is taken from the packed cache, where that was made from the files that are found, else from the official archive
    or its unpacked folder, else from a folder of images, else from a download. Raises ValueError in one line where the
    data set is missing, damaged or laid out wrongly.
    """
    if size is not None and not 1 <= size <= LARGEST_SIDE:
        raise ValueError(f"image size {size}: 1 to {LARGEST_SIDE} pixels are allowed")
    if streaming.least_area and row.reader != "folder":
        raise ValueError(
            f"-random-resized-crop {streaming.least_area:g}: cuts from images as large as they are on disk, which "
            f"{row.name} has no more; give -random-resized-crop 0, or a folder of images (-dataset PATH)"
        )
    dataset = _read_safely(row, data, lambda: _load(row, Path(data), size, streaming))
    for note in dataset.notes:
        print(note)
    return dataset


def load_test(row: DatasetRow, data: Path, view: View, streaming: Streaming = NEVER, downloads: bool = True) -> Split:
    """The test split of a data set as a network with that view sees it; nothing of the training split is built.

    Images have the view's side and channels, and targets count its classes, whatever their order in the data set. The
    test split of a folder is all that has to be there of it. data, streaming: as load() takes them.
    downloads: whether a data set that is not there is downloaded.
    Raises ValueError as load() does, and for a class that the view does not have.
    """
    row = dataclasses.replace(row, channels=view.channels)
    return _read_safely(row, data, lambda: _load_test(row, Path(data), view, streaming, downloads))


def is_there(row: DatasetRow, data: Path) -> bool:
    """Whether the data set is under data: as its files, or as the packed data of an earlier run."""
    return _find(row, data, data) is not None or any((data / "packed").glob(f"{row.name}-*.packed"))


def _read_safely(row: DatasetRow, data: Path, read: Callable[[], T]) -> T:
    """What read() returns. Raises ValueError where data is no folder or a file cannot be read."""
    if Path(data).exists() and not Path(data).is_dir():
        raise ValueError(f"data folder {data} is not a folder")
    try:
        return read()
    except OSError as error:  # a file that may not be read, a disk that fails
        raise ValueError(f"{row.name} could not be read: {error}") from error


def _load(row: DatasetRow, data: Path, size: int | None, streaming: Streaming) -> Dataset:
    store = storage(data)
    sweep(store / "packed", lambda name: name.endswith((".packed", ".json")))
    sweep(store / row.downloads, {file.name for file in row.files}.__contains__)
    location = _find(row, data, store)
    if location is not None and location.form == "bundled":
        return _read(row, location, size)
    key = pack.make_key(row, location, size)
    limit = streaming.limit if row.reader == "folder" else None
    dataset = None if streaming.least_area else _load_packed(row, data, store, key, size, limit)
    if dataset is not None:
        return dataset
    if row.reader == "folder":
        listing = folder.list_images(row, location, size)
        if streaming.wanted(listing, row.channels):
            packed = [place / "packed" / pack.file_name(row, data, place, size) for place in (data, store)]
            return _stream(row, listing, streaming, packed, key)
    if location is None:
        location = _download(row, data, store)
        key = pack.make_key(row, location, size)
    dataset = _read(row, location, size)
    _save_packed(row, data, store, key, size, dataset)
    return dataset


def _find(row: DatasetRow, data: Path, store: Path) -> Location | None:
    reader = READERS[row.reader]
    for place in dict.fromkeys((data, store)):
        location = reader.find(row, place) or folder.find_under(row, place)
        if location is not None:
            return location
    return None


def _load_test(row: DatasetRow, data: Path, view: View, streaming: Streaming, downloads: bool) -> Split:
    """load_test() without its checks: from the packed cache, else as images that stream, else from the files."""
    size = view.side if row.size else view.file_side
    store = storage(data)
    location = _find(row, data, store)
    packed = None
    if not view.middle and (location is None or location.form != "bundled"):
        packed = _packed_test(row, data, store, pack.make_key(row, location, None), size)
    if packed is not None:
        classes, test = packed
    else:
        if location is None and not downloads:
            raise ValueError(f"{row.name} is not under {data}")
        location = location or _download(row, data, store)
        classes, test = _read_test(row, location, view, size, streaming)
    targets = _targets_of(view, row, classes, test.targets)
    if test.images.shape[1] == 1 < view.channels:
        test = Split(test.images.expand(-1, view.channels, -1, -1), targets)
    if test.images.shape[1] != view.channels:
        raise ValueError(f"{row.name} has {test.images.shape[1]} channels; the network was trained on {view.channels}")
    return resized(Split(test.images, targets), view.side)


def _packed_test(
    row: DatasetRow, data: Path, store: Path, key: dict, size: int
) -> tuple[tuple[str, ...], Split] | None:
    for asked in (size, None):  # of a folder, the size in a packed file's name is the one that was asked for
        dataset = _load_packed(row, data, store, key | {"size": asked or row.size}, asked, None, train=False)
        if dataset is not None and dataset.test.images.shape[-1] == size:
            return dataset.classes, dataset.test
    return None


def _read_test(
    row: DatasetRow, location: Location, view: View, size: int, streaming: Streaming
) -> tuple[tuple[str, ...], Split]:
    if row.reader == "folder":
        listing = folder.list_images(row, location, size, train=False)
        if size == view.side and streaming.wanted(listing, row.channels):
            test = listing.splits["test"]
            return listing.classes, Split(streamed(row, test.names, size, streaming), test.targets)
    if location.form == "images":
        listing, splits = folder.read(row, location, size, train=False)
        return listing.classes, splits["test"]
    classes, _, test = READERS[row.reader].read(row, location, size, False)
    return classes, test


def _targets_of(view: View, row: DatasetRow, classes: tuple[str, ...], targets: torch.Tensor) -> torch.Tensor:
    """The targets, counted in the view's classes. Raises ValueError for a class that these do not have."""
    numbers = {name: number for number, name in enumerate(view.classes)}
    unknown = next((name for name in classes if name not in numbers), None)
    if unknown is not None:
        raise ValueError(f"{row.name} has other classes than the network: {unknown!r} is none of its {len(numbers)}")
    return torch.tensor([numbers[name] for name in classes])[targets] if row.task == "classification" else targets


def _download(row: DatasetRow, data: Path, store: Path) -> Location:
    from datasets.download import download  # here: what it needs takes a while to load, and is seldom used

    download(row, store / row.downloads)
    location = _find(row, data, store)
    assert location is not None, f"{row.name}: the download is not where its reader looks"
    return location


def _read(row: DatasetRow, location: Location, size: int | None) -> Dataset:
    val, notes = None, ()
    if location.form == "images":
        listing, splits = folder.read(row, location, size)
        classes, train, test, val = listing.classes, splits["train"], splits["test"], splits.get("val")
        notes = listing.notes
    else:
        classes, train, test = READERS[row.reader].read(row, location, size, True)
    train, test = resized(train, size), resized(test, size)
    mean, std = READERS[row.reader].statistics(train.images)
    val = None if val is None else resized(val, size)
    return Dataset(row=row, classes=classes, train=train, test=test, mean=mean, std=std, val=val, notes=notes)


def _stream(row: DatasetRow, listing: folder.Listing, streaming: Streaming, packed: list[Path], key: dict) -> Dataset:
    ending = ".middle.json" if streaming.least_area else ".json"
    caches = [path.with_suffix(ending) for path in packed]
    listing, (mean, std) = statistics.of_streamed(row, listing, streaming, caches, key)
    images = {name: streamed(row, files.names, listing.side, streaming) for name, files in listing.splits.items()}
    splits = {name: Split(images[name], files.targets) for name, files in listing.splits.items()}
    count, side = sum(map(len, images.values())), listing.side
    size = count * images["train"].shape[1:].numel() / 1e9
    print(f"{row.name} streams (-w {streaming.workers}): {count:,} images, {size:.2f} GB at {side}x{side} pixels")
    return Dataset(row, listing.classes, mean=mean, std=std, notes=listing.notes, **splits)


def _load_packed(
    row: DatasetRow, data: Path, store: Path, key: dict, size: int | None, limit: int | None, train: bool = True
) -> Dataset | None:
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


def _save_packed(row: DatasetRow, data: Path, store: Path, key: dict, size: int | None, dataset: Dataset) -> None:
    path = store / "packed" / pack.file_name(row, data, store, size)
    try:
        pack.save(path, key, dataset)
    except OSError as error:  # a full disk: this run has its data, and the next one reads it anew
        print(f"{path} could not be written ({error.strerror or error}): going on without it", file=sys.stderr)
