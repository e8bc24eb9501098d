"""Training steps on CUDA: the graph of -graphs against the same steps without it, and a run that is repeated."""

import pytest
import torch

import models
from conf.resolve import settings
from engine.device import Precision, algorithms
from engine.graphs import GraphedStep
from engine.loop import Share, train_step
from engine.shown.blocks import WatchedStep
from engine.state import TrainState
from engine.tasks import Classification

pytestmark = pytest.mark.cuda


def weights_after(
    device: torch.device, graphed: bool = False, steps: int = 18, figures: list | None = None, **more: object
) -> torch.Tensor:
    """All weights, averaged where more has ema, after steps with clipping; every third batch is a smaller one.

    figures: takes what -log-more says of every second step.
    """
    given = dict(net="EffNet_digits", dataset="digits", optimizer="adamw", lr=2**-10, clip=1.0, epochs=5, warm=1.0)
    chosen = settings({**given, **more})
    torch.manual_seed(0)
    network = models.create(chosen.net, num_classes=10, in_channels=1, image_size=28).to(device)
    precision = Precision.choose(chosen.amp, device)
    state = TrainState.start(network.train(), 4, chosen, precision)
    taken = step = GraphedStep(device) if graphed else train_step
    if figures is not None:
        taken = WatchedStep(step, 2)
    generator = torch.Generator().manual_seed(1)
    for number in range(steps):
        count = 6 if number % 3 == 2 else 16
        images = torch.randn(count, 1, 28, 28, generator=generator).to(device)
        targets = torch.randint(10, (count,), generator=generator).to(device)
        torch.manual_seed(number)  # of dropout
        taken(state, images, targets, Classification(10), precision, chosen.clip, Share(count, 1, chosen.accumulate))
        state.step += 1
        if figures is not None and state.step % 2 == 0:
            figures.append(taken.read())
    assert state.schedule.last_epoch == steps and (state.averaged is None or state.averaged.steps == steps)
    assert not graphed or [shape[0] for shape in step.captured] == [16, 6]
    return torch.cat([each.detach().flatten().double().cpu() for each in state.evaluated.parameters()])


DECAY = {"decay_norms": False, "weight_decay": 0.1}


@pytest.mark.parametrize(
    "more",
    [{}, {"ema": 0.5}, {"accumulate": 2}, {"optimizer": "sgd", "lr": 2**-7, **DECAY}, {"compile": "default"}],
    ids=str,
)
@pytest.mark.parametrize("amp", ["off", "bf16", "fp16"])
def test_graphs_are_the_eager_steps(amp, more, device):
    if device.type != "cuda":
        pytest.skip("a graph is CUDA's")
    with algorithms(True, False):
        found, expected = (weights_after(device, graphed, amp=amp, **more) for graphed in (True, False))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)  # rates are exact in the float32 of a graph


@pytest.mark.parametrize("more", [{}, {"ema": 0.5, "accumulate": 2}], ids=str)
def test_the_same_run_twice_is_the_same(more, device):
    with algorithms(True, False):
        assert torch.equal(weights_after(device, amp="off", **more), weights_after(device, amp="off", **more))


@pytest.mark.parametrize("more", [{}, {"accumulate": 2}], ids=str)
def test_blocks_are_measured_outside_of_a_graph(more, device):
    """-log-more says of replayed steps what it says of eager ones, where batches of two shapes take turns."""
    if device.type != "cuda":
        pytest.skip("a graph is CUDA's")
    found, expected = [], []
    with algorithms(True, False):
        for graphed, figures in ((True, found), (False, expected)):
            weights_after(device, graphed, 24, figures, amp="off", net="MobileNetV3_small", size=28, **more)
    assert len(found) == len(expected) == 12
    for graphed, eager in zip(found, expected, strict=True):
        assert graphed == pytest.approx(eager, rel=1e-2, abs=1e-6)
