"""Weights are found wherever another project's file keeps them."""

from pathlib import Path

import pytest
import torch

from engine.saved import checkpoint
from engine.saved.state_dicts import find_weights
from engine.saved.weights import Made, load_pretrained

MADE = Made("EffNet_digits", num_classes=10, in_channels=1, image_size=8)
STATE = MADE.network().state_dict()
OTHER = {key: value + 1 for key, value in STATE.items()}


def prefixed(prefix: str) -> dict[str, torch.Tensor]:
    return {prefix + key: value for key, value in STATE.items()}


FILES = {
    "bare": STATE,
    "state_dict": {"state_dict": STATE, "epoch": 3},
    "beside an optimizer": {"model": STATE, "optimizer": {"state": {0: {"step": torch.zeros(())}}}},
    "another project's settings": {"model_state_dict": STATE, "settings": {"lr": 0.1}},
    "a name that nobody else uses": {"backbone_at_night": STATE},
    "averaged before the last": {"model": OTHER, "ema": STATE},
    "DistributedDataParallel": {"net": prefixed("module.")},
    "compiled": prefixed("_orig_mod."),
    "compiled in parts": {key.replace("blocks.", "blocks._orig_mod.", 1): value for key, value in STATE.items()},
    "both, in dicts in dicts": {"checkpoint": {"weights": prefixed("module._orig_mod.module.")}},
    "AveragedModel": {"model_ema": {"n_averaged": torch.tensor(5), **prefixed("module.")}},
    "an attribute of a larger module": {"state_dict": prefixed("network.")},
    "half precision": {key: value.half() if value.is_floating_point() else value for key, value in STATE.items()},
}


@pytest.mark.parametrize("content", FILES.values(), ids=FILES)
def test_weights_are_found(content, tmp_path):
    torch.save(content, tmp_path / "a.pth")
    network = MADE.network()
    load_pretrained(network, checkpoint.load(tmp_path / "a.pth"), tmp_path / "a.pth", MADE)
    for key, value in network.state_dict().items():
        torch.testing.assert_close(value, STATE[key], rtol=1e-3, atol=1e-6)


def test_two_that_fit_are_not_chosen_between():
    with pytest.raises(ValueError, match="under student and teacher; save one of them alone"):
        find_weights({"student": STATE, "teacher": OTHER}, STATE, Path("a.pth"))
