"""A run that is stopped, by a signal or without warning, ends in what it would have been."""

import csv
import json
import math
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import conf.resolve
import main
from benchmarks import kill_test
from datasets.batches import EvaluationBatches
from engine import interruption
from engine.interruption import SIGNALS
from engine.saved import checkpoint
from engine.shown.logs import RunLog
from tests.helpers.runs import EPOCHS, RUN, checkpoints, start

pytestmark = pytest.mark.usefixtures("finished", "without_pictures")

ROOT = Path(main.__file__).parent
INNER = Path("EffNet") / "digits-try1"


def signal_at(step: int, number: int, times: int = 1):
    """RunLog.steps, in which the process gets a signal at the first reading from this step on."""
    steps = RunLog.steps

    def patched(self, first, losses, rates):
        if first >= step:
            for _ in range(times):
                signal.raise_signal(number)
        steps(self, first, losses, rates)

    return patched


def stopped_run(out: Path) -> int:
    """The run of tests/helpers/runs.py in this process, which a signal is to stop; its exit status."""
    with pytest.raises(SystemExit) as stop:
        main.main([*RUN.split(), "-log-every", "2", "-out", str(out)])
    return stop.value.code


def assert_same_end(finished: Path, out: Path) -> None:
    """Weights, averaged weights, optimizer, figures and curves, bit for bit."""
    assert kill_test.differences(checkpoints(finished), checkpoints(out)) == []
    assert kill_test.curve_differences(finished / "runs" / INNER, out / "runs" / INNER) == []


@pytest.fixture
def without_nohup():
    """SIGHUP as a terminal's child has it, also where the tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL) if hasattr(signal, "SIGHUP") else None
    yield
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, before)


@pytest.mark.usefixtures("without_nohup")
@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_stops_after_the_step_and_the_run_goes_on(finished, tmp_path, capfd, monkeypatch, number):
    with monkeypatch.context() as patch:
        # twice: from a terminal, the launcher sends each process what it has got from the terminal already
        patch.setattr(RunLog, "steps", signal_at(30, number, times=2))
        assert stopped_run(tmp_path) == 128 + number
    stopped = checkpoint.load_run(checkpoints(tmp_path) / "last.pth")
    assert stopped["epoch"] == 1 and stopped["step"] == 32
    command = re.search(r"go on with: python main\.py (-resume \S+)", capfd.readouterr().out)[1]
    printed = start(command, tmp_path)
    assert f"going on from epoch 2, batch {stopped['batch'] + 1}" in printed
    assert_same_end(finished, tmp_path)


COUNTED_LATER = {"train overflowing images"} | {
    f"{split} {name}" for split in ("val", "test") for name in ("median loss", "overflowing images")
}


def as_saved_before(content: dict) -> dict:
    """The content of a checkpoint as versions saved it that counted no overflows."""
    history = [{key: value for key, value in row.items() if key not in COUNTED_LATER} for row in content["history"]]
    return content | {"history": history, "sums": content["sums"][:4]}


def test_a_run_of_a_version_that_counted_no_overflows_goes_on(finished, tmp_path, monkeypatch):
    """It is not known what the finished epochs would have had; from here on all columns have numbers."""
    with monkeypatch.context() as patch:
        patch.setattr(RunLog, "steps", signal_at(30, signal.SIGTERM))
        stopped_run(tmp_path)
    path = checkpoints(tmp_path) / "last.pth"
    checkpoint.save(path, as_saved_before(checkpoint.load_run(path)))
    start("-resume last", tmp_path)
    ended = checkpoint.load_run(path)
    wanted = checkpoint.load_run(checkpoints(finished) / "last.pth")
    assert all(torch.equal(value, ended["network"][key]) for key, value in wanted["network"].items())
    for lines in (ended["history"], list(csv.DictReader((tmp_path / "runs" / INNER / "metrics.csv").open()))):
        assert [line.keys() for line in lines] == [set(wanted["history"][0])] * 3
        for number, line in enumerate(lines):
            found = {key: float(line[key]) for key in COUNTED_LATER}
            known = [wanted["history"][number][key] for key in found]
            assert all(map(math.isnan, found.values())) if number == 0 else list(found.values()) == known
    path.with_name("result.json").unlink()
    checkpoint.save(path, as_saved_before(ended))  # at its end: nothing is left to count
    start("-resume last", tmp_path)
    result = json.loads(path.with_name("result.json").read_text())
    assert result["test median loss"] is None and result["test overflowing images"] is None


def test_a_run_whose_loss_scaling_skipped_steps_goes_on_in_float32_and_again(tmp_path, monkeypatch):
    """No CPU trains with the scaling of fp16: what such a part leaves is put into a checkpoint, two steps skipped."""
    with monkeypatch.context() as patch:
        patch.setattr(RunLog, "steps", signal_at(30, signal.SIGTERM))
        stopped_run(tmp_path)
    path = checkpoints(tmp_path) / "last.pth"
    content = checkpoint.load_run(path)
    for kept in content["optimizer"]["state"].values():
        kept["step"] -= 2
    scaler = torch.amp.GradScaler("cpu")
    scaler.scale(torch.ones(()))  # its numbers are made at the first use
    fp16 = {"settings": content["settings"] | {"amp": "fp16"}, "scaler": scaler.state_dict()}
    checkpoint.save(path, content | fp16)
    with monkeypatch.context() as patch:
        patch.setattr(RunLog, "steps", signal_at(50, signal.SIGTERM))
        with pytest.raises(SystemExit):
            main.main(["-resume", str(path.parent), "-amp", "off", "-log-every", "2"])
    stopped = checkpoint.load_run(path)
    assert not stopped["scaler"] and 50 <= stopped["step"] < 63
    start("-resume last", tmp_path)
    ended = checkpoint.load_run(path)
    assert ended["step"] == 63 and {kept["step"].item() for kept in ended["optimizer"]["state"].values()} == {61}


def test_a_signal_within_an_evaluation(finished, tmp_path, monkeypatch):
    """The epoch's training is not lost, and its evaluation is done again whole."""
    batches = EvaluationBatches.__iter__

    def patched(self):
        for number, batch in enumerate(batches(self)):
            if number == 1:
                signal.raise_signal(signal.SIGTERM)
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(EvaluationBatches, "__iter__", patched)
        assert stopped_run(tmp_path) == 143
    stopped = checkpoint.load_run(checkpoints(tmp_path) / "last.pth")
    assert stopped["epoch"] == 0 and stopped["batch"] == stopped["steps_per_epoch"] and not stopped["history"]
    start("-resume last", tmp_path)
    assert_same_end(finished, tmp_path)


