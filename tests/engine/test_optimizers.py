"""Muon beside AdamW against torch's own on cloned matrices, weight decay by group, and the dropout that is asked."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import models
from conf.resolve import settings
from engine.checks import prepare_network
from engine.device import Precision
from engine.loop import train_step
from engine.schedule import make_optimizer
from engine.state import TrainState
from engine.tasks import Classification

CPU = torch.device("cpu")


def chosen(**more: object):
    return settings({"net": "MobileNetV2", "dataset": "digits", "lr": 0.02, "weight_decay": 0.1, "warm": 0, **more})


def small_network() -> nn.Module:
    torch.manual_seed(0)
    return models.create("MobileNetV2", num_classes=10, in_channels=1, image_size=8, width=0.25)


def batches(count: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(8, 1, 8, 8, generator=generator), torch.randint(10, (8,), generator=generator))
        for _ in range(count)
    ]


def literal_muon(network: nn.Module, rates: list[float], adamw_share: float, clip: float, fused: bool) -> nn.Module:
    """Steps of torch's Muon on clones of the 1x1 convolutions' weights that are matrices, and of its AdamW on clones of
    the rest, in a plain loop; the network with these weights."""
    own = dict(network.named_parameters())
    shapes = {name: each.shape for name, each in own.items()}
    is_matrix = {name: each.ndim == 4 and each.shape[2:] == (1, 1) and each.shape[1] > 1 for name, each in own.items()}
    clones = {
        name: nn.Parameter(each.detach().clone().reshape(each.shape[:2] if is_matrix[name] else each.shape))
        for name, each in own.items()
    }
    matrices = [each for name, each in clones.items() if is_matrix[name]]
    others = [each for name, each in clones.items() if not is_matrix[name]]
    assert len(matrices) == sum(isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1) for m in network.modules()) > 30
    muon = torch.optim.Muon(matrices, lr=1.0, weight_decay=0.1)
    adamw = torch.optim.AdamW(others, lr=1.0, weight_decay=0.1, fused=fused or None)
    for rate, (images, targets) in zip(rates, batches(len(rates)), strict=True):
        muon.param_groups[0]["lr"], adamw.param_groups[0]["lr"] = rate, adamw_share * rate
        weights = {name: each.reshape(shapes[name]) for name, each in clones.items()}
        for each in clones.values():
            each.grad = None
        F.cross_entropy(torch.func.functional_call(network, weights, images), targets).backward()
        nn.utils.clip_grad_norm_(clones.values(), clip)
        muon.step()
        adamw.step()
    network.load_state_dict({name: each.reshape(shapes[name]) for name, each in clones.items()}, strict=False)
    return network


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize(("adamw_lr", "share"), [(None, 0.1), (0.005, 0.25)])
def test_muon_is_torch_s_own_on_matrices(fused, adamw_lr, share):
    """A schedule of 1 - step / steps, clipping; 4 steps, and a state that is saved and loaded after the second."""
    plan = chosen(optimizer="muon", adamw_lr=adamw_lr, fused=fused, schedule="linear", epochs=1, label_smoothing=0)
    precision = Precision(CPU, torch.float32)
    state = TrainState.start(small_network(), 4, plan, precision)
    expected = literal_muon(copy.deepcopy(state.network), [0.02 * (1 - n / 4) for n in range(4)], share, 0.5, fused)
    for number, (images, targets) in enumerate(batches(4)):
        if number == 2:
            saved = copy.deepcopy(state.to_checkpoint())
            state = TrainState.start(small_network(), 4, plan, precision)
            state.restore(saved)
        train_step(state, images, targets, Classification(10), precision, clip=0.5)
    for (name, found), wanted in zip(state.network.named_parameters(), expected.parameters(), strict=True):
        assert torch.equal(found, wanted), name
    assert state.optimizer.param_groups[0]["lr"] == 0


def test_muon_on_weights_in_channels_last():
    """Given gradients, since rounding that another layout changes is large where bfloat16 makes a small one whole."""
    network = small_network().to(memory_format=torch.channels_last)
    weights = [m.weight for m in network.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (1, 1)]
    clones = [nn.Parameter(each.detach().clone().reshape(each.shape[:2])) for each in weights]
    for each in network.parameters():
        each.grad = torch.randn_like(each)
    for clone, each in zip(clones, weights, strict=True):
        clone.grad = each.grad.reshape(clone.shape).contiguous()
    torch.optim.Muon(clones, lr=0.02, weight_decay=0.1).step()
    make_optimizer(network, chosen(optimizer="muon")).step()
    for each, clone in zip(weights, clones, strict=True):
        torch.testing.assert_close(each.detach().reshape(clone.shape), clone.detach(), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "muon"])
@pytest.mark.parametrize("decay_norms", [True, False])
def test_what_decays(optimizer, decay_norms):
    """Without a gradient a step multiplies what decays by 1 - rate x decay and leaves the rest."""
    network = small_network()
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    kept = {id(each) for module in norms for each in module.parameters()}
    kept |= {id(each) for name, each in network.named_parameters() if name.endswith("bias")}
    with torch.no_grad():
        for each in network.parameters():
            each.grad = torch.zeros_like(each)
            each.add_(0.5)
    before = [each.detach().clone() for each in network.parameters()]
    plan = chosen(optimizer=optimizer, decay_norms=decay_norms, adamw_lr=0.02 if optimizer == "muon" else None)
    make_optimizer(network, plan).step()
    for each, start in zip(network.parameters(), before, strict=True):
        factor = 1 - 0.02 * 0.1 if decay_norms or id(each) not in kept else 1.0
        torch.testing.assert_close(each.detach(), start * factor, rtol=1e-6, atol=0)


@pytest.mark.parametrize("dropout", [None, 0.0, 0.6])
def test_dropout_is_as_asked(dropout):
    """Of ones, the share that is asked becomes 0 and the others 1 / (1 - share)."""
    plan = settings({"net": "EffNet_digits", "dataset": "digits", "dropout": dropout})
    network = models.create("EffNet_digits", num_classes=10, in_channels=1, image_size=16)
    own = [module.p for module in network.modules() if isinstance(module, nn.Dropout)]
    prepare_network(network, plan)
    torch.manual_seed(0)
    layers = [module for module in network.train().modules() if isinstance(module, nn.Dropout)]
    for module, probability in zip(layers, own, strict=True):
        probability = probability if dropout is None else dropout
        found = module(torch.ones(40_000))
        assert (found == 0).float().mean().item() == pytest.approx(probability, abs=0.01)
        torch.testing.assert_close(found[found != 0].unique(), torch.tensor([1 / (1 - probability)]))


@pytest.mark.parametrize("dropout", [None, 0.0, 0.6])
def test_dropout_on_copies_is_as_asked(dropout):
    """In both forms of cheapV3's classifier: by an identity its outputs are its inputs, or 0 where these fell out."""
    plan = settings({"net": "cheapV3", "dropout": dropout})
    for literal in (False, True):
        network = models.create("cheapV3", num_classes=100, literal=literal)
        prepare_network(network, plan)
        head = network.head.train()
        classifier = head.classifier if not literal else nn.Sequential(*[*head.children()][-2:])
        linear = next(module for module in classifier.modules() if isinstance(module, nn.Linear))
        nn.init.eye_(linear.weight)
        channels = linear.in_features if literal else linear.in_features // head.classifier.times
        found = classifier(torch.ones(400, channels)) - linear.bias
        probability = 0.2 if dropout is None else dropout
        assert (found == 0).float().mean().item() == pytest.approx(probability, abs=0.01)


