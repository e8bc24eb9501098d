"""Where the gates of a squeeze-excite by Reuse, or without a bound, start: near zero, as drawn, or near one."""

import pytest
import torch
import torch.nn.functional as F

import models
from models.literal import from_literal

GATED = ("cheapV3", "cheapV3_small", "cheapV3_shuffle", "cheapV3_shuffle6")


# Of MobileNetV3 with these parts: where its gates start if they are asked to start at one, and where if not. A
# hard-sigmoid is 2/3 at 1 and 1/2 at 0.
PARTS = (
    ({}, 1 / 2, 1 / 2),
    ({"gate": "none"}, 1, 0),
    ({"se": "reuse"}, 2 / 3, 1 / 2),
    ({"se": "reuse", "gate": "none"}, 1, 0),
    ({"se": "conv", "gate": "none", "expansion": "reuse"}, 1, 0),
    ({"gate": "none", "expansion": "ghost"}, 1, 0),
)


def made(net: str, gate_start: str, literal: bool = False, **parts: str) -> torch.nn.Module:
    torch.manual_seed(1)
    return models.create(net, num_classes=10, literal=literal, gate_start=gate_start, **parts)


def gates_at_start(network: torch.nn.Module) -> torch.Tensor:
    """All gates of a first training step, read off as a squeeze-excite's output over its input."""
    network, found = network.train(), []
    for block in network.blocks:
        if len(list(block.se.parameters())):
            block.se.register_forward_hook(lambda _, x, y: found.append((y / x[0]).nanmedian(3)[0].nanmedian(2)[0]))
    with torch.no_grad():
        network(torch.randn(8, 3, 32, 32))
    return torch.cat([gates.flatten() for gates in found])


@pytest.mark.parametrize("net", GATED)
def test_gates_start_near_one_if_asked(net):
    one, zero = (2 / 3, 1 / 2) if "shuffle" in net else (1.0, 0.0)  # those of the shuffle networks are bounded
    assert (gates_at_start(made(net, "one", literal=True)) - one).abs().max() < 0.1
    assert (gates_at_start(made(net, "original", literal=True)) - zero).abs().max() < 0.2


@pytest.mark.parametrize(("parts", "one", "zero"), PARTS, ids=lambda value: str(value))
def test_gates_of_chosen_parts_start_near_one_if_asked(parts, one, zero):
    assert (gates_at_start(made("MobileNetV3", "one", **parts)) - one).abs().max() < 0.1
    assert (gates_at_start(made("MobileNetV3", "original", **parts)) - zero).abs().max() < 0.2


def test_the_weights_as_drawn_are_those_of_the_papers_initialisation():
    """The linear layers of a seed's original start have std 0.001, the norms bias 0; `one` draws the same numbers."""
    for original, one in zip(made("cheapV3", "original").blocks, made("cheapV3", "one").blocks, strict=True):
        assert torch.equal(original.depthwise.conv.weight, one.depthwise.conv.weight)
        assert torch.equal(original.project.conv.weight, one.project.conv.weight)
        assert not original.depthwise.bn.bias.any()
        if not len(list(original.se.parameters())):
            assert not one.depthwise.bn.bias.any()
            continue
        drawn = original.se.reduce.weight
        assert 0.0009 < drawn.std() < 0.0011
        assert torch.allclose(one.se.reduce.weight, drawn / 10 + 1 / drawn.shape[1])
        assert (one.depthwise.bn.bias == 1).all()


@pytest.mark.parametrize("net", GATED)
def test_both_forms_start_as_the_same_function(net):
    literal, default = made(net, "one", literal=True), made(net, "one")
    default.load_state_dict(from_literal(literal.state_dict(), default))
    images = torch.randn(4, 3, 32, 32)
    outputs = [network.double().eval()(images.double()) for network in (literal, default)]
    assert F.mse_loss(*outputs).sqrt() < 1e-9 * outputs[0].abs().max()


def test_another_word_is_refused():
    with pytest.raises(ValueError, match="gate_start two: must be one of original, one"):
        models.create("cheapV3", gate_start="two")
