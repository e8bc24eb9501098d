"""The tables and plots of RESULTS.md, written from the files that finished runs left under results/."""

from __future__ import annotations

import io
import math
import re
import statistics
from pathlib import Path

from commands.compare import is_share, markdown_table
from commands.finished_runs import Row
from commands.result_rows import ResultTable, errors_by_epoch, words
from engine.checkpoint import write_atomically

DOCUMENT = "RESULTS.md"
BEGIN, END = "<!-- written by -reproduce: {} -->", "<!-- end of {} -->"
ERROR, CURVE = "test top-1 error", "test accuracy"  # in result.json; in metrics.csv
# By the key of result.json, its heading. The last epoch stands first: the best one was chosen on the test set.
FIGURES = {
    ERROR: "top-1 error, %",
    "test top-5 error": "top-5 error, %",
    "best test top-1 error": "best epoch's, chosen on the test set, %",
}
FIGURES_OF_REGRESSION = {"test loss": "test MSE", "best test loss": "best epoch's, chosen on the test set"}


def check(tables: list[ResultTable], results: Path) -> None:
    """Raises ValueError where kept files contradict their row, or RESULTS.md has no place for a table."""
    for table in tables:
        finished_rows(table, results)


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
        text = placed(text, table.name, section(table, rows, f"{results.name}/{table.name}.svg" if picture else ""))
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


def section(table: ResultTable, rows: dict[str, Row], picture: str) -> str:
    """Heading, command, note, table, what the pairs differ by, and the plot's place."""
    parts = [f"### {table.title}", f"`python main.py {' '.join(words(table.common))} -seed N -net`, with"]
    if table.note:
        parts.insert(1, table.note.strip())
    parts.append(markdown(table, rows))
    parts += [line for pair in table.pairs if (line := difference(pair, rows))]
    if picture:
        parts.append(f"![Test error after each epoch]({picture})")
    return "\n\n".join(parts)


def markdown(table: ResultTable, rows: dict[str, Row]) -> str:
    """The table: mean ± standard deviation over the seeds, where there are several; published figures as they are."""
    known = FIGURES if any(ERROR in row.means for row in rows.values()) else FIGURES_OF_REGRESSION
    figures = [(key, head) for key, head in known.items() if any(key in row.means for row in rows.values())]
    published = any(row.published for row in table.rows)
    head = ["network and settings", *(head for _, head in figures), "parameters", "M MACs", "seeds"]
    head += ["images/s", "device"] + ["published"] * published
    lines = []
    for row in table.rows:
        if row.label not in rows:
            continue
        found = rows[row.label]
        own = {name: value for name, value in row.given.items() if name != "net" and table.common.get(name) != value}
        cells = [" ".join([f"`{row.given['net']}`", *([f"`{' '.join(words(own))}`"] if own else [])])]
        cells += [_figure(found, key) for key, _ in figures]
        cells += [f"{found.means['parameters']:,.0f}", f"{found.means['macs'] / 1e6:.2f}", found.labels()["seeds"]]
        cells += [f"{found.means['images per second']:,.0f}", str(found.runs[0].result["device"])]
        lines.append(cells + [row.published] * published)
    return markdown_table(head, lines)


def _figure(row: Row, key: str) -> str:
    if key not in row.means:
        return "-"
    factor, form = (100, ".2f") if is_share(key) else (1, ".4f")
    text = format(factor * row.means[key], form)
    return text if key not in row.stds else f"{text} ± {format(factor * row.stds[key], form)}"


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


def plot(table: ResultTable, rows: dict[str, Row]) -> bytes | None:
    """An SVG of the test error after each epoch, mean over the seeds; the same bytes for the same files."""
    import matplotlib
    from matplotlib.figure import Figure

    curves = {label: [errors_by_epoch(run, CURVE) for run in row.runs] for label, row in rows.items()}
    curves = {label: each for label, each in curves.items() if all(each)}
    if not curves:
        return None
    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    baselines = {first for first, _ in table.pairs}
    for label, seeds in curves.items():
        points = [(epoch, [100 * (1 - dict(seed)[epoch]) for seed in seeds]) for epoch, _ in seeds[0]]
        epochs, errors = [epoch for epoch, _ in points], [statistics.fmean(values) for _, values in points]
        axes.plot(epochs, errors, "--" if label in baselines else "-", marker=".", label=f"{label}: {errors[-1]:.2f} %")
        if len(seeds) > 1:
            low, high = ([choose(values) for _, values in points] for choose in (min, max))
            axes.fill_between(epochs, low, high, alpha=0.15)
    axes.set(xlabel="epoch", ylabel="test top-1 error, %", title=table.title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    content = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": table.name}):
        figure.savefig(content, format="svg", metadata={"Date": None})
    return content.getvalue()
