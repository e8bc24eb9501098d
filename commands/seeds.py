"""-seeds: a run for each of several seeds, one after the other, and then the table of -compare."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from commands import compare
from conf import Settings
from conf.resolve import settings as resolve
from engine.saved.folders import Folders
from engine.shown.cards import words


def train_seeds(given: dict[str, object], seeds: Sequence[int], start: Callable[[list[str], Settings], int]) -> int:
    """Trains each seed's run; returns the exit status: of the first run that fails, after which no other starts.

    given  the settings of the command line by name; a -name has the seed put behind it
    start  trains a run of these words of a command line and settings; returns its exit status
    Raises ValueError where settings cannot run, or a name is taken, before anything is trained.
    """
    if len(set(seeds)) < len(seeds):
        raise ValueError(f"-seeds {' '.join(map(str, seeds))}: has a seed twice; give each once")
    if "seed" in given:
        raise ValueError("-seed: contradicts -seeds; give one of them")
    runs = [named(given, seed) for seed in seeds]
    made = [resolve(run) for run in runs]
    for settings in made:
        Folders.new(settings)
    for run, settings in zip(runs, made, strict=True):
        print(f"seed {settings.seed}", flush=True)
        if status := start(words(run), settings):
            return status
    compare.compare(Path(made[0].out))
    return 0


def named(given: dict[str, object], seed: int) -> dict[str, object]:
    """The settings of one seed's run."""
    name = {"name": f"{given['name']}-seed{seed}"} if given.get("name") else {}
    return given | {"seed": seed} | name
