"""The four blocks that `python models/EffNet.py` compares: what they cost, and that their formulas say so."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import models
from models import separable
from models.summary import mac_count, parameter_count

SHAPES = [(1, 2, 2), (3, 8, 6), (16, 32, 28), (64, 128, 32), (10, 4, 14)]  # C, O, H


def one_by_one(network: torch.nn.Module, in_channels: int, side: int) -> tuple[int, int]:
    """Parameters and MACs from the shapes alone: each value of a convolution's result reads one filter."""
    cost, x = [0, 0], torch.zeros(1, in_channels, side, side)
    for layer in network.modules():
        if isinstance(layer, torch.nn.Conv2d | torch.nn.MaxPool2d | torch.nn.ZeroPad2d):
            x = layer(x)
        if isinstance(layer, torch.nn.Conv2d):
            cost[0] += layer.weight.numel()
            cost[1] += x.numel() * layer.weight[0].numel()
    return tuple(cost)


@pytest.mark.parametrize(("in_channels", "out_channels", "side"), SHAPES)
@pytest.mark.parametrize("name", separable.BLOCKS)
def test_formula(name, in_channels, out_channels, side):
    block = separable.BLOCKS[name]
    network = block.build(in_channels, out_channels)
    assert network(torch.zeros(2, in_channels, side, side)).shape == (2, out_channels, side // 2, side // 2)
    found = block.formula(in_channels, out_channels, side)
    assert found == one_by_one(network, in_channels, side)
    assert found == (parameter_count(network), mac_count(network, in_channels, side))


def test_by_hand():
    """64 x 32 x 32 to 128 x 16 x 16, worked out on paper."""
    found = {name: block.formula(64, 128, 32) for name, block in separable.BLOCKS.items()}
    assert found == {
        "plain": (73_728, 75_497_472),
        "spatially separable": (36_864, 37_748_736),
        "depthwise separable": (576 + 8_192, 8_978_432),
        "EffNet": (64 * 64 + 2 * 192 + 16_384, 4_194_304 + 196_608 + 98_304 + 4_194_304),
    }


def test_as_a_script(tmp_path):
    """The figures stand below the networks, for the channels and size that were given."""
    script = Path(models.__file__).parent / "EffNet.py"
    words = "EffNet_digits -channels 16 -out 24 -size 20".split()
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(script), *words], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0 and done.stderr == "", done.stderr
    text = done.stdout[done.stdout.index("A block from 16 x 20 x 20 to 24 x 10 x 10") :]
    rows = re.findall(r"^(\w[\w ]*?) +([\d,]+) +([\d,]+) +[\d.]+%$", text, flags=re.MULTILINE)
    printed = {name: tuple(int(each.replace(",", "")) for each in figures) for name, *figures in rows}
    assert printed == {name: block.formula(16, 24, 20) for name, block in separable.BLOCKS.items()}


@pytest.mark.parametrize(
    ("words", "message"),
    [("-channels 0", "at least 1"), ("-out 7", "even"), ("-out 0", "even"), ("-size 33", "even"), ("-out x", "x")],
)
def test_mistakes(capsys, words, message):
    assert separable.main("EffNet", words.split()) == 2
    printed = capsys.readouterr()
    assert printed.out == "" and len(printed.err.splitlines()) == 1 and message in printed.err
