"""A folder of images with a folder for each class, as the user lays it out.

train/CLASS/* with test/CLASS/*, val/CLASS/* or both: with both, val chooses the best epoch; with val alone, it is the
test set. The names may be written in other ways and in any case (ROLES). A test folder without classes has no labels,
and gives way to val. A folder that holds CLASS/* straight away is split here: a fifth of each class is the test set.

Classes are the names of train's folders in alphabetical order, or in natural order (a2 before a10) where row.natural_
order is true. An image may lie in folders within its class. datasets/files.py has what counts as an image.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import torch

from conf.datasets import DatasetRow
from datasets import images, pixels
from datasets.base import Location, Split
from datasets.image_files import folders_in, image_files, left_out_line
from datasets.images import common_side, decode_images, read_image_file
from datasets.places import bases
from datasets.split import stratified
from utils import printable

DEFAULT_SIDE = 64  # pixels, where the images differ in size and the user has chosen none
TEST_SHARE = 0.2  # of a folder that is not split
ROLES = {"train": ("train", "training"), "test": ("test", "testing"), "val": ("val", "valid", "validation")}
EXPECTED = "images are expected in train/CLASS/ and test/CLASS/"
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


def find(row: DatasetRow, data: Path) -> Location:
    """The folder that the user named by its path; its training images need not be there to test on the others.

    Raises ValueError where it is missing or laid out otherwise.
    """
    folder = Path(row.folder).expanduser()
    if not folder.is_dir():
        raise ValueError(f"{row.name}: no such folder or data set")
    places = _places(folder)
    if "train" in places and len(places) > 1:
        return _split_location(row, places)
    if "train" in places and folders_in(places["train"], Counter()):
        raise ValueError(
            f"{folder} has neither a folder test nor val: images are expected in test/CLASS/; "
            f"give -dataset {places['train']} to have a fifth of it as the test set"
        )
    if places and "train" not in places:
        return _split_location(row, {"train": folder / "train"} | places)
    return _unsplit_location(row, folder)


def find_under(row: DatasetRow, data: Path) -> Location | None:
    """A named data set as a folder of images, data/<name or folder>/{train, test or val}/<class>/; None: no such."""
    for base in bases(row, data)[1:] if row.task == "classification" else ():
        places = _places(base) if base.is_dir() else {}
        if "train" in places and len(places) > 1:
            return _split_location(row, places)
    return None


def read(row: DatasetRow, location: Location, size: int | None, train: bool = True) -> tuple[Listing, dict[str, Split]]:
    """The listing of the images that can be read, and each of its splits, row.channels x side x side.

    Raises ValueError as list_images does; and unless row.skip_broken is true, for images that cannot be read.
    """
    listing = list_images(row, location, size, train)
    broken: dict[str, str] = {}
    decoded = {
        name: decode_images(files.names, read_image_file, row.channels, listing.side, row.name, broken=broken)
        for name, files in listing.splits.items()
    }
    if broken:
        for name, files in listing.splits.items():
            decoded[name] = decoded[name][[file not in broken for file in files.names]]
        listing = listing.without(row, broken)
    return listing, {name: Split(decoded[name], files.targets) for name, files in listing.splits.items()}


def list_images(row: DatasetRow, location: Location, size: int | None, train: bool = True) -> Listing:
    """The images of a folder and the side to which they are resized.

    train: False leaves the training images out; the classes are then those that the test images have.

    side is the row's; where that is 0, it is size; where that is None too, it is the images' own if all are squares of
    one size, and otherwise 64. Raises ValueError for no classes, a test class unknown to train, and a class of one
    image in a folder that is not split.
    """
    left_out: Counter = Counter()
    paths = location.paths if train or len(location.paths) == 1 else location.paths[1:2]
    if not paths[0].is_dir():
        raise ValueError(f"{paths[0].parent} has no folder train: {EXPECTED}")
    first, *others = ((path, _by_class(path, row.natural_order, left_out)) for path in paths)
    _check_classes(first, others)
    classes = tuple(first[1])
    if len(location.paths) == 1:
        splits = _split(first[0], _files(first[1], classes))
    else:
        names = ("train", "test", "val") if train else ("test",)
        splits = {name: _files(found, classes) for name, (_, found) in zip(names, (first, *others), strict=False)}
    if not train:
        splits = {"test": splits["test"]}
    side = row.size or size or common_side(name for files in splits.values() for name in files.names) or DEFAULT_SIDE
    notes = (location.note, left_out_line(row.name, left_out))
    return Listing(classes, splits, side, tuple(note for note in notes if note))


def natural(name: str) -> tuple:
    """A key that sorts names as people do: runs of digits by their value, a2 before a10."""
    parts = re.split(r"(\d+)", name)  # text, digits, text, digits, ..., text
    return (*((part, 0) if place % 2 == 0 else ("", int(part)) for place, part in enumerate(parts)), (name, 0))


def _places(folder: Path) -> dict[str, Path]:
    """The folders of the splits by their role, in the order of ROLES. Raises ValueError where two have one role."""
    names = folders_in(folder, Counter())
    places = {}
    for role, spellings in ROLES.items():
        found = [name for name in names if name.lower() in spellings]
        if len(found) > 1:
            raise ValueError(f"{folder} has both {found[0]} and {found[1]}: rename or remove one of them")
        if found:
            places[role] = folder / found[0]
    return places


def _split_location(row: DatasetRow, places: dict[str, Path]) -> Location:
    """The location of a folder with train and at least one of test and val."""
    train, test, val = (places.get(role) for role in ROLES)
    folders = {path: set(folders_in(path, Counter())) for path in (train, test, val) if path and path.is_dir()}
    classes = folders.get(train) or set().union(*folders.values())
    unlabelled = [path for path in (test, val) if path and classes.isdisjoint(folders[path])]
    note = ""
    if test and val and len(unlabelled) == 1:
        other = val if unlabelled == [test] else test
        note = f"{unlabelled[0]} has no folder of a class, so no labels: it is left out, and {other} is the test set"
        test, val = other, None
    elif test is None:
        test, val = val, None
    return _location(row, [path for path in (train, test, val) if path], note)


def _unsplit_location(row: DatasetRow, folder: Path) -> Location:
    """The location of a folder that holds the folders of classes straight away."""
    names = folders_in(folder, Counter())
    for name in names:
        if "train" in _places(folder / name):
            raise ValueError(f"{folder} has no folder train: {EXPECTED}; did you mean -dataset {folder / name}?")
    if len(names) < 2:
        raise ValueError(f"{folder} has no folder train: {EXPECTED}, or in CLASS/ for two classes or more")
    note = f"{row.name} is not split: a fifth of each class is the test set, the same in every run"
    return _location(row, [folder], note)


def _location(row: DatasetRow, paths: list[Path], note: str) -> Location:
    return Location("images", tuple(paths), note, (pixels.VERSION, row.natural_order, row.skip_broken))


def _by_class(folder: Path, natural_order: bool, left_out: Counter) -> dict[str, list[str]]:
    """The image files of each class, for the classes that have any; left_out counts the others."""
    found = {name: image_files(folder / name, left_out) for name in folders_in(folder, left_out)}
    if natural_order:
        found = {name: found[name] for name in sorted(found, key=natural)}
    empty = [name for name, names in found.items() if not names]
    if empty:
        names = ", ".join(map(printable, empty[:5])) + (", ..." if len(empty) > 5 else "")
        left_out[f"class folders of {printable(folder.name)} without images ({names})"] += len(empty)
    return {name: names for name, names in found.items() if names}


def _check_classes(train: tuple[Path, dict], others: list[tuple[Path, dict]]) -> None:
    for folder, classes in (train, *others):
        if not classes:
            raise ValueError(f"{folder} holds no classes: images are expected in a folder for each class")
    for folder, classes in others:
        unknown = next((name for name in classes if name not in train[1]), None)
        if unknown is not None:
            raise ValueError(f"class {unknown!r} of {folder} is not in {train[0]}: both need the same classes")


def _files(images: dict[str, list[str]], classes: tuple[str, ...]) -> Files:
    labels = [label for label, name in enumerate(classes) for _ in images.get(name, ())]
    names = [path for name in classes for path in images.get(name, ())]
    return Files(names, torch.tensor(labels, dtype=torch.int64))


def _split(folder: Path, files: Files) -> dict[str, Files]:
    """A training and a test split of the files of a folder that has none."""
    try:
        parts = stratified(files.targets, TEST_SHARE)
    except ValueError as error:
        raise ValueError(f"{folder}: no test set can be split off ({error}); lay it out as train/ and test/") from None
    train, test = (Files([files.names[number] for number in part.tolist()], files.targets[part]) for part in parts)
    return {"train": train, "test": test}
