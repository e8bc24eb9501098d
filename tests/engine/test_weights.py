"""Weights of other projects: used as they are, or refused in one line that says why they do not fit."""

import io
import itertools
import os
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

import main
import models
from engine.saved import checkpoint
from engine.saved.weights import Made, check_fits, load_pretrained
from tests.helpers.made_data import save_image
from tests.helpers.runs import checkpoints

pytestmark = pytest.mark.usefixtures("finished", "without_pictures")

MADE = Made("EffNet_digits", num_classes=10, in_channels=1, image_size=8)
NETWORK = MADE.network()
STATE = NETWORK.state_dict()


def created(name: str, *arguments: int, **others: float) -> dict[str, torch.Tensor]:
    return models.create(name, *arguments, **others).state_dict()


MISFITS = {
    "side": (created("EffNet_digits", 10, 1, 28), "for images of 28x28 pixels, not 8x8: give -size 28"),
    "channels": (created("EffNet_digits", 10, 3, 8), "1 of another shape .*for images of 3 channels, not 1$"),
    "network": (created("EffNet", 10, 1, 8), "of EffNet: give -net EffNet$"),
    "cut": (
        dict(list(STATE.items())[:-2]),
        r"2 of 25 weights missing \(head.classifier.weight, head.classifier.bias\)",
    ),
    "more": (STATE | {"a\x1b[31m": torch.zeros(1)}, r"1 unexpected \('a\\x1b\[31m'\)"),
    "kind": (STATE | {"head.classifier.bias": torch.zeros(10).long()}, "is torch.int64, not torch.float32"),
    "none": ({"epoch": 3}, "holds no weights"),
}


@pytest.mark.parametrize(("state", "message"), MISFITS.values(), ids=MISFITS)
def test_why_weights_do_not_fit(state, message):
    with pytest.raises(ValueError, match=message):
        load_pretrained(MADE.network(), state, Path("a.pth"), MADE)


def test_the_width_is_named():
    made = Made("cheapV3_small", 10, 3, 32, 1.0)
    with pytest.raises(ValueError, match="they are for a width of 0.5, not 1: give -width 0.5"):
        load_pretrained(made.network(), created("cheapV3_small", 10, width=0.5), Path("a.pth"), made)


def test_bare_weights_are_tested_as_the_run_was(finished, tmp_path, capsys, monkeypatch):
    """The same figures and predictions from the weights alone, with -net and -dataset, as from the run's checkpoint."""
    monkeypatch.chdir(tmp_path)
    run = checkpoints(finished) / "last.pth"
    torch.save({"model": checkpoint.load_run(run)["averaged"]}, "bare.pth")
    told = ["-net", "EffNet", "-dataset", "digits", "-size", "8"]
    outputs = []
    for words in ([str(run)], ["bare.pth", *told]):
        assert main.main(["-test", "-weights", *words]) == 0
        outputs.append([line for line in capsys.readouterr().out.splitlines() if "takes the weights" not in line])
    assert outputs[0] == outputs[1] and len(outputs[0]) == 2
    for words, message in (
        (["bare.pth"], "holds weights only; say with -net NAME and -dataset D"),
        (["bare.pth", *told[:4]], "for images of 8x8 pixels, not 16x16: give -size 8"),
        ([str(run), "-net", "EffNet"], "is of a run and says it itself; leave -net out"),
    ):
        assert main.main(["-test", "-weights", *words]) == 2
        error = capsys.readouterr().err
        assert message in error and len(error.splitlines()) == 1


def test_the_network_is_named_whatever_its_classes():
    made = Made("cheapV3", 100, 3, 32)
    with pytest.raises(ValueError, match="they are of cheapSqueezeNet$"):
        check_fits(made.network().state_dict(), created("cheapSqueezeNet", 3), Path("a.pth"), made)


def test_a_classifier_of_other_classes_is_told(finished, capsys):
    path = checkpoints(finished) / "last.pth"
    content = checkpoint.load(path)
    made = Made("EffNet", 10, 1, 8)
    for classes, line in (
        (content["classes"], ""),
        ([*content["classes"][:9], "ten"], "its output 10 stood for 9, and stands for ten in this run"),
        (content["classes"][::-1], "other classes in another order: its output 1 stood for 0, and stands for 9"),
    ):
        load_pretrained(made.network(), content, path, made, tuple(classes))
        printed = capsys.readouterr().out
        assert line in printed and bool(printed) == bool(line)


def test_weights_alone_of_a_folder_in_natural_order(tmp_path, capsys):
    """Class 10 comes last only in the order that -natural-order gives; the classifier below always says class 10."""
    for split, name in itertools.product(("train", "test"), ("1", "2", "10")):
        save_image(tmp_path / "images" / split / name / "a.png", np.full((3, 8, 8), 10 * int(name), np.uint8))
    state = created("EffNet", 3, 3, 8)
    state["head.classifier.weight"].zero_()
    state["head.classifier.bias"].copy_(torch.tensor([0.0, 0.0, 1.0]))
    torch.save(state, tmp_path / "bare.pth")
    picture, told = str(tmp_path / "images/test/10/a.png"), ["-weights", str(tmp_path / "bare.pth"), "-net", "EffNet"]
    told += ["-dataset", str(tmp_path / "images"), "-data", str(tmp_path), "-size", "8", "-gpu", "false"]
    for words, name in (([], "2"), (["-natural-order"], "10")):
        assert main.main(["-predict", picture, *told, *words]) == 0
        assert capsys.readouterr().out.splitlines()[1].split()[1] == name


def strange_files(folder: Path) -> dict[str, str]:
    """Files that are no weights, by name, and a part of the line that refuses each."""
    torch.save(NETWORK, folder / "whole.pth")
    torch.save(STATE, folder / "bare.pth")
    with zipfile.ZipFile(folder / "bare.pth") as plain, zipfile.ZipFile(folder / "deflated.pth", "w", 8) as deflated:
        for entry in plain.infolist():
            deflated.writestr(entry.filename, plain.read(entry))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 3), torch.zeros(1, 2)), folder / "script.pt")
    (folder / "empty.pth").touch()
    os.mkfifo(folder / "pipe.pth")
    return {
        "whole.pth": "save the state_dict() alone",
        "deflated.pth": "it is compressed",
        "script.pt": "a TorchScript program",
        "empty.pth": "empty",
        "pipe.pth": "a pipe or a device",
        ".": "a folder",
    }


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes with names are POSIX's")
def test_files_that_are_no_weights(tmp_path):
    for name, message in strange_files(tmp_path).items():
        with pytest.raises(ValueError) as error:
            checkpoint.load(tmp_path / name)
        assert message in str(error.value) and "\n" not in str(error.value)


def test_an_older_layout_of_torch_save_is_read():
    buffer = io.BytesIO()
    torch.save(STATE, buffer, _use_new_zipfile_serialization=False)
    assert list(checkpoint._unpickle(buffer.getvalue(), Path("a.pth"))) == list(STATE)
