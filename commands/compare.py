"""-compare: a table and a plot of all finished runs. Runs that differ only by their seed are one row."""

from __future__ import annotations

import csv
import io
import textwrap
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.ticker import EngFormatter, NullFormatter

from commands.finished_runs import COSTS, Row, newest_of_each_seed, read_runs, rows_of
from engine import checkpoint
from utils import printable

FIGURES = ("train ", "val ", "test ", "best test ", "best val ")  # the keys of a result's metrics begin with these
CHOSEN = "best epoch chosen on"


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
        checkpoint.write_atomically(paths[0], csv_text(tables).encode(errors="replace"))
        checkpoint.write_atomically(paths[1], picture.getvalue())
    except OSError as error:
        raise ValueError(f"-compare: {out / 'runs'} cannot be written ({error.strerror or error})") from None
    print(f"{len(runs)} runs; written to {paths[0]} and {paths[1]}")


def figure_keys(rows: list[Row]) -> list[str]:
    """The keys of the metrics: those of training first, otherwise in the order of the results."""
    keys = dict.fromkeys(key for row in rows for run in row.runs for key in run.result)
    return [key for start in FIGURES for key in keys if key.startswith(start)]


def markdown(rows: list[Row]) -> str:
    """The markdown table of one data set's rows; errors in percent, mean ± std."""
    labels = [row.labels() for row in rows]
    columns = [key for key in labels[0] if key != "changed" or any(label[key] for label in labels)]
    figures = [key for key in figure_keys(rows) if any(key in row.means for row in rows)]
    costs = {"parameters": (1, ",.0f"), "macs": (1e-6, ".2f"), "weights bytes": (1e-3, ",.0f")}
    head = [*columns, "parameters", "M MACs", "weights, KB"]
    head += [f"{key}, %" if is_share(key) else key for key in figures] + ["best chosen on"]
    lines = []
    for row, label in zip(rows, labels, strict=True):
        cells = [label[key] for key in columns]
        for key, (factor, form) in costs.items():
            cells.append(format(row.means[key] * factor, form) if key in row.means else "-")
        cells += [_cell(row, key) for key in figures]
        lines.append([*cells, str(row.runs[0].result.get(CHOSEN, "-"))])
    return markdown_table(head, lines)


def markdown_table(head: list[str], lines: list[list[str]]) -> str:
    """A table in markdown, of the text of its cells."""
    whole = [head, ["---"] * len(head), *lines]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in whole)


def is_share(key: str) -> bool:
    return key.endswith(("top-1 error", "top-5 error"))


def _cell(row: Row, key: str) -> str:
    if key not in row.means:
        return "-"
    factor, form = (100, ".2f") if is_share(key) else (1, ".4g")
    text = format(factor * row.means[key], form)
    return text if key not in row.stds else f"{text} ± {format(factor * row.stds[key], '.2g')}"


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
    """Two plots for each data set: the last epoch's error, or its loss, against MACs and against parameters."""
    legend = "{net}, {recipe}, {epochs} epochs {changed}"
    names = {
        dataset: [textwrap.fill(_shown(legend.format(**row.labels())), 45) for row in rows]
        for dataset, rows in tables.items()
    }
    heights = [max(4.0, 0.16 * len("\n".join(each).splitlines())) for each in names.values()]  # inches; legends fit
    figure = Figure(figsize=(14, sum(heights)), layout="constrained")
    lines = figure.subplots(len(tables), 2, squeeze=False, height_ratios=heights)
    for (dataset, rows), pair in zip(tables.items(), lines, strict=True):
        is_share = any("test top-1 error" in row.means for row in rows)
        key, factor = ("test top-1 error", 100) if is_share else ("test loss", 1)
        for axes, cost in zip(pair, ("macs", "parameters"), strict=True):
            drawn = []
            for number, (row, name) in enumerate(zip(rows, names[dataset], strict=True)):
                if key in row.means and cost in row.means:
                    x, y = row.means[cost], factor * row.means[key]
                    std = factor * row.stds[key] if key in row.stds else None  # one seed: no bar, which would say 0
                    axes.errorbar(x, y, yerr=std, fmt="os^Dv"[number // 10 % 5], capsize=3, label=name)
                    drawn.append(x)
            wide = bool(drawn) and max(drawn) > 10 * min(drawn) > 0  # a narrow logarithmic axis has no tick to read
            label = f"{key}, %" if is_share else key
            axes.set(
                xscale="log" if wide else "linear",
                xlabel={"macs": "MACs"}.get(cost, cost),
                ylabel=label,
                title=_shown(dataset),
            )
            axes.xaxis.set_major_formatter(EngFormatter())
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.grid(alpha=0.3)
        if pair[1].containers:
            pair[1].legend(loc="upper left", bbox_to_anchor=(1.02, 1), fontsize=7)
    return figure
