"""-net and -resume: trains a network from the start, or continues a run that was stopped."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import shutil
import sys
from pathlib import Path

from conf import Settings
from conf.resolve import saved_settings
from conf.yaml_file import to_text
from datasets.fingerprint import TEACHER, differences
from engine.job import Job, make_job
from engine.processes.count import wanted_processes
from engine.processes.distributed import Processes, process_group
from engine.processes.machines import check_same, own_overrides
from engine.processes.rendezvous import restarts
from engine.run import Run
from engine.saved import checkpoint
from engine.saved.agreement import check_state, complete
from engine.saved.folders import LAST, RESULT, SETTINGS, WEIGHTS, Folders, begun_run, newest_run
from engine.saved.places import Places
from engine.saved.run_lock import RunLock
from engine.saved.schema import RunContent
from engine.state import TrainState
from models import weight_file
from utils import sweep, write_atomically


def train(settings: Settings) -> dict:
    """Trains a new run, from settings.weights where they are given; returns its result, as result.json has it.

    Where torch's launcher starts the program again after a failure, it continues the run that it had begun.
    """
    with process_group(settings.gpu) as processes:
        weights = Path(settings.weights) if settings.weights and processes.is_main else None
        job = processes.main_process_first(lambda: make_job(settings, weights, processes))
        settings, text = job.settings, settings_text(job.settings)
        folder = processes.broadcast_from_main(lambda: begun_run(settings, text)) if restarts() else None
        if folder is not None:
            return continue_run(folder, own_overrides(settings), processes)
        check_same(processes, settings, job.fingerprint)
        with RunLock() as lock:
            folders = processes.broadcast_from_main(lambda: new_folders(settings, text, lock))
            state = TrainState.start(job.network, len(job.training), settings, job.precision, processes)
            return Run(job, state, folders).finish()


def settings_text(settings: Settings) -> str:
    """The text of settings.yaml, which is for people to read: -resume takes the settings from the checkpoint."""
    return to_text(dataclasses.asdict(settings))


def new_folders(settings: Settings, text: str, lock: RunLock) -> Folders:
    """The folders of a new run; makes the one of checkpoints, locks it, and writes text, its settings.yaml.

    Raises ValueError where the name is taken, or another process has just begun a run of that name.
    """
    folders = Folders.new(settings)
    try:
        folders.checkpoints.mkdir(parents=True, exist_ok=bool(settings.name))
    except FileExistsError:  # another run without a name began in the same second
        return new_folders(settings, text, lock)
    lock.take(folders.checkpoints)
    if settings.name:
        Folders.new(settings)  # once more: a run of that name may have begun and ended in between
    sweep(folders.checkpoints)
    write_atomically(folders.checkpoints / SETTINGS, text.encode())
    return folders


def resume(run: str, out: Path, overrides: dict[str, object]) -> dict:
    """Continues a run; returns the result, as train() does.

    run: the folder of its checkpoints, which goes on from the newest; one of these files, which goes on from exactly
    there; or 'last', the run under out that saved last. overrides: settings that do not change the run's result.
    Raises ValueError where no checkpoint can be read, or the data set is not what it was.
    """
    with process_group(overrides.get("gpu")) as processes:
        place = processes.broadcast_from_main(lambda: newest_run(out) if run == "last" else Path(run))
        return continue_run(place, overrides, processes)


def continue_run(place: Path, overrides: dict[str, object], processes: Processes) -> dict:
    """Trains the rest of the run whose checkpoints are at place, in each of the processes; returns its result."""
    folder = place if place.is_dir() else place.parent
    with RunLock() as lock:
        processes.broadcast_from_main(lambda: lock.take(folder) if folder.is_dir() else None)
        path, content = processes.broadcast_from_main(lambda: load_checkpoint(place))  # it may be on one machine only
        job = processes.main_process_first(lambda: job_to_resume(path, content, overrides, processes))
        check_same(processes, job.settings, job.fingerprint)
        settings, folders = job.settings, Folders.beside(path.parent, job.settings.net)
        if processes.is_main:
            sweep(folders.checkpoints)
            sweep(folders.runs)
            if path.name != LAST:
                if place == path:
                    set_later_aside(folders.checkpoints, content["epoch"])
                checkpoint.save(folders.checkpoints / LAST, content)  # replaces a damaged or a later one
            if content["step"] and not folders.runs.is_dir():
                print(f"no earlier curves at {folders.runs}: new ones begin there, metrics.csv has every epoch")
        state = TrainState.start(job.network, len(job.training), settings, job.precision, processes)
        state.restore(content)
        if content["settings"].get("gpu") is True and job.precision.device.type != "cuda":
            print("-gpu true: there is no CUDA device here, and the run goes on without one")
        print(f"going on from epoch {state.epoch + 1}, batch {state.batch + 1} of {len(job.training)}")
        return Run(job, state, folders).finish()


def set_later_aside(folder: Path, epoch: int) -> None:
    """Keeps what a run left after an epoch to which it goes back, in later/: checkpoints, and what its end wrote."""
    later = [path for path in checkpoint.by_epoch(folder.glob("*.pth")) if checkpoint.epoch_of(path) > epoch]
    later += [path for path in (folder / LAST, folder / WEIGHTS, folder / RESULT) if path.exists()]
    if later:
        (folder / "later").mkdir(exist_ok=True)
        print(f"what the run saved after epoch {epoch} is kept in {folder / 'later'}")
    for path in later:
        if path.name == LAST:  # it stays until the next one replaces it
            shutil.copy2(path, folder / "later" / LAST)
        else:
            os.replace(path, folder / "later" / path.name)


def saved_processes(run: str, out: Path, overrides: dict[str, object]) -> int:
    """The number of processes in which the run goes on: the -procs of the overrides, or the one that it began with.

    run, out, overrides: as resume() takes them. Raises ValueError as it does.
    """
    settings = settings_to_resume(run, out, overrides)
    return wanted_processes(settings.procs, settings.gpu, settings.batch_size)


def saved_device(run: str, out: Path, overrides: dict[str, object]) -> list[str]:
    """What several processes must be told before they meet and read the run: that it keeps off the CUDA devices."""
    kept_off = "gpu" not in overrides and settings_to_resume(run, out, overrides).gpu is False
    return ["-gpu", "false"] if kept_off else []


def settings_to_resume(run: str, out: Path, overrides: dict[str, object]) -> Settings:
    """The settings with which the run goes on. run, out, overrides: as resume() takes them."""
    with contextlib.redirect_stderr(io.StringIO()):  # resume() says what is damaged
        path, content = load_checkpoint(newest_run(out) if run == "last" else Path(run))
    return saved_settings(content["settings"], path, overrides)


def load_checkpoint(place: Path) -> tuple[Path, RunContent]:
    """The path and the content of a checkpoint: of the file at place, or the newest whole one in that folder."""
    if place.suffix == weight_file.SUFFIX:
        raise ValueError(f"-resume {place}: holds weights without their optimizer; give the {LAST} beside it")
    if place.is_file() or (place.suffix == ".pth" and not place.is_dir()):
        return place, checkpoint.load_run(place, RunContent)
    return checkpoint.load_newest(place)


def job_to_resume(path: Path, content: RunContent, overrides: dict[str, object], processes: Processes) -> Job:
    """The job of the checkpoint at path, with that content.

    Raises ValueError where its state is not the job's, or the data set is not what it was.
    """
    places = Places.of(path.parent, content, overrides)
    settings = places.find_teacher(places.find_data(saved_settings(content["settings"], path, overrides)))
    with places.told(settings):
        job = make_job(settings, None, processes, goes_on=True)
    check_data(content, job, path)
    complete(content, job)
    check_state(content, job, path)
    return job


def check_data(content: RunContent, job: Job, path: Path) -> None:
    """Raises ValueError, which names what differs, where a job's data is not what the checkpoint was trained on.

    A checkpoint of an older version holds no fingerprint: what it does hold is compared, and a line says so.
    """
    then, now = ({**data_facts(each), **each.get("fingerprint", {})} for each in (content, job.about_data()))
    changed = differences(then, now)
    if changed == [TEACHER]:
        raise ValueError(
            f"-distill {job.settings.distill}: not the file that {path} was taught by; bring that back, or say with "
            "-distill FILE where it is now"
        )
    if changed:
        raise ValueError(
            f"{path}: {job.settings.dataset} is not the data set that it was, for these differ: {', '.join(changed)}; "
            "bring it back, or say with -data DIR or -dataset PATH where it is now"
        )
    if "fingerprint" not in content:
        print(
            f"{path} is of an older version and holds no fingerprint of its data: only "
            f"{', '.join(data_facts(content))} were compared",
            file=sys.stderr,
        )


def data_facts(content: dict) -> dict[str, object]:
    """What every checkpoint holds of its data, by the words of datasets.fingerprint."""
    names = {
        "classes": "classes",
        "image_size": "image side",
        "in_channels": "channels",
        "mean": "mean",
        "std": "std",
        "steps_per_epoch": "steps an epoch",
    }
    return {word: content[key] for key, word in names.items()}
