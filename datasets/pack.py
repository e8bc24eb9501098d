"""The packed cache: a data set's tensors in one file that is there in a fraction of a second, mapped into memory.

The file is a safetensors: train.images, train.targets, the same of test and, where there is one, val. Its metadata are
`about`, JSON: key, classes, mean, std, notes and the CRC-32 of each tensor; and crc32, that of `about`. Reading it runs
no code. A CRC-32 is a check against damage and not against an attacker, who could change the data folder itself;
computing it is faster than reading from disk. The file is never changed, but replaced as a whole: who has mapped it
keeps what was there.

The key says what the file was made from. For a file it holds the name, size, time of change and published checksum; for
a folder the same of every file in it, since overwriting a file leaves no trace in its folder.
"""

from __future__ import annotations

import array
import hashlib
import json
import os
import stat
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from safetensors import SafetensorError, safe_open
from torch import Tensor
from tqdm import tqdm

from conf.datasets import DatasetRow
from datasets.base import Dataset, Location, Split
from datasets.files import open_file
from utils import write_in_one_step

EARLIER = b"REUSEPK1"  # begins the files of an earlier format, which are made again
STEP = 1 << 22  # bytes checked or written between two looks at the progress bar
TYPES = {"uint8": "U8", "int64": "I64", "float32": "F32"}  # as safetensors spells them


class Damaged(Exception):
    """A packed file that does not hold what its checksums say."""


def file_name(row: DatasetRow, data: Path, folder: Path, size: int | None) -> str:
    """The name of a data set's packed file in folder.

    A digest tells apart the user's own folders of images, and the data folders that share the user's cache.
    """
    label = "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in Path(row.name).name) or "images"
    own = row.folder if row.reader == "folder" or os.path.isabs(row.folder) else "" if folder == data else str(data)
    if own:
        label += "-" + hashlib.sha256(str(Path(own).expanduser().resolve()).encode()).hexdigest()[:12]
    return f"{label}-{size or row.size or 'auto'}.packed"


def make_key(row: DatasetRow, location: Location | None, size: int | None) -> dict:
    """A description of what a packed file is made from; its "source" is None where the files are not there."""
    checksums = [checksum for _, checksum in row.members] + [file.checksum for file in row.files]
    fingerprint = (
        None if location is None else [location.form, *location.key, *(_fingerprint(path) for path in location.paths)]
    )
    return {
        "reader": row.reader,  # not the name: a folder of images may be named by several paths
        "channels": row.channels,
        "size": size or row.size,
        "checksums": checksums,
        "source": fingerprint,
    }


def save(path: Path, key: dict, dataset: Dataset) -> None:
    """Writes a packed file in one step: a reader finds the old file or the new one, whole. Raises OSError."""
    total = 2 * sum(tensor.nbytes for tensor in _tensors(dataset).values())  # each byte is checked, then written
    bar = dict(desc=f"packing {dataset.row.name}", unit="B", unit_scale=True, leave=False, disable=None)
    with tqdm(total=total, **bar) as progress:
        write_in_one_step(path, lambda file: _write(file, key, dataset, progress.update))


def load(path: Path, key: dict, row: DatasetRow, limit: int | None = None, train: bool = True) -> Dataset | None:
    """The data set in a packed file, or None. train: False leaves the training images on the disk.

    None: there is no such file, it was made from something else, or its images are larger than limit bytes.
    Raises Damaged where the file is not what was written.
    """
    try:
        with open_file(path) as file:
            if file.read(len(EARLIER)) == EARLIER:
                return None
        with safe_open(path, "pt") as file:
            metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}
        if zlib.crc32(metadata["about"].encode()) != int(metadata["crc32"]):
            raise ValueError("its header is damaged")
        about = json.loads(metadata["about"])
        images = sum(tensor.nbytes for name, tensor in tensors.items() if name.endswith("images"))
        if not _matches(about["key"], key) or (limit is not None and images > limit):
            return None
        for name, crc32 in about["crc32"].items():
            if (train or not name.startswith("train")) and _crc32(tensors[name]) != crc32:
                raise ValueError("its content is damaged")
        names = {name.partition(".")[0] for name in about["crc32"]}
        splits = {name: Split(tensors[f"{name}.images"], tensors[f"{name}.targets"]) for name in names}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
        raise Damaged(str(error)) from error
    if not train:
        splits["train"] = splits["train"].none()
    figures = {name: tuple(about[name]) for name in ("classes", "mean", "std", "notes")}
    return Dataset(row, **splits, **figures)


