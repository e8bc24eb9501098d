"""-compare: a table and a plot of all finished runs. Runs that differ only by their seed are one row."""

from __future__ import annotations

import csv
import io
import re
import textwrap
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, NullFormatter

from commands.finished_runs import COSTS, Row, is_share, newest_of_each_seed, read_runs, rows_of
from engine.shown.cards import markdown_table
from models.registry import entry, names
from utils import printable, write_atomically

FIGURES = ("train ", "val ", "test ", "best test ", "best val ")  # the keys of a result's metrics begin with these
CHOSEN = "best epoch chosen on"
WIDTH = 100  # characters of a printed table at most
WORDS = 4  # its first columns, whose cells may be shortened


def compare(out: Path) -> None:
    """Prints a markdown table for each data set; writes runs/compare.csv and runs/compare.png under out.

    Raises ValueError where no run under out has finished.
    """
    runs = newest_of_each_seed(read_runs(out))
    if not runs:
        raise ValueError(
            f"-compare: no finished run under {out / 'checkpoints'}; a run writes result.json there when it ends "
            "(-out DIR says where runs are)"
        )
    tables: dict[str, list[Row]] = {}
    for row in rows_of(runs):
        tables.setdefault(row.runs[0].result["dataset"], []).append(row)
    tables = {name: sorted(rows, key=lambda row: row.means.get("macs", 0)) for name, rows in sorted(tables.items())}
    for name, rows in tables.items():
        print(f"### {name}\n\n{markdown(rows)}\n")
    picture = io.BytesIO()
    plot(tables).savefig(picture, format="png", dpi=150)
    paths = out / "runs" / "compare.csv", out / "runs" / "compare.png"
    try:
        write_atomically(paths[0], csv_text(tables).encode(errors="replace"))
        write_atomically(paths[1], picture.getvalue())
    except OSError as error:
        raise ValueError(f"-compare: {out / 'runs'} cannot be written ({error.strerror or error})") from None
    print(f"{len(runs)} runs; all their figures: {paths[0]}; the plot: {paths[1]}")


def figure_keys(rows: list[Row]) -> list[str]:
    """The keys of the metrics: those of training first, otherwise in the order of the results."""
    keys = dict.fromkeys(key for row in rows for run in row.runs for key in run.result)
    return [key for start in FIGURES for key in keys if key.startswith(start)]


def markdown(rows: list[Row]) -> str:
    """The markdown table of one data set's rows, within WIDTH characters; errors in percent, mean ± std.

    What all rows have in common of their recipe and changed knobs stands above it; compare.csv has every figure.
    """
    settings, common = told_apart([row.labels() for row in rows])
    key = error_key(rows)
    head = ["network", "settings", "epochs", "seeds", "parameters", "M MACs"]
    head += ["test error, %" if is_share(key) else key]
    lines = []
    for row, words in zip(rows, settings, strict=True):
        label = row.labels()
        costs = {"parameters": (1, ",.0f"), "macs": (1e-6, ".2f")}
        cells = [
            format(row.means[name] * factor, form) if name in row.means else "-"
            for name, (factor, form) in costs.items()
        ]
        lines.append([label["net"], words, label["epochs"], span(label["seeds"]), *cells, row.figure(key)])
    table = markdown_table(*fitted(head, lines))
    return f"all with {common}\n\n{table}" if common else table


def told_apart(labels: list[dict[str, str]]) -> tuple[list[str], str]:
    """The recipe and changed knobs of each row without those that all rows share, and these."""
    each = [[label["recipe"], *re.split(r" (?=-[a-z])", label["changed"])] for label in labels]
    shared = [words for words in each[0] if len(each) > 1 and all(words in other for other in each)]
    return [" ".join(word for word in words if word not in shared) for words in each], " ".join(shared).strip()


def fitted(head: list[str], lines: list[list[str]]) -> tuple[list[str], list[list[str]]]:
    """The table's cells, padded, and those of the widest columns of words shortened until it fits WIDTH."""
    widths = [max(map(len, column)) for column in zip(head, *lines, strict=True)]
    while sum(widths) + 3 * len(widths) + 1 > WIDTH:
        widest = max(range(WORDS), key=lambda number: widths[number])
        widths[widest] -= 1
    shorten = [
        [printable(cell, width).ljust(width) for cell, width in zip(line, widths, strict=True)] for line in lines
    ]
    return [cell.ljust(width) for cell, width in zip(head, widths, strict=True)], shorten


