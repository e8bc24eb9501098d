"""Where a run computes, and in which precision."""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
from collections.abc import Iterator
from dataclasses import dataclass

import torch


def choose_device(gpu: bool | None) -> torch.device:
    """CUDA, then Apple's mps, then the CPU; gpu True demands CUDA, False the CPU.

    Raises ValueError where CUDA is demanded and not there.
    """
    if gpu and not torch.cuda.is_available():
        raise ValueError("-gpu: no CUDA device is visible; leave it out to train on what is there, or mend the driver")
    if gpu is False:
        return torch.device("cpu")
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def check_compiler(device: torch.device) -> None:
    """Raises ValueError where torch.compile cannot make code for this device, for want of a compiler for instance."""
    try:
        torch.compile(torch.neg)(torch.zeros(8, device=device))
    except Exception as error:  # of any kind: each of the compilers behind it has its own
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"-compile: torch.compile does not work here ({lines[0][:120]}); leave it out") from None


def keep_freed_memory() -> None:
    """Has glibc keep the memory of freed tensors for the next, which it otherwise gives back to the system.

    A step frees large maps and asks for the same again; each time the system would clear every page of them. Without
    effect where the C library is another, and on what a GPU holds. The values are those of mallopt(3).
    """
    if platform.libc_ver()[0] != "glibc":
        return
    mmap_max, trim_threshold = -4, -1
    mallopt = ctypes.CDLL(None).mallopt
    mallopt(mmap_max, 0)
    mallopt(trim_threshold, 2**31 - 1)


@dataclass(frozen=True)
class Precision:
    """The device and the type of the forward pass; float32 is the case in which autocast does nothing."""

    device: torch.device
    dtype: torch.dtype

    @classmethod
    def choose(cls, amp: str, device: torch.device) -> Precision:
        """amp auto: bf16 on a CUDA device that has it, else fp16; float32 on other devices."""
        if amp == "auto":
            amp = ("bf16" if torch.cuda.is_bf16_supported() else "fp16") if device.type == "cuda" else "off"
        return cls(device, {"bf16": torch.bfloat16, "fp16": torch.float16, "off": torch.float32}[amp])

    def autocast(self) -> contextlib.AbstractContextManager:
        return torch.autocast(self.device.type, self.dtype, enabled=self.dtype is not torch.float32)

    def scaler(self) -> torch.amp.GradScaler:
        """fp16's small gradients would vanish without loss scaling; for the other types it does nothing."""
        return torch.amp.GradScaler(self.device.type, enabled=self.dtype is torch.float16)


@contextlib.contextmanager
def determinism(wanted: bool) -> Iterator[None]:
    """While it lasts, torch's deterministic algorithms only. Raises ValueError naming an operation that has none."""
    if not wanted:
        yield
        return
    before = torch.are_deterministic_algorithms_enabled()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic with fixed workspaces only
    torch.use_deterministic_algorithms(True)
    try:
        yield
    except RuntimeError as error:
        operation, found, _ = str(error).partition(" does not have a deterministic implementation")
        if not found:
            raise
        raise ValueError(
            f"-deterministic: {operation} has no deterministic form here; leave -deterministic out"
        ) from None
    finally:
        torch.use_deterministic_algorithms(before)
