"""Which network is trained on what, from where, under which name, and what is written meanwhile."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from conf import knobs

knob = partial(knobs.knob, group="run")


@dataclass(frozen=True, kw_only=True)
class RunSettings:
    net: str = knob("network: a name from models/, torchvision:NAME or timm:NAME (required)", changes="result")
    dataset: str = knob(
        "data set: cifar10, cifar100, tiny-imagenet, mnist, fashion-mnist, digits, driving, or a folder of images",
        default="cifar100",
        changes="result",
    )
    data: str = knob("folder of the data sets", default="data", changes="machine")
    natural_order: bool = knob(
        "sort the classes of a folder of images by the numbers in their names, 2 before 10",
        default=False,
        changes="result",
    )
    skip_broken: bool = knob(
        "leave out the images of a folder that cannot be read, and count them, instead of refusing them",
        default=False,
        changes="machine",
    )
    recipe: str = knob(
        "recipe: a name from conf/recipes/, a YAML file, or the settings.yaml of a run to repeat",
        changes="result",
    )
    weights: str = knob(
        "a checkpoint to start from, or with -test, -export and -predict the one that they are about",
        default="",
        changes="result",
    )
    distill: str = knob(
        "a teacher: the checkpoint of a trained network, after whose outputs this one is trained beside the labels",
        default="",
        changes="result",
    )
    name: str = knob("name of the run's folders, instead of the time", default="", changes="output", kept=True)
    out: str = knob("folder in which runs/ and checkpoints/ lie", default=".", changes="output", kept=True)
    seed: int = knob("seed of weights, order and augmentation", default=1, changes="result", low=0, high=2**31 - 1)
    val: float = knob(
        "share of the training images held out to choose the best epoch (0: the test set chooses); of a folder of "
        "CLASS/* alone, the share of each class that is the test set (0: a fifth)",
        default=0.0,
        changes="result",
        low=0.0,
        high=0.9,
    )
    save_every: float = knob(
        "minutes between saves within an epoch (0: at every reading of the loss; default: 10)",
        default=10.0,
        changes="output",
        low=0.0,
    )
    keep: int = knob("checkpoints of every tenth epoch kept, the newest (0: all)", default=0, changes="output", low=0)
    log_every: int = knob("steps between readings of the loss", default=50, changes="output", low=1)
    log_more: bool = knob(
        "at each reading also curves of each block: gate maximum, gradient norm, update-to-weight ratio",
        default=False,
        changes="output",
    )
