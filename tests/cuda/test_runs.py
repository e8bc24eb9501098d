"""Whole runs on CUDA: one that was stopped and goes on, with and without graphs, tested and exported."""

import re
import signal

import pytest
import torch

import main
from engine.saved import checkpoint
from engine.shown.logs import RunLog
from tests.helpers.runs import checkpoints, result, start

pytestmark = [pytest.mark.cuda, pytest.mark.usefixtures("without_pictures")]
RUN = "-net EffNet -dataset digits -size 8 -epochs 3 -b 64 -warm 0.5 -lr 0.01 -name try1 -log-every 16 -deterministic"
EXTRAS = "-ema 0.5 -clip 1 -accumulate 2"


def words(device: torch.device, more: str) -> str:
    return f"{RUN} -gpu {'true' if device.type == 'cuda' else 'false'} {more}"


def weights(out) -> dict[str, torch.Tensor]:
    return checkpoint.load(checkpoints(out) / "last.pth")["network"]


def stop_at(step: int, monkeypatch) -> None:
    """The next run gets SIGTERM at that step's reading of the losses."""
    steps = RunLog.steps

    def signalling(self, first, losses, rates):
        steps(self, first, losses, rates)
        if first + len(losses) >= step:
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(RunLog, "steps", signalling)


@pytest.mark.parametrize(
    "more",
    ["-amp off -graphs false", f"-amp fp16 {EXTRAS}", f"-amp bf16 {EXTRAS} -graphs false", "-amp bf16 -graphs true"],
)
def test_a_stopped_run_goes_on_bit_for_bit(more, device, tmp_path, monkeypatch):
    if device.type == "cpu" and ("fp16" in more or "graphs" in more):
        pytest.skip("for CUDA")
    start(words(device, more), tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_at(32, patch)
        with pytest.raises(SystemExit):
            main.main([*words(device, more).split(), "-out", str(tmp_path / "parts")])
    start("-resume last", tmp_path / "parts")
    whole, parts = weights(tmp_path / "whole"), weights(tmp_path / "parts")
    assert all(torch.equal(whole[key], parts[key]) for key in whole)
    assert result(tmp_path / "whole")["test loss"] == result(tmp_path / "parts")["test loss"]


def test_a_run_learns_the_same_by_graphs(device, tmp_path):
    if device.type != "cuda":
        pytest.skip("graphs are CUDA's")
    start(words(device, f"-amp off {EXTRAS} -graphs false"), tmp_path / "eager")
    start(words(device, f"-amp off {EXTRAS} -graphs true"), tmp_path / "other")
    eager, other = result(tmp_path / "eager"), result(tmp_path / "other")
    assert other["test loss"] == pytest.approx(eager["test loss"], rel=0.05)
    assert other["test top-1 error"] == pytest.approx(eager["test top-1 error"], abs=0.02)


def test_sgd_in_fp16_learns_what_float32_does(device, tmp_path):
    """The loss scaling begins so high that it skips first steps; momentum must not be what memory held before."""
    if device.type == "cpu":
        pytest.skip("for CUDA")
    more = "-optimizer sgd -lr 0.05 -weight-decay 5e-4 -nesterov true"
    start(words(device, f"-amp off {more}"), tmp_path / "float32")
    start(words(device, f"-amp fp16 {more}"), tmp_path / "fp16")
    found, expected = result(tmp_path / "fp16"), result(tmp_path / "float32")
    assert found["test loss"] == pytest.approx(expected["test loss"], rel=0.1)
    # of 360 images, and of runs that have only begun to learn: chance alone makes 3 points of difference
    assert found["test top-1 error"] == pytest.approx(expected["test top-1 error"], abs=0.1)


def test_what_cuda_trained_is_tested_on_either_device_and_exported(device, tmp_path, capsys):
    start(words(device, f"-amp off {EXTRAS}"), tmp_path)
    found = result(tmp_path)
    for gpu in ("true", "false") if device.type == "cuda" else ("false",):
        capsys.readouterr()
        assert main.main(["-test", "-weights", str(checkpoints(tmp_path) / "last.pth"), "-gpu", gpu]) == 0
        loss = float(re.search(r"loss (\d+\.\d+)", capsys.readouterr().out)[1])
        assert loss == pytest.approx(found["test loss"], rel=1e-3)
    pytest.importorskip("onnxruntime")
    assert main.main(["-export", "onnx", "-weights", str(checkpoints(tmp_path) / "last.pth")]) == 0
    assert list(checkpoints(tmp_path).glob("*.onnx"))


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="there is one CUDA device, or none")
def test_two_devices_are_one(device, tmp_path):
    """The mean gradient of two processes is that of one; batch norm sees other images, so -sync-bn."""
    start(words(device, "-amp off -procs 1"), tmp_path / "one")
    start(words(device, "-amp off -procs 2 -sync-bn true"), tmp_path / "two")
    one, two = result(tmp_path / "one"), result(tmp_path / "two")
    assert two["test loss"] == pytest.approx(one["test loss"], rel=0.02)
