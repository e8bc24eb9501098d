"""Combinations of knobs that a new run is refused for: one of them would have no effect, and nothing would say so.

A knob of the recipe may be idle, since the command line can overrule what it goes with; one that is given may not.
The settings of a saved run are not looked at again: it goes on as it began.
"""

from __future__ import annotations

import itertools
import re

from conf import Settings, option
from conf.datasets import DatasetRow
from conf.knobs import show

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}
LARGEST_EPOCH = 200_000_000  # images; their order is drawn at its start, in 8 bytes each


def check_combinations(settings: Settings, given: dict[str, object], row: DatasetRow) -> None:
    """Raises ValueError for the first one. given: the knobs of the command line by name; row: the data set's."""
    _check_schedule(settings, given)
    if settings.match:
        parse_budget(settings.match)
    if settings.match and "width" in given:
        raise ValueError(f"-match {show(settings.match)}: finds the width itself; leave out -width")
    if "momentum" in given and settings.optimizer != "sgd":
        raise ValueError(
            f"-momentum {settings.momentum:g}: {settings.optimizer} has none; leave it out, or give -optimizer sgd"
        )
    if given.get("adamw_lr") is not None and settings.optimizer != "muon":
        raise ValueError(
            f"-adamw-lr {settings.adamw_lr:g}: it is AdamW's rate beside muon's; leave it out, or give -optimizer muon"
        )
    if "decay_norms" in given and not settings.decay_norms and not settings.weight_decay:
        raise ValueError("-decay-norms false: nothing is decayed; leave it out, or give -weight-decay")
    if settings.deterministic and settings.cudnn_benchmark:
        raise ValueError("-cudnn-benchmark true: may choose other algorithms each time; leave it or -deterministic out")
    if settings.distill and settings.sizes:
        raise ValueError("-distill: its teacher sees images of one size; leave it out, or leave out -sizes")
    for name in ("distill_temperature", "distill_share"):
        if name in given and not settings.distill:
            raise ValueError(
                f"{option(name)} {getattr(settings, name):g}: there is no teacher; leave it out, or give -distill FILE"
            )
    if "patience" in given and settings.patience and settings.patience >= settings.epochs - 1:
        raise ValueError(
            f"-patience {settings.patience}: never stops a run of {settings.epochs} epochs before its end; "
            f"give at most {max(0, settings.epochs - 2)}"
        )
    parts = max(1, settings.batch_size // 2)
    if settings.accumulate > parts:
        raise ValueError(
            f"-accumulate {settings.accumulate}: -b {settings.batch_size} has {parts} parts of the two images or more "
            f"that batch norm needs; give at most {parts}"
        )
    if settings.steps * settings.batch_size > LARGEST_EPOCH:
        raise ValueError(
            f"-steps {settings.steps}: with -b {settings.batch_size} an epoch would have more than "
            f"{LARGEST_EPOCH:,} images; lower one of the two"
        )
    side = settings.size or row.size
    if side and settings.crop >= side:
        raise ValueError(
            f"-crop {settings.crop}: could cut a whole image of {side}x{side} pixels away; give less than {side}"
        )


def parse_budget(match: str) -> tuple[str, float]:
    """("macs" or "params", how many) of -match macs:43.8M. Raises ValueError for another text."""
    found = re.fullmatch(r"(macs|params):([0-9]+(?:\.[0-9]+)?)([KMG]?)", match)
    if not found or float(found[2]) == 0:
        raise ValueError(f"-match {show(match)}: must be macs:NUMBER or params:NUMBER, such as macs:43.8M")
    return found[1], float(found[2]) * UNITS[found[3]]


def _check_schedule(settings: Settings, given: dict[str, object]) -> None:
    milestones, steps = settings.milestones, settings.schedule == "step"
    if given.get("milestones") and not steps:
        raise ValueError(
            f"-milestones {show(milestones)}: the {settings.schedule} schedule has none; leave them out, or give "
            "-schedule step"
        )
    if "gamma" in given and not (steps and milestones):
        raise ValueError(
            f"-gamma {settings.gamma:g}: there are no milestones at which it counts; leave it out, or give "
            "-schedule step and -milestones"
        )
    if steps and not milestones and "schedule" in given:
        raise ValueError(
            "-schedule step: lowers the rate at -milestones, and there are none; give them, or -schedule constant"
        )
    if steps and milestones:
        if any(left == right for left, right in itertools.pairwise(milestones)):
            raise ValueError(f"-milestones {show(milestones)}: one stands twice; give each once")
        if milestones[-1] >= settings.epochs:
            late = next(milestone for milestone in milestones if milestone >= settings.epochs)
            raise ValueError(
                f"-milestones {show(milestones)}: no epoch of the {settings.epochs} comes after milestone {late:g}; "
                f"give milestones below {settings.epochs}"
            )
    if "least_warm_steps" in given and settings.least_warm_steps and not settings.warm:
        raise ValueError(
            f"-least-warm-steps {settings.least_warm_steps}: there is no warm-up; leave it out, or give -warm"
        )
