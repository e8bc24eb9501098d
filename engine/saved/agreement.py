"""Whether the state in a checkpoint is one that its own run could have left: of this network, optimizer and task.

schema.py compares what needs nothing but the checkpoint; this is done once the job of its settings is made.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from engine.job import Job
from engine.saved import weights
from engine.saved.schema import RunContent
from engine.schedule import learning_rate_factor, make_optimizer

# What an optimizer's state dict says of how it computes, on a device or in a version of torch, and not of what.
MACHINE = ("params", "lr", "initial_lr", "foreach", "fused", "capturable", "differentiable")


def check_state(content: RunContent, job: Job, path: Path) -> None:
    """Raises ValueError that names the first part of content from which the job cannot go on."""
    for part in ("network", "averaged"):
        if content[part] is not None:
            weights.check_exact(content[part], job.network, f"{path}: its {part!r}")
    for faults in (_of_figures(content, job), _of_moments(content, job), _of_hyperparameters(content, job)):
        if fault := next(faults, None):
            raise ValueError(f"{path}: {fault}; take another checkpoint")


def complete(content: RunContent, job: Job) -> None:
    """Adds to the figures in content what older versions did not count, so that a run of theirs goes on.

    Of the finished epochs it is not known: it is nan there. Nothing that this version has saved is changed.
    """
    task = job.task
    content["sums"] = task.completed(content["sums"])
    for row in content["history"]:
        for metric in task.table:
            for split in _splits(job, metric.of_evaluations) if metric.later else ():
                row.setdefault(f"{split} {metric.key}", math.nan)


def _splits(job: Job, of_evaluations: bool) -> list[str]:
    """The splits in the names of the history's columns."""
    return [*([] if of_evaluations else ["train"]), *map(str.lower, job.evaluations)]


def _of_moments(content: RunContent, job: Job) -> Iterator[str]:
    """Faults of what the optimizer keeps for each parameter: the names, the shapes and the counts."""
    state, own = content["optimizer"]["state"], _after_a_step(job)
    if not state and (content["step"] == 0 or content["scaler"] or not own):
        return  # before the first step, or fp16's loss scaling has skipped all of them
    if sorted(state) != list(range(len(own))):
        yield f"its 'optimizer' is of {len(state)} parameters, and the network has {len(own)}"
    for number, kept in own.items():
        found = state[number]
        if set(found) != set(kept):
            yield f"its 'optimizer' keeps other values for a parameter than {job.settings.optimizer} does"
        for name, example in kept.items():
            if (found[name].shape, found[name].dtype) != (example.shape, example.dtype):
                yield f"its 'optimizer' has a {name} of {list(found[name].shape)}, and not of {list(example.shape)}"
    # fewer than the run's where its loss scaling skipped some, now or in an earlier part of the run, in fp16
    counts = {kept["step"].item() for kept in state.values() if "step" in kept}
    if len(counts) > 1 or not all(0 <= count <= content["step"] for count in counts):
        yield f"its 'optimizer' has counted other steps than the {content['step']} of the run"


def _after_a_step(job: Job) -> dict[int, dict[str, Tensor]]:
    """What the job's optimizer keeps for each parameter, by its number, after a step: shapes and types, no values."""
    network = copy.deepcopy(job.network).to("meta")
    for parameter in network.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer = make_optimizer(network, dataclasses.replace(job.settings, fused=False))  # there is none for meta
    optimizer.step()
    return optimizer.state_dict()["state"]


def _of_hyperparameters(content: RunContent, job: Job) -> Iterator[str]:
    """Faults of the optimizer's groups: the checkpoint's settings decide what they are."""
    groups = content["optimizer"]["param_groups"]
    own = make_optimizer(job.network, job.settings).param_groups
    if len(groups) != len(own):
        yield f"its 'optimizer' has {len(groups)} groups of parameters, not {len(own)}"
    for saved, group in zip(groups, own, strict=True):
        for key in set(group) & set(saved) - set(MACHINE):
            if type(saved[key]) is not type(group[key]) or saved[key] != group[key]:
                yield f"its 'optimizer' has another {key} than the settings say"
        factor = learning_rate_factor(content["step"], content["steps_per_epoch"], job.settings)
        rate = saved.get("lr")
        if type(rate) is not float or not math.isclose(rate, group["lr"] * factor, rel_tol=1e-6, abs_tol=1e-300):
            yield f"its 'optimizer' has another learning rate than the settings say for step {content['step']}"


def _of_figures(content: RunContent, job: Job) -> Iterator[str]:
    """Faults of the counts, and of the figures that the task makes."""
    epoch, batch, step, length = (content[key] for key in ("epoch", "batch", "step", "steps_per_epoch"))
    if batch > length or step != epoch * length + batch:
        yield f"its 'step' is {step}, where {epoch} epochs of {length} steps and {batch} are behind it"
    if content.get("task", job.task.name) != job.task.name:
        yield f"its 'task' is {content['task']}, and {job.settings.dataset} is for {job.task.name}"
    wanted = {"step", "lr", "images per second", "seconds"}
    for metric in job.task.table:
        wanted |= {f"{split} {metric.key}" for split in _splits(job, metric.of_evaluations)}
    if content["history"] and (lacking := sorted(wanted - set(content["history"][0]))):
        yield f"its 'history' has no {lacking[0]!r}"
    if sums := content["sums"]:
        try:
            job.task.metrics(sums)
        except (ValueError, ZeroDivisionError):
            yield f"its 'sums' are not those of a {job.task.name}"
