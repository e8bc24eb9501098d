"""Train an epoch, evaluate: plain dicts of metrics."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from conf import Settings
from datasets.batches import EvaluationBatches, TrainingBatches
from engine.device import Precision
from engine.state import TrainState
from utils import derived_seed


def train_epoch(
    state: TrainState,
    batches: TrainingBatches,
    task,
    precision: Precision,
    settings: Settings,
    on_read: Callable[[list[float], list[float]], None],
) -> dict[str, float]:
    """Trains from state.batch to the end of the epoch; metrics are means over all its images.

    Losses stay on the device and are read every settings.log_every steps, when on_read(losses, rates) gets one
    of each for every step since the last reading, and state.sums is brought up to date.
    Raises ValueError, before on_read, where a loss is not finite.
    """
    state.network.train()
    reader = _Reader(state, precision.device, on_read)
    for images, targets in batches.epoch(state.epoch, state.batch):
        torch.manual_seed(derived_seed(settings.seed, "step", state.step))  # dropout's, so that any step can be redone
        reader.rates.append(state.optimizer.param_groups[0]["lr"])
        logits, loss = train_step(state, images, targets, task, precision)
        reader.add(loss, task.sums(logits, targets))
        state.batch += 1
        state.step += 1
        if state.step % settings.log_every == 0:
            reader.read()
    reader.read()
    metrics = task.metrics(state.sums)
    state.epoch, state.batch, state.sums = state.epoch + 1, 0, []
    return metrics


def train_step(state: TrainState, images: Tensor, targets: Tensor, task, precision: Precision) -> tuple[Tensor, Tensor]:
    """One optimizer step on one batch: (logits, loss), both still on the device."""
    state.optimizer.zero_grad(set_to_none=True)
    with precision.autocast():
        logits = state.network(images)
        loss = task.loss(logits, targets)
    state.scaler.scale(loss).backward()
    state.scaler.step(state.optimizer)
    state.scaler.update()
    state.schedule.step()
    if state.averaged is not None:
        state.averaged.update_parameters(state.network)
    return logits, loss.detach()


class _Reader:
    """Gathers losses and metric sums on the device and reads them many steps at a time."""

    def __init__(self, state: TrainState, device: torch.device, on_read) -> None:
        self.state, self.on_read = state, on_read
        self.dtype = torch.float32 if device.type == "mps" else torch.float64  # mps has no float64
        self.losses: list[Tensor] = []
        self.rates: list[float] = []
        self.sums: Tensor | None = None
        if state.sums:
            self.sums = torch.tensor(state.sums, dtype=self.dtype, device=device)

    def add(self, loss: Tensor, sums: Tensor) -> None:
        self.losses.append(loss)
        sums = sums.to(self.dtype)
        self.sums = sums if self.sums is None else self.sums + sums

    def read(self) -> None:
        if not self.losses:
            return
        losses = torch.stack(self.losses).float().tolist()
        first = self.state.step - len(losses)
        for number, loss in enumerate(losses):
            if not math.isfinite(loss):
                raise ValueError(
                    f"the loss of step {first + number + 1} is {loss} at a learning rate of {self.rates[number]:.4g}; "
                    "nothing was saved since: try a lower -lr, a longer -warm or -amp off, from the last checkpoint"
                )
        self.state.sums = self.sums.tolist()
        self.on_read(losses, self.rates)
        self.losses, self.rates = [], []


@torch.inference_mode()
def evaluate(network: nn.Module, batches: EvaluationBatches, task, precision: Precision) -> dict[str, float]:
    """Metrics over all images of batches, in eval mode; the network's mode is put back after."""
    was_training = network.training
    network.eval()
    total = None
    for images, targets in batches:
        with precision.autocast():
            logits = network(images)
        sums = task.sums(logits, targets)
        sums = sums if precision.device.type == "mps" else sums.double()
        total = sums if total is None else total + sums
    network.train(was_training)
    return task.metrics(total.tolist())
