"""Finished runs as they stand on disk, gathered by their settings: what -compare makes its table of."""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
import sys
from dataclasses import dataclass, field
from pathlib import Path

import yaml

from conf import FIELDS, convert, option, resolve
from engine import checkpoint

# The knobs that tell runs apart: all that change what is trained, except the seed.
KNOBS = [name for name, f in FIELDS.items() if f.metadata["changes"] == "result" and name != "seed"]
COSTS = ("parameters", "macs", "weights bytes")


@dataclass
class Run:
    """A finished run: its checkpoint folder, the knobs that tell it apart, its result.json."""

    folder: Path
    knobs: dict
    result: dict
    written: float  # when the result was, in seconds since the epoch


@dataclass
class Row:
    """Runs that differ by their seed only. means and stds: by key of the results; no std of a single run.

    A key that one of the runs lacks, or where its value was not finite, is in neither.
    """

    runs: list[Run]
    means: dict[str, float] = field(default_factory=dict)
    stds: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for key in dict.fromkeys(key for run in self.runs for key in run.result):
            values = [run.result.get(key) for run in self.runs]
            if all(isinstance(v, int | float) and not isinstance(v, bool) and math.isfinite(v) for v in values):
                self.means[key] = statistics.fmean(values) if len(set(values)) > 1 else values[0]
                if len(values) > 1 and key not in COSTS:
                    self.stds[key] = statistics.stdev(values)

    def words(self) -> dict[str, str]:
        """What the row is of."""
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


def read_runs(out: Path) -> list[Run]:
    """The finished runs under out, in order of their folders; one whose files cannot be read is named on stderr."""
    runs = []
    for path in sorted((out / "checkpoints").glob("*/*/result.json")):
        try:
            result = _read(path, json.loads)
            if not all(isinstance(result.get(key), str) for key in ("net", "dataset")):
                raise ValueError(f"{path}: says nothing of net or dataset")
        except ValueError as error:
            print(f"{error}: left out", file=sys.stderr)
            continue
        try:
            knobs = read_knobs(path.with_name("settings.yaml"))
        except ValueError as error:
            print(f"{error}: {path.parent} is a row of its own", file=sys.stderr)
            knobs = {"unknown settings": str(path.parent)}
        runs.append(Run(path.parent, knobs, complete(result, path.parent), path.stat().st_mtime))
    return runs


def read_knobs(path: Path) -> dict:
    """KNOBS by name from a run's settings.yaml; one that is newer than the run has its default. Raises ValueError."""
    saved = _read(path, yaml.safe_load)
    missing = [name for name in KNOBS if name not in saved and FIELDS[name].default is dataclasses.MISSING]
    if missing:
        raise ValueError(f"{path}: says nothing of {', '.join(missing)}")
    try:
        return {name: convert(name, saved.get(name, FIELDS[name].default)) for name in KNOBS}
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _read(path: Path, parse) -> dict:
    try:
        content = parse(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: cannot be read ({' '.join(str(error).split())[:120]})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds no names and values")
    return content


def complete(result: dict, folder: Path) -> dict:
    """A result with the losses and the file size that older ones lack, from the last checkpoint where there is one."""
    if "weights bytes" in result and "train loss" in result:
        return result
    try:
        content = checkpoint.load_run(folder / "last.pth")
    except ValueError:
        return result
    last = (content.get("history") or [{}])[-1]
    losses = {key: last[key] for key in ("train loss", "val loss") if key in last}
    return losses | {"weights bytes": checkpoint.weights_size(checkpoint.network_weights(content))} | result


def newest_of_each_seed(runs: list[Run]) -> list[Run]:
    """Without runs that were done again with the same settings and seed: they are no second sample."""
    newest: dict[tuple, Run] = {}
    for run in sorted(runs, key=lambda run: run.written):
        key = (*_key(run), repr(run.result.get("seed")))
        if key in newest:
            print(f"{newest[key].folder}: left out, {run.folder} is the same, seed and all, and newer", file=sys.stderr)
        newest[key] = run
    return sorted(newest.values(), key=lambda run: (run.folder, run.written))


def rows_of(runs: list[Run]) -> list[Row]:
    """Runs with equal knobs gathered, in order of their seeds."""
    groups: dict[tuple, list[Run]] = {}
    for run in runs:
        groups.setdefault(_key(run), []).append(run)
    return [Row(sorted(group, key=lambda run: str(run.result.get("seed")).zfill(10))) for group in groups.values()]


def _key(run: Run) -> tuple:
    """Parameters and MACs too: a network that was changed between two runs is another one."""
    return (*run.knobs.values(), *(repr(run.result.get(key)) for key in ("parameters", "macs")))


def changed(knobs: dict) -> str:
    """The knobs that are not as the recipe has them, as the command line would have them."""
    if "net" not in knobs:
        return "settings unknown"
    try:
        plain = resolve.with_recipe(str(knobs["recipe"]), {name: knobs[name] for name in ("net", "epochs")})
        expected = {name: getattr(plain, name) for name in KNOBS}
    except ValueError:  # the recipe is gone: everything that is not a default is told
        expected = {name: FIELDS[name].default for name in KNOBS}
    words = []
    for name, value in knobs.items():
        if name not in ("net", "dataset", "recipe", "epochs") and value != expected[name]:
            values = value if isinstance(value, tuple) else (value,)
            words += [option(name), *(f"{each:.4g}" if isinstance(each, float) else str(each) for each in values)]
    return " ".join(words)
