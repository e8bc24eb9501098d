"""Many processes compute what one does, and stop, fail and go on like one."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
import torch

import main
from benchmarks import kill_test
from datasets.batches import batch_bounds, shared
from engine.loop import Share
from engine.processes import distributed, rendezvous
from engine.processes.distributed import SINGLE_PROCESS
from engine.saved import checkpoint
from engine.saved.run_lock import owner
from tests.helpers import distributed_worker

ROOT = Path(main.__file__).parent
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
RUN = "-net EffNet -dataset digits -size 8 -b 64 -epochs 3 -name try1 -gpu false".split()
LAUNCH = [sys.executable, "-m", "torch.distributed.run", "--standalone"]

pytestmark = pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without torch.distributed")


@pytest.mark.parametrize("count", [1, 2, 3, 5])
@pytest.mark.parametrize("images", [1437, 7, 1])
def test_shares_are_a_partition_of_each_batch(count, images):
    for start, stop in batch_bounds(images, 64):
        rows = [row for rank in range(count) for row in shared(stop - start, (rank, count))]
        assert rows == list(range(stop - start))


@pytest.mark.parametrize("images, processes", [(29, 4), (7, 4), (96, 5), (9, 1)])
def test_each_process_has_as_many_parts(images, processes):
    """Batch norm over all processes (-sync-bn) gathers in each part: it would wait for one that others do not have."""
    shares = [len(shared(images, (rank, processes))) for rank in range(processes)]
    parts = [Share(images, processes, accumulate=4).parts(*torch.zeros(2, max(n, 2)).unbind()) for n in shares]
    assert len({len(each) for each in parts}) == 1
    assert all(len(x) == len(y) >= 2 for each in parts for x, y in each)
    assert processes > 1 or len(parts[0]) == 4


@pytest.fixture(scope="module")
def one_process():
    return distributed_worker.epoch(SINGLE_PROCESS, accumulate=1)


@pytest.fixture(scope="module")
def taught():
    return distributed_worker.epoch(SINGLE_PROCESS, accumulate=1, taught=True)


def assert_close(found: dict, wanted: dict, rtol: float = 1e-9, atol: float = 1e-12) -> None:
    """Weights to rounding in float64; losses and figures to rounding in float32, in which they are read."""
    torch.testing.assert_close(found["network"], wanted["network"], rtol=rtol, atol=atol)
    assert len(found["losses"]) == 15
    assert found["losses"] == pytest.approx(wanted["losses"], rel=1e-6)
    assert found["train"] == pytest.approx(wanted["train"], rel=1e-6)  # cross-entropy is measured in float32
    assert found["test"] == pytest.approx(wanted["test"], rel=1e-6)


def test_an_accumulated_step_is_the_whole_step(one_process):
    """1,437 images in batches of 96, the last of 93, in parts that are not even."""
    assert_close(distributed_worker.epoch(SINGLE_PROCESS, accumulate=5), one_process)


@pytest.mark.parametrize("count", [2, pytest.param(5, marks=pytest.mark.slow)])
def test_many_processes_end_in_one_process_s_weights(one_process, taught, tmp_path, count):
    """Shares of the last batch that are not even, augmentation, clipping; with and without accumulation, a teacher."""
    worker = [f"--nproc-per-node={count}", "tests/helpers/distributed_worker.py", str(tmp_path), "1", "3", "taught"]
    subprocess.run([*LAUNCH, *worker], cwd=ROOT, env=ENVIRONMENT, check=True, capture_output=True)
    assert taught["losses"][-1] != pytest.approx(one_process["losses"][-1], rel=0.01)
    for rank in range(count):
        found = torch.load(tmp_path / f"{rank}.pt")
        assert_close(found["taught"], taught, rtol=1e-5, atol=1e-7)  # a teacher is followed in float32
        for accumulate in ("1", "3"):
            assert_close(found[accumulate], one_process)


def free_port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


@pytest.mark.parametrize(
    "left", [{"RANK": "0"}, {"RANK": "1"}, {"RANK": "0", "TORCHELASTIC_USE_AGENT_STORE": "True"}, {}], ids=str
)
def test_a_launcher_s_left_over_variables_are_named(monkeypatch, left):
    """torch would wait for half an hour for processes that nobody has started."""
    for name, value in {**left, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(rendezvous, "FOUND_WITHIN", timedelta(seconds=1))
    with pytest.raises(ValueError, match="WORLD_SIZE=2.*: unset .*WORLD_SIZE MASTER_ADDR MASTER_PORT$"):
        with distributed.process_group(gpu=False):
            pass


@pytest.mark.parametrize(
    "said", [{"RANK": "7"}, {"WORLD_SIZE": "-3"}, {"WORLD_SIZE": "two"}, {"MASTER_PORT": "99999"}], ids=str
)
def test_variables_that_no_launcher_sets_are_one_line(monkeypatch, said):
    left = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    for name, value in (left | said).items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match="unset RANK WORLD_SIZE MASTER_ADDR MASTER_PORT$"):
        with distributed.process_group(gpu=False):
            pass


def test_another_program_at_the_address_is_not_waited_for(monkeypatch):
    """One that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        left = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
        for name, value in left.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(rendezvous, "FOUND_WITHIN", timedelta(seconds=1))
        with pytest.raises(ValueError, match="does not answer.*unset"):
            with distributed.process_group(gpu=False):
                pass


