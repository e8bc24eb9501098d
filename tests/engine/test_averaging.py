"""Averaged weights (-ema): what is averaged, and that -test of a run's last weights gives the run's last figures."""

import json

import pytest
import torch

import main
from engine import checkpoint
from engine.state import averaging
from tests.helpers.runs import start


def test_numbers_that_are_no_quantities_are_copied():
    """The gates of cheapV3_shuffle6 are found by an integer buffer of channel numbers, which has no mean."""
    averaged = torch.tensor([1.0, 2.0]), torch.tensor([5, 0, 3])
    current = torch.tensor([3.0, 4.0]), torch.tensor([0, 3, 5])
    for own, other in zip(averaged, current, strict=True):
        averaging(0.75)([own], [other], torch.tensor(1))
    assert averaged[0].tolist() == [1.5, 2.5] and averaged[1].tolist() == [0, 3, 5]


@pytest.mark.parametrize("net", ["cheapV3_shuffle6", "MobileNetV3_small"])
def test_the_last_figures_are_those_of_the_last_weights(net, tmp_path, capsys, without_pictures):
    words = f"-net {net} -width 0.25 -dataset digits -size 8 -epochs 2 -b 128 -warm 0.5 -ema 0.9 -name a -gpu false"
    start(words, tmp_path)
    folder = tmp_path / "checkpoints" / net / "digits-a"
    result = json.loads((folder / "result.json").read_text())
    content = checkpoint.load_run(folder / "last.pth")
    for key, tensor in content["averaged"].items():
        if not tensor.is_floating_point():
            assert torch.equal(tensor, content["network"][key]), key
    capsys.readouterr()
    assert main.main(["-test", "-weights", str(folder / "last.pth"), "-gpu", "false"]) == 0
    said = capsys.readouterr().out
    assert f"top-1 error {100 * result['test top-1 error']:.2f} %" in said
    assert f"loss {result['test loss']:.4f}" in said