def test_a_second_signal_stops_at_once(tmp_path, monkeypatch):
    """Before the step is logged or anything is saved."""
    with monkeypatch.context() as patch:
        patch.setattr(RunLog, "steps", signal_at(30, signal.SIGINT, times=2))
        patch.setattr(interruption, "SAME_WISH", 0.0)
        assert stopped_run(tmp_path) == 130
    assert checkpoint.load_run(checkpoints(tmp_path) / "last.pth")["step"] == 21  # the end of the first epoch


def test_signals_have_their_own_meaning_again_after_a_run(tmp_path, monkeypatch):
    """Of a program that calls this one, or a notebook."""
    seen = []
    before = {number: signal.signal(number, lambda *details: seen.append(details)) for number in SIGNALS}
    try:
        with monkeypatch.context() as patch:
            patch.setattr(RunLog, "steps", signal_at(30, signal.SIGINT))
            assert stopped_run(tmp_path) == 130
        assert not seen
        for number in SIGNALS:
            signal.raise_signal(number)
        assert len(seen) == len(SIGNALS)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_ctrl_c_before_training_is_one_line(capsys, monkeypatch):
    """While it loads, as those type it who see a mistake in their command."""

    def typed(given):
        raise KeyboardInterrupt

    monkeypatch.setattr(conf.resolve, "settings", typed)
    assert main.main("-net cheapV3 -dataset digits".split()) == 130
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.slow
def test_five_kills(tmp_path):
    """SIGKILL at random moments, in the writing of checkpoints too; benchmarks/kill_test.py does more of them."""
    words = "-net EffNet -dataset digits -size 8 -epochs 6 -ema 0.5 -val 0.1 -name try1 -gpu false".split()
    assert len(kill_test.trial(words, INNER, tmp_path, kills=5, seed=0)) == 5


@pytest.fixture
def unfinished(finished, tmp_path):
    """A copy of the finished run, as if it had been stopped before its result was written."""
    shutil.copytree(finished, tmp_path, dirs_exist_ok=True)
    (checkpoints(tmp_path) / "result.json").unlink()
    return tmp_path


def test_a_damaged_last_checkpoint_is_named_and_an_older_one_taken(finished, unfinished, capsys):
    folder = checkpoints(unfinished)
    last, best = folder / "last.pth", next(folder.glob("*-best.pth"))
    older = shutil.copy(last, folder / f"EffNet-{EPOCHS}-regular.pth")
    last.write_bytes(last.read_bytes()[:-100])
    (folder / ".last.pth.cut_off0.tmp").write_bytes(b"what a kill within a write leaves")
    start(f"-resume {folder}", unfinished)
    error = capsys.readouterr().err
    assert f"{last}: " in error and "damaged" in error and f"{older} is whole" in error
    older.unlink()
    assert best.exists() and not list(folder.glob(".*"))
    assert_same_end(finished, unfinished)


