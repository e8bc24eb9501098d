"""-export card: a finished run's model card, Markdown beside its weights, of what the run has recorded of itself."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from torch import nn

from commands.publish import finished_result
from conf import Settings
from conf.resolve import saved_settings
from engine.metrics import Metric
from engine.saved import checkpoint
from engine.saved.schema import RunContent
from engine.saved.trained import how_made, task_name, view_of_content
from engine.shown.cards import cell, changed_words, table
from engine.tasks import LARGEST_LOGIT, TASKS
from models import registry, weight_file
from models.layers import SqueezeExcite
from models.reuse import ReuseSqueezeExcite
from models.shapes import shapes_alone
from models.summary import parameter_count
from utils import write_atomically

CHOSEN_ELSEWHERE = ("net", "dataset", "recipe", "epochs", "seed")  # settings that have a line of their own
OVERFLOWING = "test overflowing images"  # in a result (engine/tasks.py)


def write_card(weights: Path) -> Path:
    """Writes <stem>.md beside a finished run's last.pth or last.safetensors, and prints its path.

    Raises ValueError where the file is not of a finished run's last epoch.
    """
    content = checkpoint.load_run(weights)
    text = card(content, finished_result(content, weights), weights)
    place = weights.with_suffix(".md")
    write_atomically(place, text.encode())
    print(place)
    return place


def card(content: RunContent, result: dict, weights: Path) -> str:
    """The card's text. content: of the checkpoint at weights; result: as result.json has it."""
    settings = saved_settings(content["settings"], weights, {})
    with shapes_alone():
        network = how_made(settings, view_of_content(settings, content)).network()
    sections = {
        "Network": about_network(network, settings, content, result),
        "Data": about_data(settings, content),
        "Training": about_training(settings, result),
    }
    lines = [f"# {cell(settings.net)} on {cell(Path(settings.dataset).name)}", ""]
    for title, facts in sections.items():
        lines += [f"## {title}", "", table({"": name, "value": value} for name, value in facts.items()), ""]
    lines += ["## Results", "", *results(settings, content, result), ""]
    lines += ["## Use", "", *usage(settings, content, weights), ""]
    lines += ["## Caveats", "", *(f"- {each}" for each in caveats(network, settings, result))]
    return "\n".join(lines) + "\n"


def about_network(network: nn.Module, settings: Settings, content: RunContent, result: dict) -> dict[str, object]:
    side, channels = content["image_size"], content["in_channels"]
    parts = registry.entry(settings.net).parts
    own = {} if parts is None else vars(parts.replaced(settings.net, settings.parts()))
    chosen = [f"{name} {value}" for name, value in own.items() if value is not None and name != "activates_copies"]
    macs = f"{result['macs']:,} for one image" if "macs" in result else ""
    facts = {
        "network": settings.net,
        "parts": ", ".join(chosen),
        "width": f"{settings.width:g}",
        "parameters": f"{parameter_count(network):,}",
        "multiply-accumulates": macs,
        "input": f"N x {channels} x {side} x {side}, (pixel / 255 - mean) / std of each channel",
        "mean": ", ".join(f"{each:.4f}" for each in content["mean"]),
        "std": ", ".join(f"{each:.4f}" for each in content["std"]),
    }
    return {name: value for name, value in facts.items() if value}


def about_data(settings: Settings, content: RunContent) -> dict[str, object]:
    """The counts are the fingerprint's, which older checkpoints lack."""
    found = content.get("fingerprint", {})
    counts = {f"{split} images": found.get(f"number of {split} images") for split in ("training", "validation", "test")}
    facts = {"data set": Path(settings.dataset).name} | {
        name: f"{count:,}" for name, count in counts.items() if isinstance(count, int) and count
    }
    if settings.val and not counts["validation images"] and "training images" in facts:
        facts["training images"] += f", of which the share {settings.val:g} was held out for validation"
    regression = task_name(settings, content) == "regression"
    return facts | ({"target": "an angle"} if regression else {"classes": len(content["classes"])})


