"""Parts of a network chosen alone: the named networks are choices of them, and each part changes what it says."""

import pytest
import torch
from torch import nn

import conf
import main
import models
from engine.saved import checkpoint
from models import parts
from models.gate_start import GATE_STARTS
from models.literal import from_literal
from models.mixed_depthwise import LARGEST_KERNEL
from models.reuse import LinearOnCopies, ReuseSqueezeExcite
from models.reuse_block import ReuseInvertedResidual
from models.summary import mac_count, parameter_count

PRESETS = {
    "cheapV2": ("MobileNetV2", dict(expansion="reuse", shortcut="resize", head="reuse")),
    "MobileNetV2": ("cheapV2", dict(expansion="conv", shortcut="conv", head="conv")),
    "cheapV3": ("MobileNetV3", dict(expansion="reuse", se="reuse", gate="none", head="reuse")),
    "cheapV3_small": ("MobileNetV3_small", dict(expansion="reuse", se="reuse", gate="none", head="reuse")),
    "MobileNetV3": ("cheapV3", dict(expansion="conv", se="conv", gate="hardsigmoid", head="conv")),
}


def made(net: str, **options) -> nn.Module:
    torch.manual_seed(5)
    return models.create(net, num_classes=10, width=0.5, **options)


def test_the_knobs_are_the_parts():
    assert parts.NAMES == conf.PARTS
    for name, choices in parts.CHOICES.items():
        assert conf.FIELDS[name].metadata["choices"] == choices
    assert conf.FIELDS["gate_start"].metadata["choices"] == GATE_STARTS
    assert conf.FIELDS["reuse_kernels"].metadata["high"] == LARGEST_KERNEL


@pytest.mark.usefixtures("without_pictures")
@pytest.mark.parametrize("named", ["cheapV2", "cheapV3"])
def test_a_named_network_trains_to_the_weights_of_its_relative_with_other_parts(named, tmp_path):
    relative, chosen = PRESETS[named]
    trained = []
    for words in (named, f"{relative} {' '.join(f'-{part} {form}' for part, form in chosen.items())}"):
        training = "-dataset digits -size 8 -width 0.5 -epochs 1 -steps 3 -b 8 -warm 0 -seed 4 -name same -gpu false"
        assert main.main([*f"-net {words} {training}".split(), "-out", str(tmp_path)]) == 0
        trained.append(checkpoint.load(tmp_path / "checkpoints" / words.split()[0] / "digits-same" / "last.pth"))
    for kind in ("network", "averaged"):
        own, same = (content[kind] for content in trained)
        assert list(own) == list(same)
        assert all(torch.equal(value, same[key]) for key, value in own.items())
    weights, means = (trained[0][kind]["head.classifier.weight"] for kind in ("network", "averaged"))
    assert trained[0]["step"] == 3 and not torch.equal(weights, means), "three steps have changed them"


@pytest.mark.parametrize("named", PRESETS)
def test_a_named_network_is_its_relative_with_other_parts(named):
    relative, chosen = PRESETS[named]
    own, same = made(named).train(), made(relative, **chosen).train()
    assert list(own.state_dict()) == list(same.state_dict())
    assert all(map(torch.equal, own.state_dict().values(), same.state_dict().values()))
    images = torch.randn(4, 3, 32, 32)
    torch.manual_seed(6)
    expected = own(images)
    torch.manual_seed(6)
    assert torch.equal(same(images), expected)


# By what is chosen: the network, and the parameters and M MACs that it changes by, from the layers' own formulas.
def test_each_part_changes_its_own_layers_only():
    plain = models.create("MobileNetV2")
    by_part = {
        "expansion": dict(expansion="reuse"),
        "shortcut": dict(shortcut="resize"),
        "head": dict(head="reuse"),
        "stem": dict(stem="reuse"),
    }
    counts = {name: parameter_count(models.create("MobileNetV2", **chosen)) for name, chosen in by_part.items()}
    expands = sum(parameter_count(block.expand) for block in plain.blocks)
    shortcuts = sum(parameter_count(block.shortcut) for block in plain.blocks if block.shortcut is not None)
    # cheapV2's first block, of expansion 1, has no expansion at all
    assert counts["expansion"] == parameter_count(plain) - expands
    assert counts["shortcut"] == parameter_count(plain) - shortcuts
    # 320 -> 1280 and its norm, 1280 x 100 + 100, against 4 x 320 x 100 + 100
    assert counts["head"] == parameter_count(plain) - (320 * 1280 + 2 * 1280)
    # 3 x 32 x 9 + 2 x 32, against 3 x 3 x 9 + 2 x 3, then 48 x 32 + 2 x 32
    assert counts["stem"] == parameter_count(plain) - (3 * 32 * 9 + 64) + (3 * 3 * 9 + 6) + (48 * 32 + 64)


