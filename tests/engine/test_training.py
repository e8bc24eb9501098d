"""A real run on scikit-learn's digits: what it learns, what it leaves, that it can be tested and gone on with."""

import csv
import json
import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from tensorboard.plugins.custom_scalar import layout_pb2

import main
from commands import evaluate, train
from conf import convert, resolve
from engine.device import algorithms
from engine.saved import checkpoint
from tests.helpers.runs import EPOCHS, RUN, checkpoints, curves, hparams, result, start

pytestmark = pytest.mark.usefixtures("finished", "without_pictures")

ROOT = Path(main.__file__).parent


def test_it_learns(finished):
    """Three epochs are enough to be far from chance, 90 % error."""
    assert result(finished)["test top-1 error"] < 0.35


def test_every_promised_tag_is_there(finished):
    events = curves(finished)
    scalars = set(events.Tags()["scalars"])
    assert {"Train/loss", "Train/accuracy", "Train/lr", "Train/images per second", "Train/epoch"} <= scalars
    for split in ("Train", "Test", "Val"):
        assert {f"{split}/loss", f"{split}/accuracy", f"{split}/top-5 accuracy"} <= scalars
    assert all(tag.partition("/")[0] in ("Train", "Test", "Val") for tag in scalars)
    assert {"Train/augmented images", "Test/worst mistakes", "Test/confusion matrix"} <= set(events.Tags()["images"])
    assert events.Tags()["graph"]


def test_the_hparams_tab_tells_runs_apart(finished):
    """Its metrics are curves that the run has; the knobs are those of its settings."""
    knobs, metrics = hparams(finished)
    told = dict(net="EffNet", dataset="digits", recipe="digits", epochs=EPOCHS, lr=0.01, batch=64, seed=3, width=1)
    assert knobs.items() >= (told | {"optimizer": "adamw", "parameters": result(finished)["parameters"]}).items()
    assert knobs["million MACs"] == round(result(finished)["macs"] / 1e6, 2)
    assert {"-val 0.1", "-ema 0.5", "-size 8"} <= {f"-{words.strip()}" for words in knobs["changed"].split("-")}
    assert len(knobs) == 12 and "-lr" not in knobs["changed"]
    assert metrics == ["Test/accuracy", "Test/top-5 accuracy", "Test/loss"]
    assert set(metrics) <= set(curves(finished).Tags()["scalars"])


def test_train_and_test_are_in_one_chart(finished):
    content = curves(finished).summary_metadata["custom_scalars__config__"]
    assert content.plugin_data.plugin_name == "custom_scalars"
    layout = layout_pb2.Layout.FromString(
        curves(finished).Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
    )
    scalars = curves(finished).Tags()["scalars"]
    charts = {
        chart.title: sorted(tag for tag in scalars if re.match(chart.multiline.tag[0], tag))
        for category in layout.category
        for chart in category.chart
    }
    assert charts["loss"] == ["Test/loss", "Train/loss", "Val/loss"]
    assert charts["top-5 accuracy"] == ["Test/top-5 accuracy", "Train/top-5 accuracy", "Val/top-5 accuracy"]


def test_the_card_has_the_command_the_settings_and_the_result(finished, tmp_path):
    """The command is the one that was given: it makes the same settings."""
    events = curves(finished)
    first, last = (event.tensor_proto.string_val[0].decode() for event in events.Tensors("Run/card/text_summary"))
    words = next(line for line in last.splitlines() if "main.py -net" in line).split()[2:]
    given = {n: convert(n, v) for n, v in vars(main.make_parser().parse_args(words)).items()}
    again, trained = resolve.settings(given), yaml.safe_load((checkpoints(finished) / "settings.yaml").read_text())
    assert {name: getattr(again, name) for name in resolve.KNOBS} == {
        name: convert(name, trained[name]) for name in resolve.KNOBS
    }
    assert "test top\\-1 error" in last and "test top" not in first and "\\-weight\\-decay" in first


def test_a_row_for_each_class(finished):
    rows = list(csv.DictReader((finished / "runs/EffNet/digits-try1/classes.csv").open()))
    assert [row["class"] for row in rows] == [str(digit) for digit in range(10)]
    images = sum(int(row["images"]) for row in rows)
    right = sum(int(row["images"]) * float(row["accuracy"]) for row in rows)
    assert right / images == pytest.approx(1 - result(finished)["test top-1 error"], abs=1e-3)


