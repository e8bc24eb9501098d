"""A few helpers for several folders: words, seeds, options, files that are written whole."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import BinaryIO


def nearest(word: str, known: Iterable[str], count: int = 3) -> str:
    """The known words that are most similar to `word`, as "a or b", or all of them where none is close.

    Upper and lower case are the same.
    """
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), by_lower, n=count, cutoff=0.5)
    return " or ".join(by_lower[name] for name in close) if close else ", ".join(by_lower.values())


def derived_seed(seed: int, stream: str, number: int) -> int:
    """A 63-bit seed, derived from a run's seed, for the `number`-th use of a named stream of random numbers.

    It depends on nothing that was drawn before, so that a resumed run draws what it would have drawn.
    """
    digest = hashlib.blake2b(f"{seed}/{stream}/{number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def parse_bool(word: str) -> bool:
    """True or False as the original's command lines spell them, among others; both mean what they say."""
    if word.lower() in ("true", "1", "yes", "on"):
        return True
    if word.lower() in ("false", "0", "no", "off"):
        return False
    raise argparse.ArgumentTypeError(f"{printable(word, 60)}: must be true or false")


def printable(text: str, longest: int | None = None) -> str:
    """The text without a character that a terminal or a file format would act on instead of showing it.

    Control characters, halves of surrogate pairs (bytes of a name that is not UTF-8) and the marks that change the
    direction of writing become escapes such as \\x1b. The middle of a text of more than `longest` characters is
    left out.
    """
    text = "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
    if longest is not None and len(text) > longest:
        text = text[: longest // 2] + "…" + text[len(text) - (longest - longest // 2 - 1) :]
    return text


def lock(handle: int, of_handle: bool = False) -> bool:
    """Locks an open file for this process; False where another process holds the lock.

    The system takes the lock back when the process ends, however it ends, or closes the file. Forked processes do not
    share it. of_handle: they do, and whoever else opens the file, in this process too, finds it locked.
    Raises OSError where the file system has no locks.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        os.lseek(handle, 1 << 30, os.SEEK_SET)  # a place behind the content: nobody can read a locked one
        try:
            msvcrt.locking(handle, msvcrt.LK_NBLCK, 1)
        except PermissionError:
            return False
        return True
    try:
        (fcntl.flock if of_handle else fcntl.lockf)(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def write_atomically(path: Path, data: bytes) -> None:
    """Makes a file of these bytes, as write_in_one_step() does."""
    write_in_one_step(path, lambda file: file.write(data))


def write_in_one_step(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Makes a file by write(file), which may read it too; it is there whole or not at all, and synced to the disk.

    What a process that was killed within the same write has left is removed first. Raises OSError, and what write
    raises.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    sweep(path.parent, path.name.__eq__)
    temporary, file = _make_temporary(path)
    try:
        with file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
            if os.name == "posix":
                os.replace(temporary, path)  # while it is locked
        if os.name != "posix":  # Windows renames no open file
            os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # not every file system can sync a folder, and Windows cannot open one
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


_TEMPORARY = re.compile(r"\.(.+)\.[0-9a-z_]{8}\.tmp", re.DOTALL)  # the name of the file that it will become


def sweep(folder: Path, is_ours: Callable[[str], bool] = lambda name: True) -> None:
    """Removes the temporary files that write_in_one_step() left in a folder when its process was killed.

    is_ours: by the name of the file that a temporary one would have become, whether it may be removed. Those that
    are still written, here or on another machine, are locked and stay. Where the folder cannot be read or written,
    or its file system has no locks, nothing is removed.
    """
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):
            match = _TEMPORARY.fullmatch(name)
            if match and is_ours(match[1]):
                _remove_unlocked(folder / name)


def _remove_unlocked(path: Path) -> None:
    with contextlib.suppress(OSError):  # another process was faster
        if stat.S_ISREG(os.lstat(path).st_mode):
            with open(path, "r+b") as file:
                if lock(file.fileno(), of_handle=True):
                    path.unlink()


def _make_temporary(path: Path) -> tuple[Path, BinaryIO]:
    """A new file beside path, open and locked."""
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
        file = open(temporary, "x+b")
        is_locked = True
        with contextlib.suppress(OSError):  # without locks nothing sweeps it
            is_locked = lock(file.fileno(), of_handle=True)
        if is_locked and os.fstat(file.fileno()).st_nlink:
            return temporary, file
        file.close()  # another process has swept it before it was locked


class OneLineParser(argparse.ArgumentParser):
    """An argparse parser that raises ValueErrors of one line and accepts whole option names only.

    For options with one dash, argparse takes prefixes even with allow_abbrev=False: it reads -ep 3 as -epochs 3, and
    -wdith 0.5 as -w dith.
    """

    def parse_args(self, words: Sequence[str]) -> argparse.Namespace:
        known = sorted({word.lstrip("-") for action in self._actions for word in action.option_strings})
        for word in words:
            match = re.match(r"--?([A-Za-z][^=]*)", word)
            if match and match[1] not in known:
                near = nearest(match[1], known).replace(" or ", " or -")
                raise ValueError(f"{match[0]}: unknown option; did you mean -{near}? (-h lists them all)")
        return super().parse_args(words)

    def error(self, message: str):
        # the first of an option's spellings stands for all of them, which argparse lists
        raise ValueError(re.sub(r"^argument (-[^/:]+)(/-[^:]+)?:", r"\1:", message))
