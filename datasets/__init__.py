"""Loads a data set, given its row in conf/datasets.py: uint8 tensors in memory, or images that stream from disk.

A new format on disk needs a module with two functions, find (where is it?) and read (what is in it?), and a line in
READERS. Where its batches are made in another way than those of images with classes: datasets/loaders.py.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from conf.datasets import DatasetRow
from datasets import cifar, digits, driving, folder, mnist, pack, statistics, tiny_imagenet
from datasets.base import Dataset, Location, Split, channel_statistics, resized
from datasets.places import storage
from datasets.stream import StreamedImages, Streaming

__all__ = ["Dataset", "Split", "Streaming", "load"]

LARGEST_SIDE = 4096  # pixels
NEVER = Streaming()


@dataclass(frozen=True)
class Reader:
    """How a format is read.

    find(row, data)            returns where the data set lies, or None
    read(row, location, size)  returns its classes and its training and test split
    statistics(images)         returns the mean and std that images are normalised with
    """

    find: Callable[[DatasetRow, Path], Location | None]
    read: Callable[[DatasetRow, Location, int | None], tuple[tuple[str, ...], Split, Split]]
    statistics: Callable[[torch.Tensor], tuple[tuple[float, ...], tuple[float, ...]]] = channel_statistics


READERS: dict[str, Reader] = {
    "cifar": Reader(cifar.find, cifar.read),
    "tiny_imagenet": Reader(tiny_imagenet.find, tiny_imagenet.read),
    "mnist": Reader(mnist.find, mnist.read),
    "digits": Reader(digits.find, digits.read),
    "folder": Reader(folder.find, folder.read),
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
            f"{row.name} has no more; leave it out, or give a folder of images (-dataset PATH)"
        )
    data = Path(data)
    if data.exists() and not data.is_dir():
        raise ValueError(f"data folder {data} is not a folder")
    try:
        return _load(row, data, size, streaming)
    except OSError as error:  # a file that may not be read, a disk that fails
        raise ValueError(f"{row.name} could not be read: {error}") from error


def _load(row: DatasetRow, data: Path, size: int | None, streaming: Streaming) -> Dataset:
    store = storage(data)
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
        from datasets.download import download  # here: what it needs takes a while to load, and is seldom used

        download(row, store / row.downloads)
        location = _find(row, data, store)
        assert location is not None, f"{row.name}: the download is not where its reader looks"
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


def _read(row: DatasetRow, location: Location, size: int | None) -> Dataset:
    read = folder.read if location.form == "images" else READERS[row.reader].read
    classes, train, test = read(row, location, size)
    train, test = resized(train, size), resized(test, size)
    mean, std = READERS[row.reader].statistics(train.images)
    return Dataset(row=row, classes=classes, train=train, test=test, mean=mean, std=std)


def _stream(row: DatasetRow, listing: folder.Listing, streaming: Streaming, packed: list[Path], key: dict) -> Dataset:
    train, test = (
        StreamedImages(files.names, row.channels, listing.side, streaming.least_area)
        for files in (listing.train, listing.test)
    )
    count, side = len(train) + len(test), listing.side
    size = count * train.shape[1:].numel() / 1e9
    print(f"{row.name} streams (-w {streaming.workers}): {count:,} images, {size:.2f} GB at {side}x{side} pixels")
    ending = ".middle.json" if streaming.least_area else ".json"
    mean, std = statistics.of_streamed(train, streaming.workers, [path.with_suffix(ending) for path in packed], key)
    splits = Split(train, listing.train.targets), Split(test, listing.test.targets)
    return Dataset(row, listing.classes, *splits, mean=mean, std=std)


def _load_packed(
    row: DatasetRow, data: Path, store: Path, key: dict, size: int | None, limit: int | None
) -> Dataset | None:
    for place in dict.fromkeys((data, store)):
        path = place / "packed" / pack.file_name(row, data, place, size)
        try:
            dataset = pack.load(path, key, row, limit)
        except pack.Damaged as error:
            print(f"{path} is damaged ({error}): it is made again", file=sys.stderr)
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