def about_training(settings: Settings, result: dict) -> dict[str, object]:
    recipe, epochs = Path(settings.recipe).name, result.get("epochs", settings.epochs)
    trained = result.get("epochs trained", epochs)
    facts = {
        "recipe": recipe,
        "settings that differ from it": changed_words(without_folders(settings), CHOSEN_ELSEWHERE) or "none",
        "epochs": epochs if trained == epochs else f"{trained} of {epochs}, stopped early",
        "seed": settings.seed,
        "time": f"{result['seconds']:.0f} s" if "seconds" in result else None,
        "device": result.get("device"),
        "processes": result.get("processes"),
        "versions": ", ".join(f"{name} {version}" for name, version in result.get("versions", {}).items()),
        "commit": result.get("commit"),
    }
    return {name: value for name, value in facts.items() if value not in (None, "")}


def without_folders(settings: Settings) -> Settings:
    """The settings with the names of files in the place of their paths, which are those of one machine."""
    names = {name: Path(getattr(settings, name)).name for name in ("weights", "distill")}
    return dataclasses.replace(settings, **names)


def results(settings: Settings, content: RunContent, result: dict) -> list[str]:
    """A table of the test set's metrics, of the last epoch and the best one, and which images chose the best."""
    last, best = "last epoch", f"best epoch ({result.get('best epoch', 'unknown')})"
    rows = []
    for metric in TASKS[task_name(settings, content)].table:
        keys = {last: f"test {metric.result}", best: f"best test {metric.result}"}
        if set(keys.values()) & set(result):
            texts = {title: metric_text(metric, result[key]) if key in result else "" for title, key in keys.items()}
            rows.append({"on the test set": metric.result} | texts)
    chosen_on = result.get("best epoch chosen on", "images that are not recorded")
    return [table(rows), "", f"The best epoch was chosen on the {chosen_on}. The weights are the last epoch's."]


def metric_text(metric: Metric, reported: float | None) -> str:
    """None: result.json's word for infinity, or for what is no number."""
    if reported is None:
        return "not finite"
    return f"{metric.factor * reported:.{metric.decimals}f} {metric.unit}".rstrip()


def usage(settings: Settings, content: RunContent, weights: Path) -> list[str]:
    """Three lines of Python that load the weights and use them."""
    name = weights.with_suffix(weight_file.SUFFIX).name
    regression = task_name(settings, content) == "regression"
    answer = "print(outputs)  # the angle" if regression else "print(network.classes[outputs.argmax()])"
    image = "pixels" if regression else 'PIL.Image.open("photo.png")'
    given = "  # uint8, N x C x H x W" if regression else ""
    return [
        f"In this repository, with {cell(name)} beside this file:",
        "",
        "```python",
        f"import models{'' if regression else ', PIL.Image'}",
        "",
        f"network = models.load({json.dumps(name)})",
        f"outputs = network(network.preprocess({image})){given}",
        answer,
        "```",
    ]


def caveats(network: nn.Module, settings: Settings, result: dict) -> list[str]:
    """What a reader of the numbers should know."""
    found = [f"One run with one seed ({settings.seed}): another seed gives other numbers."]
    if result.get("best epoch chosen on") == "test set":
        found.append(
            "The best epoch was chosen on the test set that it is measured on, which favours its error; the last "
            "epoch's was chosen by nothing."
        )
    gated = [layer for layer in network.modules() if isinstance(layer, SqueezeExcite | ReuseSqueezeExcite)]
    unbounded = sum(isinstance(layer.gate, nn.Identity) for layer in gated)
    overflowing = result.get(OVERFLOWING)
    if unbounded:
        found.append(f"Nothing bounds the gates of its {unbounded} squeeze-excites: an unusual image can overflow.")
    if unbounded or overflowing:
        how_many = "was not counted" if overflowing is None else f"{overflowing:.0f}"
        beyond = f"an output beyond {LARGEST_LOGIT:,.0f}, or none that is a number"
        found.append(f"Test images that after the last epoch had {beyond}: {how_many}.")
    return found