def span(seeds: str) -> str:
    """Three seeds or more without a gap as the first and the last."""
    numbers = [int(seed) for seed in seeds.split() if seed.isdecimal()]
    whole = len(numbers) > 2 and numbers == list(range(numbers[0], numbers[0] + len(seeds.split())))
    return f"{numbers[0]}-{numbers[-1]}" if whole else seeds


def error_key(rows: list[Row]) -> str:
    """The metric by which a data set's rows are compared: the last epoch's error, or its loss."""
    return "test top-1 error" if any("test top-1 error" in row.means for row in rows) else "test loss"


def baseline_of(row: Row, rows: list[Row]) -> Row | None:
    """The row of the network that this one's is made from, with the same settings; where the gates start is its own."""
    net = row.runs[0].result["net"]
    baseline = entry(net).baseline if net in names() else ""

    def settings(row: Row) -> dict:
        return {name: value for name, value in row.runs[0].knobs.items() if name not in ("net", "gate_start")}

    found = [other for other in rows if other.runs[0].result["net"] == baseline and settings(other) == settings(row)]
    return found[0] if found else None


def csv_text(tables: dict[str, list[Row]]) -> str:
    """One table of all data sets in the units of result.json (errors are shares of 1); unknown values are empty."""
    figures = [*figure_keys([row for rows in tables.values() for row in rows]), "seconds"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["dataset", *next(iter(tables.values()))[0].labels(), *COSTS]
        + [key + end for key in figures for end in ("", " std")]
        + [CHOSEN]
    )
    for name, rows in tables.items():
        for row in rows:
            costs = [row.means.get(key, "") for key in COSTS]
            values = [found.get(key, "") for key in figures for found in (row.means, row.stds)]
            writer.writerow([name, *row.labels().values(), *costs, *values, row.runs[0].result.get(CHOSEN, "")])
    return text.getvalue()


def _shown(text: str) -> str:
    """The text as matplotlib takes it: a $ is no formula's beginning."""
    return printable(text).replace("$", r"\$")


def plot(tables: dict[str, list[Row]]) -> Figure:
    """Two plots for each data set: the last epoch's error, or its loss, against MACs and against parameters.

    A line joins a network with the one that it is made from.
    """
    legend = "{net}, {recipe}, {epochs} epochs {changed}"
    legends = {
        dataset: [textwrap.fill(_shown(legend.format(**row.labels())), 45) for row in rows]
        for dataset, rows in tables.items()
    }
    heights = [max(4.0, 0.16 * len("\n".join(each).splitlines())) for each in legends.values()]  # inches; legends fit
    figure = Figure(figsize=(14, sum(heights)), layout="constrained")
    lines = figure.subplots(len(tables), 2, squeeze=False, height_ratios=heights)
    for (dataset, rows), pair in zip(tables.items(), lines, strict=True):
        for axes, cost in zip(pair, ("macs", "parameters"), strict=True):
            _draw(axes, rows, legends[dataset], cost)
            axes.set_title(_shown(dataset))
        if pair[1].containers:
            pair[1].legend(loc="upper left", bbox_to_anchor=(1.02, 1), fontsize=7)
    return figure


def _draw(axes: Axes, rows: list[Row], names: list[str], cost: str) -> None:
    """A marker for each of the rows that have both figures, by its name, and the lines between them."""
    key = error_key(rows)
    factor, label = (100, f"{key}, %") if is_share(key) else (1, key)
    shown = [row for row in rows if key in row.means and cost in row.means]
    for row in shown:
        if (other := baseline_of(row, shown)) is not None:
            ends = [(each.means[cost], factor * each.means[key]) for each in (other, row)]
            axes.plot(*zip(*ends, strict=True), color="0.6", linewidth=1, zorder=0)
    for number, (row, name) in enumerate(zip(rows, names, strict=True)):
        if row in shown:
            std = factor * row.stds[key] if key in row.stds else None  # one seed: no bar, which would say 0
            how = dict(yerr=std, fmt="os^Dv"[number // 10 % 5], capsize=3, label=name)
            axes.errorbar(row.means[cost], factor * row.means[key], **how)
    costs = [row.means[cost] for row in shown]
    wide = bool(costs) and max(costs) > 10 * min(costs) > 0  # a narrow logarithmic axis has no tick to read
    axes.set(xscale="log" if wide else "linear", xlabel={"macs": "MACs"}.get(cost, cost), ylabel=label)
    axes.xaxis.set_major_formatter(EngFormatter())
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.3)
