"""What can be told of a run from its settings alone, before its data set is read."""

from __future__ import annotations

import torch

from conf import Settings
from conf.datasets import DatasetRow
from engine.device import check_compiler, choose_device
from engine.graphs import check_graphs
from models.registry import entry


def check_run(settings: Settings, row: DatasetRow, processes: int, goes_on: bool = False) -> torch.device:
    """The device of a run of these settings on the data set of row, in so many processes.

    goes_on: the run may have begun on another machine; it goes on without -sync-bn, -graphs and reduce-overhead
    where there is no CUDA.
    Raises ValueError for settings that cannot run.
    """
    known = entry(settings.net)
    if known.task not in ("", row.task):
        made, has, fitting = {
            "regression": ("angles", "classes", "driving, or a folder with driving_log.csv"),
            "classification": ("classes", "angles", "digits, mnist or other images in classes"),
        }[known.task]
        raise ValueError(
            f"{settings.net}: made for {made}, and {row.name} has {has}; this network goes with -dataset {fitting}"
        )
    device = choose_device(settings.gpu)
    if settings.batch_size % processes:
        raise ValueError(f"-b {settings.batch_size}: must be a multiple of the {processes} processes")
    if settings.sync_bn and device.type != "cuda" and not goes_on:
        raise ValueError(f"-sync-bn true: it is for CUDA devices only, not for {device}; leave it out of a new run")
    check_graphs(settings, device, processes, goes_on)
    if settings.compile == "reduce-overhead" and device.type != "cuda" and not goes_on:
        raise ValueError(f"-compile reduce-overhead: it is for CUDA devices, not for {device}; give -compile default")
    if settings.compile != "off":
        check_compiler(device)
    return device
