"""Compiled runs on CUDA, of one small network: what each mode learns is what an eager run learns, and one goes on."""

from pathlib import Path

import pytest
import torch

import main
from engine.saved import checkpoint
from tests.cuda.test_runs import stop_at
from tests.helpers.runs import start

pytestmark = [pytest.mark.cuda, pytest.mark.usefixtures("without_pictures")]
RUN = "-net EffNet_baseline -dataset digits -size 8 -epochs 2 -steps 24 -b 64 -warm 0.5 -lr 0.01 -name try1"
WORDS = f"{RUN} -log-every 8 -deterministic -amp off -ema 0.5 -clip 1 -accumulate 2"  # -steps: each batch has one shape
INNER = Path("checkpoints") / "EffNet_baseline" / "digits-try1"


def words(device: torch.device, more: str) -> str:
    return f"{WORDS} -gpu {'true' if device.type == 'cuda' else 'false'} {more}"


def last_row(out: Path) -> dict:
    return checkpoint.load(out / INNER / "last.pth")["history"][-1]


@pytest.fixture(scope="module")
def eager(device, tmp_path_factory, without_pictures) -> Path:
    """The folder of the same run that is not compiled."""
    out = tmp_path_factory.mktemp("eager")
    start(words(device, "-graphs false"), out)
    return out


@pytest.mark.parametrize("mode", ["default", "reduce-overhead", "max-autotune-no-cudagraphs", "default -graphs false"])
def test_a_compiled_run_learns_the_same(mode, device, eager, tmp_path):
    """In parts, of which each one writes over the gradients that reduce-overhead's graph gave."""
    if device.type != "cuda" and mode != "default":
        pytest.skip("for CUDA")
    start(words(device, f"-compile {mode}"), tmp_path)
    found, expected = last_row(tmp_path), last_row(eager)
    assert found["step"] == 48
    assert found["test loss"] == pytest.approx(expected["test loss"], rel=0.1)
    assert found["test accuracy"] == pytest.approx(expected["test accuracy"], abs=0.03)


@pytest.mark.parametrize("more", ["-compile default -graphs false", "-compile default"])
def test_a_compiled_run_goes_on_bit_for_bit(more, device, tmp_path, monkeypatch):
    if device.type != "cuda" and "graphs" in more:
        pytest.skip("for CUDA")
    start(words(device, more), tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        stop_at(32, patch)
        main.main([*words(device, more).split(), "-out", str(tmp_path / "parts")])
    start("-resume last", tmp_path / "parts")
    whole, parts = (checkpoint.load(tmp_path / each / INNER / "last.pth") for each in ("whole", "parts"))
    assert all(torch.equal(whole["network"][key], tensor) for key, tensor in parts["network"].items())
    assert whole["history"][-1]["test loss"] == parts["history"][-1]["test loss"]