def test_copies_and_activations_of_a_block():
    network = models.create("MobileNetV2", expansion="reuse", reuse_times=3, activation_before=True)
    blocks = [block for block in network.blocks if block.depthwise.conv.times > 1]
    assert len(blocks) == 16 and {block.depthwise.conv.times for block in blocks} == {3}
    assert all(isinstance(block.pre_act, nn.ReLU) for block in blocks)
    plain = models.create("MobileNetV2", activation_before=False)
    assert not any(isinstance(layer, nn.ReLU) for block in plain.blocks for layer in block.expand)
    assert mac_count(plain, 3, 32) == mac_count(models.create("MobileNetV2"), 3, 32)


@pytest.mark.parametrize(
    "chosen",
    [
        dict(expansion="reuse"),
        dict(se="reuse"),
        dict(head="reuse"),
        dict(stem="reuse"),
        dict(gate="none"),
        dict(expansion="reuse", gate="none", reuse_times=2, activation_before=False),
        dict(se="reuse", gate="none", head="reuse", stem="reuse"),
    ],
    ids=str,
)
def test_parts_of_version_3_compute_what_their_literal_form_does(chosen):
    network = made("MobileNetV3", **chosen).double().eval()
    kinds = {"expansion": ReuseInvertedResidual, "se": ReuseSqueezeExcite, "head": LinearOnCopies}
    for part, kind in kinds.items():
        assert any(isinstance(m, kind) for m in network.modules()) == (chosen.get(part) == "reuse"), part
    gates = {type(m.gate) for m in network.modules() if hasattr(m, "reduce")}
    assert gates == {nn.Identity if chosen.get("gate") == "none" else nn.Hardsigmoid}
    if "reuse" not in chosen.values():
        with pytest.raises(ValueError, match="no Reuse and so only one form"):
            made("MobileNetV3", **chosen, literal=True)
        return
    literal = made("MobileNetV3", **chosen, literal=True).double().eval()
    network.load_state_dict(from_literal(literal.state_dict(), network))
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(network(images), literal(images), rtol=1e-9, atol=1e-12)


def test_a_shuffled_network_with_a_linear_second_layer_keeps_its_channels_in_order():
    literal, network = (made("cheapV3_shuffle6", se="conv", literal=form).double().eval() for form in (True, False))
    network.load_state_dict(from_literal(literal.state_dict(), network))
    images = torch.randn(2, 3, 32, 32, dtype=torch.float64)
    torch.testing.assert_close(network(images), literal(images), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("net", "chosen", "said"),
    [
        ("MobileNetV2", dict(se="reuse"), "se reuse: MobileNetV2 has no such part"),
        ("MobileNetV3", dict(shortcut="resize"), "shortcut resize: MobileNetV3 has no such part"),
        ("MobileNetV2", dict(reuse_times=3), "goes with expansion reuse only"),
        ("cheapV2", dict(reuse_times=0), "must be at least 1"),
        ("EffNet", dict(head="conv"), "EffNet has no parts to choose"),
        (
            "cheapV3",
            dict(expansion="squeeze"),
            "expansion squeeze: must be one of conv, grouped, zero-pad, ghost, none",
        ),
        (
            "MobileNetV2",
            dict(expansion="ghost", reuse_times=3),
            "goes with expansion reuse only; .* has expansion ghost",
        ),
        ("MobileNetV2", dict(reuse_kernels=[3] * 6), "reuse_kernels 3 3 3 3 3 3: goes with expansion reuse only"),
        ("cheapV2", dict(expansion="none", reuse_kernels=[3] * 6), "goes with expansion reuse only; .* expansion none"),
        ("cheapV2", dict(reuse_kernels=[3, 5]), "one for each copy, of which there are 6; .* reuse_times 2"),
        ("cheapV2", dict(reuse_kernels=[3], reuse_times=1), "one for each copy"),
        ("cheapV2", dict(reuse_kernels=[3, 3, 4, 4, 5, 5]), "must be odd numbers from 1 to 11"),
        ("cheapV2", dict(reuse_kernels=[3, 3, 3, 3, 3, 13]), "must be odd numbers from 1 to 11"),
        ("cheapV2", dict(reuse_kernels=3), "must be a list of numbers"),
        ("MobileNetV3", dict(expansion="none", activation_before=True), "activation_before true: with expansion none"),
        ("cheapV3_shuffle6", dict(expansion="none"), "180 channels cannot be 8 copies of fewer; give se conv"),
        ("cheapV3", dict(tail="conv"), "no part of a network"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(net, chosen, said):
    with pytest.raises(ValueError, match=said):
        models.create(net, **chosen)
