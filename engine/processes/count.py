"""How many processes train on this machine, and what a launcher has said of it in the environment."""

from __future__ import annotations

import os
import platform

import torch

from conf import Settings
from engine.processes.watch import machine_count

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID")
# Images of a step. One process replays its steps as CUDA graphs (engine/graphs.py), and several start their kernels one
# by one, which took an H100's host so long that two with a smaller share each would be no faster (RESULTS.md).
LEAST_SHARE = 1024


def is_launched() -> bool:
    """Whether torch's launcher started this process."""
    return all(name in os.environ for name in ("TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE"))


def unset() -> str:
    """The command that removes what a launcher has left in the environment."""
    return f"unset {' '.join(name for name in VARIABLES if name in os.environ)}"


def visible_devices(gpu: bool | None) -> int:
    """The number of CUDA devices that processes may use. gpu: as choose_device takes it."""
    return torch.cuda.device_count() if gpu is not False else 0


def wanted_processes(procs: int, gpu: bool | None, batch_size: int) -> int:
    """procs, or where that is 0 as many as there are CUDA devices that share a batch evenly, with LEAST_SHARE images or
    more each; at least one.

    Raises ValueError where each of procs cannot have a device of its own, or a launcher has started another number.
    """
    devices = visible_devices(gpu)
    if procs:
        if is_launched() and os.environ["WORLD_SIZE"] != str(procs):
            raise ValueError(
                f"-procs {procs}: the environment has WORLD_SIZE={os.environ['WORLD_SIZE']} from a launcher; leave out "
                f"-procs, or where it is left over: {unset()}"
            )
        check_devices(procs, devices, f"-procs {procs}")
        return procs
    counts = range(1, devices + 1)
    return max((n for n in counts if batch_size % n == 0 and batch_size // n >= LEAST_SHARE), default=1)


def check_devices(processes: int, devices: int, option: str) -> None:
    """Raises ValueError where there are CUDA devices, and fewer than processes on this machine."""
    if 0 < devices < processes:
        raise ValueError(
            f"{option}: each process takes a CUDA device of its own, and {devices} can be seen; "
            f"give at most {devices}, or -gpu false"
        )


def describe_processes(count: int, settings: Settings) -> str:
    """For a run's first lines: that count processes train, and why not one for each device where nobody chose."""
    several = f", {count} processes" if count > 1 else ""
    if machine_count() > 1:
        return f"{several} on {machine_count()} machines, of which {platform.node()} prints and writes"
    devices, batch = visible_devices(settings.gpu), settings.batch_size
    chosen = settings.procs or count != wanted_processes(0, settings.gpu, batch)
    if chosen or count >= devices:
        return several
    most = max(n for n in range(1, devices + 1) if batch % n == 0)
    more = f"; -procs {most}: {most} processes" if most > count else ""
    return (
        f"{several}, {count} of {devices} devices (as many as share -b {batch} evenly, "
        f"{LEAST_SHARE:,} images or more each{more})"
    )
