"""Published files, told by their checksums: an archive is read only where it is the published one, to the last bit.

Nothing is unpacked to disk.
"""

from __future__ import annotations

import hashlib
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def digest(file: BinaryIO, algorithm: str) -> str:
    """The checksum of an open file from its start, in hexadecimal; the file is left at its start."""
    value = hashlib.new(algorithm)
    file.seek(0)
    while part := file.read(1 << 20):
        value.update(part)
    file.seek(0)
    return value.hexdigest()


def check(file: BinaryIO, name: Path | str, checksum: str) -> None:
    """Raises ValueError unless the open file has the checksum ("md5:..." or "sha256:...")."""
    algorithm, _, expected = checksum.partition(":")
    actual = digest(file, algorithm)
    if actual != expected:
        raise ValueError(
            f"{name} is not the published file ({algorithm} {actual}, expected {expected}): "
            "delete it or replace it by a good copy"
        )


def read_members(file: BinaryIO, name: Path | str, checksum: str, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """The content of the wanted members of an open tar or zip file, by their path in the archive.

    Raises ValueError as check() does, before anything else of the file is looked at.
    """
    check(file, name, checksum)
    if zipfile.is_zipfile(file):
        with zipfile.ZipFile(file) as archive:
            found = [info for info in archive.infolist() if not info.is_dir() and wanted(info.filename)]
            return {info.filename: archive.read(info) for info in found}
    file.seek(0)
    with tarfile.open(fileobj=file, mode="r|*") as archive:  # a stream: read once, front to back
        found = (member for member in archive if member.isreg() and wanted(member.name))
        return {member.name: archive.extractfile(member).read() for member in found}
