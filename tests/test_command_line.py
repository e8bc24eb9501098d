"""The command line: options mean what they say."""

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import main
import models
from conf import FIELDS, PARTS, option
from conf.datasets import DATASETS
from conf.resolve import recipe_names
from models.summary import parameter_count
from tests.helpers.runs import call

ROOT = Path(main.__file__).parent


def test_dry_prints_the_settings_and_writes_nothing(place, capsys):
    before = sorted(place.rglob("*"))
    assert main.main("--net cheapV3 -dataset digits -s False -b 32 --epochs 30 -dry".split()) == 0
    printed = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    assert printed["shuffle"] == "False" and printed["batch_size"] == "32"
    assert printed["warm"] == "6.0"  # two of the recipe's ten epochs are six of thirty
    assert sorted(place.rglob("*")) == before


def test_dry_finds_the_width_where_the_data_set_is_known(place, capsys):
    """Of the digits' ten classes in grey; a narrower and a wider network are further from the budget."""
    assert main.main("-net MobileNetV2 -dataset digits -match params:100K -dry".split()) == 0
    printed = dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines())
    width = float(printed["width"])
    assert width < 0.5

    def distance(width: float) -> int:
        network = models.create("MobileNetV2", num_classes=10, in_channels=1, image_size=16, width=width)
        return abs(parameter_count(network) - 100_000)

    assert all(distance(width) < distance(width * factor) for factor in (0.8, 1.25))
    (place / "photos").mkdir()
    assert main.main("-net MobileNetV2 -dataset photos -match params:100K -dry".split()) == 0
    assert "width: found by -match, once the images are read\n" in capsys.readouterr().out


@pytest.mark.parametrize("word", ["-s", "-s true", "-s True", "--s 1"])
def test_flags_may_stand_alone_or_with_a_value(place, capsys, word):
    assert main.main(f"-net cheapV3 -dataset digits {word} -dry".split()) == 0
    assert "shuffle: True" in capsys.readouterr().out


@pytest.mark.parametrize(
    "words",
    [
        "MobileNetV2",  # whose recipe starts gates at one, where there are any
        "cheapV3 -gate-start one",
        "MobileNetV3 -gate none -gate-start one",
        "MobileNetV3 -se reuse -gate-start one",
        "cheapV2 -reuse-times 1 -activation-before",  # a ReLU stands before the depthwise convolution, copies or not
        "cheapV3 -activation-before false",
    ],
)
def test_knobs_with_an_effect_are_accepted(place, words):
    assert main.main(f"-net {words} -dataset digits -dry".split()) == 0


def test_gpu_is_a_flag():
    given = [vars(main.make_parser().parse_args(f"-net cheapV3 -gpu {word}".split()))["gpu"] for word in GPU]
    assert given == [True, True, True, True, False, False, False]


GPU = ("", "true", "True", "yes", "false", "False", "off")


ALWAYS = set(
    "data gpu procs amp channels_last deterministic workers save_every keep log_every log_more skip_broken".split()
)
TOLD = {"net", "dataset", "natural_order", "random_resized_crop", "width", "size", "reuse", *PARTS}
ALSO = {
    "resume": {"out", "compile", "graphs", "cudnn_benchmark", "dataset", "distill", "kernels"},
    "test": {"weights", *TOLD},
    "export": {"weights", *TOLD},
    "predict": {"weights", *TOLD},
    "compare": {"out"},
    "reproduce": {"out", "data"},
}


@pytest.mark.parametrize("command", main.COMMANDS)
def test_settings_that_may_be_given_with_a_command(command):
    """Those that do not change what was trained, and the command's own arguments."""

    def is_accepted(name: str) -> bool:
        needed = {"weights": "a.pth"} if "weights" in ALSO[command] else {}
        try:
            main.check_commands({command: True}, needed | {name: 1})
        except ValueError:
            return False
        return True

    assert {name for name in FIELDS if is_accepted(name)} == (ALWAYS if command != "reproduce" else set()) | ALSO[
        command
    ]


