"""Trains an epoch and evaluates a network, both with the metrics as a plain dict; predictions for all images."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from conf import Settings
from datasets.batches import EvaluationBatches, TrainingBatches
from engine.device import Precision
from engine.interruption import Interrupted
from engine.processes.distributed import SINGLE_PROCESS, Processes
from engine.state import TrainState
from engine.tasks import Task
from utils import derived_seed


@dataclass(frozen=True)
class Share:
    """One process's share of a step.

    whole       the number of images in the step, over all processes
    processes   the number of processes
    accumulate  the number of parts in which this process works through its images
    """

    whole: int
    processes: int = 1
    accumulate: int = 1

    def parts(self, images: Tensor, targets: Tensor) -> list[tuple[Tensor, Tensor]]:
        """The parts, of at least two images each, as batch norm needs; as many in each process, as -sync-bn needs."""
        count = min(self.accumulate, self.whole // self.processes // 2)
        if count < 2:
            return [(images, targets)]
        return list(zip(images.tensor_split(count), targets.tensor_split(count), strict=True))


def train_step(
    state: TrainState,
    images: Tensor,
    targets: Tensor,
    task: Task,
    precision: Precision,
    clip: float = 0.0,
    share: Share | None = None,
) -> tuple[Tensor, Tensor]:
    """One optimizer step on this process's images. Returns the loss and the metric sums, both still on the device.

    clip: the largest norm of the gradient, 0 for no limit. share: by default this process is alone.
    """
    found = compute_step(state, images, targets, task, precision, clip, share)
    state.schedule.step()
    return found


def compute_step(
    state: TrainState,
    images: Tensor,
    targets: Tensor,
    task: Task,
    precision: Precision,
    clip: float = 0.0,
    share: Share | None = None,
) -> tuple[Tensor, Tensor]:
    """The part of train_step that the device does, at the present learning rate.

    The losses of all processes add up to the mean over the whole batch, and their gradients to the gradient of that
    mean; each process multiplies by the number of processes, because DistributedDataParallel averages gradients.
    Images without a target come last and do not count.
    """
    share = share or Share(len(targets))
    state.optimizer.zero_grad(set_to_none=share.accumulate == 1)
    parts = share.parts(images, targets)
    losses, counts = [], []
    for number, (images, targets) in enumerate(parts, start=1):
        with contextlib.nullcontext() if number == len(parts) or share.processes == 1 else state.trained.no_sync():
            with precision.autocast():
                logits = state.trained(images)[: len(targets)]
                loss = task.loss(logits, targets) * (len(targets) / share.whole) if len(targets) else 0 * logits.sum()
            state.scaler.scale(loss * share.processes).backward()
        losses.append(loss.detach())
        counts.append(task.sums(logits, targets))  # now: compiled, the next part may write over the logits
    if clip:
        state.scaler.unscale_(state.optimizer)
        nn.utils.clip_grad_norm_(state.network.parameters(), clip)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    if state.averaged is not None:
        state.averaged.update_parameters(state.network)
    return sum(losses), sum(counts)


def train_epoch(
    state: TrainState,
    batches: TrainingBatches,
    task: Task,
    precision: Precision,
    settings: Settings,
    on_read: Callable[[list[float], list[float]], None],
    check: Callable[[], None] = lambda: None,
    processes: Processes = SINGLE_PROCESS,
    step: Callable[..., tuple[Tensor, Tensor]] = train_step,
) -> dict[str, float]:
    """Trains from state.batch to the end of the epoch; returns the metrics, means over all images of the epoch.

    Losses stay on the device and are read every settings.log_every steps. Then state.sums is updated and
    on_read(losses, rates) is called with the loss and the learning rate of each step since the last reading.
    check is called before every step; where it raises Interrupted, the losses are read first.
    step: what takes a step in the place of train_step, for example a GraphedStep (engine/graphs.py).
    Raises NotFinite, before on_read, where a loss is not finite.
    """
    state.network.train()
    accumulator = MetricAccumulator(state, precision.device, on_read, processes)
    for images, targets in batches.epoch(state.epoch, state.batch):
        try:
            check()
        except Interrupted:
            accumulator.read()
            raise
        # Seeds dropout per step, so that a resumed run draws the same masks.
        torch.manual_seed(derived_seed(settings.seed, "step", state.step * processes.world_size + processes.rank))
        accumulator.rates.append(state.optimizer.param_groups[0]["lr"])
        start, stop = batches.bounds[state.batch] if processes.world_size > 1 else (0, len(targets))
        share = Share(stop - start, processes.world_size, settings.accumulate)
        accumulator.add(*step(state, images, targets, task, precision, settings.clip, share))
        state.batch += 1
        state.step += 1
        if state.step % settings.log_every == 0:
            accumulator.read()
    accumulator.read()
    return task.metrics(state.sums)


class NotFinite(ValueError):
    """A training loss is infinite or not a number."""


class MetricAccumulator:
    """Collects losses and metric sums on the device, and reads them for many steps at once, over all processes."""

    def __init__(self, state: TrainState, device: torch.device, on_read, processes: Processes) -> None:
        self.state, self.on_read, self.processes = state, on_read, processes
        self.dtype = torch.float32 if device.type == "mps" else torch.float64  # mps has no float64
        self.losses: list[Tensor] = []
        self.rates: list[float] = []
        self.sums: Tensor | None = None
        if state.sums and processes.is_main:
            self.sums = torch.tensor(state.sums, dtype=self.dtype, device=device)

    def add(self, loss: Tensor, sums: Tensor) -> None:
        self.losses.append(loss)
        sums = sums.to(self.dtype)
        self.sums = sums if self.sums is None else self.sums + sums

    def read(self) -> None:
        if not self.losses:
            return
        losses = self.processes.sum(torch.stack(self.losses).float().tolist())
        first = self.state.step - len(losses)
        for number, loss in enumerate(losses):
            if not math.isfinite(loss):
                raise NotFinite(
                    f"the loss of step {first + number + 1} is {loss} at a learning rate of {self.rates[number]:.4g}"
                )
        self.state.sums, self.state.loss, self.state.rate = (
            self.processes.sum(self.sums.tolist()),
            losses[-1],
            self.rates[-1],
        )
        self.on_read(losses, self.rates)
        self.losses, self.rates = [], []


@torch.inference_mode()
def evaluate(
    network: nn.Module,
    batches: EvaluationBatches,
    task: Task,
    precision: Precision,
    processes: Processes = SINGLE_PROCESS,
) -> dict[str, float]:
    """Metrics over all images of all processes' batches, in eval mode. The network's mode is restored afterwards."""
    was_training = network.training
    network.eval()
    total, losses = None, []
    for images, targets in batches:
        with precision.autocast():
            logits = network(images)
        sums = task.sums(logits, targets)
        sums = sums if precision.device.type == "mps" else sums.double()
        total = sums if total is None else total + sums
        losses.append(task.image_losses(logits, targets))  # read once, after the last batch
    network.train(was_training)
    sums = processes.sum([] if total is None else total.tolist())
    if not sums:
        raise ValueError("none of the images that are to be tested can be read: repair them, or give others")
    metrics = task.metrics(sums)
    return metrics | task.spread(processes.gather(torch.cat(losses).tolist() if losses else []))


@torch.inference_mode()
def predict(network: nn.Module, batches: EvaluationBatches, precision: Precision, task: Task) -> tuple[Tensor, Tensor]:
    """(task.predictions(), targets N) for all images of the batches, on the CPU; puts the network into eval mode."""
    network.eval()
    found, targets = [], []
    for images, batch_targets in batches:
        with precision.autocast():
            outputs = network(images)
        found.append(task.predictions(outputs).cpu())
        targets.append(batch_targets.cpu())
    return torch.cat(found), torch.cat(targets)
