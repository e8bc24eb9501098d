"""The folders of data sets, downloads and packed data: the data folder, or the user's cache where it is read-only."""

from __future__ import annotations

import tempfile
from pathlib import Path

import platformdirs

from conf.datasets import DatasetRow


def bases(row: DatasetRow, data: Path) -> list[Path]:
    """The folders in which a data set's files are looked for: data itself, then the data set's folders in it."""
    return list(dict.fromkeys((data, data / row.folder, data / row.name)))


def storage(data: Path) -> Path:
    """The folder that downloads and packed data go to: data, or the user's cache folder where it is read-only."""
    if writable(data):
        return data
    return platformdirs.user_cache_path("reuse", appauthor=False)


def writable(folder: Path) -> bool:
    """Whether a file can be made in the folder or, where it is still to be made, in its nearest parent."""
    nearest = folder.absolute()
    while not nearest.exists() and nearest != nearest.parent:
        nearest = nearest.parent
    try:
        with tempfile.TemporaryFile(dir=nearest):  # trying is the only answer that holds on every file system
            return True
    except OSError:
        return False
