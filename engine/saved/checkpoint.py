"""Checkpoint files: written whole or not at all, verified before they are read, never able to run code.

A checkpoint is torch.save's zip file whose comment is the SHA-256 of everything before the comment. torch.load
reads it as it is; load() here also verifies the sum, since torch's own reader does not notice most flipped bits.
What a checkpoint of a run holds: engine/saved/schema.py.
"""

from __future__ import annotations

import hashlib
import io
import pickle
import re
import sys
import warnings
import zipfile
from collections.abc import Iterable
from pathlib import Path

import torch

from engine.memory import is_out_of_memory
from engine.saved.folders import LAST
from engine.saved.schema import LaterContent, RunContent, TrainedContent, check, check_agreement
from models import registry, weight_file
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
    """The content of a checkpoint, on the CPU; of a file of models/weight_file.py, what it holds of one.

    A file without a checksum is taken as a file of weights by torch.save, as other projects write them.
    Raises ValueError for a file that is missing, damaged, or holds more than tensors and plain values, for a checkpoint
    of a run with a value that no run has saved, and for weights that an earlier revision of their network was trained
    with.
    """
    try:
        if not path.is_file():  # a pipe or a device could be read for ever
            other = "a pipe or a device, not a file" if path.exists() else "no such file"
            kind = "a folder" if path.is_dir() else other
            raise ValueError(f"{path}: cannot be read ({kind}); give the path of a .pth file")
        if path.suffix == weight_file.SUFFIX:
            return _of_weight_file(path)
        data = path.read_bytes()
        verified = data[-_COMMENT_LENGTH:].startswith(_MARK)
        if verified and hashlib.sha256(data[:-_COMMENT_LENGTH]).hexdigest().encode() != data[-64:]:
            raise ValueError(f"{path}: damaged, its checksum does not match; take another checkpoint")
        content = _unpickle(data, path)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}); give the path of a .pth file") from None
    except MemoryError:
        raise ValueError(f"{path}: not read, it wants more memory than there is") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: holds a {type(content).__name__}, not a checkpoint or a state dict")
    if is_run(content):
        if not verified:
            raise ValueError(f"{path}: damaged, its checksum is gone; take another checkpoint")
        check(content, LaterContent, path)
        check_revision(content, path)
    return content


def _of_weight_file(path: Path) -> dict:
    """The content of a safetensors file: of a run, as far as the file holds it, or weights by their names."""
    state, about = weight_file.read(path)
    if about is None:
        return state
    settings = about.get("settings")
    averaged = isinstance(settings, dict) and bool(settings.get("ema"))
    content = {**about, "network": state, "averaged": state if averaged else None}
    check(content, TrainedContent, path)
    check(content, LaterContent, path)
    check_revision(content, path)
    return content


def is_run(content: dict) -> bool:
    """Whether the content of a file is a run's, and not weights alone."""
    settings = content.get("settings")
    return "settings" in content and ("network" in content or (isinstance(settings, dict) and "net" in settings))


def _unpickle(data: bytes, path: Path) -> object:
    """What torch.save has written. Raises ValueError for anything else, and for what could run code."""
    if refusal := _refusal(data):
        raise ValueError(f"{path}: {refusal}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles, which weights_only refuses in the next line
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]{1,80}) was not an allowed global", str(error))
        what = f"holds {found[1]}, more" if found else "is damaged or holds more"
        raise ValueError(
            f"{path}: not read, it {what} than tensors and plain values (it could run code); of a network, save the "
            "state_dict() alone"
        ) from None
    except MemoryError:
        raise
    except Exception as error:  # torch raises whatever its zip reader and unpickler meet in damaged bytes
        if is_out_of_memory(error):
            raise MemoryError from None
        raise ValueError(f"{path}: not a checkpoint, or damaged ({type(error).__name__})") from None


def _refusal(data: bytes) -> str:
    """Why a file is not given to torch.load; empty for most."""
    if not data:
        return "empty, not a checkpoint, or damaged; take another file"
    try:
        entries = zipfile.ZipFile(io.BytesIO(data)).infolist()
    except Exception:  # no zip file: the older layout of torch.save, or something that torch.load refuses itself
        return ""
    if any(entry.filename.endswith("/constants.pkl") for entry in entries):
        return "a TorchScript program, not weights; save the network's state_dict() instead"
    # torch.save compresses nothing, so that more bytes than the file has come from a damaged or a hostile file
    if sum(entry.file_size for entry in entries) > len(data):
        return "not a checkpoint, or damaged (it is compressed, which torch.save's files are not)"
    return ""


def check_revision(content: dict, path: Path) -> None:
    """Raises ValueError where the network of a run's checkpoint computes another function now than it did then."""
    name = content["settings"].get("net")
    if name in registry.names():
        made, now = content.get("revision", 1), registry.entry(name).revision
        if made != now:
            raise ValueError(
                f"{path}: trained as revision {made} of {name}, and this is revision {now}, another function of the "
                "same weights (see its file in models/); train it again, or use the project as of then"
            )


def load_run(path: Path, keys: type = TrainedContent) -> RunContent:
    """The content of a checkpoint of a run; keys: the class of engine/saved/schema.py whose keys it must hold.

    Raises ValueError where it holds bare weights only or lacks one of the keys, or as load() does.
    """
    content = load(path)
    if not is_run(content):
        raise ValueError(f"{path}: holds weights only, not the network's name and data set; give a checkpoint of a run")
    check_run(content, keys, path)
    return content


def check_run(content: dict, keys: type, path: Path) -> None:
    """Raises ValueError where the content of a run's checkpoint is not what `keys` of engine/saved/schema.py says."""
    check(content, keys, path)
    check_agreement(content, keys, path)


def by_epoch(paths: Iterable[Path]) -> list[Path]:
    """Checkpoints named <net>-<epoch>-<kind>.pth, the newest epoch first."""
    numbered = [(number, path) for path in paths if (number := epoch_of(path)) is not None]
    return [path for _, path in sorted(numbered, reverse=True)]


def epoch_of(path: Path) -> int | None:
    """The epoch of a checkpoint named <net>-<epoch>-<kind>.pth."""
    match = re.search(r"-(\d+)-[a-z]+\.pth$", path.name)
    return int(match[1]) if match else None


def load_newest(folder: Path) -> tuple[Path, RunContent]:
    """The newest undamaged checkpoint of a run: last.pth, else the one of the latest epoch.

    Damaged ones are named on stderr. Raises ValueError where none can be read.
    """
    if not folder.is_dir():
        raise ValueError(f"-resume {folder}: no such folder; give one under checkpoints/, or last")
    damage = []
    for path in [folder / LAST, *by_epoch(folder.glob("*.pth"))]:
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


def network_weights(content: TrainedContent) -> dict[str, torch.Tensor]:
    """The weights to evaluate from a checkpoint of a run: averaged ones where the run kept them."""
    averaged = content.get("averaged")
    return content["network"] if averaged is None else averaged


def for_use(content: RunContent) -> dict:
    """The content without what only a run needs that goes on: one set of weights, and no optimizer's state."""
    left_out = ("optimizer", "schedule", "scaler")
    kept, weights = {key: value for key, value in content.items() if key not in left_out}, network_weights(content)
    # a file holds the same tensors once, under both keys
    return kept | {"network": weights, "averaged": content["averaged"] and weights}


def weights_size(state: dict[str, torch.Tensor]) -> int:
    """Bytes of a file that holds these weights and nothing of the training."""
    return len(to_bytes(state))
