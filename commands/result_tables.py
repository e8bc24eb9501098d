"""The tables of RESULTS.md, written from the files that finished runs left under results/."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from commands.finished_runs import Row
from commands.result_plots import plot
from commands.result_rows import ERROR, LATENCY, ResultRow, ResultTable
from engine.shown.cards import markdown_table, words
from utils import write_atomically

DOCUMENT = "RESULTS.md"
BEGIN, END = "<!-- written by -reproduce: {} -->", "<!-- end of {} -->"
OVERFLOWS = "test overflowing images"
# By the key of result.json, its heading; overflows only where a row of the table has any. The last epoch stands first:
# the best one was chosen on the test set.
FIGURES = {
    ERROR: "top-1 error, %",
    "test top-5 error": "top-5 error, %",
    "best test top-1 error": "best epoch's, chosen on the test set, %",
    OVERFLOWS: "test images that overflow",
}
FIGURES_OF_REGRESSION = {"test loss": "test MSE", "best test loss": "best epoch's, chosen on the test set"}


def check(tables: list[ResultTable], results: Path) -> None:
    """Raises ValueError where kept files contradict their row, or RESULTS.md has no place for a table."""
    for table in tables:
        finished_rows(table, results)
        read_latencies(results, table)


def write(tables: list[ResultTable], results: Path) -> None:
    """Writes every table between its two marks in RESULTS.md, and its plot to results/<table>.svg.

    A table without marks is appended to the text. Prints what it wrote.
    """
    path = results.parent / DOCUMENT
    text = path.read_text(encoding="utf-8") if path.exists() else "# Results\n"
    for table in tables:
        rows = finished_rows(table, results)
        if not rows:
            continue
        picture = plot(table, rows)
        if picture is not None:
            write_atomically(results / f"{table.name}.svg", picture)
        shown = f"{results.name}/{table.name}.svg" if picture else ""
        text = placed(text, table.name, section(table, rows, shown, read_latencies(results, table)))
        print(f"{path}: {table.title}, {len(rows)} of {len(table.rows)} rows")
    write_atomically(path, text.encode())


def finished_rows(table: ResultTable, results: Path) -> dict[str, Row]:
    """By label, in the table's order: the rows of which at least one seed is finished."""
    finished = {row.label: row.finished(results) for row in table.rows}
    return {label: Row(runs) for label, runs in finished.items() if runs}


def placed(text: str, name: str, section: str) -> str:
    """text with the section between the marks of that name, or at its end."""
    begin, end = BEGIN.format(name), END.format(name)
    block = f"{begin}\n{section}\n{end}"
    pattern = re.compile(f"{re.escape(begin)}.*?{re.escape(end)}", re.DOTALL)
    if pattern.search(text):
        return pattern.sub(lambda _: block, text)
    return f"{text.rstrip()}\n\n{block}\n"


@dataclass(frozen=True)
class Latencies:
    """What benchmarks/latency.py kept of a table: milliseconds by label, and by the way in which the network runs."""

    milliseconds: dict[str, dict[str, float]]
    machine: str = ""
    rounds: int = 0

    def ways(self) -> list[str]:
        return list(next(iter(self.milliseconds.values()), {}))

    def cell(self, label: str, way: str) -> str:
        return f"{self.milliseconds[label][way]:.2f}" if label in self.milliseconds else "-"

    def origin(self, name: str) -> str:
        """A sentence on how the figures of the table of that name were measured."""
        how = f"`python benchmarks/latency.py -table {name}`, the median of {self.rounds} rounds"
        return f"Milliseconds: {how} on {'; '.join(self.machine.splitlines())}."


def section(table: ResultTable, rows: dict[str, Row], picture: str, latencies: Latencies) -> str:
    """Heading, command, note, table, what its figures are, what the pairs differ by, and the plot's place."""
    parts = [f"### {table.title}", f"`python main.py {' '.join(words(table.common))} -seed N -net`, with"]
    if table.note:
        parts.insert(1, table.note.strip())
    parts.append(markdown(table, rows, latencies))
    if any(len(row.runs) > 1 for row in rows.values()):
        parts.append("± is the sample standard deviation over the seeds.")
    if latencies.milliseconds:
        parts.append(latencies.origin(table.name))
    if differences := [f"- {line}" for pair in table.pairs if (line := difference(pair, rows))]:
        parts.append("\n".join(differences))
    if picture:
        parts.append(f"![Test errors]({picture})")
    return "\n\n".join(parts)


