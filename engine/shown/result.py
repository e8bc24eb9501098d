"""What a finished run comes to: errors of the last and the best epoch, and what they were reached with."""

from __future__ import annotations

import json
import math
import platform
import subprocess
from importlib import metadata
from pathlib import Path

import numpy
import torch

from engine.job import Job
from engine.saved.checkpoint import weights_size
from engine.state import TrainState
from engine.tasks import Task
from models.fast_path import are_kernels_used


def make_result(job: Job, state: TrainState) -> dict:
    """The content of result.json; what it says of the test set is the task's (engine/tasks.py)."""
    settings = job.settings
    best, last = state.history[state.best["epoch"] - 1], state.history[-1]
    best_epoch = {
        "best epoch": state.best["epoch"],
        "best epoch chosen on": {"Val": "validation images", "Test": "test set"}[job.chosen_on],
    }
    return {
        "net": settings.net,
        "dataset": settings.dataset,
        "recipe": settings.recipe,
        "seed": settings.seed,
        "epochs": settings.epochs,
        "epochs trained": state.epoch,
        "stopped early": state.epoch < settings.epochs,
        **{key: last[key] for key in ("train loss", "val loss") if key in last},
        **job.task.result(split_metrics(last, "Test"), split_metrics(best, "Test"), best_epoch),
        "parameters": job.parameters,
        "macs": job.macs,
        "weights bytes": weights_size(state.network.state_dict()),
        "seconds": state.seconds,
        "images per second": job.training.bounds[-1][1] * state.epoch / state.seconds,
        "processes": job.processes.world_size,
        "kernels": are_kernels_used(job.network),
        "device": device_name(job.precision.device),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "torchvision": metadata.version("torchvision"),
            "numpy": numpy.__version__,
        },
        "commit": commit(),
    }


def to_json(result: dict) -> str:
    """result.json's text. JSON has no word for a loss that is infinite or not a number: null stands for it."""
    plain = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in result.items()
    }
    return json.dumps(plain, indent=2, allow_nan=False) + "\n"


def split_metrics(row: dict, split: str) -> dict[str, float]:
    """The metrics of a split ("Train", "Val", "Test") in a row of the history."""
    start = f"{split.lower()} "
    return {key.removeprefix(start): value for key, value in row.items() if key.startswith(start)}


def describe_result(result: dict, task: Task) -> str:
    """Three lines for the terminal, four where the run stopped early; they say which images chose the best epoch."""
    stopped = (
        f"stopped early, after {result['epochs trained']} of {result['epochs']} epochs: "
        f"{result['epochs trained'] - result['best epoch']} in a row without a better score "
        f"on the {result['best epoch chosen on']}\n"
    )
    last, best = task.describe_result(result)
    return (stopped if result["stopped early"] else "") + (
        f"last epoch: {last}\n"
        f"best epoch ({result['best epoch']}, chosen on the {result['best epoch chosen on']}): {best}\n"
        f"trained for {result['seconds']:.0f} s at {result['images per second']:.0f} images/s"
    )


def device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.get_num_threads()} threads"


def commit() -> str:
    """The commit of the source, with + where it was changed since; empty outside a git checkout."""
    root = Path(__file__).resolve().parents[2]
    try:
        call = ["git", "-C", str(root), "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"]
        return subprocess.run(call, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""
