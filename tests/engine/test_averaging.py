"""Averaged weights (-ema): what is averaged, and that -test of a run's last weights gives the run's last figures."""

from pathlib import Path

import pytest
import torch
from torch import nn

import models
from commands.evaluate import evaluate
from engine.saved import checkpoint
from engine.shown.result import split_metrics
from engine.state import AveragedWeights
from models.registry import entry
from tests.helpers.drive import write_drive
from tests.helpers.runs import start


def test_numbers_that_are_no_quantities_are_copied():
    """The gates of cheapV3_shuffle6 are found by an integer buffer of channel numbers, which has no mean."""
    network = nn.BatchNorm2d(2)
    network.register_buffer("order", torch.tensor([5, 0, 3]))
    averaged = AveragedWeights(network, decay=0.75)
    for weight, order in ((1.0, [5, 3, 0]), (3.0, [0, 3, 5])):  # the first is taken as it is
        with torch.no_grad():
            network.weight.fill_(weight)
        network.order, network.num_batches_tracked = torch.tensor(order), torch.tensor(7)
        averaged.update_parameters(network)
    assert averaged.module.weight.tolist() == [1.5, 1.5] and averaged.module.order.tolist() == [0, 3, 5]
    assert averaged.module.num_batches_tracked == 7 and averaged.steps == 2


@pytest.fixture(scope="module")
def drives(tmp_path_factory) -> Path:
    """A data folder with a drive, for the networks that steer."""
    data = tmp_path_factory.mktemp("data")
    write_drive(data / "driving")
    return data


QUICK = ("cheapV3_shuffle6", "EffNet_steering", "digits_baseline")


@pytest.mark.parametrize(
    "net", [pytest.param(net, marks=[] if net in QUICK else pytest.mark.slow) for net in models.names()]
)
def test_the_last_figures_are_those_of_the_last_weights(net, drives, tmp_path, capsys, without_pictures):
    data = f"-dataset driving -data {drives} -size 16" if "steering" in net else "-dataset digits -size 8"
    narrow = "-width 0.25" if entry(net).takes("width") else ""
    words = f"-net {net} {narrow} {data} -epochs 1 -steps 6 -b 64 -warm 0.5 -ema 0.9 -name a -gpu false"
    start(words, tmp_path)
    folder = next((tmp_path / "checkpoints" / net).iterdir())
    content = checkpoint.load_run(folder / "last.pth")
    for key, tensor in content["averaged"].items():
        if not tensor.is_floating_point():
            assert torch.equal(tensor, content["network"][key]), key
    capsys.readouterr()
    found = evaluate(folder / "last.pth", {"gpu": False})
    assert found == split_metrics(content["history"][-1], "Test")
    said = capsys.readouterr().out
    assert f" {found['loss']:.4f}" in said
    if "accuracy" in found:
        assert f"top-1 error {100 - 100 * found['accuracy']:.2f} %" in said


def test_averaged_weights_of_a_short_run_are_said_to_be_the_first_ones(tmp_path):
    words = "-net EffNet_digits -dataset digits -size 8 -recipe digits -epochs 1 -gpu false -b 32 -steps 5 -name"
    assert "still are to 96% those of the first of 5 steps; -ema 0.32 would" in start(f"{words} a -ema 0.99", tmp_path)
    assert "averaged weights" not in start(f"{words} b -ema 0.8", tmp_path)
