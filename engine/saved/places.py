"""Finds the data of a run that was begun in another working folder, or has been moved since."""

from __future__ import annotations

import contextlib
import dataclasses
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import datasets
from conf import Settings
from conf.datasets import DATASETS
from engine.saved.folders import is_known_layout
from engine.saved.schema import RunContent


@dataclass(frozen=True)
class Places:
    """The folders from which a run's relative paths may be meant.

    bases  this process's working folder, the one that the run was begun in, the one above the run's folders
    given  the settings on the command line: their paths are taken as they are
    """

    bases: tuple[Path, ...]
    given: frozenset[str]

    @classmethod
    def of(cls, folder: Path, content: RunContent, given: dict[str, object]) -> Places:
        """The places of a run whose checkpoints lie in folder."""
        begun = [Path(content["working_folder"])] if "working_folder" in content else []
        folder = Path(os.path.abspath(folder))
        above = [folder.parents[2]] if is_known_layout(folder, content["settings"]["net"]) else []
        others = [base for base in (*begun, *above) if base != Path.cwd()]
        return cls((Path(), *others), frozenset(given))

    def find_data(self, settings: Settings) -> Settings:
        """The settings with the paths at which the data is, seen from this process's working folder.

        Raises ValueError where a folder of images is in none of the places. A named data set that is in none keeps its
        place, since it may be downloaded.
        """
        row = DATASETS.get(settings.dataset)
        dataset, data = settings.dataset, settings.data
        if row is None and "dataset" not in self.given:
            dataset = self._find("dataset", settings.dataset, Path.is_dir)
        if "data" not in self.given:
            places = self._candidates(settings.data)
            there = [each for each in places if (each.is_dir() if row is None else datasets.is_there(row, each))]
            data = str(there[0]) if there else settings.data
        return dataclasses.replace(settings, dataset=dataset, data=data)

    def find_teacher(self, settings: Settings) -> Settings:
        """The settings with the path of the teacher's file, likewise. Raises ValueError where it is in no place."""
        if not settings.distill or "distill" in self.given:
            return settings
        return dataclasses.replace(settings, distill=self._find("distill", settings.distill, Path.is_file))

    def _find(self, knob: str, name: str, is_there: Callable[[Path], bool]) -> str:
        """The path of a folder of images or a file, seen from here. Raises ValueError where it is in no place."""
        places = self._candidates(name)
        found = next((place for place in places if is_there(place)), None)
        if found is None:
            looked = " or ".join(str(place.absolute()) for place in places)
            kind = "folder" if knob == "dataset" else "file"
            word = "PATH" if knob == "dataset" else "FILE"
            raise ValueError(f"-{knob} {name}: no such {kind} as {looked}; give -{knob} {word}, where it is now")
        return name if found == Path(name) else str(found)  # "./photos" stays as it was given

    @contextlib.contextmanager
    def told(self, settings: Settings) -> Iterator[None]:
        """Adds the places to an error about a named data set that is in none of them."""
        try:
            yield
        except ValueError as error:
            row, places = DATASETS.get(settings.dataset), self._candidates(settings.data)
            if row is None or "data" in self.given or any(datasets.is_there(row, each) for each in places):
                raise
            looked = " and ".join(str(place.absolute()) for place in places)
            raise ValueError(f"{error}; looked for in {looked} (-data DIR names another place)") from None

    def _candidates(self, path: str) -> list[Path]:
        return list(dict.fromkeys(base / path for base in self.bases))  # the same for an absolute path
