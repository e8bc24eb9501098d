"""Out of memory: how every library says it, and what the user can lower."""

from __future__ import annotations

import errno

import torch

from conf import Settings
from conf.datasets import find_row
from engine.processes.count import wanted_processes
from models.registry import SMALLEST_IMAGE, entry

# How torch and its libraries word it in errors that have no type of their own, on a CPU, on CUDA and on mps.
WORDS = (
    "DefaultCPUAllocator: ",
    "can't allocate memory",
    "not enough memory",
    "out of memory",
    "std::bad_alloc",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "Storage size calculation overflowed",
    "Cannot allocate memory",
    "can't start new thread",
)
ONEDNN = ("could not create a primitive", "could not create a memory object")  # all that it says


def is_out_of_memory(error: BaseException | None) -> bool:
    """Whether an error says that memory on the host or on a device has run out; numpy's is a MemoryError too."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    if isinstance(error, ImportError):
        return "failed to map segment" in str(error)
    if not isinstance(error, RuntimeError):
        return False
    return str(error) in ONEDNN or any(words in str(error) for words in WORDS)


def out_of_memory_line(error: BaseException, command: str | None, settings: Settings | None = None) -> str:
    """The line for an error of which is_out_of_memory() is true: what has run out, and what to do.

    command: one of COMMANDS in commands/asked.py; None for a new run, with its settings. It names only options that
    these accept.
    """
    on_device = isinstance(error, torch.OutOfMemoryError) or any(
        word in str(error) for word in ("CUDA", "CUBLAS", "MPS")
    )
    where = "the GPU's memory" if on_device else "memory"
    if settings is not None and (options := _to_lower(settings)):
        advice = f"lower what the run needs: {', '.join(options)}"
        advice += ", under another -name" if settings.name else ""  # the run may have its folders already
    elif command == "resume":
        advice = "what was saved is as it was; make some free and go on, or start a new run with a smaller -b"
    else:
        advice = "make some free and give the same again"
    if on_device:
        advice += "; -gpu false computes without the GPU"
    return f"{where} ran out: {advice}"


def _to_lower(settings: Settings) -> list[str]:
    """The options of a new run that lower the memory it needs, those that change least first."""
    options, count = [], wanted_processes(settings.procs, settings.gpu, settings.batch_size)
    half = settings.batch_size // 2 // count * count
    parts, parts_of_half = (images // count // 2 for images in (settings.batch_size, half))  # as check_run allows
    if 2 * settings.accumulate <= parts:
        options.append(f"-accumulate {2 * settings.accumulate}")
    if settings.accumulate <= parts_of_half:
        options.append(f"-b {half}")
    row = find_row(settings.dataset)
    if row.reader == "folder" and settings.memory:
        options.append(f"-memory {settings.memory / 2:g}")
    side = (settings.size or row.size) // 2  # 0: the images on disk have it
    if not settings.sizes and (not side or side >= max(SMALLEST_IMAGE, settings.crop + 1)):
        options.append(f"-size {side}" if side else "a smaller -size")
    if entry(settings.net).takes("width") and settings.width > 0.1 and not settings.match:
        options.append(f"-width {max(settings.width / 2, 0.1):g}")
    return options
