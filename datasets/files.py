"""Files of data: opened only where they are files, written whole or not at all, swept where their writer was killed."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

TEMPORARY = re.compile(r"(.+)\.[0-9a-f]{8}\.tmp")  # the name of the file that it will become, and eight digits


class NotAFile(OSError):
    """A folder, pipe or device stands where a file is wanted."""

    def __init__(self, path: Path | str) -> None:
        super().__init__(
            errno.EINVAL, "a folder, a pipe or a device and not a file: put the file in its place", str(path)
        )

    def __str__(self) -> str:
        return f"{self.filename} is {self.strerror}"


def open_file(path: Path | str) -> BinaryIO:
    """Opens a file to read its bytes. Raises OSError: NotAFile for a pipe, which would wait for its writer."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise NotAFile(path)
    return open(path, "rb")


def read_file(path: Path | str) -> bytes:
    """The content of a file. Raises OSError as open_file does."""
    with open_file(path) as file:
        return file.read()


def write_in_one_step(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Makes a file by write(file), which may read it too; it is there whole or not at all.

    Raises OSError, and what write raises.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary, file = _make_temporary(path)
    try:
        with file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
            if fcntl is not None:
                os.replace(temporary, path)  # while it is locked
        if fcntl is None:  # Windows renames no open file
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def sweep(folder: Path, is_ours: Callable[[str], bool]) -> None:
    """Removes the temporary files of write_in_one_step in a folder whose writer has ended without removing them.

    is_ours: tells by the name of the file that a temporary one would have become whether this project writes such.
    A writer holds a lock, which the system takes from it when it ends in whatever way. Where a file system has no
    locks, or the folder cannot be read or written, nothing is removed.
    """
    # NOTE: nothing is swept on Windows, where these locks do not exist.
    with contextlib.suppress(OSError):
        for name in os.listdir(folder) if fcntl is not None else ():
            match = TEMPORARY.fullmatch(name)
            if match and is_ours(match[1]):
                _remove_unlocked(folder / name)


def _make_temporary(path: Path) -> tuple[Path, BinaryIO]:
    """A new file beside path, open and locked."""
    while True:
        temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}.tmp")
        file = open(temporary, "x+b")
        if fcntl is None:
            return temporary, file
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)
        if os.fstat(file.fileno()).st_nlink:
            return temporary, file
        file.close()  # another process has swept it before it was locked


def _remove_unlocked(path: Path) -> None:
    with contextlib.suppress(OSError):
        if path.is_file() and not path.is_symlink():
            with open(path, "r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
