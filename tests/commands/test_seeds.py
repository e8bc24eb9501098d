"""-seeds trains one run a seed and compares them; -recipe settings.yaml repeats a run exactly; -match is kept."""

import json

import pytest
import torch
import yaml

import main
from engine.saved import checkpoint

RUN = "-net EffNet_digits -dataset digits -size 8 -b 256 -epochs 1 -gpu false".split()


def weights(folder):
    return checkpoint.load(folder / "last.pth")["network"]


def test_seeds_are_runs_of_their_own_and_can_be_repeated(tmp_path, capsys, without_pictures):
    out = ["-out", str(tmp_path)]
    assert main.main([*RUN, "-seeds", "3", "4", "-name", "a", *out]) == 0
    printed = capsys.readouterr().out
    assert "| 3 4   |" in printed and "±" in printed
    folders = [tmp_path / "checkpoints" / "EffNet_digits" / f"digits-a-seed{seed}" for seed in (3, 4)]
    assert [json.loads((each / "result.json").read_text())["seed"] for each in folders] == [3, 4]
    assert main.main(["-recipe", str(folders[1] / "settings.yaml"), "-name", "again", *out]) == 0
    again = weights(folders[1].with_name("digits-again"))
    assert all(map(torch.equal, weights(folders[1]).values(), again.values()))
    assert not all(map(torch.equal, weights(folders[0]).values(), again.values()))


def test_the_width_that_is_found_is_the_run_s(tmp_path, capsys, without_pictures):
    words = "-net MobileNetV2 -match params:100K -dataset digits -size 8 -b 256 -epochs 1 -warm 0 -gpu false -name m"
    assert main.main([*words.split(), "-out", str(tmp_path)]) == 0
    folder = tmp_path / "checkpoints" / "MobileNetV2" / "digits-m"
    saved = yaml.safe_load((folder / "settings.yaml").read_text())
    assert f"-match params:100K: width {saved['width']:g}" in capsys.readouterr().out
    assert abs(json.loads((folder / "result.json").read_text())["parameters"] - 100_000) < 5000
    assert main.main(["-test", "-weights", str(folder / "last.pth"), "-gpu", "false"]) == 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("-seeds 1 1", "-seeds 1 1: has a seed twice"),
        ("-seeds 1 2 -seed 3", "-seed: contradicts -seeds"),
        ("-seeds 1 2 -dry", "contradicts"),
        ("-match params:1K -width 0.5", "leave out -width"),
        ("-match cheap", "must be macs:NUMBER or params:NUMBER"),
        ("-match macs:0", "must be macs:NUMBER or params:NUMBER"),
        ("-match params:1M", "EffNet_digits has no width multiplier"),
    ],
)
def test_mistakes(words, said, tmp_path, capsys):
    assert main.main([*RUN, *words.split(), "-out", str(tmp_path)]) == 2
    line = capsys.readouterr().err
    assert said in line and line.count("\n") == 1 and not list(tmp_path.iterdir())
