"""The device and the precision of a run, as far as they can be tried without the device."""

import pytest
import torch

from engine.device import Precision, algorithms


@pytest.mark.parametrize(("has_bf16", "expected"), [(True, torch.bfloat16), (False, torch.float16)])
def test_auto_takes_no_precision_that_is_emulated(monkeypatch, has_bf16, expected):
    """torch emulates bf16 on every CUDA device, and says so unless it is asked otherwise."""
    supported = lambda including_emulation=True: has_bf16 or including_emulation  # noqa: E731
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert Precision.choose("auto", torch.device("cuda")).dtype is expected
    assert Precision.choose("auto", torch.device("cpu")).dtype is torch.float32


@pytest.mark.parametrize(("deterministic", "tries"), [(False, False), (False, True), (True, False)])
def test_cudnn_searches_its_fastest_algorithms_where_asked_and_in_training_only(deterministic, tries):
    before = torch.backends.cudnn.benchmark
    with algorithms(deterministic, tries):
        assert torch.backends.cudnn.benchmark is tries
    assert torch.backends.cudnn.benchmark is before is False