def test_as_a_program(tmp_path):
    """From any folder, with a terminal's eyes: help works, a mistake has no traceback."""
    program = [sys.executable, str(ROOT / "main.py")]
    done = subprocess.run([*program, "-h"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "-net" in done.stdout and "default" in done.stdout
    done = subprocess.run([*program, "-net", "resnet"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1 and not list(tmp_path.iterdir())


def test_name_that_is_taken(place, capsys):
    folder = place / "checkpoints" / "cheapV3" / "digits-try1"
    folder.mkdir(parents=True)
    (folder / "result.json").write_text("{}")
    status, error = call(capsys, *"-net cheapV3 -dataset digits -name try1".split())
    assert status == 2 and "take another name" in error and "-resume" not in error  # there is nothing to go on with
    (folder / "last.pth").write_bytes(b"")
    assert (
        f"or go on with -resume {folder.relative_to(place)}"
        in call(capsys, *"-net cheapV3 -dataset digits -name try1".split())[1]
    )


def test_json_settings_are_plain():
    """What a run saves as its settings can be read by anything."""

    from conf.resolve import settings

    assert json.loads(json.dumps(dataclasses.asdict(settings({"net": "cheapV3"}))))["net"] == "cheapV3"


@pytest.mark.parametrize("columns", [80, 120])
def test_help(capsys, monkeypatch, columns):
    """Every option once, with its default; networks and recipes by name; no line is wider than the terminal."""
    monkeypatch.setenv("COLUMNS", str(columns))
    assert main.main(["-h"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= columns
    starts = [line.split(",")[0].split()[0] for line in lines if line.startswith("  -")]
    for name in FIELDS:
        word = option(name)
        assert starts.count(word) == 1, word
        start = next(number for number, line in enumerate(lines) if re.match(rf"  {word}[ ,]", f"{line} "))
        end = next(number for number in range(start + 1, len(lines)) if not lines[number].startswith("      "))
        assert re.search(r"default|required", " ".join(lines[start:end])), word
    text = " ".join(" ".join(lines).split())
    assert all(name in text for name in (*models.names(), *recipe_names())) and "--dataset" not in text
    assert "  -epochs N  " in "\n".join(lines) and "  -b, -batch-size N  " in "\n".join(lines)


def test_list_names_everything(capsys):
    assert main.main(["-list"]) == 0
    found = {line[2:20].strip(): line[20:] for line in capsys.readouterr().out.splitlines() if line[:3].strip()}
    for name in (*models.names(), *DATASETS, *recipe_names()):
        assert len(found[name]) > 10, name
    assert "scikit-learn" in found["digits"] and "300 epochs" in found["original"]


def test_version_tells_commit_and_torch(capsys):
    assert main.main(["--version"]) == 0
    printed = capsys.readouterr().out
    assert torch.__version__ in printed and re.search(r"commit ([0-9a-f]{12}\+?|unknown);", printed)


def test_a_network_in_small_letters(place, capsys):
    assert main.main("-net cheapv3 -dataset digits -dry".split()) == 0
    printed, error = capsys.readouterr()
    assert "net: cheapV3\n" in printed and error == "-net cheapv3: taken as cheapV3\n"


def test_completion(capsys, tmp_path):
    """What bash makes of the script: the options, and the words that they take."""
    pytest.importorskip("shtab")
    assert main.main(["-completion", "bash"]) == 0
    (tmp_path / "script").write_text(capsys.readouterr().out)
    asked = """
        source ./script
        for line in "main.py -bat" "main.py -net cheapV3_sh" "main.py -net cheapV2 -schedule l"; do
            COMP_WORDS=($line) COMP_CWORD=$((${#COMP_WORDS[@]} - 1)) COMPREPLY=()
            _shtab_main_py
            echo "${COMPREPLY[@]}"
        done
    """
    done = subprocess.run(["bash", "-c", asked], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["-batch-size", "cheapV3_shuffle cheapV3_shuffle6", "linear"], done.stderr
