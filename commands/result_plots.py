"""The plots of RESULTS.md's tables: a row's error after each epoch, its last error against what the network costs, or
the last errors of all rows, one below the other.

The same files give the same bytes, so that a plot changes only with its rows.
"""

from __future__ import annotations

import io
import itertools
import statistics
from typing import TYPE_CHECKING

from commands.finished_runs import Row
from commands.result_rows import EPOCHS, ERROR, MACS, ROWS, ResultTable, by_epoch

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CURVE = "test accuracy"  # in metrics.csv
ERROR_LABEL = "test top-1 error, %"
MARKERS = "osD^vPX*<>ph"


def plot(table: ResultTable, rows: dict[str, Row]) -> bytes | None:
    """An SVG of the rows' test errors, drawn as the table says; None where no row has any."""
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    if not {EPOCHS: _draw_curves, MACS: _draw_costs, ROWS: _draw_rows}[table.plot](axes, table, rows):
        return None
    axes.set_title(table.title)
    axes.grid(alpha=0.3)
    content = io.BytesIO()
    with matplotlib.rc_context({"svg.hashsalt": table.name}):
        figure.savefig(content, format="svg", metadata={"Date": None})
    return content.getvalue()


def _draw_curves(axes: Axes, table: ResultTable, rows: dict[str, Row]) -> bool:
    """The error after each epoch that all seeds have, mean and range over these; whether there was any.

    The legend has the last epoch's error, as the table has it: seeds that stopped early have last epochs of their own.
    """
    baselines, drawn = {first for first, _ in table.pairs}, False
    for label, row in rows.items():
        seeds = [by_epoch(run, CURVE) for run in row.runs]
        common = sorted(set.intersection(*map(set, seeds)))
        points = {epoch: [100 * (1 - seed[epoch]) for seed in seeds] for epoch in common}
        if not points:
            continue
        means = [statistics.fmean(values) for values in points.values()]
        last = 100 * row.means[ERROR] if ERROR in row.means else means[-1]
        axes.plot(list(points), means, "--" if label in baselines else "-", marker=".", label=f"{label}: {last:.2f} %")
        if len(seeds) > 1:
            low, high = ([choose(values) for values in points.values()] for choose in (min, max))
            axes.fill_between(list(points), low, high, alpha=0.15)
        drawn = True
    axes.set(xlabel="epoch", ylabel=ERROR_LABEL)
    axes.legend(fontsize=8)
    return drawn


def _draw_costs(axes: Axes, table: ResultTable, rows: dict[str, Row]) -> bool:
    """The last epoch's error, mean and standard deviation over the seeds, against MACs; whether there was any."""
    markers = itertools.cycle(MARKERS)
    found = _last_errors(rows)
    for label, (error, spread) in found.items():
        macs = rows[label].means["macs"] / 1e6
        axes.errorbar(macs, error, yerr=spread, fmt=next(markers), capsize=3, label=f"{label}: {error:.2f} %")
    axes.set(xlabel="multiply-accumulates for one image, millions", ylabel=ERROR_LABEL)
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return bool(found)


def _draw_rows(axes: Axes, table: ResultTable, rows: dict[str, Row]) -> bool:
    """The last epoch's error, mean and standard deviation over the seeds, of each row, a network's in one colour."""
    found = _last_errors(rows)
    nets = {label: rows[label].runs[0].result["net"] for label in found}
    colours = {net: f"C{number}" for number, net in enumerate(dict.fromkeys(nets.values()))}
    for place, (label, (error, spread)) in enumerate(found.items()):
        axes.errorbar(error, place, xerr=spread, fmt="o", capsize=3, color=colours[nets[label]])
    names = [f"{label}: {error:.2f} %" for label, (error, _) in found.items()]
    axes.set_yticks(range(len(found)), names, fontsize=8)
    axes.set_ylim(len(found) - 0.5, -0.5)  # the first on top
    axes.set_xlabel(ERROR_LABEL)
    axes.figure.set_figheight(1 + 0.2 * len(found))
    return bool(found)


def _last_errors(rows: dict[str, Row]) -> dict[str, tuple[float, float | None]]:
    """The last epoch's error, its mean and standard deviation in percent, of each row that has any."""
    return {
        label: (100 * row.means[ERROR], 100 * row.stds[ERROR] if ERROR in row.stds else None)
        for label, row in rows.items()
        if ERROR in row.means
    }
