"""What must agree between the machines of a run, and what each of them has of its own."""

from __future__ import annotations

import platform

import torch.distributed as dist

from conf import FIELDS, Settings, option
from datasets.fingerprint import differences
from engine.processes.distributed import Processes

# Every machine has data, decoders and devices of its own, and only the main one reads -weights. The data itself is
# compared, the teacher too, and of a recipe its values.
OWN = ("data", "dataset", "distill", "recipe", "weights")
COMPARED = tuple(
    name for name, field in FIELDS.items() if field.metadata["changes"] == "result" and name not in OWN
) + ("log_every",)  # processes meet whenever the losses are read


def own_overrides(settings: Settings) -> dict[str, object]:
    """What this machine keeps to where the run goes on from a checkpoint that another machine has written."""
    return {name: getattr(settings, name) for name in ("data", "dataset", "distill", "workers")}


def check_same(processes: Processes, settings: Settings, fingerprint: dict[str, str | int]) -> None:
    """Raises ValueError in the main process where another has other settings or other data; the others exit silently.

    Times of change of files do not count: a copy on another machine may have its own.
    """
    if processes.world_size == 1:
        return
    facts = {name: value for name, value in fingerprint.items() if "times of change" not in name}
    own = platform.node(), {name: getattr(settings, name) for name in COMPARED}, facts
    found: list[tuple[str, dict[str, object], dict[str, str | int]]] = [own] * processes.world_size
    dist.all_gather_object(found, own)
    _, wanted, data = found[0]
    for rank, (host, values, others) in enumerate(found):
        about = f"process {rank} on {host}"
        fault = ""
        if changed := [name for name in COMPARED if values[name] != wanted[name]]:
            name = option(changed[0])
            fault = f"{about} has {name} {values[changed[0]]}, and the main process {name} {wanted[changed[0]]}"
            fault += "; start every machine with the same, but for -data, -dataset, -out and -w"
        elif names := differences(data, others):
            differ = ", ".join(name.partition(" (")[0] for name in names)
            fault = f"{about} has another data set than the main process ({differ}); give every machine the same"
        if fault:
            if processes.is_main:
                raise ValueError(fault)
            raise SystemExit(2)
