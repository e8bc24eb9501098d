"""The files of a folder of images by split and class, before any of them is decoded."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from conf.datasets import DatasetRow
from datasets import images
from utils import printable

SKIP = ", or give -skip-broken true, which leaves out what cannot be read"


@dataclass(frozen=True)
class Files:
    """Image files and their classes. names: paths. targets: int64, N, an index into the classes."""

    names: list[str]
    targets: torch.Tensor

    def without(self, broken: dict[str, str]) -> Files:
        """Those that are not named in broken."""
        if not any(name in broken for name in self.names):
            return self
        kept = [number for number, name in enumerate(self.names) if name not in broken]
        return Files([self.names[number] for number in kept], self.targets[kept])


@dataclass(frozen=True)
class Listing:
    """The files of a folder of images, none decoded yet.

    splits  "train", "test" and, where there is a folder for it, "val"; or "test" alone
    side    the side in pixels to which the images will be resized
    notes   lines for the user: how the folder was understood, and what of it is left out
    """

    classes: tuple[str, ...]
    splits: dict[str, Files]
    side: int
    notes: tuple[str, ...] = ()

    def names(self) -> list[str]:
        """All files, those of the training split first."""
        return [name for files in self.splits.values() for name in files.names]

    def without(self, row: DatasetRow, broken: dict[str, str]) -> Listing:
        """The listing without broken images, given with their reasons, and with a note that counts them.

        Raises ValueError that names them unless row.skip_broken is true, and where a class has no other training image.
        """
        if not broken:
            return self
        if not row.skip_broken:
            images.refuse(broken, SKIP if row.reader == "folder" else "")
        splits = {name: files.without(broken) for name, files in self.splits.items()}
        trained = splits.get("train", splits["test"])
        counts = torch.bincount(trained.targets, minlength=len(self.classes)).tolist()
        if 0 in counts and "train" in splits:
            name = printable(self.classes[counts.index(0)])
            raise ValueError(f"class {name!r} of {row.name} has no readable training image: repair or remove them")
        examples = ", ".join(f"{printable(name)} ({broken[name]})" for name in list(broken)[: images.NAMED])
        more = f" and {len(broken) - images.NAMED:,} more" if len(broken) > images.NAMED else ""
        note = f"{row.name}: left out {len(broken):,} images that cannot be read: {examples}{more}"
        return Listing(self.classes, splits, self.side, (*self.notes, note))
