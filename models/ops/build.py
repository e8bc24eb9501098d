"""models/ops/kernels.c as a library: compiled on first use, called through ctypes with torch's tensors.

ctypes, and not a torch extension: a C compiler alone builds it, in a second or two.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import importlib.util
import os
import shlex
import subprocess
import tempfile
from pathlib import Path

import torch
from torch import Tensor

from utils import write_atomically

SOURCE = Path(__file__).with_name("kernels.c")
LANES = 8  # channels that the C code takes at a time; widths are multiples of it
ACTIVATIONS = {"none": 0, "relu": 1, "hardswish": 2}  # the names that ops take, and the numbers that the C code takes
REALS = {torch.float32: "float", torch.float64: "double"}
CONSTANTS = (f"-DLANES={LANES}", *(f"-D{name.upper()}={number}" for name, number in ACTIVATIONS.items()))
FLAGS = ("-std=gnu11", "-O3", "-ffp-contract=fast", "-fopenmp", "-fPIC", "-w", *CONSTANTS)
CPU_FLAGS = {"AVX2": ("-mavx2", "-mfma"), "AVX512": ("-mavx2", "-mfma")}  # by torch's name for what this CPU has


class Shape(ctypes.Structure):
    """The sizes of one call of widen; must match `struct Shape` in kernels.c field by field."""

    _fields_ = [
        (name, ctypes.c_int64)
        for name in "images channels times height width kernel stride padding out_height out_width activation".split()
    ]

    @property
    def bordered(self) -> int:
        """Numbers in one image with its border of padding."""
        return (self.height + 2 * self.padding) * (self.width + 2 * self.padding) * self.channels

    @property
    def out_pixels(self) -> int:
        return self.out_height * self.out_width


def load_library(dtype: torch.dtype) -> ctypes.CDLL:
    """kernels.c compiled for a type in REALS; kept beside Python's own compiled files.

    Raises ValueError where there is no compiler, its OpenMP is not the one that torch uses, or the type is another.
    """
    if dtype not in REALS:
        raise ValueError(f"kernels.c computes in float32 and float64, not in {dtype}")
    built = _built(REALS[dtype])
    if isinstance(built, str):
        raise ValueError(built)
    return built


def is_available(dtype: torch.dtype) -> bool:
    """Whether kernels.c computes in this type here. The first call compiles it."""
    return dtype in REALS and not isinstance(_built(REALS[dtype]), str)


@functools.cache
def _built(real: str) -> ctypes.CDLL | str:
    """The library, or why there is none.

    The library is linked without an OpenMP runtime and uses torch's. With a runtime of its own there would be two pools
    of threads on the same cores: a training step took twice as long.
    """
    compiler = shlex.split(os.environ.get("CC") or "cc")
    flags = [*FLAGS, *CPU_FLAGS.get(torch.backends.cpu.get_cpu_capability(), ()), f"-DREAL={real}"]
    name = hashlib.sha256(SOURCE.read_bytes() + repr([compiler, flags]).encode()).hexdigest()[:16]
    path = Path(importlib.util.cache_from_source(str(SOURCE))).with_name(f"kernels-{name}.so")
    try:
        if not _is_whole(path):
            data = _compiled(compiler, flags)
            # each in one step, as another process may be doing the same; where the two do not fit, it is built again
            write_atomically(path, data)
            write_atomically(_digest_of(path), hashlib.sha256(data).hexdigest().encode())
        library = ctypes.CDLL(str(path))
    except subprocess.CalledProcessError as error:
        reason = (error.stderr.strip().splitlines() or [str(error)])[0]
    except OSError as error:
        reason = str(error)
    else:
        library.shape_size.restype = ctypes.c_int64
        assert library.shape_size() == ctypes.sizeof(Shape), "Shape differs from kernels.c"
        return library
    return f"the C compiler did not make it ({compiler[0]}: {reason[:200]})"


def _digest_of(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _is_whole(path: Path) -> bool:
    """Whether the library is what was built: a power cut or a full disk can leave a part, and calling that crashes."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest() == _digest_of(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return False


def _compiled(compiler: list[str], flags: list[str]) -> bytes:
    """The bytes of the shared library. Raises CalledProcessError, or OSError where there is no compiler."""
    with tempfile.TemporaryDirectory() as folder:
        compiled, linked = Path(folder) / "kernels.o", Path(folder) / "kernels.so"
        for words in ([*flags, "-c", SOURCE, "-o", compiled], ["-shared", compiled, "-o", linked]):
            subprocess.run([*compiler, *words], check=True, capture_output=True, text=True)
        return linked.read_bytes()


def call(function: str, dtype: torch.dtype, *arguments: Tensor | int | Shape) -> None:
    """Calls a function of kernels.c with torch's number of threads. Maps (4 dimensions) must be channels last."""
    words = []
    for argument in arguments:
        if isinstance(argument, Tensor):
            layout = torch.channels_last if argument.ndim == 4 else torch.contiguous_format
            assert argument.dtype == dtype and argument.is_contiguous(memory_format=layout)
            words.append(ctypes.c_void_p(argument.data_ptr()))
        else:
            words.append(ctypes.byref(argument) if isinstance(argument, Shape) else ctypes.c_int64(argument))
    getattr(load_library(dtype), function)(*words, ctypes.c_int64(torch.get_num_threads()))


def channels_last(x: Tensor) -> Tensor:
    return x.contiguous(memory_format=torch.channels_last)
