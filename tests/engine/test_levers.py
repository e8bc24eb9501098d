"""A run with everything that a fast recipe can turn on: what it says, and that it goes on bit for bit."""

import pytest
import torch
import yaml

import main
from conf import Settings
from engine.saved import checkpoint
from tests.helpers.runs import start

pytestmark = pytest.mark.usefixtures("without_pictures")

RUN = (
    "-net MobileNetV3_small -width 0.25 -dataset digits -epochs 11 -steps 2 -b 16 -seed 3 -gpu false -name try1 "
    "-optimizer muon -lr 0.02 -adamw-lr 0.004 -weight-decay 0.1 -decay-norms false -dropout 0.5 -sizes 8 12 16 "
    "-flip alternating -ema 0.5 -clip 1"
)


@pytest.mark.slow
def test_a_fast_run_goes_on_bit_for_bit(tmp_path):
    printed = start(RUN, tmp_path)
    assert "muon at 0.02 and adamw at 0.004, seed 3, images of 8 12 16 pixels in turn" in printed
    folder = tmp_path / "checkpoints" / "MobileNetV3_small" / "digits-try1"
    whole = checkpoint.load_run(folder / "last.pth")
    saved = yaml.safe_load((folder / "settings.yaml").read_text())
    assert Settings(**saved) == Settings(**whole["settings"]) and saved["sizes"] == [8, 12, 16]
    assert main.main(["-resume", str(folder / "MobileNetV3_small-10-regular.pth")]) == 0
    again = checkpoint.load_run(folder / "last.pth")
    assert (folder / "later" / "last.pth").exists() and again["step"] == whole["step"] == 22
    for part in ("network", "averaged"):
        assert all(torch.equal(again[part][key], whole[part][key]) for key in whole[part])
    for number, kept in whole["optimizer"]["state"].items():
        assert all(torch.equal(again["optimizer"]["state"][number][key], kept[key]) for key in kept)
    assert again["optimizer"]["param_groups"] == whole["optimizer"]["param_groups"]
