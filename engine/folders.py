"""The folders of a run, and how the newest run is found."""

from __future__ import annotations

import os
import shlex
import time
from dataclasses import dataclass
from pathlib import Path

from conf import Settings

LONGEST_NAME = 100  # bytes; file systems allow 255, and the data set's name stands before it


@dataclass(frozen=True)
class Folders:
    """The two folders of a run: runs/<net>/<name> for curves, checkpoints/<net>/<name> for weights."""

    runs: Path
    checkpoints: Path

    @classmethod
    def of(cls, settings: Settings, name: str) -> Folders:
        """The folders of the run of that name, which need not exist."""
        inner = Path(settings.net) / name
        return cls(Path(settings.out) / "runs" / inner, Path(settings.out) / "checkpoints" / inner)

    @classmethod
    def new(cls, settings: Settings) -> Folders:
        """The folders of a new run, not made yet: named by its data set and by -name, or by the time without it.

        Raises ValueError where -name is no plain word, or names a run that exists.
        """
        if any(part in settings.name for part in ("/", "\\", ":")) or settings.name.startswith("."):
            raise ValueError(f"-name {settings.name}: must be a plain word, without slashes, colons or a leading dot")
        if not settings.name.isprintable() or len(os.fsencode(settings.name)) > LONGEST_NAME:
            raise ValueError(
                f"-name {settings.name}: must be a plain word of at most {LONGEST_NAME} bytes that can be printed"
            )
        dataset = Path(settings.dataset).resolve().name
        stem = f"{dataset}-{settings.name or time.strftime('%Y%m%d-%H%M%S')}"
        folders, number = cls.of(settings, stem), 1
        while folders.runs.exists() or folders.checkpoints.exists():
            if settings.name:
                raise ValueError(
                    f"-name {settings.name}: {folders.checkpoints} exists; take another name, "
                    f"or go on with -resume {shlex.quote(str(folders.checkpoints))}"
                )
            number += 1
            folders = cls.of(settings, f"{stem}-{number}")
        return folders


def begun_run(settings: Settings, text: str) -> Path | None:
    """The checkpoint folder of the newest unfinished run with these settings that has saved; None where there is none.

    text: the content that its settings.yaml must have.
    """
    place = Folders.of(settings, "").checkpoints
    begun = [
        folder
        for folder in place.glob("*")
        if (folder / "last.pth").exists()
        and not (folder / "result.json").exists()
        and (folder / "settings.yaml").read_text(encoding="utf-8") == text
    ]
    return max(begun, key=lambda folder: folder.stat().st_mtime, default=None)


def newest_run(out: Path) -> Path:
    """The checkpoint folder of the run that saved most recently. Raises ValueError where no run has saved."""
    saved = sorted((out / "checkpoints").glob("*/*/*.pth"), key=lambda path: path.stat().st_mtime)
    if not saved:
        raise ValueError(f"-resume last: no run has saved anything under {out / 'checkpoints'}; give the run's folder")
    return saved[-1].parent
