"""One run, one owner: the lock of a run's folder, which the system takes back when the process dies."""

from __future__ import annotations

import os
import platform
import sys
from pathlib import Path

from utils import lock

LOCK = ".running"  # in the folder of checkpoints while a process trains there; it says which one


def owner(folder: Path) -> str:
    """The other process that trains in the folder, with its host; "" where none does."""
    try:
        with open(folder / LOCK, "r+b") as file:
            if lock(file.fileno()):
                return ""
            file.seek(0)
            return file.read(300).decode(errors="replace").strip() or "another process"
    except OSError:
        return ""


class RunLock:
    """A context at whose end the lock of a folder is released, where take() has taken one."""

    def __init__(self) -> None:
        self.path, self.handle = Path(), -1

    def __enter__(self) -> RunLock:
        return self

    def take(self, folder: Path) -> None:
        """Raises ValueError where another process trains in the folder, OSError where nothing can be written there."""
        self.path = folder / LOCK
        while self.handle < 0:
            handle = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
            if not self._lock(handle):
                os.close(handle)
                raise ValueError(f"{folder}: is being trained by {owner(folder)}; wait for it, or stop it")
            if self.path.exists() and os.path.samestat(os.fstat(handle), os.stat(self.path)):
                self.handle = handle
            else:
                os.close(handle)  # an owner that has just ended removed the file after it was opened here
        os.truncate(self.handle, 0)
        os.lseek(self.handle, 0, os.SEEK_SET)
        os.write(self.handle, f"process {os.getpid()} on {platform.node()}\n".encode())

    def _lock(self, handle: int) -> bool:
        try:
            return lock(handle)
        except OSError as error:  # some network file systems have no locks
            print(
                f"{self.path.parent}: cannot be locked here ({error.strerror or error}): going on; "
                "see to it that no other process trains this run",
                file=sys.stderr,
            )
            return True

    def __exit__(self, *error: object) -> None:
        if self.handle >= 0:
            if os.name == "posix":  # before it is released: the next owner makes a new one
                self.path.unlink(missing_ok=True)
            os.close(self.handle)
            self.handle = -1
