"""Reads finished runs from disk and gathers them by their settings, for the tables of -compare and -reproduce."""

from __future__ import annotations

import dataclasses
import json
import statistics
import sys
from dataclasses import dataclass, field
from pathlib import Path

from conf import FIELDS, convert, resolve
from conf.resolve import KNOBS, SETTINGS
from conf.yaml_file import read_mapping
from engine.saved import checkpoint
from engine.saved.folders import LAST, RESULT
from engine.shown.cards import words

COSTS = ("parameters", "macs", "weights bytes")


@dataclass
class Run:
    """A finished run: its checkpoint folder, its KNOBS by name, and its result.json."""

    folder: Path
    knobs: dict
    result: dict
    written: float  # time of result.json, in seconds since 1970


@dataclass
class Row:
    """Runs that differ only by their seed, with mean and standard deviation of their results by key.

    A single run has no standard deviation. A key that a run lacks, or whose value there is no number that can be
    squared (a loss that overflowed), is left out.
    """

    runs: list[Run]
    means: dict[str, float] = field(default_factory=dict)
    stds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key in dict.fromkeys(key for run in self.runs for key in run.result):
            values = [run.result.get(key) for run in self.runs]
            if all(isinstance(v, int | float) and not isinstance(v, bool) and abs(v) < 1e150 for v in values):
                self.means[key] = statistics.fmean(values) if len(set(values)) > 1 else values[0]
                if len(values) > 1 and key not in COSTS:
                    self.stds[key] = statistics.stdev(values)

    def figure(self, key: str) -> str:
        """The mean of a result, of several seeds with ± its standard deviation, shares of 1 in percent; - for none."""
        if key not in self.means:
            return "-"
        factor, form = (100, ".2f") if is_share(key) else (1, ".4g")
        found = (each[key] for each in (self.means, self.stds) if key in each)
        return " ± ".join(format(factor * value, form) for value in found)

    def labels(self) -> dict[str, str]:
        """The columns that say which runs these are."""
        first = self.runs[0]
        asked, trained = (self.means.get(key) for key in ("epochs", "epochs trained"))
        epochs = "" if asked is None else f"{asked:g}"
        return {
            "net": first.result["net"],
            "recipe": str(first.result.get("recipe", "")),
            "changed": changed(first.knobs),
            "epochs": epochs if trained in (None, asked) else f"{trained:.4g} of {epochs}",
            "seeds": " ".join(str(run.result.get("seed", "?")) for run in self.runs),
        }


def is_share(key: str) -> bool:
    return key.endswith(("top-1 error", "top-5 error"))


def read_runs(out: Path) -> list[Run]:
    """The finished runs under out, by their folders; a run whose files cannot be read is named on stderr."""
    runs = []
    for path in sorted((out / "checkpoints").glob(f"*/*/{RESULT}")):
        try:
            result = read_result(path)
        except ValueError as error:
            print(f"{error}: left out", file=sys.stderr)
            continue
        try:
            knobs = read_knobs(path.with_name(SETTINGS))
        except ValueError as error:
            print(f"{error}: {path.parent} is a row of its own", file=sys.stderr)
            knobs = {"unknown settings": str(path.parent)}
        runs.append(Run(path.parent, knobs, complete(result, path.parent), path.stat().st_mtime))
    return runs


def read_knobs(path: Path) -> dict:
    """KNOBS by name from a run's settings.yaml; knobs newer than the run have their defaults.

    Raises ValueError for a file that cannot be read, lacks a knob without a default, or holds a value out of bounds.
    """
    try:
        saved = read_mapping(path)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    missing = [name for name in KNOBS if name not in saved and FIELDS[name].default is dataclasses.MISSING]
    if missing:
        raise ValueError(f"{path}: says nothing of {', '.join(missing)}")
    try:
        return {name: convert(name, saved.get(name, FIELDS[name].default)) for name in KNOBS}
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def read_result(path: Path) -> dict:
    """The content of a result.json. Raises ValueError for a file that cannot be read or holds something else."""
    try:
        if not path.is_file():  # a pipe or a device would be waited for
            raise ValueError("not a file")
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: cannot be read ({' '.join(str(error).split())[:120]})") from None
    if not isinstance(content, dict) or not all(isinstance(content.get(key), str) for key in ("net", "dataset")):
        raise ValueError(f"{path}: says nothing of net or dataset")
    return content


def complete(result: dict, folder: Path) -> dict:
    """The result, with the losses and the size of the weights that older ones lack, from the last checkpoint."""
    if "weights bytes" in result and "train loss" in result:
        return result
    try:
        content = checkpoint.load(folder / LAST)
    except ValueError:
        return result
    last = (content.get("history") or [{}])[-1]
    losses = {key: last[key] for key in ("train loss", "val loss") if key in last}
    return losses | {"weights bytes": checkpoint.weights_size(checkpoint.network_weights(content))} | result


def newest_of_each_seed(runs: list[Run]) -> list[Run]:
    """The runs without older ones of the same settings and seed, which are no second sample."""
    newest: dict[tuple, Run] = {}
    for run in sorted(runs, key=lambda run: run.written):
        key = (*_key(run), repr(run.result.get("seed")))
        if key in newest:
            print(f"{newest[key].folder}: left out, {run.folder} is the same, seed and all, and newer", file=sys.stderr)
        newest[key] = run
    return sorted(newest.values(), key=lambda run: (run.folder, run.written))


def rows_of(runs: list[Run]) -> list[Row]:
    """A row for each set of runs with equal knobs, in the order of their seeds."""
    groups: dict[tuple, list[Run]] = {}
    for run in runs:
        groups.setdefault(_key(run), []).append(run)
    return [Row(sorted(group, key=lambda run: str(run.result.get("seed")).zfill(10))) for group in groups.values()]


def _key(run: Run) -> tuple:
    """What the runs of a row have in common: their knobs, and parameters and MACs, as code may have changed."""
    return (*run.knobs.values(), *(repr(run.result.get(key)) for key in ("parameters", "macs")))


def changed(knobs: dict) -> str:
    """The knobs that differ from the recipe's, spelled as on the command line."""
    if "net" not in knobs:
        return "settings unknown"
    return " ".join(words(resolve.changes(knobs), ".4g"))
