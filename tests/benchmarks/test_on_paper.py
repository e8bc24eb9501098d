"""benchmarks/on_paper.py: what a step moves, against a count by hand."""

import pytest
from torch import nn

from benchmarks import on_paper


def test_a_step_s_traffic_by_hand():
    """A 1x1 convolution from 3 to 5 channels on 1,024 pixels, batch norm, mean, and a linear layer's ten classes."""
    convolution = 1024 * ((3 + 5) + (2 * (3 + 5)))  # forward; backward, whose weight gradient is no map
    norm = 1024 * ((2 * 5 + 5) + (2 * (5 + 5) + 5))
    network = nn.Sequential(
        nn.Conv2d(3, 5, 1, bias=False), nn.BatchNorm2d(5), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 10)
    )
    step = on_paper.count(network, launches=20)
    pooled = 1024 * 3 * 5  # read by the mean; written, read and divided by its backward pass, at most
    assert convolution + norm + 1024 * 5 < step.maps < convolution + norm + pooled + 500
    assert step.dense == 1024 * (8 + 8)
    assert (step.parameters, step.launches) == (15 + 10 + 60, 20)


def test_what_takes_longest_binds_and_a_lever_relieves_it():
    step = on_paper.Step(maps=3.35e6, dense=0, rest=0, parameters=0, macs=1, launches=200)
    assert step.seconds(128) == pytest.approx({"host": 1e-3, "memory": 2 * 128e-6, "arithmetic": 768 / 989e12})
    assert step.seconds(128, width=4)["memory"] == pytest.approx(4 * 128e-6)
    found = on_paper.levers(step, step, 1000)
    assert found["bf16 (without: float32, no TF32)"] == pytest.approx(2)
    assert on_paper.levers(step, step, 128)["CUDA graphs (without: every kernel started by the host)"] > 3.8


def test_what_was_measured_stands_beside_its_lever():
    lines = {
        "cheapV3, batch 128": {"images/s": "20,000 (19,000 to 21,000)"},
        "cheapV3, batch 128, eager": {"images/s": "4,000 (3,000 to 5,000)"},
        "cheapV3, batch 128, float32 (-amp off)": {"left out": "it cannot run here"},
    }
    assert on_paper.gain(lines, "CUDA graphs (without: every kernel started by the host)") == "5.00"
    assert on_paper.gain(lines, "bf16 (without: float32, no TF32)") == ""
    assert on_paper.gain(lines, "fused optimizer (without: by operation)") == ""
