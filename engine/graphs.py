"""A training step as a CUDA graph (-graphs): captured once a batch shape, then replayed with one launch by the host."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from conf import Settings
from engine.device import Precision
from engine.loop import Share, compute_step, train_step
from engine.memory import is_out_of_memory
from engine.state import TrainState
from engine.tasks import Task

EAGER_STEPS = 3  # of a shape before its capture: cuDNN has chosen its algorithms by then


def check_graphs(settings: Settings, device: torch.device, processes: int, goes_on: bool = False) -> None:
    """Raises ValueError where -graphs true is given with what it does not go with.

    goes_on: the run may have begun on another machine; where there is no CUDA it goes on without graphs.
    """
    reason = why_not(settings, device, processes)
    if settings.graphs and reason and not (goes_on and device.type != "cuda"):
        raise ValueError(f"-graphs true: {reason}")


def why_not(settings: Settings, device: torch.device, processes: int) -> str:
    """Why steps cannot be replayed on this device, and what to do; empty where they can."""
    reasons = {
        f"it is for CUDA devices, not for {device}; leave it out": device.type != "cuda",
        f"it is for one process, not for {processes}; give -procs 1 or -graphs false": processes > 1,
        "does not go with -compile reduce-overhead, which has graphs of its own; leave one of them out": (
            settings.compile == "reduce-overhead"
        ),
        "does not go with -optimizer muon, which has the host read the rate; leave one of them out": (
            settings.optimizer == "muon"
        ),
        "does not go with -fused false, which has the host read the rate; leave one of them out": not settings.fused,
    }
    return next((reason for reason, applies in reasons.items() if applies), "")


def is_graphed(settings: Settings, device: torch.device, processes: int) -> bool:
    """Whether a run on this device, in so many processes, replays its steps: by default wherever it can, compiled steps
    too, which are a fifth as fast on an H200 where they are not replayed (RESULTS.md)."""
    return settings.graphs is not False and not why_not(settings, device, processes)


def make_step(settings: Settings, device: torch.device, processes: int) -> Callable[..., tuple[Tensor, Tensor]]:
    """What takes a run's training steps: train_step of engine/loop.py, or a GraphedStep in its place."""
    return GraphedStep(device) if is_graphed(settings, device, processes) else train_step


@dataclass(frozen=True)
class Captured:
    """A step as a graph: what it reads, and what it writes at each replay."""

    graph: torch.cuda.CUDAGraph
    images: Tensor
    targets: Tensor
    loss: Tensor
    sums: Tensor
    gradients: list[Tensor | None]  # of the network's parameters


class GraphedStep:
    """train_step of engine/loop.py, of which graphs take over what the device does, one for each shape of a batch.

    A shape is captured once it has come EAGER_STEPS times. Dropout draws what it draws without a graph: a graph reads
    the seed of torch's default generator, which the loop sets for every step, at each replay.
    """

    def __init__(self, device: torch.device) -> None:
        self.stream = torch.cuda.Stream(device)  # of the eager steps and of the capture, which finds what they set up
        self.rate = torch.zeros((), device=device)  # of all groups; a number would be captured as it is
        self.seen: Counter[torch.Size] = Counter()
        self.captured: dict[torch.Size, Captured] = {}
        self.replayed: Captured | None = None  # whose gradients the parameters have
        # What a step leaves behind lies outside, or is read before the next: graphs can work in the same memory.
        self.pool = torch.cuda.graph_pool_handle()

    def __call__(
        self,
        state: TrainState,
        images: Tensor,
        targets: Tensor,
        task: Task,
        precision: Precision,
        clip: float = 0.0,
        share: Share | None = None,
    ) -> tuple[Tensor, Tensor]:
        """As train_step. Raises ValueError where something in the step cannot be captured."""
        self.seen[images.shape] += 1
        self.rate.fill_(state.optimizer.param_groups[0]["lr"])
        if self.seen[images.shape] <= EAGER_STEPS:
            self.replayed = None
            # by the same rate, in float32: a run that goes on, eager at first, ends where one ends that did not stop
            with self._on_stream(), _captured_rate(state.optimizer, self.rate):
                found = compute_step(state, images, targets, task, precision, clip, share)
            state.schedule.step()
            return found
        if images.shape not in self.captured:
            own = torch.empty_like(images), torch.empty_like(targets)
            self.captured[images.shape] = self._capture(state, *own, task, precision, clip, share)
        captured = self.captured[images.shape]
        captured.images.copy_(images)
        captured.targets.copy_(targets)
        captured.graph.replay()
        if captured is not self.replayed:  # a step of another shape left its own there
            for parameter, gradient in zip(state.network.parameters(), captured.gradients, strict=True):
                parameter.grad = gradient
            self.replayed = captured
        state.schedule.step()
        if state.averaged is not None:
            state.averaged.steps += 1
        return captured.loss.clone(), captured.sums.clone()  # the next replay writes over them

    def _capture(self, state: TrainState, images: Tensor, targets: Tensor, *how) -> Captured:
        """A step on these tensors; how: as train_step takes it. The device does nothing yet, and no number changes."""
        graph = torch.cuda.CUDAGraph()
        steps = 0 if state.averaged is None else state.averaged.steps
        try:
            # thread_local: other threads, which may be fetching the next images, go on as they are
            with (
                _captured_rate(state.optimizer, self.rate),
                torch.cuda.graph(graph, self.pool, self.stream, capture_error_mode="thread_local"),
            ):
                found = compute_step(state, images, targets, *how)
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            reason = str(error).strip().partition("\n")[0]
            raise ValueError(f"-graphs: a step cannot be captured ({reason[:99]}); give -graphs false") from None
        if state.averaged is not None:
            state.averaged.steps = steps
        return Captured(graph, images, targets, *found, [each.grad for each in state.network.parameters()])

    @contextlib.contextmanager
    def _on_stream(self) -> Iterator[None]:
        """A context whose work is done on self.stream, after what was asked for before and before what comes later."""
        outside = torch.cuda.current_stream(self.stream.device)
        self.stream.wait_stream(outside)
        with torch.cuda.stream(self.stream):
            yield
        outside.wait_stream(self.stream)


@contextlib.contextmanager
def _captured_rate(optimizer: torch.optim.Optimizer, rate: Tensor) -> Iterator[None]:
    """A context in which the optimizer reads its learning rate from a tensor, and may be captured."""
    before = [dict(group) for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group.update(lr=rate, capturable=True)
    try:
        yield
    finally:
        for group, own in zip(optimizer.param_groups, before, strict=True):
            group.update(lr=own["lr"])
            group.pop("capturable") if "capturable" not in own else group.update(capturable=own["capturable"])
