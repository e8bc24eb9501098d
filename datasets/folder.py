"""A folder of images with a folder for each class, as the user lays it out.

train/CLASS/* with test/CLASS/*, val/CLASS/* or both: with both, val chooses the best epoch; with val alone, it is the
test set. The names may be written in other ways and in any case (ROLES). A test folder without classes has no labels,
and gives way to val. A folder that holds CLASS/* straight away is split here: of each class the share row.val is the
test set, or a fifth where that is 0, drawn with row.seed.

Classes are the names of train's folders in alphabetical order, or in natural order (a2 before a10) where
row.natural_order is true. An image may lie in folders within its class. datasets/image_files.py has what counts as an
image.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import torch

from conf.datasets import DatasetRow
from datasets import pixels
from datasets.base import Location, Split
from datasets.image_files import folders_in, image_files, left_out_line
from datasets.images import common_side, decode_images, read_image_file
from datasets.listing import Files, Listing
from datasets.places import bases
from datasets.split import stratified
from utils import printable

DEFAULT_SIDE = 64  # pixels, where the images differ in size and the user has chosen none
TEST_SHARE = 0.2  # of a folder that is not split, where -val is 0
ROLES = {"train": ("train", "training"), "test": ("test", "testing"), "val": ("val", "valid", "validation")}
EXPECTED = "images are expected in train/CLASS/ and test/CLASS/"


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
            f"give -dataset {places['train']} to have a share of it as the test set"
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
    paths = location.paths if train or location.is_split_here else location.paths[1:2]
    if not paths[0].is_dir():
        raise ValueError(f"{paths[0].parent} has no folder train: {EXPECTED}")
    first, *others = ((path, _by_class(path, row.natural_order, left_out)) for path in paths)
    _check_classes(first, others)
    classes = tuple(first[1])
    if location.is_split_here:
        splits = _split(row, first[0], _files(first[1], classes))
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
    share = f"{_test_share(row):.6g} of each class"
    note = f"{row.name} is not split into train and test: {share}, drawn with seed {row.seed}, is the test set (-val)"
    return _location(row, [folder], note, _test_share(row), row.seed)


def _test_share(row: DatasetRow) -> float:
    """The share of each class that is the test set of a folder that has none."""
    return row.val or TEST_SHARE


def _location(row: DatasetRow, paths: list[Path], note: str, *split: float) -> Location:
    return Location("images", tuple(paths), note, (pixels.VERSION, row.natural_order, row.skip_broken, *split))


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


def _split(row: DatasetRow, folder: Path, files: Files) -> dict[str, Files]:
    """A training and a test split of the files of a folder that has none."""
    share = _test_share(row)
    try:
        parts = stratified(files.targets, share, row.seed)
    except ValueError as error:
        raise ValueError(
            f"{folder}: {share:.6g} of each class cannot be split off as the test set ({error}); give another -val, "
            "or lay it out as train/ and test/"
        ) from None
    train, test = (Files([files.names[number] for number in part.tolist()], files.targets[part]) for part in parts)
    return {"train": train, "test": test}
