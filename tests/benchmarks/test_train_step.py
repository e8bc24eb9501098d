"""benchmarks/train_step.py: the time of each part lands where it belongs; what cannot run is named."""

import sys
import time

import pytest
import torch

from benchmarks import train_step
from benchmarks.measure import speed
from conf.resolve import settings
from engine.device import Precision
from engine.job import make_job
from engine.loop import train_step as train_step_by_itself
from engine.shown.logs import RunLog

pytestmark = pytest.mark.usefixtures("threads_put_back")


@pytest.fixture(scope="module")
def job():
    given = {"net": "EffNet", "dataset": "digits", "size": 8, "recipe": "original", "batch_size": 16, "gpu": False}
    return make_job(settings(given))


def test_the_time_of_each_part_lands_in_it(job, tmp_path):
    """Each part is held up by a pause of its own."""
    pauses = {"input": 0.02, "forward": 0.03, "backward": 0.04, "optimizer": 0.05, "logging": 0.06}

    def pause(part):
        return lambda *_: time.sleep(pauses[part])

    loop = train_step.Loop(job, job.network, Precision.choose("off", torch.device("cpu")), RunLog(tmp_path))
    loop.batches = ((pause("input")(), batch)[1] for batch in loop.batches)
    loop.state.optimizer.register_step_pre_hook(pause("optimizer"))
    loop.log.steps = pause("logging")
    handles = [
        loop.state.network.register_forward_hook(pause("forward")),
        next(loop.state.network.parameters()).register_hook(pause("backward")),
    ]
    try:
        begin = time.perf_counter()
        found = loop.parts(1)  # one step, after which the losses are read
        whole = time.perf_counter() - begin
    finally:
        for handle in handles:
            handle.remove()
    assert found.keys() == pauses.keys()
    assert all(found[part] >= seconds for part, seconds in pauses.items())
    assert sum(found.values()) <= whole
    assert loop.state.step == 1 and type(loop.state.scaler) is torch.amp.GradScaler  # marks are taken off again
    assert speed(loop, 2) > 0 and loop.state.step == 3


def test_the_speed_is_of_the_steps_that_main_takes_and_the_parts_are_of_eager_ones(job, tmp_path):
    taken = []

    def step(*words):
        taken.append(len(words[1]))
        return train_step_by_itself(*words)

    loop = train_step.Loop(job, job.network, Precision.choose("off", torch.device("cpu")), RunLog(tmp_path), step)
    assert speed(loop, 2) > 0 and taken == [16, 16]
    loop.parts(1)
    assert len(taken) == 2 and loop.state.step == 3


def test_train_step_prints_every_part(monkeypatch, capsys):
    words = "train_step.py -net EffNet -dataset digits -gpu false -batch 16 -rounds 2 -steps 2 -threads 1"
    monkeypatch.setattr(sys, "argv", words.split())
    assert train_step.main() == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    rows = {line[0]: float(line[5]) for line in lines if line[0] in (*train_step.PARTS, "evaluation")}
    assert list(rows) == [*train_step.PARTS, "evaluation"]
    assert sum(rows.values()) == pytest.approx(100, abs=1)  # of two rounds, the median is the mean
    monkeypatch.setattr(sys, "argv", "train_step.py -net EffNet -dataset nowhere".split())
    assert train_step.main() == 2


@pytest.mark.slow
def test_the_matrix_names_what_cannot_run(job, tmp_path, monkeypatch, capsys):
    """Without a C++ compiler torch.compile cannot, which its first step finds out; a row for each of the others."""
    from torch._inductor import config

    monkeypatch.setattr(sys, "argv", ["train_step.py"])
    options = type("Options", (), {"steps": 1, "rounds": 2})
    torch.compiler.reset()
    with config.patch({"cpp.cxx": (None, "/no/compiler")}):
        train_step.print_matrix(job, RunLog(tmp_path), options)
    printed = capsys.readouterr().out
    assert "compile: left out, it cannot run here (InvalidCxxCompiler" in printed
    rows = [line.split()[0] for line in printed.splitlines()]
    assert rows[-4:] == ["channels_last", "amp", "foreach", "fused"]


@pytest.mark.parametrize("options", [{"foreach": True}, {"fused": True}, {"foreach": False}])
def test_a_rebuilt_optimizer_keeps_its_knobs(options):
    parameters = [torch.nn.Parameter(torch.ones(3))]
    for kind in (torch.optim.SGD, torch.optim.Adam, torch.optim.AdamW):
        first = kind(parameters, lr=0.25, weight_decay=0.125)
        found = train_step.rebuilt(first, options)
        assert type(found) is kind and found.param_groups[0]["params"][0] is parameters[0]
        assert {**first.defaults, **options} == found.defaults
