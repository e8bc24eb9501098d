"""The folders of a run, and how the newest run is found."""

from __future__ import annotations

import os
import shlex
import time
from dataclasses import dataclass
from pathlib import Path

from conf import Settings
from conf.resolve import SETTINGS
from engine.saved.run_lock import owner

LAST, WEIGHTS, RESULT = "last.pth", "last.safetensors", "result.json"  # beside SETTINGS
LONGEST_NAME = 100  # bytes; file systems allow 255, and the data set's name stands before it


@dataclass(frozen=True)
class Folders:
    """The two folders of a run: runs/<net>/<name> for curves, checkpoints/<net>/<name> for weights."""

    runs: Path
    checkpoints: Path

    @property
    def logdir(self) -> Path:
        """The folder that TensorBoard is given: runs/, or a single run's curves where these lie elsewhere."""
        return self.runs if self.runs.parent == self.checkpoints else self.runs.parents[1]

    @classmethod
    def beside(cls, checkpoints: Path, net: str) -> Folders:
        """The folders of a run of the network that goes on from checkpoints, which may have been copied or renamed.

        Curves go to where a new run's would, where checkpoints lie as a new run's do, and else inside that folder.
        """
        named = Path(os.path.abspath(checkpoints))
        for folder in (named, checkpoints.resolve()):  # as it is named, then where a link leads
            if is_known_layout(folder, net):
                return cls(folder.parents[2] / "runs" / net_folder(net) / folder.name, folder)
        return cls(named / "runs", named)

    @classmethod
    def of(cls, settings: Settings, name: str) -> Folders:
        """The folders of the run of that name, which need not exist."""
        inner = Path(net_folder(settings.net)) / name
        return cls(Path(settings.out) / "runs" / inner, Path(settings.out) / "checkpoints" / inner)

    @classmethod
    def new(cls, settings: Settings) -> Folders:
        """The folders of a new run, not made yet: named by its data set and by -name, or by the time without it.

        A folder of that -name without checkpoints or results, left by a run that ended before it saved, is taken over.
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
        if settings.name and (taken := folders.taken()):
            raise ValueError(f"-name {settings.name}: {taken} {folders.why_taken()}")
        while not settings.name and (folders.runs.exists() or folders.checkpoints.exists()):
            number += 1
            folders = cls.of(settings, f"{stem}-{number}")
        return folders

    def taken(self) -> Path | None:
        """The one of the two folders that holds a run's files; None where neither does.

        The first checkpoint is written before the first curve, and right after settings.yaml.
        """
        if self.checkpoints.exists():
            names = {path.name for path in self.checkpoints.iterdir() if not path.name.startswith(".")}
            if names - {SETTINGS}:
                return self.checkpoints
        return self.runs if self.runs.exists() else None

    def why_taken(self) -> str:
        """What stands in the way of a new run, and what to do."""
        if process := owner(self.checkpoints):
            return f"is being trained by {process}; take another name"
        saved = any(self.checkpoints.glob("*.pth"))
        again = f", or go on with -resume {shlex.quote(str(self.checkpoints))}" if saved else ""
        return f"exists; take another name{again}"


def is_known_layout(folder: Path, net: str) -> bool:
    """Whether an absolute path is that of a run's checkpoints as a new run of the network has it."""
    above = "checkpoints", net_folder(net)
    return len(folder.parents) > 2 and (folder.parents[1].name, folder.parent.name) == above


def net_folder(net: str) -> str:
    """A network's name in paths, where a colon would stand for a drive or a stream on Windows: timm:x is timm-x."""
    return net.replace(":", "-")


def begun_run(settings: Settings, text: str) -> Path | None:
    """The checkpoint folder of the newest unfinished run with these settings that has saved; None where there is none.

    text: the content that its settings.yaml must have.
    """
    place = Folders.of(settings, "").checkpoints
    begun = [
        folder
        for folder in place.glob("*")
        if (folder / LAST).exists()
        and not (folder / RESULT).exists()
        and (folder / SETTINGS).read_text(encoding="utf-8") == text
    ]
    return max(begun, key=lambda folder: folder.stat().st_mtime, default=None)


def newest_run(out: Path) -> Path:
    """The checkpoint folder of the run that saved most recently. Raises ValueError where no run has saved."""
    saved = sorted((out / "checkpoints").glob("*/*/*.pth"), key=lambda path: path.stat().st_mtime)
    if not saved:
        place = out / "checkpoints"
        raise ValueError(f"-resume last: no run has saved anything under {place}; give the run's folder, or -out")
    return saved[-1].parent
