"""The plots of RESULTS.md's tables: a row's error after each epoch, or its last error against what the network costs.

The same files give the same bytes, so that a plot changes only with its rows.
"""

from __future__ import annotations

import io
import itertools
import statistics
from typing import TYPE_CHECKING

from commands.finished_runs import Row
from commands.result_rows import EPOCHS, ERROR, ResultTable, errors_by_epoch

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
    """The error after each epoch, mean and range over the seeds; whether there was any."""
    curves = {label: [errors_by_epoch(run, CURVE) for run in row.runs] for label, row in rows.items()}
    curves = {label: each for label, each in curves.items() if all(each)}
    baselines = {first for first, _ in table.pairs}
    for label, seeds in curves.items():
        points = [(epoch, [100 * (1 - dict(seed)[epoch]) for seed in seeds]) for epoch, _ in seeds[0]]
        epochs, errors = [epoch for epoch, _ in points], [statistics.fmean(values) for _, values in points]
        axes.plot(epochs, errors, "--" if label in baselines else "-", marker=".", label=f"{label}: {errors[-1]:.2f} %")
        if len(seeds) > 1:
            low, high = ([choose(values) for _, values in points] for choose in (min, max))
            axes.fill_between(epochs, low, high, alpha=0.15)
    axes.set_xlabel("epoch")
    axes.legend(fontsize=8)
    return bool(curves)


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
