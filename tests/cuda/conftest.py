"""The device of the tests in this folder; they are skipped where it is not there."""

import os

import pytest
import torch


@pytest.fixture(scope="session")
def device() -> torch.device:
    """The first CUDA device. CUDA_TESTS_ON=cpu runs what does not need one on a CPU, to try the tests themselves."""
    if os.environ.get("CUDA_TESTS_ON") == "cpu":
        return torch.device("cpu")
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    return torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def float32_is_float32():
    """Without TF32, as engine/device.py has it for a run, and put back afterwards."""
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    yield
    torch.backends.cudnn.allow_tf32 = before
