"""The device and the precision of a run."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import nn


def choose_device(gpu: bool | None) -> torch.device:
    """The first that is there of CUDA, Apple's mps and the CPU. gpu: True demands CUDA, False the CPU.

    On CUDA, float32 is computed as float32 from then on: torch's own default lets convolutions round to TF32.
    Raises ValueError where CUDA is demanded and is not there.
    """
    if gpu and not torch.cuda.is_available():
        raise ValueError("-gpu true: no CUDA device is visible; give -gpu false for the CPU, or mend the driver")
    if gpu is False:
        return torch.device("cpu")
    if torch.cuda.is_available():
        torch.backends.cudnn.allow_tf32 = False
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def visible_cuda_devices() -> list[str]:
    """The CUDA devices that this process sees, as CUDA_VISIBLE_DEVICES names them."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",")[:count] if named else [str(number) for number in range(count)]


def check_compiler(device: torch.device) -> None:
    """Raises ValueError where torch.compile does not work on this device, for example because a compiler is missing."""
    try:
        torch.compile(torch.neg)(torch.zeros(8, device=device))
    except Exception as error:  # each of the compilers behind torch.compile raises errors of its own types
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"-compile: torch.compile does not work here ({lines[0][:99]}); give -compile off") from None


def keep_freed_memory() -> None:
    """Makes glibc keep the memory of freed tensors for later ones instead of giving it back to the system.

    Every step frees large maps and allocates maps of the same sizes; the system would clear their pages each time. It
    has no effect on other C libraries and on a GPU's memory. The constants are those of mallopt(3).
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mmap_max, trim_threshold = -4, -1
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)


@dataclass(frozen=True)
class Precision:
    """The device and the number type of the forward pass. For float32, autocast and loss scaling do nothing."""

    device: torch.device
    dtype: torch.dtype

    @classmethod
    def choose(cls, amp: str, device: torch.device) -> Precision:
        """amp: "bf16", "fp16", "off" for float32, or "auto".

        "auto" is bf16 on CUDA devices that have it, fp16 on those for which torch would emulate it, many times slower,
        and float32 elsewhere.
        """
        if amp == "auto" and device.type == "cuda":
            amp = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
        elif amp == "auto":
            amp = "off"
        return cls(device, {"bf16": torch.bfloat16, "fp16": torch.float16, "off": torch.float32}[amp])

    def autocast(self) -> contextlib.AbstractContextManager:
        """The context in which the forward pass computes in this type."""
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not torch.float32)

    def scaler(self) -> torch.amp.GradScaler:
        """The loss scaling for fp16, whose small gradients would vanish without it; it does nothing for other types."""
        return torch.amp.GradScaler(self.device.type, enabled=self.dtype is torch.float16)


@contextlib.contextmanager
def algorithms(deterministic: bool, cudnn_benchmark: bool) -> Iterator[None]:
    """A context for training. deterministic: torch uses deterministic algorithms only. cudnn_benchmark: cuDNN takes its
    fastest ones, which it finds by trying them out once for each shape of a batch; it does not go with the former.

    Raises ValueError where a deterministic run meets an operation without such an algorithm, and names it.
    """
    if not deterministic:
        tries = torch.backends.cudnn.benchmark
        torch.backends.cudnn.benchmark = cudnn_benchmark
        try:
            yield
        finally:
            torch.backends.cudnn.benchmark = tries
        return
    before = torch.are_deterministic_algorithms_enabled()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS needs workspaces of fixed size
    torch.use_deterministic_algorithms(True)
    try:
        yield
    except RuntimeError as error:
        operation, found, _ = str(error).partition(" does not have a deterministic implementation")
        if not found:
            raise
        raise ValueError(
            f"-deterministic: {operation} has no deterministic form here; give -deterministic false"
        ) from None
    finally:
        torch.use_deterministic_algorithms(before)


def to_device(network: nn.Module, device: torch.device, channels_last: bool) -> nn.Module:
    """The network on the device, its weights in the channels_last memory format if wanted."""
    return network.to(device, memory_format=torch.channels_last if channels_last else torch.preserve_format)
