"""Curves and pictures cost no run: what goes wrong with them is one line, and the run ends as it would have."""

import shutil

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import main
import models
from engine.run import Run
from engine.saved import checkpoint
from engine.shown.logs import RunLog
from engine.tasks import Classification
from models.ops import depthwise
from tests.helpers.runs import RUN, checkpoints, curves, hparams, result, start

SHORT = RUN.replace("-epochs 3", "-epochs 2").replace("-b 64", "-b 431")


def broken(*values):
    raise RuntimeError("of a library")


@pytest.mark.parametrize("what", ["figure", "figures", "graph"])
def test_a_picture_that_cannot_be_drawn_is_a_line(tmp_path, capsys, monkeypatch, what):
    if what == "graph":
        monkeypatch.setattr(torch.utils.tensorboard.SummaryWriter, "add_graph", broken)
    elif what == "figure":
        monkeypatch.setattr("matplotlib.figure.Figure.draw", broken)
    else:
        monkeypatch.setattr(Classification, "figures", broken)
    start(SHORT.replace("-epochs 2", "-epochs 1"), tmp_path)
    assert result(tmp_path)["epochs trained"] == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == (2 if what == "figure" else 1)  # of each figure
    assert all("of a library" in line and "the run goes on" in line for line in lines)
    assert hparams(tmp_path)[1][0] == "Test/accuracy"


def test_a_graph_that_lacks_memory_ends_the_run_as_its_first_step_would(tmp_path, capsys, monkeypatch):
    """In one line, where the step, which takes more, would have been a second one."""

    def lacking(*values):
        raise RuntimeError("could not create a primitive")

    monkeypatch.setattr(torch.utils.tensorboard.SummaryWriter, "add_graph", lacking)
    assert main.main([*SHORT.split(), "-out", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "memory ran out" in line and "graph" not in line
    assert checkpoint.load_run(checkpoints(tmp_path) / "last.pth")["step"] == 0


def test_the_graph_of_repeated_maps_is_written(tmp_path, capsys, monkeypatch):
    """The form that CUDA has, which sums the gradients of copies in a way that no trace can hold."""
    monkeypatch.setattr(depthwise, "WHOLE_MAP", ("cpu",))
    log = RunLog(tmp_path)
    log.graph(models.create("cheapV3_small", image_size=16).train(), torch.randn(2, 3, 16, 16))
    log.close()
    assert capsys.readouterr().err == ""
    operations = [node.op for node in EventAccumulator(str(tmp_path)).Reload().Graph().node]
    assert "aten::_convolution" in operations and not any("PythonOp" in operation for operation in operations)


def test_a_checkpoint_is_there_before_a_picture(tmp_path, monkeypatch):
    """A picture that takes the process with it costs no epoch, and the run goes on after it."""

    def killed(*values):
        raise SystemExit(137)

    with monkeypatch.context() as patch:
        patch.setattr(Classification, "figures", killed)
        with pytest.raises(SystemExit):
            start(SHORT, tmp_path)
    assert checkpoint.load_run(checkpoints(tmp_path) / "last.pth")["epoch"] == 2
    start("-resume last", tmp_path)
    assert result(tmp_path)["epochs trained"] == 2
    assert hparams(tmp_path)[1][0] == "Test/accuracy"
    cards = curves(tmp_path).Tensors("Run/card/text_summary")
    assert [card.step for card in cards] == [0, 6]


def test_curves_that_somebody_removed_begin_anew(tmp_path, capsys, monkeypatch):
    """While the run writes to them; metrics.csv has all epochs again."""
    save = Run.save

    def removing(self, *names):
        if self.state.epoch == 1:
            shutil.rmtree(self.folders.runs)
        save(self, *names)

    monkeypatch.setattr(Run, "save", removing)
    start(SHORT, tmp_path)
    assert capsys.readouterr().err == ""
    folder = tmp_path / "runs" / "EffNet" / "digits-try1"
    assert len((folder / "metrics.csv").read_text().splitlines()) == 3
    assert result(tmp_path)["epochs trained"] == 2


def test_a_full_disk_under_the_curves_is_a_line(tmp_path, capsys, monkeypatch):
    """The writer's thread fails; neither its traceback nor a second message follows."""
    from tensorboard.summary.writer.record_writer import RecordWriter

    def full(*values):
        raise OSError(28, "No space left on device")

    log = RunLog(tmp_path)
    monkeypatch.setattr(RecordWriter, "write", full)
    for step in range(3):
        log.steps(step, [1.0], [0.1])
    log.flush()
    log.close()
    error = capsys.readouterr().err
    assert "No space left on device" in error and len(error.splitlines()) == 1, error
