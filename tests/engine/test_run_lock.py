"""One run, one owner: beside a live run none goes on or begins in its folder; a dead one's folder is free."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import main
from engine.saved import run_lock
from tests.helpers.runs import RUN, checkpoints, result, start
from utils import sweep, write_atomically

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="locks and signals of POSIX"),
    pytest.mark.usefixtures("finished", "without_pictures"),
]
ROOT = Path(main.__file__).parent
SHORT = RUN.replace("-epochs 3", "-epochs 1").replace("-b 64", "-b 1293")


def held(code: str) -> subprocess.Popen:
    """A process that has run the code and waits."""
    words = [sys.executable, "-c", f"{code}\nprint('ready', flush=True)\nimport signal; signal.pause()"]
    process = subprocess.Popen(words, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\n"
    return process


def killed(process: subprocess.Popen) -> None:
    process.kill()
    process.wait()


def test_a_live_run_is_left_alone_and_a_dead_one_goes_on(finished, tmp_path, capsys):
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    folder = checkpoints(tmp_path)
    (folder / "result.json").unlink()
    live = held(f"from engine.saved.run_lock import *\nRunLock().take(Path({str(folder)!r}))")
    try:
        before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
        for words in (["-resume", "last", "-out", str(tmp_path)], ["-resume", str(folder)]):
            assert main.main(words) == 2
            error = capsys.readouterr().err
            assert f"process {live.pid} on " in error and len(error.splitlines()) == 1
        assert main.main([*RUN.split(), "-out", str(tmp_path)]) == 2
        error = capsys.readouterr().err
        assert f"process {live.pid} on " in error and "-resume" not in error  # which would be refused
        assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    finally:
        killed(live)
    start("-resume last", tmp_path)
    assert result(tmp_path)["epochs trained"] == 3 and not (folder / run_lock.LOCK).exists()


def test_a_file_system_without_locks_is_a_line(tmp_path, capsys, monkeypatch):
    def no_locks(handle):
        raise OSError(37, "No locks available")

    monkeypatch.setattr(run_lock, "lock", no_locks)
    with run_lock.RunLock() as taken:
        taken.take(tmp_path)
    assert "No locks available" in capsys.readouterr().err


def test_a_run_killed_in_its_first_save_leaves_its_name_free(tmp_path):
    """The process is killed when the first checkpoint has been written and not yet renamed."""
    code = (
        "import main, os, signal, sys\n"
        "replace = os.replace\n"
        "def killing(source, target):\n"
        "    if str(target).endswith('last.pth'): os.kill(os.getpid(), signal.SIGKILL)\n"
        "    replace(source, target)\n"
        "os.replace = killing\n"
        "main.main(sys.argv[1:])\n"
    )
    words = [sys.executable, "-c", code, *SHORT.split(), "-out", str(tmp_path)]
    assert subprocess.run(words, cwd=ROOT, capture_output=True).returncode == -signal.SIGKILL
    folder = checkpoints(tmp_path)
    assert list(folder.glob(".last.pth.*.tmp")) and not list(folder.glob("*.pth"))
    start(SHORT, tmp_path)
    assert result(tmp_path)["epochs trained"] == 1 and not list(tmp_path.rglob(".*"))


def test_only_dead_writers_files_are_swept(tmp_path):
    """One process was killed while it wrote, another still writes; both write the same file."""
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom utils import write_atomically\n"
        "def wait(handle):\n    print('ready', flush=True)\n    import signal; signal.pause()\n"
        f"os.fsync = wait\nwrite_atomically(Path({str(tmp_path / 'a[1].onnx')!r}), b'half')"
    )
    live = held(code)
    (written,) = tmp_path.glob(".*")
    dead = held(code)
    killed(dead)
    try:
        assert len(list(tmp_path.glob(".*"))) == 2
        (tmp_path / ".a[1].onnx.mine").write_bytes(b"")  # not one of ours
        write_atomically(tmp_path / "a[1].onnx", b"whole")
        assert sorted(tmp_path.glob(".*")) == sorted([written, tmp_path / ".a[1].onnx.mine"])
    finally:
        killed(live)
    sweep(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a[1].onnx.mine", "a[1].onnx"]