def _matches(found: dict, expected: dict) -> bool:
    if expected["source"] is None:  # the source is gone: the packed file is all there is
        found = found | {"source": None}
    return found == expected


def _write(file: BinaryIO, key: dict, dataset: Dataset, done: Callable[[int], object]) -> None:
    """done: is called with the number of bytes that have been checked, or written, since it was called before.

    Not by safetensors' save_file, which leaves a file that only this user may read, and parts of it when it is killed;
    nor by its save, which holds all of it in memory once more.
    """
    tensors = dict(sorted(_tensors(dataset).items(), key=lambda item: -item[1].itemsize))  # each is aligned
    about = {"key": key, "classes": dataset.classes, "mean": dataset.mean, "std": dataset.std, "notes": dataset.notes}
    about["crc32"] = {name: _crc32(tensor, done) for name, tensor in tensors.items()}
    text, end = json.dumps(about), 0
    header: dict[str, dict] = {"__metadata__": {"about": text, "crc32": str(zlib.crc32(text.encode()))}}
    for name, tensor in tensors.items():
        start, end = end, end + tensor.nbytes
        kind = TYPES[str(tensor.dtype).removeprefix("torch.")]
        header[name] = {"dtype": kind, "shape": list(tensor.shape), "data_offsets": [start, end]}
    content = json.dumps(header).encode()
    content += b" " * (-len(content) % 8)
    file.write(len(content).to_bytes(8, "little") + content)
    for tensor in tensors.values():
        for part in _parts(tensor):
            file.write(part)
            done(len(part))


def _crc32(tensor: Tensor, done: Callable[[int], object] = lambda count: None) -> int:
    """Of what kind of tensor it is, too, which is not among its bytes."""
    crc32 = zlib.crc32(f"{tensor.dtype} {list(tensor.shape)}".encode())
    for part in _parts(tensor):
        crc32 = zlib.crc32(part, crc32)
        done(len(part))
    return crc32


def _parts(tensor: Tensor) -> list[memoryview]:
    content = memoryview(tensor.numpy()).cast("B")
    return [content[start : start + STEP] for start in range(0, len(content), STEP)]


def _tensors(dataset: Dataset) -> dict[str, Tensor]:
    splits = {"train": dataset.train, "test": dataset.test} | ({"val": dataset.val} if dataset.val else {})
    return {
        f"{name}.{kind}": getattr(split, kind).contiguous()
        for name, split in splits.items()
        for kind in ("images", "targets")
    }


def _fingerprint(path: Path) -> list:
    """The name, size and time of change of a file; the name of a folder, and a digest of the same for all its files."""
    if not path.is_dir():
        status = path.stat() if path.exists() else None
        return [path.name, status.st_size, status.st_mtime_ns] if status else [path.name]
    value = hashlib.sha256()
    pending: list[tuple[str, tuple]] = [("", ())]
    while pending:
        parent, above = pending.pop()
        names, figures = [parent], array.array("q")
        for name, status in _entries(os.path.join(path, parent)):
            names.append(name)
            if status is None:
                figures.extend((-1, -1))
            elif stat.S_ISDIR(status.st_mode):
                own = (status.st_dev, status.st_ino)
                if own not in above:  # or a link back to a folder above it would be followed without end
                    pending.append((os.path.join(parent, name), (*above, own)))
            else:
                figures.extend((status.st_size, status.st_mtime_ns))
        value.update(b"\0".join(map(os.fsencode, names)) + b"\0\0" + figures.tobytes())
    return [path.name, value.hexdigest()]


def _entries(folder: str) -> list[tuple[str, os.stat_result | None]]:
    """The entries of a folder by name, without hidden ones, with their status; None for that of a broken link.

    For 60,000 files this takes most of the time of a cached load. os.stat with dir_fd, where the system has it, is a
    third faster than a DirEntry's stat, which looks the folder up again for each file.
    """
    if os.stat not in os.supports_dir_fd:  # Windows, where the entry holds its figures already
        with os.scandir(folder) as entries:
            return sorted((entry.name, _status(entry.stat)) for entry in entries if entry.name[0] != ".")
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        names = sorted(name for name in os.listdir(descriptor) if name[0] != ".")
        return [(name, _status(os.stat, name, dir_fd=descriptor)) for name in names]
    finally:
        os.close(descriptor)


def _status(function: Callable[..., os.stat_result], *args: str, **options: int) -> os.stat_result | None:
    try:
        return function(*args, **options)
    except OSError:
        return None
