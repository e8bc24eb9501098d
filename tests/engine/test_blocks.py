"""-log-more: what it says of each block, and that a run with it is the run without it."""

import copy

import pytest
import torch

import models
from conf.resolve import settings
from engine.device import Precision
from engine.loop import train_step
from engine.saved import checkpoint
from engine.shown.blocks import WatchedStep
from engine.state import TrainState
from engine.tasks import Classification
from models.layers import SqueezeExcite
from models.reuse import ReuseSqueezeExcite
from tests.helpers.runs import RUN, checkpoints, curves, start

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "literal"), [("cheapV3_small", False), ("cheapV3_small", True), ("MobileNetV3_small", False)]
)
def test_figures_by_their_definitions(name, literal):
    """With plain SGD a block's parameters change by the rate times its gradient."""
    torch.manual_seed(0)
    network = models.create(name, num_classes=4, in_channels=1, image_size=16, literal=literal).train()
    chosen = settings(
        dict(net=name, dataset="digits", optimizer="sgd", lr=0.01, momentum=0.0, weight_decay=0.0, warm=0.0)
    )
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0  # in eval mode maps are normalised as in the step before, and gates are no giants
    state = TrainState.start(network, 4, chosen, Precision.choose("off", CPU))
    step = WatchedStep(train_step, every=2)
    images, targets = torch.randn(8, 1, 16, 16), torch.arange(8) % 4
    for number in (1, 2):
        before = {key: weight.detach().clone() for key, weight in network.named_parameters()}
        rate = state.optimizer.param_groups[0]["lr"]
        step(state, images, targets, Classification(4), Precision.choose("off", CPU))
        state.step += 1
        found = step.read()
        assert bool(found) == (number == 2) and step.read() == {}
    assert network.training and not any(m._forward_hooks for m in network.modules())
    blocks = {key.removeprefix("gradient norm/") for key in found if key.startswith("gradient norm/")}
    whole = sum(weight.grad.square().sum() for weight in network.parameters()).sqrt().item()
    assert sum(found[f"gradient norm/{name}"] ** 2 for name in blocks) ** 0.5 == pytest.approx(whole, rel=1e-5)
    for block in blocks:
        of_block = torch.cat([each.flatten() for key, each in before.items() if key.startswith(f"{block}.")])
        norm = rate * found[f"gradient norm/{block}"] / of_block.norm().item()
        assert found[f"update to weight/{block}"] == pytest.approx(norm, rel=1e-3)
    twin, largest = copy.deepcopy(network).eval(), {}

    def gates(key):  # as the paper has them: of the means of what squeeze-excite reads
        def note(se, inputs):
            means = inputs[0].mean((2, 3)) @ se.reduce.weight.T
            gates = means.relu() @ se.expand.weight.T if isinstance(se, SqueezeExcite) else means.relu()
            gates = (gates / 6 + 0.5).clamp(0, 1) if isinstance(se.gate, torch.nn.Hardsigmoid) else gates
            largest[f"gate maximum/{key}"] = gates.abs().max().item()

        return note

    for key, module in twin.named_modules():
        if isinstance(module, SqueezeExcite | ReuseSqueezeExcite):
            module.register_forward_pre_hook(gates(".".join(key.split(".")[:2])))
    with torch.no_grad():
        twin(images)
    assert largest and {key: found[key] for key in found if key.startswith("gate")} == {
        key: pytest.approx(value, rel=1e-4, abs=1e-9) for key, value in largest.items()
    }


def test_a_run_is_the_same_with_it(tmp_path, without_pictures):
    """Weights, averaged weights and the optimizer's state bit for bit; points at every reading of -log-every steps."""
    words = f"{RUN} -log-every 8 -b 128 -epochs 2".replace("-epochs 3 ", "").replace("-b 64 ", "")
    start(f"{words} -log-more", tmp_path / "more")
    start(words, tmp_path / "plain")
    more, plain = (checkpoint.load_run(checkpoints(tmp_path / name) / "last.pth") for name in ("more", "plain"))
    for kind in ("network", "averaged"):
        assert all(torch.equal(more[kind][key], plain[kind][key]) for key in plain[kind])
    tags = {name: set(curves(tmp_path / name).Tags()["scalars"]) for name in ("more", "plain")}
    extra = tags["more"] - tags["plain"]
    assert extra and all(tag.startswith("Train by block/") for tag in extra) and not tags["plain"] - tags["more"]
    assert all([event.step for event in curves(tmp_path / "more").Scalars(tag)] == [8, 16] for tag in extra)
