"""-net and -resume: trains a network from the start, or continues a run that was stopped."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from pathlib import Path

import yaml

from conf import Settings
from conf.resolve import saved_settings
from engine import checkpoint
from engine.distributed import Processes, process_group, restarts, wanted_processes
from engine.folders import Folders, begun_run, newest_run
from engine.job import Job, make_job
from engine.run import LAST, Run
from engine.schema import RunContent
from engine.state import TrainState


def train(settings: Settings) -> dict:
    """Trains a new run, from settings.weights where they are given; returns its result, as result.json has it.

    Where torch's launcher starts the program again after a failure, it continues the run that it had begun.
    """
    with process_group(settings.gpu) as processes:
        text = settings_text(settings)
        folder = processes.broadcast_from_main(lambda: begun_run(settings, text)) if restarts() else None
        if folder is not None:
            return continue_run(folder, {}, processes)
        weights = Path(settings.weights) if settings.weights else None
        job = processes.main_process_first(lambda: make_job(settings, weights, processes))
        folders = processes.broadcast_from_main(lambda: new_folders(settings, text))
        state = TrainState.start(job.network, len(job.training), settings, job.precision, processes)
        return Run(job, state, folders).finish()


def settings_text(settings: Settings) -> str:
    """The text of settings.yaml, which is for people to read: -resume takes the settings from the checkpoint."""
    plain = dataclasses.asdict(settings) | {"milestones": list(settings.milestones)}
    return yaml.safe_dump(plain, sort_keys=False)


def new_folders(settings: Settings, text: str) -> Folders:
    """Makes the folders of a new run and writes text, its settings.yaml. Raises ValueError where the name is taken."""
    folders = Folders.new(settings)
    folders.checkpoints.mkdir(parents=True)
    checkpoint.write_atomically(folders.checkpoints / "settings.yaml", text.encode())
    return folders


def resume(folder: str, out: Path, overrides: dict[str, object]) -> dict:
    """Continues the run whose checkpoints lie in folder; 'last' is the run under out that saved last.

    overrides: settings that do not change its result. Returns the result, as train() does.
    Raises ValueError where no checkpoint can be read, or the data set is not what it was.
    """
    checkpoints = newest_run(out) if folder == "last" else Path(folder)
    with process_group(overrides.get("gpu")) as processes:
        return continue_run(checkpoints, overrides, processes)


def saved_processes(folder: str, out: Path, overrides: dict[str, object]) -> int:
    """The number of processes in which the run goes on: the -procs of the overrides, or the one that it began with.

    folder, out, overrides: as resume() takes them. Raises ValueError as it does.
    """
    with contextlib.redirect_stderr(io.StringIO()):  # resume() says what is damaged
        path, content = checkpoint.load_newest(newest_run(out) if folder == "last" else Path(folder))
    settings = saved_settings(content["settings"], path, overrides)
    return wanted_processes(settings.procs, settings.gpu, settings.batch_size)


def continue_run(folder: Path, overrides: dict[str, object], processes: Processes) -> dict:
    """Trains the rest of the run whose checkpoints lie in folder, in each of the processes; returns its result."""
    path, content, job = processes.main_process_first(lambda: latest_job(folder, overrides, processes))
    folder, settings = folder.resolve(), job.settings
    folders = Folders(folder.parents[2] / "runs" / folder.parent.name / folder.name, folder)
    if processes.is_main:
        for unfinished in folder.glob(".*.pth.*.tmp"):  # left by a write that SIGKILL or the machine cut off
            unfinished.unlink()
        if path.name != LAST:
            checkpoint.save(folder / LAST, content)  # replaces a damaged one
    state = TrainState.start(job.network, len(job.training), settings, job.precision, processes)
    state.restore(content)
    if content["settings"].get("gpu") is True and job.precision.device.type != "cuda":
        print("-gpu true: there is no CUDA device here, and the run goes on without one")
    print(f"going on from epoch {state.epoch + 1}, batch {state.batch + 1} of {len(job.training)}")
    return Run(job, state, folders).finish()


def latest_job(folder: Path, overrides: dict[str, object], processes: Processes) -> tuple[Path, RunContent, Job]:
    """The path of the newest undamaged checkpoint in folder, its content and its job.

    Raises ValueError where there is none, or the data set is not what it was.
    """
    path, content = checkpoint.load_newest(folder)
    job = make_job(saved_settings(content["settings"], path, overrides), None, processes, goes_on=True)
    if (list(job.dataset.classes), len(job.training)) != (content["classes"], content["steps_per_epoch"]):
        raise ValueError(f"{path}: {job.settings.dataset} is not the data set that it was; bring that back")
    return path, content, job
