"""The rows of results/rows.yaml: what is trained for the tables of RESULTS.md, and where its figures are kept."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from commands.finished_runs import Run, read_knobs, read_result
from conf import FIELDS, Settings, option, resolve
from conf.resolve import KNOBS, SETTINGS
from conf.yaml_file import read_mapping
from engine.saved.folders import RESULT

METRICS = "metrics.csv"  # in the folder of a run's curves
LATENCY = "latency.json"  # in a table's folder
ERROR = "test top-1 error"  # in result.json
PLOTS = EPOCHS, MACS, ROWS = ("epochs", "macs", "rows")


@dataclass(frozen=True)
class ResultRow:
    """One line of a table: a network with its settings, trained once for each seed.

    label      what its folders are called: the network's name, or a word where a network stands in a table twice
    given      the settings that its command line names, by name, but the seed
    published  what others report of it, as text
    """

    table: str
    label: str
    given: dict[str, object]
    seeds: tuple[int, ...]
    published: str = ""

    def folder(self, results: Path, seed: int) -> Path:
        """Where a finished run's kept files lie."""
        return results / self.table / f"{self.label}-seed{seed}"

    def run_name(self, seed: int) -> str:
        """-name of the run: in runs/ and checkpoints/ it stands beside others of its network."""
        middle = "" if self.label == self.given["net"] else f"-{self.label}"
        return f"{self.table}{middle}-seed{seed}"

    def settings(self, seed: int) -> Settings:
        return resolve.settings(self.given | {"seed": seed})

    def finished(self, results: Path) -> list[Run]:
        """The runs whose files are there, in the order of the seeds.

        Raises ValueError for one whose files cannot be read, or that was trained with other settings than the row has.
        """
        return [self._read(results, seed) for seed in self.seeds if (self.folder(results, seed) / RESULT).exists()]

    def _read(self, results: Path, seed: int) -> Run:
        folder, settings = self.folder(results, seed), self.settings(seed)
        knobs, result = read_knobs(folder / SETTINGS), read_result(folder / RESULT)
        for name in KNOBS:
            found = name == "width" and settings.match  # -match found the run's width
            if not found and knobs[name] != getattr(settings, name):
                raise ValueError(
                    f"{folder}: was trained with {option(name)} {knobs[name]}, and its row has "
                    f"{getattr(settings, name)}; correct the row, or remove the folder to train it anew"
                )
        if result.get("seed") != seed:
            raise ValueError(f"{folder}: was trained with seed {result.get('seed')}; move it to that seed's folder")
        return Run(folder, knobs, result, 0.0)


@dataclass(frozen=True)
class ResultTable:
    """A table of RESULTS.md.

    title, note  its heading, and what a reader has to know of it
    common       the settings that all rows have, by name
    pairs        labels of two rows whose difference is stated, the baseline's first
    plot         what is drawn of the errors, one of PLOTS
    timed        whether images a second are shown; rows that were trained beside other work compare nothing by them
    """

    name: str
    title: str
    rows: tuple[ResultRow, ...]
    note: str = ""
    common: dict[str, object] = field(default_factory=dict)
    pairs: tuple[tuple[str, str], ...] = ()
    plot: str = EPOCHS
    timed: bool = True


def read_tables(path: Path) -> list[ResultTable]:
    """The tables of a YAML file, in its order; the head of results/rows.yaml says what stands in one.

    Raises ValueError, which names the row, for a file or a row that cannot be used.
    """
    try:
        content = read_mapping(path)
    except ValueError as error:
        raise ValueError(f"-reproduce {path}: {error}") from None
    return [_table(path, str(name), entry) for name, entry in content.items()]


_TABLE_KEYS = ("title", "note", "settings", "seeds", "rows", "pairs", "plot", "timed")
_ROW_KEYS = ("net", "label", "settings", "seeds", "published")


def _table(path: Path, name: str, entry: object) -> ResultTable:
    place = f"{path}, {name}"
    entry = _checked(place, entry, _TABLE_KEYS)
    common = _checked(place, entry.get("settings", {}), FIELDS)
    rows = tuple(_row(place, name, common, {"seeds": [1]} | entry, row) for row in _list(place, entry, "rows"))
    labels = [row.label for row in rows]
    if not labels or len(set(labels)) < len(labels):
        raise ValueError(f"{place}: needs rows, each with a label of its own (a network's name is its label)")
    pairs = tuple(tuple(_list(place, {"pairs": pair}, "pairs")) for pair in _list(place, entry, "pairs"))
    for pair in pairs:
        if len(pair) != 2 or not set(pair) <= set(labels):
            raise ValueError(f"{place}: pairs has {pair}; a pair is two of {', '.join(labels)}")
    if (drawn := entry.get("plot", EPOCHS)) not in PLOTS:
        raise ValueError(f"{place}: plot {drawn}: must be one of {', '.join(PLOTS)}")
    if not isinstance(timed := entry.get("timed", True), bool):
        raise ValueError(f"{place}: timed {timed}: must be true or false")
    title, note = str(entry.get("title", name)), str(entry.get("note", ""))
    return ResultTable(name, title, rows, note, common, pairs, drawn, timed)


def _row(place: str, table: str, common: dict, entry: dict, row: object) -> ResultRow:
    row = _checked(place, row, _ROW_KEYS)
    given = common | _checked(place, row.get("settings", {}), FIELDS) | {"net": row.get("net")}
    label = str(row.get("label", row.get("net")))
    seeds = tuple(_list(place, entry | row, "seeds"))
    made = ResultRow(table, label, given, seeds, str(row.get("published", "")))
    for seed in seeds:
        try:
            made.settings(seed)
        except ValueError as error:
            raise ValueError(f"{place}, {label}: {error}") from None
    return made


def _list(place: str, entry: dict, key: str) -> list:
    if not isinstance(entry.get(key, []), list):
        raise ValueError(f"{place}: {key} must be a list, in [brackets] or with a dash before each")
    return entry.get(key, [])


def _checked(place: str, entry: object, keys: Iterable[str]) -> dict:
    if not isinstance(entry, dict):
        raise ValueError(f"{place}: must be names and values, such as 'net: cheapV3'")
    unknown = next((key for key in entry if key not in keys), None)
    if unknown is not None:
        raise ValueError(f"{place}: knows no {unknown!r}; there are {', '.join(keys)}")
    return entry


def by_epoch(run: Run, column: str) -> dict[float, float]:
    """A column of the run's metrics.csv by epoch; empty where it has no such column or no such file."""
    path = run.folder / METRICS
    if not path.exists():
        return {}
    with path.open(encoding="utf-8", newline="") as file:
        return {float(line["epoch"]): float(line[column]) for line in csv.DictReader(file) if line.get(column)}