def test_the_best_epoch_s_checkpoint_is_for_use_and_smaller(unfinished, capsys):
    """It has the weights that its epoch was tested with, averaged here, and nothing that only training needs."""
    best = next(checkpoints(unfinished).glob("*-best.pth"))
    last = checkpoints(unfinished) / "last.pth"
    content, whole = checkpoint.load(best), checkpoint.load(last)
    assert "optimizer" not in content and best.stat().st_size < last.stat().st_size / 2
    if content["epoch"] == EPOCHS:
        assert all(torch.equal(content["network"][key], whole["averaged"][key]) for key in whole["averaged"])
    assert main.main(["-test", "-weights", str(best), "-gpu", "false"]) == 0
    score = content["history"][content["epoch"] - 1]["test accuracy"]
    assert f"top-1 error {100 * (1 - score):.2f} %" in capsys.readouterr().out
    assert main.main(["-resume", str(best)]) == 2
    assert "holds no optimizer's state" in capsys.readouterr().err


def test_no_whole_checkpoint_is_one_line(unfinished, capsys):
    for path in checkpoints(unfinished).glob("*.pth"):
        path.write_bytes(b"\0" * 1000)
    assert main.main(["-resume", str(checkpoints(unfinished))]) == 2
    error = capsys.readouterr().err
    assert "no checkpoint can be read" in error and len(error.splitlines()) == 1


def test_another_data_set_under_the_same_name_is_refused(unfinished, capsys):
    last = checkpoints(unfinished) / "last.pth"
    content = checkpoint.load_run(last)
    content["steps_per_epoch"] += 1
    checkpoint.save(last, content)
    assert main.main(["-resume", str(last.parent)]) == 2
    assert "not the data set that it was" in capsys.readouterr().err


@pytest.mark.slow
def test_a_full_disk_ends_in_one_line(tmp_path):
    """A limit on the size of files, which checkpoints exceed: those before stay, and nothing else."""
    pytest.importorskip("resource")
    start(RUN.replace("-epochs 3", "-epochs 1 -schedule constant"), tmp_path)
    folder = checkpoints(tmp_path)
    last = folder / "last.pth"
    content = checkpoint.load_run(last)
    content["settings"]["epochs"] = 2  # a constant rate is that of a longer run, too
    checkpoint.save(last, content)
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    smallest = min(path.stat().st_size for path in folder.glob("*.pth"))
    limited = (
        "import main, resource, sys;"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({smallest * 3 // 4},) * 2);"
        "raise SystemExit(main.main(sys.argv[1:]))"
    )
    words = [sys.executable, "-c", limited, "-resume", str(folder)]
    done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert "not written" in done.stderr and f"-resume {folder}" in done.stderr
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.slow
def test_keep_bounds_the_regular_checkpoints(tmp_path):
    words = RUN.replace("-epochs 3", "-epochs 31").replace("-size 8", "-size 8 -b 1293").replace("-b 64 ", "")
    start(f"{words} -keep 2", tmp_path)
    names = sorted(path.name for path in checkpoints(tmp_path).glob("*-regular.pth"))
    assert names == ["EffNet-20-regular.pth", "EffNet-30-regular.pth"]
    assert checkpoint.load_run(checkpoints(tmp_path) / names[0])["epoch"] == 20
    assert len(list(checkpoints(tmp_path).glob("*-best.pth"))) == 1


def test_clipping_bounds_the_step(tmp_path):
    """SGD without momentum or decay moves the weights by the clipped gradient's norm times the rate."""
    words = RUN.replace("-ema 0.5", "-optimizer sgd -momentum 0 -weight-decay 0 -schedule constant -clip 0.5")
    words = words.replace("-b 64", "-b 1293").replace("-warm 0.5", "-warm 0").replace("-epochs 3", "-epochs 1")
    start(words, tmp_path / "one")
    start(words.replace("-lr 0.01", "-lr 1e-12"), tmp_path / "none")
    after, before = (checkpoint.load_run(checkpoints(tmp_path / n) / "last.pth")["network"] for n in ("one", "none"))
    keys = [key for key in after if "running" not in key and "num_batches" not in key]
    moved = torch.sqrt(sum(((after[key] - before[key]).double() ** 2).sum() for key in keys))
    assert float(moved) == pytest.approx(0.01 * 0.5, rel=1e-3)
