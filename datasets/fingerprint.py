"""The fingerprint of a data set, by which a run that goes on knows that its data is what it was.

Of images in memory it holds a SHA-256 of all pixels, which takes 0.15 s for CIFAR-100. The pixels of a folder that
streams are never read all at once; its fingerprint is of the names, sizes and times of change of its files.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import torch

from datasets.base import Dataset, Split
from datasets.stream import StreamedImages

PART = 4096  # images

# What is compared, by the words in which a difference is told. A difference in an earlier group brings differences in
# the later ones about, so that only those of the first group with any are told.
TEACHER = "weights of the teacher"  # whose outputs are targets (engine/distillation.py)
_SPLITS = ("training", "validation", "test")
GROUPS: tuple[tuple[str, ...], ...] = (
    ("classes", "image side", "channels", *(f"number of {split} images" for split in _SPLITS), "images are held"),
    tuple(
        f"{what} of the {split} images"
        for split in _SPLITS
        for what in ("pixels", "file names", "file sizes", "files' times of change", "targets")
    ),
    ("split into training and validation images", "mean", "std", "steps an epoch"),
    (TEACHER,),
)


def fingerprint(data: Dataset, index: Iterable[torch.Tensor]) -> dict[str, str | int]:
    """Plain values by the words of GROUPS.

    index: of the training images (int64) that are trained on, and of those that are held out.
    """
    streams = isinstance(data.train.images, StreamedImages)
    found: dict[str, str | int] = {"images are held": "on the disk" if streams else "in memory"}
    for name, split in zip(_SPLITS, (data.train, data.val, data.test), strict=True):
        if split is None:
            found |= {f"number of {name} images": 0}
            continue
        parts = _of_files(split.images, Path(data.row.folder)) if streams else {"pixels": _of_pixels(split)}
        parts["targets"] = _digest([split.targets.numpy()])
        found |= {f"number of {name} images": len(split.images)}
        found |= {f"{what} of the {name} images": value for what, value in parts.items()}
    return found | {GROUPS[2][0]: _digest(part.numpy() for part in index)}


def differences(then: dict[str, object], now: dict[str, object]) -> list[str]:
    """What differs, in words, of two fingerprints with more facts of GROUPS; a fact that one of them lacks is no
    difference."""
    for group in GROUPS:
        found = [name for name in group if name in then and name in now and then[name] != now[name]]
        if found:
            return [name + _values(name, then[name], now[name]) for name in found]
    return []


def _values(name: str, then: object, now: object) -> str:
    """Both values where they are short enough to tell anything."""
    return f" ({then} then, {now} now)" if isinstance(then, int) or name == "images are held" else ""


def _of_pixels(split: Split) -> str:
    return _digest(part.contiguous().numpy() for part in split.images.split(PART))


def _of_files(images: StreamedImages, folder: Path) -> dict[str, str]:
    prefix = os.fsencode(folder.expanduser())  # the folder may be moved, or named by another path
    status = [os.stat(name) for name in images.names.tolist()]
    names = [name.removeprefix(prefix) for name in images.names.tolist()]
    return {
        "file names": _digest([b"\0".join(names)]),
        "file sizes": _digest([np.array([each.st_size for each in status])]),
        "files' times of change": _digest([np.array([each.st_mtime_ns for each in status])]),
    }


def _digest(parts: Iterable[bytes | np.ndarray]) -> str:
    value = hashlib.sha256()
    for part in parts:
        value.update(part)
    return value.hexdigest()
