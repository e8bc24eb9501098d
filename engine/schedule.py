"""The learning rate and the optimizer of a run."""

from __future__ import annotations

import bisect
import math
import warnings

import torch
from torch import nn

from conf import Settings
from engine.muon import MuonWithAdamW, adamw_rate, pointwise_weights


def learning_rate_factor(step: int, steps_per_epoch: int, settings: Settings) -> float:
    """The factor of the peak learning rate at a step, counted from 0.

    The warm-up is linear: (step + 1) / warm-up steps. Then "step" multiplies by gamma at each milestone, "cosine" and
    "linear" fall from 1 at the end of the warm-up to 0 at the end of the run, and "constant" stays at 1.
    """
    total_steps = settings.epochs * steps_per_epoch
    warm_steps = settings.warm * steps_per_epoch
    if 0 < warm_steps < settings.least_warm_steps:
        warm_steps = max(warm_steps, min(settings.least_warm_steps, total_steps / 4))
    warm_up = min(1.0, (step + 1) / warm_steps) if warm_steps > 0 else 1.0
    if settings.schedule == "step":
        # rounded, so that a milestone of N epochs takes effect at the first step after epoch N
        passed = bisect.bisect_right(settings.milestones, round(step / steps_per_epoch, 9))
        return warm_up * settings.gamma**passed
    if warm_up < 1.0 or settings.schedule == "constant":
        return warm_up
    progress = (step - warm_steps) / max(1.0, total_steps - warm_steps)
    progress = min(1.0, max(0.0, progress))
    return 1.0 - progress if settings.schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))


def make_optimizer(network: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    """SGD, Adam, AdamW, or Muon with AdamW (engine/muon.py).

    All parameters have the same weight decay, as in the original, biases and batch norms too; without -decay-norms
    these, which are the vectors, are a group of their own without decay.
    """
    common = dict(lr=settings.lr, weight_decay=settings.weight_decay, fused=settings.fused or None)
    matrices = pointwise_weights(network) if settings.optimizer == "muon" else []
    taken = set(matrices)
    others = [parameter for parameter in network.parameters() if parameter not in taken]
    groups = [{"params": others}]
    if not settings.decay_norms:
        groups = [
            {"params": [parameter for parameter in others if parameter.ndim > 1]},
            {"params": [parameter for parameter in others if parameter.ndim <= 1], "weight_decay": 0.0},
        ]
    if settings.optimizer == "muon":
        return MuonWithAdamW(matrices, groups, adamw_lr=adamw_rate(settings), **common)
    if settings.optimizer == "sgd":
        return torch.optim.SGD(groups, momentum=settings.momentum, nesterov=settings.nesterov, **common)
    kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.optimizer]
    return kind(groups, **common)


def begin_momentum(optimizer: torch.optim.Optimizer) -> None:
    """Gives SGD's momentum zeros where it has none yet; from these the first step gives what it gives without.

    NOTE: torch's fused SGD takes uninitialised memory at its first step, and does not write to it where fp16's loss
    scaling skips that step; the next one would read it.
    """
    if not isinstance(optimizer, torch.optim.SGD):
        return
    for group in optimizer.param_groups:
        for parameter in group["params"] if group["momentum"] else ():
            if "momentum_buffer" not in optimizer.state[parameter]:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)


def make_schedule(
    optimizer: torch.optim.Optimizer, steps_per_epoch: int, settings: Settings
) -> torch.optim.lr_scheduler.LambdaLR:
    """The schedule that multiplies the optimizer's learning rate by learning_rate_factor at every step."""
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: learning_rate_factor(step, steps_per_epoch, settings)
    )
    # A step whose gradients overflow in fp16 is left out by the loss scaling and counts for the schedule all the same;
    # torch would take the first step of a run, where it is one of these, for a wrong order of calls, and warn.
    warnings.filterwarnings("ignore", "Detected call of `lr_scheduler.step", UserWarning)
    return schedule
