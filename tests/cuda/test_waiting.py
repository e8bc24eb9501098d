"""Between two readings of the loss the host never waits for the device: it prepares steps ahead of it."""

import contextlib

import pytest
import torch

from conf.resolve import settings
from engine.graphs import GraphedStep
from engine.job import make_job
from engine.loop import train_epoch, train_step
from engine.state import TrainState
from tests.helpers.made_data import pixels, save_image

pytestmark = pytest.mark.cuda
READINGS, EVERY = 3, 5
AUGMENTED = dict(crop=2, flip="random", rotation=10.0, trivial_augment=True, erase=0.5, mixup=0.4, cutmix=1.0)


@pytest.fixture
def folder(tmp_path):
    for number, values in enumerate(pixels(20)):
        split, name = "test" if number % 5 == 0 else "train", ("cat", "dog")[number % 2]
        save_image(tmp_path / "images" / split / name / f"{number}.png", values)
    return tmp_path / "images"


@contextlib.contextmanager
def waiting_is_an_error():
    """A context in which torch raises RuntimeError where the host is about to wait."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("graphed", [False, True], ids=["eager", "graph"])
@pytest.mark.parametrize("more", [{}, AUGMENTED, {"amp": "off", "accumulate": 2}], ids=["plain", "augmented", "parts"])
def test_no_step_waits(folder, tmp_path, device, more, graphed):
    """With averaged weights and clipping, of a folder that streams from two processes."""
    if device.type != "cuda":
        pytest.skip("the mode is CUDA's")
    given = dict(net="cheapV2", dataset=str(folder), data=str(tmp_path), gpu=True, memory=0.0, workers=2, epochs=1)
    given |= dict(batch_size=8, steps=READINGS * EVERY, log_every=EVERY, ema=0.9, clip=1.0, amp="bf16", width=0.25)
    job, readings = make_job(settings(given | more)), []
    state = TrainState.start(job.network, len(job.training), job.settings, job.precision)
    take = GraphedStep(device) if graphed else train_step

    def step(state, *details):
        found = take(state, *details)
        if (state.step + 1) % EVERY == 0:
            torch.cuda.set_sync_debug_mode("default")  # a reading follows
        return found

    def on_read(losses, rates):
        readings.append(losses)
        torch.cuda.set_sync_debug_mode("error")

    with waiting_is_an_error():
        train_epoch(state, job.training, job.task, job.precision, job.settings, on_read, step=step)
    assert [len(losses) for losses in readings] == [EVERY] * READINGS


def test_a_wait_would_be_seen(device):
    if device.type != "cuda":
        pytest.skip("the mode is CUDA's")
    number = torch.zeros((), device=device)
    with waiting_is_an_error(), pytest.raises(RuntimeError, match="synchroniz"):
        number.item()
