"""What TensorBoard says of a run in words: a card with its command, result and settings, its row of HParams, tables."""

from __future__ import annotations

import html
import re
import shlex
from collections.abc import Iterable
from pathlib import Path

from conf import Settings, option
from conf.resolve import KNOBS, SETTINGS, changes
from engine.metrics import MetricReport
from engine.shown.blocks import QUANTITIES
from utils import printable

COLUMNS = {  # of the HParams table: the knobs that tell runs apart
    "net": "net",
    "dataset": "dataset",
    "recipe": "recipe",
    "epochs": "epochs",
    "lr": "lr",
    "batch_size": "batch",
    "seed": "seed",
    "width": "width",
    "optimizer": "optimizer",
}
Rows = Iterable[dict[str, object]]


def words(given: dict[str, object], form: str = "") -> list[str]:
    """Settings by name as the words of a command line; form: of a number with a fraction, as format() takes it."""

    def word(value: object) -> str:
        if isinstance(value, float):
            return format(value, form)
        return str(value).lower() if isinstance(value, bool) else str(value)

    spelled: list[str] = []
    for name, value in given.items():
        spelled += [option(name), *map(word, value if isinstance(value, list | tuple) else [value])]
    return spelled


def changed_words(settings: Settings, told: Iterable[str] = ()) -> str:
    """The knobs that differ from the recipe's, as on the command line, without those that are told elsewhere."""
    changed = changes({name: getattr(settings, name) for name in KNOBS})
    return shlex.join(words({name: value for name, value in changed.items() if name not in told}))


def columns(settings: Settings, parameters: int, macs: int) -> dict[str, object]:
    """The run's row of the HParams table; `changed` is what else differs from the recipe, such as a part taken out."""
    told = {word: getattr(settings, name) for name, word in COLUMNS.items()}
    changed = changed_words(settings, COLUMNS) or "nothing"
    return told | {"changed": changed, "parameters": parameters, "million MACs": round(macs / 1e6, 2)}


def layout(report: MetricReport, with_blocks: bool) -> dict[str, dict[str, list]]:
    """Charts of the Custom Scalars tab: each quantity of training, validation and test images in one chart, and each
    quantity of all blocks (blocks.py). As SummaryWriter.add_custom_scalars takes it; tags are expressions."""
    tags = [metric.tag for metric in report.table]
    charts = {"train and test": {tag: ["Multiline", [rf"^(Train|Val|Test)/{re.escape(tag)}$"]] for tag in tags}}
    if with_blocks:
        charts["by block"] = {name: ["Multiline", [rf"^Train by block/{re.escape(name)}/"]] for name in QUANTITIES}
    return charts


def card(settings: Settings, checkpoints: Path, result: dict[str, object] | None) -> str:
    """Markdown: the commands that train such a run and this one again, its result where it has one, its settings."""
    told = dict(net=settings.net, dataset=settings.dataset, recipe=settings.recipe, epochs=settings.epochs)
    new = shlex.join(words(told | {"seed": settings.seed}))
    lines = [
        f"    python main.py {printable(new)} {printable(changed_words(settings))}".rstrip(),
        f"    python main.py -recipe {printable(shlex.quote(str(checkpoints / SETTINGS)))}",
        "",
    ]
    if result is not None:
        lines += [table({"result": key, "": value} for key, value in result.items() if key != "versions"), ""]
    shown = {option(name): getattr(settings, name) for name in vars(settings)}
    return "\n".join(lines) + table({"setting": name, "": value} for name, value in shown.items())


def table(rows: Rows) -> str:
    """A table in Markdown; rows have equal keys."""
    rows = list(rows)
    return markdown_table(list(rows[0]), [[cell(value) for value in row.values()] for row in rows])


def markdown_table(head: list[str], lines: list[list[str]]) -> str:
    """A table of cells that are Markdown already, but for a |. Where they are padded, dashes are as wide."""
    padded = any(each.endswith(" ") for each in head)
    whole = [head, ["-" * (len(each) if padded else 3) for each in head], *lines]
    return "\n".join("| " + " | ".join(each.replace("|", "\\|") for each in line) + " |" for line in whole)


def cell(value: object) -> str:
    """A value as Markdown shows it unchanged, outside of a table or as a cell of markdown_table()."""
    text = f"{value:.6g}" if isinstance(value, float) else str(value)
    return re.sub(r"([\\`*_{}\[\]()#+.!-])", r"\\\1", html.escape(printable(text), quote=False))
