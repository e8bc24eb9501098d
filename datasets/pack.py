"""The packed cache: a data set's tensors in one file that loads in a fraction of a second.

Format: 8 bytes of magic, the header's length (8 bytes) and CRC-32 (4 bytes), both little-endian; the header, JSON:
key, classes, mean, std, notes, and shape, type and CRC-32 of each array; then the arrays' bytes one after the other.
It holds no pickle. The CRC-32 is a check against damage and not against an attacker, who could change the data folder
itself; computing it is faster than reading from disk.

The key says what the file was made from. For a file it holds the name, size, time of change and published checksum; for
a folder the same of every file in it, since overwriting a file leaves no trace in its folder.
"""

from __future__ import annotations

import array
import hashlib
import json
import os
import stat
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import torch
from tqdm import tqdm

from conf.datasets import DatasetRow
from datasets.base import Dataset, Location, Split
from datasets.files import open_file
from utils import write_in_one_step

MAGIC = b"REUSEPK1"  # the digit counts versions of the format
START = struct.Struct("<8sQI")
HEADER_LIMIT = 1 << 26  # bytes
STEP = 1 << 22  # bytes read and checked at a time, so that they are still in the processor's cache
TYPES = {"uint8": torch.uint8, "int64": torch.int64, "float32": torch.float32}


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
    total = 2 * sum(tensor.nbytes for tensor in _tensors(dataset))  # each byte is checked, then written
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
            header = _read_header(file)
            if not _matches(header["key"], key):
                return None
            images = sum(_length(entry) for entry in header["arrays"] if entry["type"] == "uint8")
            if limit is not None and images > limit:
                return None
            return _read_arrays(file, header, row, train)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError, struct.error) as error:
        raise Damaged(str(error)) from error


def _matches(found: dict, expected: dict) -> bool:
    if expected["source"] is None:  # the source is gone: the packed file is all there is
        found = found | {"source": None}
    return found == expected


def _write(file: BinaryIO, key: dict, dataset: Dataset, done: Callable[[int], object]) -> None:
    """done: is called with the number of bytes that have been checked, or written, since it was called before."""
    contents = [memoryview(tensor.contiguous().numpy()).cast("B") for tensor in _tensors(dataset)]
    arrays = [
        {"shape": list(tensor.shape), "type": str(tensor.dtype).removeprefix("torch."), "crc32": _crc32(content, done)}
        for tensor, content in zip(_tensors(dataset), contents, strict=True)
    ]
    values = {"key": key, "classes": dataset.classes, "mean": dataset.mean, "std": dataset.std, "arrays": arrays}
    values["notes"] = dataset.notes
    header = json.dumps(values).encode()
    file.write(START.pack(MAGIC, len(header), zlib.crc32(header)) + header)
    for content in contents:
        for part in _parts(content):
            file.write(part)
            done(len(part))


def _crc32(content: memoryview, done: Callable[[int], object]) -> int:
    crc32 = 0
    for part in _parts(content):
        crc32 = zlib.crc32(part, crc32)
        done(len(part))
    return crc32


def _parts(content: memoryview) -> list[memoryview]:
    return [content[start : start + STEP] for start in range(0, len(content), STEP)]


def _tensors(dataset: Dataset) -> tuple[torch.Tensor, ...]:
    splits = [dataset.train, dataset.test] + ([dataset.val] if dataset.val else [])
    return tuple(tensor for split in splits for tensor in (split.images, split.targets))


def _read_header(file: BinaryIO) -> dict:
    magic, length, crc32 = START.unpack(file.read(START.size))
    if magic != MAGIC or length > HEADER_LIMIT:
        raise ValueError("not a packed data set")
    header = file.read(length)
    if len(header) != length or zlib.crc32(header) != crc32:
        raise ValueError("its header is damaged")
    return json.loads(header)


def _read_arrays(file: BinaryIO, header: dict, row: DatasetRow, train: bool) -> Dataset:
    tensors = []
    expected = file.tell() + sum(_length(entry) for entry in header["arrays"])
    if os.fstat(file.fileno()).st_size != expected:
        raise ValueError("it is cut off")
    for number, entry in enumerate(header["arrays"]):
        if not train and number < 2:  # the training split's
            file.seek(_length(entry), os.SEEK_CUR)
            tensors.append(torch.empty(0, *entry["shape"][1:], dtype=TYPES[entry["type"]]))
            continue
        tensor = torch.empty(entry["shape"], dtype=TYPES[entry["type"]])
        if _read_into(file, memoryview(tensor.view(-1).numpy()).cast("B")) != entry["crc32"]:
            raise ValueError("its content is damaged")
        tensors.append(tensor)
    train, test, *val = map(Split, tensors[::2], tensors[1::2])
    return Dataset(
        row=row,
        classes=tuple(header["classes"]),
        train=train,
        test=test,
        mean=tuple(header["mean"]),
        std=tuple(header["std"]),
        val=val[0] if val else None,
        notes=tuple(header.get("notes", ())),
    )


def _length(entry: dict) -> int:
    return torch.Size(entry["shape"]).numel() * TYPES[entry["type"]].itemsize


def _read_into(file: BinaryIO, content: memoryview) -> int:
    """Fills content from the file; returns its CRC-32."""
    crc32 = position = 0
    while position < len(content):
        count = file.readinto(content[position : position + STEP])
        if not count:
            raise ValueError("it is cut off")
        crc32 = zlib.crc32(content[position : position + count], crc32)
        position += count
    return crc32


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
            return sorted(((entry.name, _status(entry.stat)) for entry in entries if entry.name[0] != "."), key=_name)
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        names = sorted(name for name in os.listdir(descriptor) if name[0] != ".")
        return [(name, _status(os.stat, name, dir_fd=descriptor)) for name in names]
    finally:
        os.close(descriptor)


def _name(entry: tuple[str, os.stat_result | None]) -> str:
    return entry[0]


def _status(function: Callable[..., os.stat_result], *args: str, **options: int) -> os.stat_result | None:
    try:
        return function(*args, **options)
    except OSError:
        return None
