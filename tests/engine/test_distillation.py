"""Distillation: the loss by its formula, the teacher that a checkpoint holds, and runs that go on with it."""

import shutil
import signal
from pathlib import Path

import numpy
import pytest
import torch
from scipy import special, stats

import main
from benchmarks import kill_test
from conf.resolve import settings
from engine.device import Precision
from engine.distillation import Distilled, make_teacher
from engine.saved import checkpoint
from engine.saved.trained import load_trained
from engine.shown.logs import RunLog
from engine.tasks import Classification
from tests.engine.test_interruption import signal_at
from tests.helpers.runs import checkpoints, start

pytestmark = pytest.mark.usefixtures("without_pictures")
STUDENT = "-net EffNet -dataset digits -size 8 -epochs 2 -b 64 -val 0.1 -gpu false -mixup 0.3 -erase 0.2 -log-every 2"


def draws(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    """The checkpoint of a network after an epoch on 8x8 digits."""
    out = tmp_path_factory.mktemp("teacher")
    start("-net EffNet -dataset digits -size 8 -epochs 1 -b 64 -lr 0.01 -gpu false -name try1", out)
    return checkpoints(out) / "last.pth"


@pytest.mark.parametrize("temperature,share,smoothing", [(4.0, 0.5, 0.0), (1.0, 1.0, 0.0), (2.5, 0.3, 0.1)])
def test_the_loss_by_its_formula(temperature: float, share: float, smoothing: float) -> None:
    """Cross-entropy and KL divergence of scipy, image by image, with labels that are shares of the classes."""
    logits, outputs = draws(6, 7), 3 * draws(6, 7, seed=1)
    labels = draws(6, 7, seed=2).softmax(1)
    total = 0.0
    for own, its, label in zip(logits.numpy(), outputs.numpy(), labels.numpy(), strict=True):
        smooth = (1 - smoothing) * label + smoothing / 7
        hard = -numpy.sum(smooth * special.log_softmax(own))
        soft = stats.entropy(special.softmax(its / temperature), special.softmax(own / temperature))
        total += ((1 - share) * hard + share * temperature**2 * soft) / 6
    task = Distilled(7, smoothing, temperature, share)
    assert task.loss(logits, torch.stack([labels, outputs], 1)).item() == pytest.approx(total, rel=1e-5)


def test_at_a_high_temperature_outputs_are_matched() -> None:
    """Hinton et al., equation 4: with outputs of mean zero, T^2 x the gradient goes to (own - teacher's) / classes."""
    logits, outputs = (each - each.mean(1, keepdim=True) for each in (draws(5, 9), draws(5, 9, seed=1)))
    logits = logits.float().requires_grad_()
    Distilled(9, 0.0, 100.0, 1.0).loss(logits, torch.stack([torch.zeros(5, 9), outputs.float()], 1)).backward()
    torch.testing.assert_close(logits.grad * 5, (logits.detach() - outputs.float()) / 9, rtol=0.1, atol=2e-3)


def test_figures_are_those_of_the_labels() -> None:
    logits, labels = draws(8, 6).float(), torch.arange(8) % 6
    task, plain = Distilled(6, 0.0, 4.0, 0.5), Classification(6)
    taught = torch.stack([torch.eye(6)[labels], draws(8, 6, seed=1).float()], 1)
    torch.testing.assert_close(task.sums(logits, taught), plain.sums(logits, labels))
    assert torch.equal(task.sums(logits, labels), plain.sums(logits, labels))


def test_the_teacher_is_the_checkpoint_s_network(teacher) -> None:
    """In eval mode, without a gradient; images beyond the targets are no part of them."""
    trained = load_trained(teacher, {"gpu": False})
    chosen = settings({"net": "EffNet", "dataset": "digits", "distill": str(teacher), "gpu": False})
    made = make_teacher(chosen, trained.view, Precision.choose("off", torch.device("cpu")))
    images, labels = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([3, 0, 9])
    with torch.no_grad():
        wanted = trained.network(images)[:3]  # unfolded
    found = made(images, labels)
    torch.testing.assert_close(found[:, 1], wanted)
    assert torch.equal(found[:, 0], torch.eye(10)[labels])
    assert not found.requires_grad and not made.network.training
    assert torch.equal(made(images, found[:, 0].roll(1, 0))[:, 0], found[:, 0].roll(1, 0))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("-size 10 -distill {}", "other images' side and mean and std (8) than this run (10)"),
        ("-distill other.pth", "-distill other.pth: holds weights only"),
        ("-distill gone.pth", "-distill gone.pth: cannot be read"),
        ("-distill pets.pth", "other classes (10 from 0 to cat) than this run (10 from 0 to 9)"),
    ],
)
def test_another_teacher_is_one_line(teacher, tmp_path, monkeypatch, capsys, words, message) -> None:
    monkeypatch.chdir(tmp_path)
    content = checkpoint.load(teacher)
    torch.save(content["network"], "other.pth")
    checkpoint.save(Path("pets.pth"), content | {"classes": [*content["classes"][:-1], "cat"]})
    assert main.main([*STUDENT.split(), *words.format(teacher).split()]) == 2
    error = capsys.readouterr().err
    assert message in error and len(error.splitlines()) == 1 and not Path("checkpoints").exists()


def test_a_student_goes_on_with_the_same_teacher_only(teacher, tmp_path, monkeypatch, capsys) -> None:
    """Stopped within an epoch and resumed, bit for bit; without the file, or with another one, it is one line."""
    monkeypatch.chdir(tmp_path)
    shutil.copy(teacher, "teacher.pth")
    words = f"{STUDENT} -distill teacher.pth -name try1"
    assert "taught by teacher.pth" in start(words, tmp_path / "whole")
    with monkeypatch.context() as patch, pytest.raises(SystemExit):
        patch.setattr(RunLog, "steps", signal_at(30, signal.SIGTERM))
        main.main([*words.split(), "-out", "stopped"])
    folder = checkpoints(tmp_path / "stopped")
    shutil.move("teacher.pth", "moved.pth")
    shutil.copy(next((tmp_path / "whole").rglob("last.pth")), "another.pth")
    capsys.readouterr()
    for more, message in (
        ([], "-distill teacher.pth: no such file as"),
        (["-distill", "another.pth"], "-distill another.pth: not the file that"),
    ):
        assert main.main(["-resume", str(folder), *more]) == 2
        error = capsys.readouterr().err
        assert message in error and len(error.splitlines()) == 1
    assert main.main(["-resume", str(folder), "-distill", "moved.pth"]) == 0
    assert kill_test.differences(checkpoints(tmp_path / "whole"), folder) == ["/settings/distill"]
    Path("moved.pth").unlink()
    assert main.main(["-test", "-weights", str(folder / "last.pth"), "-gpu", "false"]) == 0
