"""Weights alone in a file: safetensors, whose metadata hold all that is known of them as JSON, and a checksum.

The tensors have the names of a network's state dict. The metadata are one text, `about`: a JSON object, of which
engine/saved/about_weights.py says what it holds, and whose last key, sha256, is the SHA-256 of the object without it as
json.dumps writes it, followed by all bytes of the file after its header. The same weights always give the same bytes.
Such a file runs no code when it is read, and anything that reads safetensors reads it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

SUFFIX = ".safetensors"


def to_bytes(state: Mapping[str, Tensor], about: dict[str, object]) -> bytes:
    """The bytes of a file. about: whatever JSON can hold; its numbers must be finite."""
    save = _library().save
    own = {
        name: tensor.detach().to("cpu").clone(memory_format=torch.contiguous_format) for name, tensor in state.items()
    }
    # the bytes after the header do not depend on the metadata in it; the library shuffles several metadata
    return save(own, {"about": json.dumps(about | {"sha256": _checksum(about, save(own))})})


def read(path: Path) -> tuple[dict[str, Tensor], dict | None]:
    """The tensors of a file, on the CPU, and what to_bytes() was told about them; None in a file of others.

    Raises ValueError for a file that cannot be read, is no safetensors, or is damaged.
    """
    library = _library()
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); give the path of a {SUFFIX} file") from None
    try:
        state = library.load(data)
        metadata = _header(data).get("__metadata__", {})
        about = json.loads(metadata["about"]) if "about" in metadata else None
        if about is not None:
            checksum = about.pop("sha256")
    except MemoryError:
        raise ValueError(f"{path}: not read, it wants more memory than there is") from None
    except Exception as error:  # the library has an error of its own, and passes on those of tensors it cannot make
        raise ValueError(f"{path}: no safetensors file, or damaged ({type(error).__name__}); take another") from None
    if about is not None and _checksum(about, data) != checksum:
        raise ValueError(f"{path}: damaged, its checksum does not match; take another file")
    return state, about


def halved(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict with its weights of two axes or more as float16, where that can hold them.

    The numbers of one axis (biases, batch norms) stay as they are: they are few, and variances may be huge.
    """
    small = {name: tensor.half() for name, tensor in state.items() if tensor.is_floating_point() and tensor.ndim > 1}
    return dict(state) | {name: tensor for name, tensor in small.items() if tensor.isfinite().all()}


def _library():
    """safetensors.torch, which only these files need. Raises ValueError where it is missing."""
    try:
        import safetensors.torch
    except ImportError:
        raise ValueError(f"safetensors: a {SUFFIX} file needs it; pip install safetensors") from None
    return safetensors.torch


def _header_end(data: bytes) -> int:
    return 8 + int.from_bytes(data[:8], "little")  # the format begins with its header's length


def _header(data: bytes) -> dict:
    return json.loads(data[8 : _header_end(data)])


def _checksum(about: dict, data: bytes) -> str:
    found = hashlib.sha256(json.dumps(about, allow_nan=False).encode())
    found.update(memoryview(data)[_header_end(data) :])
    return found.hexdigest()
