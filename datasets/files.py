"""Files of data, which are opened only where they are files."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO


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