def test_a_point_for_every_step_and_one_axis(finished):
    events = curves(finished)
    steps = result(finished)["epochs"] * -(-1293 // 64)  # 1,437 images less a tenth
    assert [event.step for event in events.Scalars("Train/loss")] == list(range(1, steps + 1))
    assert [event.step for event in events.Scalars("Test/accuracy")] == [steps * n // EPOCHS for n in (1, 2, 3)]


def test_csv_and_result_say_what_the_curves_say(finished):
    rows = list(csv.DictReader((runs_csv := finished / "runs/EffNet/digits-try1/metrics.csv").open()))
    assert len(rows) == EPOCHS, runs_csv
    accuracies = [event.value for event in curves(finished).Scalars("Test/accuracy")]
    assert [float(row["test accuracy"]) for row in rows] == pytest.approx(accuracies, rel=1e-6)
    rates = {event.step: event.value for event in curves(finished).Scalars("Train/lr")}  # of the epoch's last step
    assert [float(row["lr"]) for row in rows] == pytest.approx([rates[int(row["step"])] for row in rows], rel=1e-6)
    found = result(finished)
    assert found["test top-1 error"] == pytest.approx(1 - float(rows[-1]["test accuracy"]))
    best = max(range(EPOCHS), key=lambda n: float(rows[n]["val accuracy"]))
    assert found["best epoch"] == best + 1 and found["best epoch chosen on"] == "validation images"
    assert found["best test top-1 error"] == pytest.approx(1 - float(rows[best]["test accuracy"]))


def test_what_a_run_leaves(finished):
    folder = checkpoints(finished)
    best = result(finished)["best epoch"]
    expected = {"settings.yaml", "result.json", "last.pth", "last.safetensors", f"EffNet-{best}-best.pth"}
    assert {path.name for path in folder.iterdir()} == expected
    saved = yaml.safe_load((folder / "settings.yaml").read_text())
    assert saved["epochs"] == EPOCHS and saved["lr"] == 0.01 and saved["seed"] == 3
    assert not any(key.startswith("module.") for key in checkpoint.load(folder / "last.pth")["network"])


def test_dash_test_reproduces_the_figures(finished, capsys):
    words = f"-test -weights {checkpoints(finished) / 'last.pth'} -gpu false"
    assert main.main(words.split()) == 0
    printed = capsys.readouterr().out
    found = result(finished)
    assert f"loss {found['test loss']:.4f}" in printed
    assert f"top-1 error {100 * found['test top-1 error']:.2f} %" in printed
    assert f"top-5 error {100 * found['test top-5 error']:.2f} %" in printed
    assert f"{found['parameters']:,} parameters" in printed


def test_same_seed_same_weights_and_another_seed_others(finished, tmp_path):
    start(RUN, tmp_path / "again")
    start(RUN.replace("-seed 3", "-seed 4"), tmp_path / "other")
    first, again, other = (
        checkpoint.load(checkpoints(out) / "last.pth")["network"]
        for out in (finished, tmp_path / "again", tmp_path / "other")
    )
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


def test_without_val_it_says_that_the_test_set_chose(tmp_path):
    printed = start(RUN.replace("-val 0.1", "").replace("-epochs 3", "-epochs 1"), tmp_path)
    assert "chosen on the test set" in printed.splitlines()[-2]
    assert result(tmp_path)["best epoch chosen on"] == "test set"


def test_weights_of_other_classes_start_a_run(finished, tmp_path, capsys):
    """A classifier for ten classes is made new for two, and that is said."""
    from tests.helpers.made_data import write_images

    write_images(tmp_path / "pets", train=("cat", "dog"), test=("cat", "dog"))
    weights = checkpoints(finished) / "last.pth"
    words = (
        f"-net EffNet -dataset {tmp_path / 'pets'} -data {tmp_path} -epochs 1 -weights {weights} -out {tmp_path} "
        "-b 4 -lr 1e-9 -gpu false"
    )
    status = main.main(words.split())
    captured = capsys.readouterr()
    assert status == 2 and "blocks.0.pointwise.conv.weight" in captured.err  # grey digits against colour images


def test_a_single_left_over_image_joins_the_batch_before(tmp_path):
    """1,437 = 4 x 359 + 1: batch norm could not take the last image alone."""
    words = "-net EffNet -dataset digits -size 8 -epochs 1 -b 359 -name try1 -gpu false"
    printed = start(words, tmp_path)
    assert "1 epochs of 4 steps" in printed


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path, capsys):
    words = [
        *"-net EffNet -dataset digits -size 8 -b 64 -epochs 2 -optimizer sgd -lr 1e30 -warm 0".split(),
        *f"-log-every 3 -name try1 -gpu false -out {tmp_path}".split(),
    ]
    assert main.main(words) == 2
    error = capsys.readouterr().err
    assert "the loss of step" in error and "learning rate of 9.783e+29" in error
    saved = list(tmp_path.rglob("*.pth"))
    assert [path.name for path in saved] == ["last.pth"] and str(saved[0]) in error
    assert checkpoint.load_run(saved[0])["step"] == 0


def test_result_says_what_it_was_made_with(finished):
    found = result(finished)
    assert found["seed"] == 3 and found["device"].startswith("cpu") and found["processes"] == 1
    assert found["versions"]["torch"] == torch.__version__
    assert found["versions"].keys() >= {"python", "torch", "torchvision", "numpy"}
    assert "commit" in found


def test_deterministic_algorithms_change_nothing_on_a_cpu(finished, tmp_path):
    """A run on a CPU is the same again without them; with them it runs, and is the same."""
    start(f"{RUN} -deterministic", tmp_path)
    first, again = (checkpoint.load(checkpoints(out) / "last.pth")["network"] for out in (finished, tmp_path))
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert not torch.are_deterministic_algorithms_enabled()


def test_an_operation_without_a_deterministic_form_is_named():
    with pytest.raises(ValueError, match="-deterministic: put_ has no deterministic form"), algorithms(True, False):
        torch.zeros(4).put_(torch.tensor([1, 1]), torch.tensor([1.0, 2.0]))
    with pytest.raises(RuntimeError, match="something else"), algorithms(True, False):
        raise RuntimeError("something else")


FLAT = """
import json, os, sys, main
from engine.shown.logs import RunLog
steps, seen = RunLog.steps, {}

def measured(self, first, losses, rates):
    steps(self, first, losses, rates)
    pages = int(open("/proc/self/statm").read().split()[1])
    seen[first + len(losses)] = (pages, len(os.listdir("/proc/self/fd")))

RunLog.steps = measured
assert main.main(sys.argv[1:]) == 0
print("FOUND", json.dumps([seen[200], seen[2000]]))
"""


FAULTS = """
import resource, torch
from engine.device import keep_freed_memory
keep_freed_memory()
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(8):
        torch.ones(16 << 20)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_kept():
    """64 MiB asked for eight times: most times no page is new. Once or twice the freed place may be a little short."""
    done = subprocess.run([sys.executable, "-c", FAULTS], cwd=ROOT, capture_output=True, text=True, check=True)
    assert int(done.stdout) < 3 * 16384


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads its memory in /proc")
@pytest.mark.slow
def test_two_thousand_steps_stay_flat(tmp_path):
    """Memory at step 2,000 within 5 % of step 200, as many open files; over 11 evaluations and saves."""
    words = f"-net EffNet -dataset digits -size 8 -b 8 -epochs 12 -log-every 20 -gpu false -out {tmp_path}"
    done = subprocess.run([sys.executable, "-c", FLAT, *words.split()], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (memory, files), (memory_later, files_later) = json.loads(done.stdout.partition("FOUND ")[2])
    assert memory_later < 1.05 * memory and files_later == files


@pytest.fixture
def from_cuda(finished, tmp_path) -> Path:
    """A copy of the finished run as it would be had it been trained in three processes on CUDA."""
    folder = tmp_path / "checkpoints" / "EffNet" / "digits-try1"
    folder.mkdir(parents=True)
    content = checkpoint.load_run(checkpoints(finished) / "last.pth")
    content["settings"] |= {"gpu": True, "sync_bn": True, "procs": 3, "amp": "bf16"}
    checkpoint.save(folder / "last.pth", content)
    return folder


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is there")
def test_what_was_trained_on_cuda_is_used_without_it(from_cuda, finished, capsys):
    """In float32, unless another precision is asked for; a run goes on, in the number of processes that it had."""
    weights = from_cuda / "last.pth"
    plain = evaluate.evaluate(checkpoints(finished) / "last.pth", {})
    assert evaluate.evaluate(weights, {}) == plain
    assert evaluate.evaluate(weights, {"amp": "bf16"})["loss"] != plain["loss"]
    assert main.main(["-test", "-weights", str(weights), "-gpu", "true"]) == 2
    assert train.saved_processes(str(from_cuda), Path("."), {}) == 3
    assert train.saved_processes(str(from_cuda), Path("."), {"procs": 1}) == 1
    capsys.readouterr()
    assert main.main(["-resume", str(from_cuda), "-procs", "1"]) == 0
    assert "-gpu true: there is no CUDA device here" in capsys.readouterr().out


def test_processes_of_a_run_without_cuda_are_told_so_when_it_goes_on(from_cuda, finished, monkeypatch):
    """They meet before they read its settings. from_cuda: it was trained on CUDA, and demands it."""
    launched = []
    monkeypatch.setattr("engine.processes.distributed.launch", lambda *given: launched.append(given) or 0)
    for folder, more in ((checkpoints(finished), []), (checkpoints(finished), ["-gpu", "true"]), (from_cuda, [])):
        assert main.main(["-resume", str(folder), "-procs", "2", *more]) == 0
    words = ["-resume", str(checkpoints(finished)), "-procs", "2"]
    assert launched[0] == (2, [*words, "-gpu", "false"]) and launched[1] == (2, [*words, "-gpu", "true"])
    assert launched[2] == (2, ["-resume", str(from_cuda), "-procs", "2"])


def test_what_downloads_and_what_draws_is_loaded_where_it_does():
    """A program says its first word sooner."""
    words = "import sys, datasets, commands.train, commands.evaluate; "
    words += "print(any(name in sys.modules for name in ('requests', 'matplotlib', 'sklearn')))"
    done = subprocess.run([sys.executable, "-c", words], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
