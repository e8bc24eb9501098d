"""State dicts in the files of other projects: where in a file the weights are, by the names that a network has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

# Under these names other projects keep weights, those that are averaged over the training first.
AVERAGED_NAMES = ("averaged", "ema", "model_ema", "ema_model", "state_dict_ema", "ema_state_dict", "params_ema")
NAMES = ("network", "state_dict", "model_state_dict", "model_state", "model", "net", "weights", "params", "module")
WRAPPERS = ("module", "_orig_mod")  # parts of a weight's name that DistributedDataParallel and torch.compile add
DEPTH = 3  # of dicts in dicts in which weights are looked for


def find_weights(content: dict, own: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The weights in the content of a file that is no checkpoint of a run, by the names of a network's state dict, own.

    They are the file's whole content, or lie under a key of it, in NAMES or not; of several, those that fit the network
    are taken, averaged ones before others, and a line is printed that says which. Prefixes of wrappers are left out.
    Raises ValueError where there are none, or where several fit and the names do not say which to take.
    """
    order = {name: number for number, name in enumerate((*AVERAGED_NAMES, "", *NAMES))}
    found = []
    for place, state in _state_dicts(content):
        state = _unwrapped(state, own)
        rank = min(order.get(name, len(order)) for name in place or ("",))
        found.append((sum(map(len, differences(state, own))), rank, place, state))
    if not found:
        raise ValueError(f"{path}: holds no weights, that is, no dict from names to tensors; save a state_dict()")
    found.sort(key=lambda each: each[:2])
    (least, rank, place, state), *others = found
    if any(other[:2] == (least, rank) for other in others) and least == 0:
        several = " and ".join(shown(".".join(each[2])) for each in found[:2])
        raise ValueError(f"{path}: holds several weights that fit, under {several}; save one of them alone")
    if place:
        print(f"{path}: takes the weights under {shown('.'.join(place))}")
    return state


def _state_dicts(content: dict, place: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], dict[str, Tensor]]]:
    """(the keys that lead there, the tensors) of every dict from names to tensors in content."""
    tensors = {key: value for key, value in content.items() if isinstance(key, str) and isinstance(value, Tensor)}
    if tensors:
        yield place, tensors
    for key, value in content.items():
        if isinstance(key, str) and isinstance(value, dict) and len(place) < DEPTH:
            yield from _state_dicts(value, (*place, key))


def _unwrapped(state: dict[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict by the names that its weights had before the network was wrapped."""
    names = {key: ".".join(part for part in key.split(".") if part not in WRAPPERS) for key in state}
    if len(set(names.values())) == len(names):
        state = {names[key]: value for key, value in state.items()}
    if "n_averaged" not in own:  # AveragedModel's counter
        state = {key: value for key, value in state.items() if key != "n_averaged"}
    # a network that is an attribute of a larger module: all names begin with that attribute's
    while state and not any(key in own for key in state):
        first, rests = {key.partition(".")[0] for key in state}, [key.partition(".")[2] for key in state]
        if len(first) > 1 or not all(rests):
            break
        state = dict(zip(rests, state.values(), strict=True))
    return state


def differences(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> tuple[list[str], list[str], list[str]]:
    """The names that are missing in state, those that own has not, and those of another shape or kind."""
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    return missing, unexpected, [key for key in own if key in state and not _is_like(state[key], own[key])]


def _is_like(found: object, own: Tensor) -> bool:
    """Whether a tensor can be copied to another without loss of meaning; half precision counts as floats."""
    if not isinstance(found, Tensor) or found.layout is not torch.strided or found.is_meta or found.is_quantized:
        return False
    same = found.is_floating_point() == own.is_floating_point() and not found.is_complex()
    return same and found.dtype is not torch.bool and found.shape == own.shape


def shown(name: str) -> str:
    """A name from a file as a message shows it: escaped where it is not printable, cut where it is long."""
    name = name[:80] + "..." * (len(name) > 80)
    return name if name.isprintable() else ascii(name)
