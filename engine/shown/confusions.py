"""Which classes a network takes for which, in numbers."""

from __future__ import annotations

import numpy
import torch
from torch import Tensor

from utils import printable


def confusions(probabilities: Tensor, targets: Tensor) -> numpy.ndarray:
    """Numbers of images, classes x classes: rows are true classes, columns predicted ones.

    probabilities: N x classes. targets: N class numbers.
    """
    count = probabilities.shape[1]
    return torch.bincount(targets * count + probabilities.argmax(1), minlength=count**2).view(count, count).numpy()


def worst_pairs(matrix: numpy.ndarray, count: int) -> list[tuple[int, int, int]]:
    """(true class, predicted class, images) of the `count` pairs of classes with most mistakes, the most first."""
    wrong = matrix * ~numpy.eye(len(matrix), dtype=bool)
    order = numpy.argsort(-wrong, axis=None, kind="stable")[:count]
    pairs = [divmod(int(place), len(matrix)) for place in order]
    return [(*pair, int(wrong[pair])) for pair in pairs if wrong[pair]]


def class_rows(matrix: numpy.ndarray, classes: tuple[str, ...]) -> list[dict[str, object]]:
    """A row for each class: its images, the share that was found (accuracy), and what it was taken for most often.

    A class without images has no accuracy, one without mistakes is confused with none.
    """
    rows = []
    for number, counts in enumerate(matrix):
        images, wrong = int(counts.sum()), counts.copy()
        wrong[number] = 0
        other = int(wrong.argmax())
        rows.append({
            "class": printable(classes[number]),
            "images": images,
            "accuracy": round(int(counts[number]) / images, 4) if images else "",
            "most confused with": printable(classes[other]) if wrong[other] else "",
            "times": int(wrong[other]),
        })  # fmt: skip
    return rows
