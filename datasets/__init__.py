"""Loads a data set, given its row in conf/datasets.py: uint8 tensors in memory, or images that stream from disk.

datasets/sources.py says what a new format on disk needs. Where its batches are made in another way than those of images
with classes: datasets/loaders.py.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

from conf.datasets import DatasetRow
from datasets import folder, pack, statistics
from datasets.base import Dataset, Location, Split, View, resized
from datasets.evaluation import load_test
from datasets.places import storage
from datasets.sources import READERS, fetch, find, is_there, load_packed, read_safely, save_packed
from datasets.stream import NEVER, Streaming, streamed
from utils import sweep

__all__ = ["READERS", "Dataset", "Split", "Streaming", "View", "is_there", "load", "load_test"]

LARGEST_SIDE = 4096  # pixels


def load(row: DatasetRow, data: Path, size: int | None = None, streaming: Streaming = NEVER) -> Dataset:
    """The data set of a row: uint8 images, targets as Split has them, and mean and std of the training images.

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
    dataset = read_safely(row, data, lambda: _load(row, Path(data), size, streaming))
    for note in dataset.notes:
        print(note)
    return dataset


def _load(row: DatasetRow, data: Path, size: int | None, streaming: Streaming) -> Dataset:
    store = storage(data)
    sweep(store / "packed", lambda name: name.endswith((".packed", ".json")))
    sweep(store / row.downloads, {file.name for file in row.files}.__contains__)
    location = find(row, data, store)
    dataset = _load_from(row, data, store, location, size, streaming)
    return dataclasses.replace(dataset, is_split_here=location is not None and location.is_split_here)


def _load_from(
    row: DatasetRow, data: Path, store: Path, location: Location | None, size: int | None, streaming: Streaming
) -> Dataset:
    """_load() of what is at location; None: of the packed cache, or of a download."""
    if location is not None and location.form == "bundled":
        return _read(row, location, size)
    key = pack.make_key(row, location, size)
    limit = streaming.limit if row.reader == "folder" else None
    dataset = None if streaming.least_area else load_packed(row, data, store, key, size, limit)
    if dataset is not None:
        return dataset
    if row.reader == "folder":
        listing = folder.list_images(row, location, size)
        if streaming.wanted(listing, row.channels):
            packed = [place / "packed" / pack.file_name(row, data, place, size) for place in (data, store)]
            return _stream(row, listing, streaming, packed, key)
    if location is None:
        location = fetch(row, data, store)
        key = pack.make_key(row, location, size)
    dataset = _read(row, location, size)
    save_packed(row, data, store, key, size, dataset)
    return dataset


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
