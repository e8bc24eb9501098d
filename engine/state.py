"""All that changes while a network trains, and its form in a checkpoint."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from conf import Settings
from engine.device import Precision
from engine.distributed import ALONE, Processes
from engine.schedule import make_optimizer, make_schedule


@dataclass
class TrainState:
    """A network in training.

    trained    the network as it is called in training: itself, wrapped to share gradients, or compiled
    evaluated  the network whose figures count, as it is called: the averaged one where weights are averaged
    epoch      epochs finished
    batch      batches done in the current epoch
    step       optimizer steps done since the start
    sums       of the current epoch's metrics so far (engine/tasks.py)
    loss       of the last step, and rate its learning rate
    history    one row of figures an epoch
    best       {"score", "epoch"} of the best epoch so far, or empty
    seconds    spent in training so far
    """

    network: nn.Module
    trained: nn.Module
    evaluated: nn.Module
    averaged: AveragedModel | None
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
        processes: Processes = ALONE,
    ) -> TrainState:
        """The state before the first step; network is on its device already."""
        averaged = None
        if settings.ema:
            averaged = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(settings.ema), use_buffers=True)
        trained = processes.together(network)
        evaluated = network if averaged is None else averaged.module
        if settings.compile:  # an epoch's last batch is smaller than the others: code for two sizes, not for any
            trained, evaluated = (torch.compile(each, dynamic=False) for each in (trained, evaluated))
        optimizer = make_optimizer(network, settings)
        schedule = make_schedule(optimizer, steps_per_epoch, settings)
        return cls(network, trained, evaluated, averaged, optimizer, schedule, precision.scaler())

    def is_best(self, score: float) -> bool:
        """Whether the score of the epoch just finished is the lowest so far, which is kept in best."""
        if math.isnan(score):  # every comparison with it says no: it would be the best, and stay it
            score = math.inf
        if self.best and score >= self.best["score"]:
            return False
        self.best = {"score": score, "epoch": self.epoch}
        return True

    def is_stale(self, patience: int) -> bool:
        """Whether the last `patience` finished epochs brought no better score; never for a patience of 0.

        Read off what a checkpoint holds, so that a run that is gone on with stops where it would have stopped.
        """
        return 0 < patience <= self.epoch - self.best.get("epoch", self.epoch)

    def to_checkpoint(self) -> dict:
        """Plain values and tensors only."""
        return {
            "network": self.network.state_dict(),
            "averaged": None if self.averaged is None else self.averaged.module.state_dict(),
            "averaged_steps": 0 if self.averaged is None else int(self.averaged.n_averaged),
            "optimizer": self.optimizer.state_dict(),
            "schedule": {"last_epoch": self.schedule.last_epoch},
            "scaler": self.scaler.state_dict(),
            "epoch": self.epoch,
            "batch": self.batch,
            "step": self.step,
            "sums": self.sums,
            "loss": self.loss,
            "rate": self.rate,
            "history": self.history,
            "best": self.best,
            "seconds": self.seconds,
        }

    def restore(self, content: dict) -> None:
        """Takes over everything that to_checkpoint wrote."""
        self.network.load_state_dict(content["network"])
        if self.averaged is not None:
            self.averaged.module.load_state_dict(content["averaged"])
            self.averaged.n_averaged.fill_(content["averaged_steps"])
        self.optimizer.load_state_dict(content["optimizer"])
        # the rates of this step stand in the optimizer's groups; the schedule only counts
        self.schedule.last_epoch = content["schedule"]["last_epoch"]
        self.scaler.load_state_dict(content["scaler"])
        for name in ("epoch", "batch", "step", "sums", "loss", "rate", "history", "best", "seconds"):
            setattr(self, name, content[name])
