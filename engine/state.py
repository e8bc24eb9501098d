"""Everything that changes while a network trains, and how it is saved in a checkpoint."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field

import torch
from torch import nn

from conf import Settings
from engine.device import Precision
from engine.processes.distributed import SINGLE_PROCESS, Processes
from engine.saved.schema import StateContent
from engine.schedule import begin_momentum, make_optimizer, make_schedule

# what a checkpoint holds of a TrainState as it is
FIGURES = ("epoch", "batch", "step", "sums", "loss", "rate", "history", "best", "seconds")


class AveragedWeights:
    """A copy of a network, `module`, whose floating-point tensors follow the network's as an exponential average.

    All its other tensors are copied at every update: they are numbers of channels and counts, whose mean would mean
    nothing. `steps` counts the updates; the first one copies everything.
    """

    # NOTE: torch's AveragedModel keeps its count in a tensor, and copies that to the device at every update; the host
    # waits for each of these copies.

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.module, self.decay, self.steps = copy.deepcopy(network), decay, 0

    @torch.no_grad()
    def update_parameters(self, network: nn.Module) -> None:
        """Takes in the network's present weights; the host waits for nothing."""
        pairs = [
            (own.detach(), other.detach())
            for find in (nn.Module.parameters, nn.Module.buffers)
            for own, other in zip(find(self.module), find(network), strict=True)
        ]
        averaged = [pair for pair in pairs if self.steps and pair[0].is_floating_point()]
        copied = [pair for pair in pairs if not (self.steps and pair[0].is_floating_point())]
        if averaged:
            torch._foreach_lerp_(*map(list, zip(*averaged, strict=True)), 1 - self.decay)
        if copied:
            torch._foreach_copy_(*map(list, zip(*copied, strict=True)))
        self.steps += 1


@dataclass
class TrainState:
    """A network in training.

    trained    the network that is called in training: wrapped for several processes, or compiled, where that is wanted
    evaluated  the network that is evaluated: the averaged copy (EMA) if there is one

    For the counters and figures from `epoch` on see engine/saved/schema.py.
    """

    network: nn.Module
    trained: nn.Module
    evaluated: nn.Module
    averaged: AveragedWeights | None
    optimizer: torch.optim.Optimizer
    schedule: torch.optim.lr_scheduler.LambdaLR
    scaler: torch.amp.GradScaler
    epoch: int = 0
    batch: int = 0
    step: int = 0
    sums: list[float] = field(default_factory=list)
    loss: float = 0.0
    rate: float = 0.0
    history: list[dict] = field(default_factory=list)
    best: dict = field(default_factory=dict)
    seconds: float = 0.0

    @classmethod
    def start(
        cls,
        network: nn.Module,
        steps_per_epoch: int,
        settings: Settings,
        precision: Precision,
        processes: Processes = SINGLE_PROCESS,
    ) -> TrainState:
        """The state before the first step. network must be on its device already."""
        averaged = AveragedWeights(network, settings.ema) if settings.ema else None
        trained, evaluated = network, network if averaged is None else averaged.module
        if settings.compile != "off":  # for each size of a batch (the last of an epoch is smaller), not for any size
            how = dict(dynamic=False, mode=settings.compile)
            trained, evaluated = torch.compile(trained, **how), torch.compile(evaluated, **how)
        if settings.accumulate > 1:
            # parts add to memory of its own: in reduce-overhead each one writes over the gradients that its graph gave
            for parameter in network.parameters():
                parameter.grad = torch.zeros_like(parameter)
        trained = processes.wrap_ddp(trained)  # around what is compiled: within, its hooks would break the graph
        optimizer = make_optimizer(network, settings)
        schedule = make_schedule(optimizer, steps_per_epoch, settings)
        begin_momentum(optimizer)
        return cls(network, trained, evaluated, averaged, optimizer, schedule, precision.scaler())

    def is_best(self, score: float) -> bool:
        """Whether the score of the epoch just finished is the lowest so far; `best` then holds it."""
        if math.isnan(score):  # no score is lower than NaN, so that it would stay the best
            score = math.inf
        if self.best and score >= self.best["score"]:
            return False
        self.best = {"score": score, "epoch": self.epoch}
        return True

    def is_stale(self, patience: int) -> bool:
        """Whether none of the last `patience` epochs brought a better score; always False for a patience of 0.

        It depends only on what a checkpoint holds, so that a resumed run stops where it would have stopped anyway.
        """
        return 0 < patience <= self.epoch - self.best.get("epoch", self.epoch)

    def to_checkpoint(self) -> StateContent:
        """The state's part of a checkpoint: tensors and plain values only."""
        return {
            "network": self.network.state_dict(),
            "averaged": None if self.averaged is None else self.averaged.module.state_dict(),
            "averaged_steps": 0 if self.averaged is None else self.averaged.steps,
            "optimizer": self.optimizer.state_dict(),
            "schedule": {"last_epoch": self.schedule.last_epoch},
            "scaler": self.scaler.state_dict(),
            **{name: getattr(self, name) for name in FIGURES},
        }

    def restore(self, content: StateContent) -> None:
        """Restores everything that to_checkpoint() saved; engine/saved/agreement.py has checked that it fits."""
        self.network.load_state_dict(content["network"])
        if self.averaged is not None:
            self.averaged.module.load_state_dict(content["averaged"])
            self.averaged.steps = content["averaged_steps"]
        saved = content["optimizer"]
        parameters = [parameter for group in self.optimizer.param_groups for parameter in group["params"]]
        moments = {
            number: {name: laid_out_like(parameters[number], each) for name, each in kept.items()}
            for number, kept in saved["state"].items()
        }
        # of a group, only this step's learning rate: the rest is the settings', and the schedule only counts
        own = self.optimizer.state_dict()["param_groups"]
        groups = [mine | {"lr": each["lr"]} for mine, each in zip(own, saved["param_groups"], strict=True)]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        begin_momentum(self.optimizer)
        self.schedule.last_epoch = content["schedule"]["last_epoch"]
        if content["scaler"]:  # empty where the run was not in fp16 before; a scaler then begins anew
            self.scaler.load_state_dict(content["scaler"])
        for name in FIGURES:
            setattr(self, name, content[name])


def laid_out_like(parameter: torch.Tensor, value: torch.Tensor) -> torch.Tensor:
    """A copy of what an optimizer keeps for a parameter, for tensors may share memory in a file; in the parameter's own
    memory layout, which -channels-last may have changed and torch's fused optimizers on a CPU do not look at."""
    if value.shape != parameter.shape:
        return value.clone()
    return torch.empty_like(parameter, dtype=value.dtype, device=value.device).copy_(value)
