"""A run on two machines: two launchers that know each other by an address, each in a working folder of its own."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import torch

from benchmarks import kill_test
from engine.processes import watch
from engine.processes.distributed import SINGLE_PROCESS
from engine.saved import checkpoint
from engine.saved.run_lock import owner
from tests.engine.test_distributed import (
    EACH_STEP,
    ENVIRONMENT,
    ROOT,
    RUN,
    assert_close,
    free_port,
    last_of,
    needs_proc,
    wait_for_training,
    workers,
)
from tests.helpers import distributed_worker
from tests.helpers.made_data import pixels, save_image
from tests.helpers.runs import start

NET = "torchvision:squeezenet1_1"  # without batch norm, whose statistics would be those of a process's own images
OF_PICTURES = f"-net {NET} -size 32 -b 8 -steps 23 -epochs 3 -dropout 0 -optimizer sgd -lr 0.001 -name try1 -gpu false"
PICTURES_LAST = Path("checkpoints") / NET.replace(":", "-") / "pictures-try1" / "last.pth"

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without torch.distributed")


class Machines:
    """Launchers on this machine, each in a folder of its own; the first started has the main process."""

    def __init__(self, folder: Path, program: str = "main.py", count: int = 2) -> None:
        rendezvous = ["--rdzv-backend=c10d", f"--rdzv-endpoint=127.0.0.1:{free_port()}"]
        words = [sys.executable, "-m", "torch.distributed.run", f"--nnodes={count}", "--nproc-per-node=1", *rendezvous]
        self.words = [*words, str(ROOT / program)]
        self.folders = [folder / f"machine{number}" for number in range(count)]
        self.launchers: list[subprocess.Popen] = []

    def start(self, *words: str, own: tuple[str, ...] = ()) -> subprocess.Popen:
        """own: what only the other machines are given."""
        for number, place in enumerate(self.folders):
            place.mkdir(exist_ok=True)
            given = [*self.words, *words, *(own if number else ())]
            pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            self.launchers.append(subprocess.Popen(given, cwd=place, env=ENVIRONMENT, **pipes))
        return self.launchers[0]

    def outcome(self) -> list[tuple[int, str, str]]:
        """(exit status, stdout, stderr) of each."""
        ends = [launcher.communicate(timeout=120) for launcher in self.launchers]
        return [(launcher.returncode, *end) for launcher, end in zip(self.launchers, ends, strict=True)]

    def signal(self, machine: int, number: int) -> None:
        """Sends a signal to a launcher and its process."""
        launcher = self.launchers[machine].pid
        for process in [launcher, *workers(launcher)]:
            os.kill(process, number)


@pytest.fixture
def machines(tmp_path):
    made = Machines(tmp_path)
    yield made
    for number, launcher in enumerate(made.launchers):
        if launcher.poll() is None:
            made.signal(number, signal.SIGKILL)
        launcher.communicate()


@pytest.fixture
def pictures(machines, tmp_path) -> tuple[str, ...]:
    """A folder of images in the first machine's working folder, and a copy of another name elsewhere.

    What the other machine is given: where the copy is, and a data folder of its own, in which it packs the images.
    """
    for folder in (machines.folders[0] / "pictures", tmp_path / "copy"):
        for number, values in enumerate(pixels(24, seed=1)):
            split, name = "test" if number % 3 == 0 else "train", ("cat", "dog")[number % 2]
            save_image(folder / split / name / f"{number}.png", values // 2 + number % 2 * 120)
    return "-dataset", str(tmp_path / "copy"), "-data", "elsewhere"


def assert_as_one_process(folder: Path, tmp_path: Path) -> None:
    """The run of pictures in this folder has the losses and the weights of one process that was never stopped."""
    one = tmp_path / "one"
    start(f"{OF_PICTURES} -dataset {folder / 'pictures'} -data {one} {' '.join(EACH_STEP)}", one)
    curves = [kill_test.points(each / "runs" / Path(*PICTURES_LAST.parts[1:3]))["Train/loss"] for each in (folder, one)]
    for found, wanted in zip(*curves, strict=True):
        assert found == pytest.approx(wanted, abs=1e-4), found
    assert [step for step, _ in curves[1]] == list(range(1, 70))
    found, wanted = (checkpoint.load(each / PICTURES_LAST)["network"] for each in (folder, one))
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-5)


def said(error: str) -> list[str]:
    """The lines of this program; torch's launcher adds its own."""
    return [line for line in error.splitlines() if line.startswith("main.py: ")]


def test_a_silent_process_is_noticed_and_one_that_has_finished_is_not(monkeypatch):
    monkeypatch.setattr(watch, "BEAT", 0.05)
    store, lost, noticed = torch.distributed.HashStore(), [], threading.Event()

    def note(ranks: list[int]) -> None:
        lost.append(ranks)
        noticed.set()

    first, second, third = (watch.Watch(store, rank, 3, note) for rank in range(3))
    for each in (first, second, third):
        each.start()
    second.stop()
    assert not noticed.wait(0.05 * watch.SILENT * 2) and not lost
    third.over.set()  # it falls silent
    assert noticed.wait(5)
    first.stop()
    assert lost == [[2]]