@pytest.mark.parametrize("resumed", [False, True], ids=["at once", "after a resume"])
def test_a_first_step_that_fp16_skips_leaves_no_momentum(resumed):
    """Loss scaling skips steps whose gradients overflow, often the first ones; what comes after starts from nothing."""
    network = small_network()
    state = TrainState.start(network, 10, chosen(optimizer="sgd", momentum=0.9), Precision(CPU, torch.float16))
    plain = torch.optim.SGD(copy.deepcopy(network).parameters(), lr=0.02, momentum=0.9, weight_decay=0.1)
    expected = plain.param_groups[0]["params"]

    def step(value: float) -> None:
        for own, other in zip(network.parameters(), expected, strict=True):
            own.grad = torch.full_like(own, value) * state.scaler.scale(torch.ones(()))
            other.grad = torch.full_like(other, value)
        state.scaler.step(state.optimizer)
        state.scaler.update()
        if math.isfinite(value):
            plain.step()

    garbage = [torch.full_like(each, math.nan) for each in network.parameters()]
    del garbage  # what is allocated next may get this memory
    if resumed:
        before = state.to_checkpoint()
        state.restore(before | {"optimizer": before["optimizer"] | {"state": {}}})
    for value in (math.inf, 0.5, -0.25):
        step(value)
    for own, other in zip(network.parameters(), expected, strict=True):
        torch.testing.assert_close(own, other)