def started(words: list[str]) -> subprocess.Popen:
    return subprocess.Popen(words, cwd=ROOT, env=ENVIRONMENT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def workers(launcher: int) -> list[int]:
    """Process numbers of main.py's processes under a launcher, in the order of their ranks."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            environment = dict(
                pair.split("=", 1) for pair in (folder / "environ").read_text().split("\0") if "=" in pair
            )
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
        if parent == launcher and "RANK" in environment:
            found[int(environment["RANK"])] = int(folder.name)
    return [found[rank] for rank in sorted(found)]


def last_of(out: Path) -> Path:
    return out / "checkpoints" / "EffNet" / "digits-try1" / "last.pth"


def wait_for_training(process: subprocess.Popen, last: Path) -> None:
    """Until it has saved a few times."""
    assert kill_test._reached(kill_test.Moment(renewals=5, delay=0.0), process, last), process.communicate()


needs_proc = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the processes in /proc")
EACH_STEP = ["-log-every", "1", "-save-every", "0"]


@pytest.mark.slow
def test_a_signal_stops_all_processes_at_one_step(tmp_path):
    """SIGTERM to the launcher, as a batch system sends it; one process then goes on with what two had begun."""
    process = started([sys.executable, "main.py", *RUN, *EACH_STEP, "-procs", "2", "-out", str(tmp_path)])
    wait_for_training(process, last_of(tmp_path))
    process.send_signal(signal.SIGTERM)
    printed, error = process.communicate(timeout=60)
    assert process.returncode == 143, error
    command = re.search(r"go on with: python main.py (-resume \S+)", printed)[1].split()
    step = checkpoint.load_run(last_of(tmp_path))["step"]
    assert 0 < step < 69
    done = subprocess.run(
        [sys.executable, "main.py", *command, "-procs", "1"], cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    curve = kill_test.points(tmp_path / "runs" / "EffNet" / "digits-try1")["Train/loss"]
    assert [point[0] for point in curve] == list(range(1, 70))


@needs_proc
@pytest.mark.slow
def test_a_process_that_dies_ends_the_others(tmp_path):
    """Within a minute, with a word of which it was; what was saved is readable."""
    process = started([sys.executable, "main.py", *RUN, *EACH_STEP, "-procs", "2", "-out", str(tmp_path)])
    wait_for_training(process, last_of(tmp_path))
    others = workers(process.pid)
    os.kill(others[1], signal.SIGKILL)
    died = time.monotonic()
    _, error = process.communicate(timeout=60)
    assert time.monotonic() - died < 60
    assert process.returncode not in (0, 2) and "process 1 of 2 ended with status -9" in error
    assert "Traceback" not in error and len(error.strip().splitlines()) == 1
    assert not any(Path(f"/proc/{number}").exists() for number in others)
    assert checkpoint.load_run(last_of(tmp_path))["step"] > 0


@needs_proc
@pytest.mark.slow
def test_processes_end_when_their_launcher_is_killed(tmp_path):
    """By SIGKILL, which no launcher can pass on; they save, and nobody holds the run any more."""
    process = started([sys.executable, "main.py", *RUN, *EACH_STEP, "-procs", "2", "-out", str(tmp_path)])
    wait_for_training(process, last_of(tmp_path))
    process.kill()
    printed, _ = process.communicate(timeout=60)  # returns when the last of them has ended
    assert "all is saved" in printed and not owner(last_of(tmp_path).parent)


@needs_proc
@pytest.mark.slow
def test_torchrun_starts_the_run_again_and_it_goes_on(tmp_path):
    """--max-restarts: the run of the same settings goes on by itself, in the same folder."""
    words = [*LAUNCH, "--nproc-per-node=2", "--max-restarts=1", "main.py", *RUN, *EACH_STEP, "-out", str(tmp_path)]
    process = started(words)
    wait_for_training(process, last_of(tmp_path))
    os.kill(workers(process.pid)[1], signal.SIGKILL)
    printed, error = process.communicate(timeout=240)
    assert process.returncode == 0, error
    assert "going on from epoch" in printed and "last epoch: test top-1 error" in printed
    assert len(list(last_of(tmp_path).parents[1].iterdir())) == 1
    curve = kill_test.points(tmp_path / "runs" / "EffNet" / "digits-try1")["Train/loss"]
    assert [point[0] for point in curve] == list(range(1, 70))


@pytest.mark.slow
def test_a_batch_that_cannot_be_split_is_one_line(tmp_path):
    words = [sys.executable, "main.py", *RUN, "-procs", "2", "-b", "63", "-out", str(tmp_path)]
    done = subprocess.run(words, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True)
    assert done.returncode == 2 and "must be a multiple of the 2 processes" in done.stderr
    assert len(done.stderr.splitlines()) == 1 and not list(tmp_path.iterdir()), done.stderr