@pytest.mark.slow
def test_two_machines_end_in_one_process_s_weights(tmp_path):
    """Shares of the last batch that are not even, augmentation, clipping and accumulation."""
    machines = Machines(tmp_path, "tests/helpers/distributed_worker.py")
    machines.start(str(tmp_path), "3")
    assert [status for status, _, _ in machines.outcome()] == [0, 0]
    wanted = distributed_worker.epoch(SINGLE_PROCESS, accumulate=1)
    for rank in range(2):
        assert_close(torch.load(tmp_path / f"{rank}.pt")["3"], wanted)


@pytest.mark.slow
def test_two_machines_begin_and_one_goes_on(machines, pictures, tmp_path):
    """Stopped as a batch system stops it. The other machine has the images elsewhere, and writes no run."""
    machines.start(*OF_PICTURES.split(), "-dataset", "pictures", *EACH_STEP, own=pictures)
    here, there = machines.folders
    wait_for_training(machines.launchers[0], here / PICTURES_LAST)
    machines.launchers[1].send_signal(signal.SIGTERM)  # the machine that has no main process
    (_, printed, error), (_, other, _) = machines.outcome()
    assert "2 processes on 2 machines, of which" in printed and not other
    assert [path.name for path in there.iterdir()] == ["elsewhere"]
    command = re.search(r"go on with: python main.py (-resume \S+)", printed)[1].split()
    step = checkpoint.load_run(here / PICTURES_LAST)["step"]
    assert 0 < step < 69 and not owner((here / PICTURES_LAST).parent), error
    words = [sys.executable, str(ROOT / "main.py"), *command]
    done = subprocess.run(words, cwd=here, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert_as_one_process(here, tmp_path)


@pytest.mark.slow
def test_one_machine_begins_and_two_go_on(machines, pictures, tmp_path):
    """The other machine has none of the checkpoints: the main process sends it what it needs."""
    here, there = machines.folders
    words = [sys.executable, str(ROOT / "main.py"), *OF_PICTURES.split(), "-dataset", "pictures", *EACH_STEP]
    process = subprocess.Popen(words, cwd=here, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for_training(process, here / PICTURES_LAST)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    step = checkpoint.load_run(here / PICTURES_LAST)["step"]
    assert 0 < step < 69
    machines.start("-resume", "last", own=pictures)
    (status, printed, error), (other_status, _, other_error) = machines.outcome()
    assert (status, other_status) == (0, 0), error + other_error
    assert f"going on from epoch {step // 23 + 1}" in printed
    assert [path.name for path in there.iterdir()] == ["elsewhere"]
    assert_as_one_process(here, tmp_path)


@pytest.mark.slow
def test_weights_are_read_by_the_main_process(machines, finished):
    """finished: the folder of a run on digits."""
    last = next(finished.glob("checkpoints/*/*/last.pth"))
    run = checkpoint.load_run(last)["settings"]
    given = f"-net {run['net']} -dataset digits -size {run['size']} -epochs 1 -b 64 -name try1 -gpu false".split()
    machines.start(*given, "-weights", str(last), own=("-weights", "nowhere.pth"))
    outcome = machines.outcome()
    assert [status for status, _, _ in outcome] == [0, 0], outcome
    assert not list(machines.folders[1].iterdir())


@pytest.mark.slow
@pytest.mark.parametrize("different", [("-lr", "0.1"), ("-log-every", "7"), ("-size", "16")], ids=str)
def test_machines_that_are_given_different_runs(machines, different):
    machines.start(*RUN, own=different)
    (status, printed, error), (other_status, _, other_error) = machines.outcome()
    assert status and other_status and not printed and not list(machines.folders[0].iterdir())
    assert len(said(error)) == 1 and f"process 1 on {watch.platform.node()} has {different[0]}" in error
    assert not said(other_error) and "-data, -dataset, -out and -w" in error


def has_ended(process: int) -> bool:
    """Whether it is gone, or only waits for its launcher to take note."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@needs_proc
@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=lambda number: number.name)
@pytest.mark.parametrize("lost", [0, 1])
def test_a_lost_machine_ends_the_other(machines, lost, how):
    """Killed, or silent as without power, when no connection is closed; with the main process and the store, or not."""
    machines.start(*RUN, *EACH_STEP, "-epochs", "3000")
    wait_for_training(machines.launchers[0], last_of(machines.folders[0]))
    left = machines.launchers[1 - lost]
    ours = workers(left.pid)
    machines.signal(lost, how)
    begin = time.monotonic()
    while not all(has_ended(number) for number in ours):
        assert time.monotonic() - begin < 60
        time.sleep(0.2)
    if how == signal.SIGSTOP:  # the launcher itself waits for the other one for longer
        left.kill()
    _, error = left.communicate(timeout=60)
    # also where torch's launcher, which has lost the other one's store, ends the process at the same time
    assert len(said(error)) == 1 and "cannot go on without it; what was saved is whole" in error, error
    assert checkpoint.load_run(last_of(machines.folders[0]))["step"] > 0
