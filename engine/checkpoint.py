"""Checkpoint files: written whole or not at all, verified before they are read, never able to run code.

A checkpoint is torch.save's zip file whose comment is the SHA-256 of everything before the comment. torch.load
reads it as it is; load() here also verifies the sum, since torch's own reader does not notice most flipped bits.
What a checkpoint of a run holds: engine/schema.py.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import re
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path

import torch

from engine.schema import RunContent, TrainedContent, check
from models import registry
from utils import write_atomically

_MARK = b"sha256:"
_COMMENT_LENGTH = len(_MARK) + 64
_END_RECORD = 22  # bytes of a zip file's end record, whose last two are the length of the comment after it


def to_bytes(content: dict) -> bytes:
    """content (plain values and tensors) as a zip file with its checksum in the comment."""
    buffer = io.BytesIO()
    torch.save(content, buffer)
    data = buffer.getvalue()
    assert data[-_END_RECORD:-18] == b"PK\x05\x06" and data[-2:] == b"\0\0", "torch.save wrote another zip layout"
    body = data[:-2] + _COMMENT_LENGTH.to_bytes(2, "little")
    return body + _MARK + hashlib.sha256(body).hexdigest().encode()


def save(path: Path, content: dict) -> None:
    """Writes a checkpoint in place of an older one, or fails and leaves the older one as it was."""
    write_atomically(path, to_bytes(content))


def load(path: Path) -> dict:
    """The content of a checkpoint, on the CPU.

    A file without a checksum is taken as a plain file of weights by torch.save, as other projects write them.
    Raises ValueError for a file that is missing, damaged, or holds more than tensors and plain values, and for weights
    that an earlier revision of their network was trained with.
    """
    try:
        if not (Path(path).is_file() or Path(path).is_dir()) and Path(path).exists():
            raise OSError(0, "a pipe or a device, not a file")  # reading one could wait for ever
        data = Path(path).read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); give the path of a .pth file") from None
    verified = data[-_COMMENT_LENGTH:].startswith(_MARK)
    if verified:
        body, digest = data[:-_COMMENT_LENGTH], data[-64:]
        if hashlib.sha256(body).hexdigest().encode() != digest:
            raise ValueError(f"{path}: damaged, its checksum does not match; take another checkpoint")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles, which weights_only refuses in the next line
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise ValueError(
            f"{path}: not read, it is damaged or holds more than tensors and plain values (it could run code)"
        ) from None
    except Exception as error:  # torch raises whatever its zip reader and unpickler meet in damaged bytes
        raise ValueError(f"{path}: not a checkpoint, or damaged ({type(error).__name__})") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds a {type(content).__name__}, not a checkpoint or a state dict")
    if "settings" in content and not verified:
        raise ValueError(f"{path}: damaged, its checksum is gone; take another checkpoint")
    check_revision(content, path)
    return content


def check_revision(content: dict, path: Path) -> None:
    """Raises ValueError where the network of a run's checkpoint computes another function now than it did then."""
    name = content.get("settings", {}).get("net")
    if name in registry.names():
        made, now = content.get("revision", 1), registry.entry(name).revision
        if made != now:
            raise ValueError(
                f"{path}: trained as revision {made} of {name}, and this is revision {now}, another function of the "
                "same weights (see its file in models/); train it again, or use the project as of then"
            )


def load_run(path: Path, keys: type = TrainedContent) -> RunContent:
    """The content of a checkpoint of a run; keys: the class of engine/schema.py whose keys it must hold.

    Raises ValueError where it holds bare weights only or lacks one of the keys, or as load() does.
    """
    content = load(path)
    if "settings" not in content:
        raise ValueError(f"{path}: holds weights only, not the network's name and data set; give a checkpoint of a run")
    check(content, keys, path)
    return content


def by_epoch(paths: Iterable[Path]) -> list[Path]:
    """Checkpoints named <net>-<epoch>-<kind>.pth, the newest epoch first."""
    numbered = [(int(match[1]), path) for path in paths if (match := re.search(r"-(\d+)-[a-z]+\.pth$", path.name))]
    return [path for _, path in sorted(numbered, reverse=True)]


def load_newest(folder: Path) -> tuple[Path, RunContent]:
    """The newest undamaged checkpoint of a run: last.pth, else the one of the latest epoch.

    Damaged ones are named on stderr. Raises ValueError where none can be read.
    """
    if not folder.is_dir():
        raise ValueError(f"-resume {folder}: no such folder; give one under checkpoints/, or last")
    damage = []
    for path in [folder / "last.pth", *by_epoch(folder.glob("*.pth"))]:
        try:
            content = load_run(path, RunContent)
        except ValueError as error:
            damage.append(str(error))
            continue
        for line in damage:
            print(line, file=sys.stderr)
        if damage:
            print(f"{path} is whole; the run goes on from there", file=sys.stderr)
        return path, content
    raise ValueError(f"-resume {folder}: no checkpoint can be read ({'; '.join(damage)}); start the run anew")


def network_weights(content: dict) -> dict[str, torch.Tensor]:
    """The weights to evaluate from a loaded checkpoint: averaged ones where the run kept them.

    A bare state dict is taken too; the prefix module. of wrapped networks is dropped.
    """
    state = content.get("averaged") or content.get("network") or content
    return {key.removeprefix("module."): value for key, value in state.items()}


def weights_size(state: dict[str, torch.Tensor]) -> int:
    """Bytes of a file that holds these weights and nothing of the training."""
    return len(to_bytes(state))


def load_weights(network: torch.nn.Module, state: dict[str, torch.Tensor], path: Path) -> None:
    """Loads a state dict. Raises ValueError, with the first difference, where it is of another network."""
    own = network.state_dict()
    for key in own:
        if key not in state:
            raise ValueError(f"{path}: weights of another network, {key} is missing; give the -net they were made with")
        if not isinstance(state[key], torch.Tensor) or state[key].shape != own[key].shape:
            shape = list(getattr(state[key], "shape", []))
            raise ValueError(f"{path}: weights of another network, {key} is {shape}, not {list(own[key].shape)}")
    extra = next((key for key in state if key not in own), None)
    if extra is not None:
        raise ValueError(f"{path}: weights of another network, this one has no {extra}")
    network.load_state_dict(state)
