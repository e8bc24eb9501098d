"""Loads the test split of a data set alone, as a network that is trained already sees it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from conf.datasets import DatasetRow
from datasets import folder, pack
from datasets.base import Location, Split, View, resized
from datasets.places import storage
from datasets.sources import READERS, fetch, find, load_packed, read_safely
from datasets.stream import NEVER, Streaming, streamed

Found = tuple[tuple[str, ...], tuple[str, ...], Split]  # classes, lines for the user, the test split


def load_test(row: DatasetRow, data: Path, view: View, streaming: Streaming = NEVER, downloads: bool = True) -> Split:
    """The test split of a data set as a network with that view sees it; nothing of the training split is built.

    Images have the view's side and channels, and targets count its classes, whatever their order in the data set. The
    test split of a folder is all that has to be there of it. data, streaming: as load() takes them.
    downloads: whether a data set that is not there is downloaded.
    Raises ValueError as load() does, and for a class that the view does not have.
    """
    row = dataclasses.replace(row, channels=view.channels)
    notes, test = read_safely(row, data, lambda: _load_test(row, Path(data), view, streaming, downloads))
    for note in notes:
        print(note)
    return test


def _load_test(
    row: DatasetRow, data: Path, view: View, streaming: Streaming, downloads: bool
) -> tuple[tuple[str, ...], Split]:
    """Lines for the user, and the test split: of the packed cache, else as images that stream, else of the files."""
    size = view.side if row.size else view.file_side
    store = storage(data)
    location = find(row, data, store)
    packed = None
    if not view.middle and (location is None or location.form != "bundled"):
        packed = _packed_test(row, data, store, pack.make_key(row, location, None), size)
    if packed is None:
        if location is None and not downloads:
            raise ValueError(f"{row.name} is not under {data}")
        location = location or fetch(row, data, store)
    classes, notes, test = packed or _read_test(row, location, view, size, streaming)
    targets = _targets_of(view, row, classes, test.targets)
    if test.images.shape[1] == 1 < view.channels:
        test = Split(test.images.expand(-1, view.channels, -1, -1), targets)
    if test.images.shape[1] != view.channels:
        raise ValueError(f"{row.name} has {test.images.shape[1]} channels; the network was trained on {view.channels}")
    return notes, resized(Split(test.images, targets), view.side)


def _packed_test(row: DatasetRow, data: Path, store: Path, key: dict, size: int) -> Found | None:
    for asked in (size, None):  # of a folder, the size in a packed file's name is the one that was asked for
        dataset = load_packed(row, data, store, key | {"size": asked or row.size}, asked, None, train=False)
        if dataset is not None and dataset.test.images.shape[-1] == size:
            return dataset.classes, dataset.notes, dataset.test
    return None


def _read_test(row: DatasetRow, location: Location, view: View, size: int, streaming: Streaming) -> Found:
    if row.reader == "folder":
        listing = folder.list_images(row, location, size, train=False)
        if size == view.side and streaming.wanted(listing, row.channels):
            test = listing.splits["test"]
            return listing.classes, listing.notes, Split(streamed(row, test.names, size, streaming), test.targets)
    if location.form == "images":
        listing, splits = folder.read(row, location, size, train=False)
        return listing.classes, listing.notes, splits["test"]
    classes, _, test = READERS[row.reader].read(row, location, size, False)
    return classes, (), test


def _targets_of(view: View, row: DatasetRow, classes: tuple[str, ...], targets: torch.Tensor) -> torch.Tensor:
    """The targets, counted in the view's classes. Raises ValueError for a class that these do not have."""
    numbers = {name: number for number, name in enumerate(view.classes)}
    unknown = next((name for name in classes if name not in numbers), None)
    if unknown is not None:
        raise ValueError(f"{row.name} has other classes than the network: {unknown!r} is none of its {len(numbers)}")
    return torch.tensor([numbers[name] for name in classes])[targets] if row.task == "classification" else targets
