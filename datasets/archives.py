"""Reads archives and files that came over the network: checksums, and the members of a tar or zip file.

Nothing is unpacked to disk. Members are read into memory, so no name in an archive can decide where something is
written; an archive with a member that could only serve this purpose is refused all the same.
"""

from __future__ import annotations

import gzip
import hashlib
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import BinaryIO

UNPACKED_LIMIT = 4 << 30  # bytes; the largest official archive, Tiny-ImageNet's, holds about 0.25 GiB
DAMAGED = (tarfile.TarError, zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, EOFError, NotImplementedError)


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


def read_members(
    file: BinaryIO, name: Path | str, wanted: Callable[[str], bool], limit: int = UNPACKED_LIMIT
) -> dict[str, bytes]:
    """The content of the wanted members of an open tar, tar.gz or zip file, by their path in the archive.

    Raises ValueError that names the archive where it is damaged or none of these, where any member (wanted or not) lies
    outside its folder, is a link, a device or encrypted, or where it unpacks to more than limit bytes.
    """
    file.seek(0)
    start = file.read(4)
    file.seek(0)
    try:
        if start.startswith(b"PK"):
            return _read_zip(file, name, wanted, limit)
        stream = gzip.GzipFile(fileobj=file) if start.startswith(b"\x1f\x8b") else file
        return _read_tar(_Bounded(stream, name, limit), name, wanted)
    except DAMAGED as error:
        raise ValueError(f"{name} is damaged or not an archive ({error}): replace it by a good copy") from error


class _Bounded:
    """A stream that ends in ValueError once more than limit bytes have been read from it."""

    def __init__(self, stream: BinaryIO, name: Path | str, limit: int) -> None:
        self.stream, self.name, self.limit, self.count = stream, name, limit, 0

    def read(self, size: int) -> bytes:
        content = self.stream.read(size)
        self.count += len(content)
        if self.count > self.limit:
            raise _too_large(self.name, self.limit)
        return content


def _read_tar(stream: _Bounded, name: Path | str, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    members = {}
    with tarfile.open(fileobj=stream, mode="r|") as archive:  # a stream: read once, front to back
        for member in archive:
            if not (member.isreg() or member.isdir()):
                raise _refused(name, member.name, "it is a link or a device")
            _check_path(name, member.name)
            if member.size > stream.limit:
                raise _too_large(name, stream.limit)
            if member.isreg() and wanted(member.name):
                members[member.name] = archive.extractfile(member).read()
    return members


def _read_zip(file: BinaryIO, name: Path | str, wanted: Callable[[str], bool], limit: int) -> dict[str, bytes]:
    members = {}
    with zipfile.ZipFile(file) as archive:
        infos = archive.infolist()
        for info in infos:
            file_type = stat.S_IFMT(info.external_attr >> 16)
            if file_type not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise _refused(name, info.filename, "it is a link or a device")
            if info.flag_bits & 1:
                raise _refused(name, info.filename, "it is encrypted")
            _check_path(name, info.filename)
        # zipfile reads no more of a member than the size declared here, and checks its CRC.
        if sum(info.file_size for info in infos) > limit:
            raise _too_large(name, limit)
        for info in infos:
            if not info.is_dir() and wanted(info.filename):
                members[info.filename] = archive.read(info)
    return members


def _check_path(archive: Path | str, member: str) -> None:
    posix, windows = PurePosixPath(member), PureWindowsPath(member)
    if posix.is_absolute() or windows.drive or windows.root or ".." in posix.parts + windows.parts:
        raise _refused(archive, member, "it would land outside its folder")


def _refused(archive: Path | str, member: str, reason: str) -> ValueError:
    return ValueError(f"{archive} is refused for its member {member!r}: {reason}")


def _too_large(archive: Path | str, limit: int) -> ValueError:
    return ValueError(f"{archive} is refused: it unpacks to more than {limit:,} bytes")
