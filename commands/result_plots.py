"""The plots of RESULTS.md's tables: a row's error after each epoch, or its last error against what the network costs.

The same files give the same bytes, so that a plot changes only with its rows.
"""

from __future__ import annotations

import io
import itertools
import statistics
from typing import TYPE_CHECKING

from commands.finished_runs import Row
from commands.result_rows import EPOCHS, ERROR, ResultTable, by_epoch

if TYPE_CHECKING:
    from matplotlib.axes import Axes

CURVE = "test accuracy"  # in metrics.csv
MARKERS = "osD^vPX*<>ph"


def plot(table: ResultTable, rows: dict[str, Row]) -> bytes | None:
    """An SVG of the rows' test errors against what the table names; None where no row has any."""
    import matplotlib
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axes = figure.subplots()
    draw = _draw_curves if table.plot == EPOCHS else _draw_costs
    if not draw(axes, table, rows):
        return None
    axes.set(ylabel="test top-1 error, %", title=table.title)
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
    axes.set_xlabel("epoch")
    axes.legend(fontsize=8)
    return drawn


def _draw_costs(axes: Axes, table: ResultTable, rows: dict[str, Row]) -> bool:
    """The last epoch's error, mean and standard deviation over the seeds, against MACs; whether there was any."""
    markers = itertools.cycle(MARKERS)
    shown = {label: row for label, row in rows.items() if ERROR in row.means}
    for label, row in shown.items():
        spread = 100 * row.stds[ERROR] if ERROR in row.stds else None
        error, macs = 100 * row.means[ERROR], row.means["macs"] / 1e6
        axes.errorbar(macs, error, yerr=spread, fmt=next(markers), capsize=3, label=f"{label}: {error:.2f} %")
    axes.set_xlabel("multiply-accumulates for one image, millions")
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return bool(shown)
