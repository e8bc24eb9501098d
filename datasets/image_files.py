"""Lists the image files and the class folders of a folder, and counts by reason what is left out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Set
from pathlib import Path

from utils import printable

# torchvision's list, then what else Pillow reads of pictures. A list of its own: Pillow's depends on its version.
EXTENSIONS = frozenset(
    (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp")
    + (".apng", ".avif", ".dib", ".j2c", ".j2k", ".jfif", ".jp2", ".jpc", ".jpe", ".jpf", ".jpx", ".pbm")
    + (".pcx", ".pfm", ".pnm", ".qoi", ".sgi", ".tga")
)
ANIMATIONS = frozenset((".gif",))  # read by -predict, frame by frame
# Made by macOS, Synology, QNAP, Windows, Linux and Python; hidden names are left out besides.
SYSTEM = frozenset(
    ("__macosx", "@eadir", "#recycle", "@recycle", "$recycle.bin", "system volume information", "lost+found")
    + ("__pycache__", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r")
)
KINDS = 20  # reasons that are named in the line about what is left out


def image_files(folder: Path | str, left_out: Counter, extensions: Set[str] = EXTENSIONS) -> list[str]:
    """The paths of the image files in a folder and the folders in it, in alphabetical order; links are followed.

    left_out: takes the counts of everything else, by reason. Raises OSError for a folder that cannot be listed.
    """
    paths = []
    pending: list[tuple[str, tuple]] = [(os.fspath(folder), ())]
    while pending:
        parent, above = pending.pop()
        status = os.stat(parent)
        own = (status.st_dev, status.st_ino)
        if own in above:
            left_out["links back to a folder above them"] += 1
            continue
        with os.scandir(parent) as entries:
            for entry in entries:
                if is_system(entry.name):
                    left_out["hidden or system files and folders"] += 1
                elif _is_folder(entry):
                    pending.append((entry.path, (*above, own)))
                elif reason := _reason(entry, extensions):
                    left_out[reason] += 1
                else:
                    paths.append(entry.path)
    return sorted(paths)


def folders_in(folder: Path | str, left_out: Counter) -> list[str]:
    """The names of the folders in a folder in alphabetical order, without hidden ones and those of the system.

    left_out: takes the counts of everything else, by reason.
    """
    names = []
    with os.scandir(folder) as entries:
        for entry in entries:
            if is_system(entry.name):
                left_out["hidden or system files and folders"] += 1
            elif _is_folder(entry):
                names.append(entry.name)
            else:
                left_out[_reason(entry, EXTENSIONS) or "images outside the class folders"] += 1
    return sorted(names)


def is_system(name: str) -> bool:
    """Whether a name is hidden, or one that a system gives to its own files and folders."""
    return name.startswith(".") or name.casefold() in SYSTEM


def left_out_line(folder: Path | str, left_out: Counter) -> str:
    """One line that says what is left out of a folder, the most frequent first; empty where nothing is."""
    counts = [(reason, count) for reason, count in left_out.most_common() if count]
    parts = [f"{reason} {count:,}" for reason, count in counts[:KINDS]]
    if len(counts) > KINDS:
        parts.append(f"others {sum(count for _, count in counts[KINDS:]):,}")
    return f"{printable(str(folder))}: left out, with their counts: {', '.join(parts)}" if parts else ""


def _reason(entry: os.DirEntry, extensions: Set[str]) -> str:
    """Why an entry that is no folder is left out; empty where it is an image's file."""
    extension = os.path.splitext(entry.name)[1].lower()
    if extension not in extensions:
        known = extension[1:].isascii() and extension[1:].isalnum() and len(extension) <= 6
        return f"{extension} files" if known else "files without an image's extension"
    try:
        if entry.is_file():
            return ""
    except OSError:  # a link in a circle
        pass
    return "pipes, devices and sockets" if os.path.exists(entry.path) else "links that lead nowhere"


def _is_folder(entry: os.DirEntry) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
