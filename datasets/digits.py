"""Reads scikit-learn's digits: 1,797 real handwritten digits, 8x8, which come with the package."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from conf.datasets import DatasetRow
from datasets.base import Location, Split, resized

SPLIT_SEED = 0  # the same fifth is the test set in every run, whatever the run's own seed


def find(row: DatasetRow, data: Path) -> Location:
    """The data set comes with scikit-learn, so it is always there."""
    return Location("bundled")


def read(
    row: DatasetRow, location: Location, size: int | None, train: bool = True
) -> tuple[tuple[str, ...], Split, Split]:
    """Classes, training and test images (grey, 1 x size x size, by default the row's 16).

    A stratified fifth is the test set. The original's values 0..16 are scaled to 0..255.
    train: False leaves the training images out.
    """
    from sklearn.datasets import load_digits  # here: nothing else needs scikit-learn to be loaded
    from sklearn.model_selection import train_test_split

    bunch = load_digits()
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)[:, np.newaxis]
    parts = train_test_split(
        pixels, bunch.target, test_size=0.2, stratify=bunch.target, random_state=SPLIT_SEED, shuffle=True
    )
    train_images, test_images, train_targets, test_targets = (torch.from_numpy(part) for part in parts)
    splits = (Split(train_images, train_targets.to(torch.int64)), Split(test_images, test_targets.to(torch.int64)))
    training, test = (resized(split, size or row.size) for split in splits)
    return tuple(str(name) for name in bunch.target_names), training if train else training.none(), test
