"""What changes while a network trains: precisions that follow one another, and what is compiled."""

import copy
import warnings
from functools import partial

import pytest
import torch
import torch.distributed as dist
from torch._dynamo.utils import counters

import models
from conf.resolve import settings
from engine.device import Precision
from engine.loop import train_step
from engine.processes.distributed import SINGLE_PROCESS, Processes
from engine.state import TrainState
from engine.tasks import Classification

CPU = torch.device("cpu")


def begun(dtype: torch.dtype, processes: Processes = SINGLE_PROCESS, **more: object) -> TrainState:
    torch.manual_seed(0)
    network = models.create("EffNet", num_classes=10, in_channels=1, image_size=8)
    chosen = settings({"net": "EffNet", "dataset": "digits", **more})
    return TrainState.start(network, 10, chosen, Precision(CPU, dtype), processes)


def step(state: TrainState, dtype: torch.dtype, images: torch.Tensor) -> None:
    train_step(state, images, torch.arange(len(images)) % 10, Classification(10), Precision(CPU, dtype))


@pytest.mark.parametrize("before", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("after", [torch.float32, torch.float16])
def test_a_run_goes_on_in_another_precision(before, after):
    state, next_state, images = begun(before), begun(after), torch.randn(8, 1, 8, 8)
    step(state, before, torch.full((8, 1, 8, 8), torch.inf))  # in fp16 the scale is halved
    scale = state.scaler.get_scale()
    next_state.restore(state.to_checkpoint())
    if after is torch.float16:
        assert next_state.scaler.get_scale() == (scale if before is after else 65536.0)
    step(next_state, after, images)
    assert next_state.schedule.last_epoch == 2


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("before, after", [(True, False), (False, True)])
def test_a_run_goes_on_in_another_layout(before, after, optimizer):
    """What the optimizer keeps of a 3x3 convolution is laid out as its weights are, whatever the file has."""

    def laid_out(channels_last: bool) -> TrainState:
        torch.manual_seed(0)
        network = models.create("cheapV2", num_classes=10)
        if channels_last:
            network.to(memory_format=torch.channels_last)
        chosen = settings({"net": "cheapV2", "optimizer": optimizer, "nesterov": False, "lr": 0.01, "warm": 0})
        return TrainState.start(network, 10, chosen, Precision(CPU, torch.float32), SINGLE_PROCESS)

    state, images = laid_out(before), torch.randn(8, 3, 32, 32)
    step(state, torch.float32, images)
    content = state.to_checkpoint()
    same, other = laid_out(before), laid_out(after)
    for each in (same, other):
        each.restore(copy.deepcopy(content))
    for kept, (parameter, found) in zip(
        content["optimizer"]["state"].values(), other.optimizer.state.items(), strict=True
    ):
        for name, moment in found.items():
            assert torch.equal(moment, kept[name])
            if moment.shape == parameter.shape and 1 not in moment.shape:  # strides of one element say nothing
                assert moment.stride() == parameter.stride()
    for each in (same, other):
        step(each, torch.float32, images)
    # with the stem's moments in another order, 0.012 and more; by rounding, 0.0006 at most
    for own, expected in zip(other.network.parameters(), same.network.parameters(), strict=True):
        torch.testing.assert_close(own, expected, rtol=1e-3, atol=2e-3)


def test_a_first_step_left_out_by_the_loss_scaling_is_no_mistake():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        state = begun(torch.float16, fused=False)
        step(state, torch.float16, torch.full((8, 1, 8, 8), torch.inf))
    assert state.schedule.last_epoch == 1


def test_what_is_compiled_is_one_graph_in_several_processes_too(tmp_path, monkeypatch):
    """The wrapper for several processes, here in a group of one, stands around what is compiled."""
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="eager"))
    torch._dynamo.reset()
    counters.clear()
    dist.init_process_group("gloo", store=dist.FileStore(str(tmp_path / "store"), 1), rank=0, world_size=1)
    try:
        state = begun(torch.float32, Processes(0, 2), compile=True, ema=0.9)
        for _ in range(2):
            step(state, torch.float32, torch.randn(8, 1, 8, 8))
    finally:
        dist.destroy_process_group()
    assert counters["frames"]["total"] == 1 and not counters["graph_break"]