def read_latencies(results: Path, table: ResultTable) -> Latencies:
    """Those of a table's folded networks; none where they were not measured.

    Raises ValueError for a file that it did not write.
    """
    path = results / table.name / LATENCY
    if not path.exists():
        return Latencies({})
    try:
        kept = json.loads(path.read_text(encoding="utf-8"))
        found = {label: {way: float(ms) for way, ms in ways.items()} for label, ways in kept["milliseconds"].items()}
        return Latencies(found, str(kept["machine"]), int(kept["rounds"]))
    except (ValueError, KeyError, TypeError, AttributeError):
        raise ValueError(f"{path}: is not what benchmarks/latency.py -table writes; measure the table again") from None


def markdown(table: ResultTable, rows: dict[str, Row], latencies: Latencies) -> str:
    """The table: mean ± standard deviation over the seeds, where there are several; published figures as they are.

    A row that is not trained has its published figures alone, or is left out.
    """
    columns = list(_columns(table, rows, latencies))
    published = any(row.published for row in table.rows)
    lines = []
    for row in table.rows:
        found = rows.get(row.label)
        if found or row.published:
            cells = [cell(row, found) if found else "-" for _, cell in columns]
            lines.append([_named(row, table), *cells, *[row.published] * published])
    heads = ["network and settings", *(head for head, _ in columns), *["published"] * published]
    return markdown_table(heads, lines)


def _named(row: ResultRow, table: ResultTable) -> str:
    own = {name: value for name, value in row.given.items() if name != "net" and table.common.get(name) != value}
    return " ".join([f"`{row.given['net']}`", *([f"`{' '.join(words(own))}`"] if own else [])])


def _columns(
    table: ResultTable, rows: dict[str, Row], latencies: Latencies
) -> Iterator[tuple[str, Callable[[ResultRow, Row], str]]]:
    """Each column's heading, and its cell of a trained row."""
    known = FIGURES if any(ERROR in row.means for row in rows.values()) else FIGURES_OF_REGRESSION
    for key, head in known.items():
        unshown = (None, 0.0) if key == OVERFLOWS else (None,)
        if any(row.means.get(key) not in unshown for row in rows.values()):
            yield head, lambda _, found, key=key: found.figure(key)
    yield "parameters", lambda _, found: f"{found.means['parameters']:,.0f}"
    yield "M MACs", lambda _, found: f"{found.means['macs'] / 1e6:.2f}"
    for way in latencies.ways():
        yield f"folded, ms an image, {way}", lambda row, _, way=way: latencies.cell(row.label, way)
    yield "seeds", lambda _, found: found.labels()["seeds"]
    if table.timed:
        yield "images/s", lambda _, found: f"{found.means['images per second']:,.0f}"
        yield "device", lambda _, found: str(found.runs[0].result["device"])


def difference(pair: tuple[str, str], rows: dict[str, Row]) -> str:
    """A sentence on the difference of two rows' errors, beside its standard error; empty where a row is missing.

    The standard error is that of the difference of two means, (s1^2 / n1 + s2^2 / n2)^0.5.
    """
    if not all(label in rows for label in pair):
        return ""
    first, second = (rows[label] for label in pair)
    points = 100 * (second.means[ERROR] - first.means[ERROR])
    text = f"{pair[1]} against {pair[0]}: {points:+.2f} points of {ERROR.removeprefix('test ')}"
    if not all(ERROR in row.stds for row in (first, second)):
        return f"{text}; one seed says nothing of its spread."
    error = 100 * math.sqrt(sum(row.stds[ERROR] ** 2 / len(row.runs) for row in (first, second)))
    more = "more" if abs(points) > 2 * error else "no more"
    return f"{text}, with a standard error of {error:.2f}: {more} than twice that."
