"""-export card: what a run has recorded of itself, for whoever gets its weights."""

import json
import re

import pytest

import main
from engine.saved import checkpoint


@pytest.fixture(scope="module")
def run_folder(without_pictures, tmp_path_factory):
    """What one short run on the digits leaves, whose network has gates that nothing bounds."""
    out = tmp_path_factory.mktemp("run")
    words = (
        "-net cheapV3_small -dataset digits -epochs 2 -b 64 -size 8 -name try1 -gpu false -val 0.1 -lr 0.002 -seed 7"
    )
    assert main.main([*words.split(), "-out", str(out)]) == 0
    return out / "checkpoints" / "cheapV3_small" / "digits-try1"


def card_of(weights, capsys) -> str:
    assert main.main(["-export", "card", "-weights", str(weights)]) == 0
    assert capsys.readouterr().out.splitlines() == [str(weights.with_suffix(".md"))]
    return weights.with_suffix(".md").read_text(encoding="utf-8").replace("\\", "")


def test_it_says_what_the_run_was(run_folder, capsys):
    text, result = card_of(run_folder / "last.pth", capsys), json.loads((run_folder / "result.json").read_text())
    rows = dict(re.findall(r"^\| ([^|]+) \| ([^|]+) \|$", text, re.MULTILINE))
    assert rows["parameters"] == f"{result['parameters']:,}" and f"{result['macs']:,}" in rows["multiply-accumulates"]
    assert "gate none" in rows["parts"] and "expansion reuse" in rows["parts"]
    assert rows["training images"].startswith("1,437") and "0.1" in rows["training images"]
    assert rows["test images"] == "360" and rows["classes"] == "10"
    assert {"-lr 0.002", "-val 0.1"} <= set(re.findall(r"-\S+ \S+", rows["settings that differ from it"]))
    assert rows["epochs"] == "2" and rows["seed"] == "7" and rows["device"] == result["device"]
    assert result["versions"]["torch"] in rows["versions"] and rows["commit"] == result["commit"]
    errors = [f"{100 * result[f'{start} top-1 error']:.2f} %" for start in ("test", "best test")]
    assert f"| top-1 error | {errors[0]} | {errors[1]} |" in text and f"best epoch ({result['best epoch']})" in text
    assert "chosen on the validation images" in text and "which favours its error" not in text
    assert "one seed (7)" in text and "Nothing bounds the gates" in text
    assert f"none that is a number: {result['test overflowing images']:.0f}." in text
    assert str(run_folder.parents[2]) not in text


def test_its_three_lines_run(run_folder, capsys, monkeypatch):
    """As they stand, beside a picture of that name: one of the classes."""
    from PIL import Image

    code = re.search(r"```python\n(.*?)```", card_of(run_folder / "last.safetensors", capsys), re.DOTALL)[1]
    monkeypatch.chdir(run_folder)
    Image.new("L", (20, 30), 200).save("photo.png")
    exec(code, {})
    assert capsys.readouterr().out.strip() in checkpoint.load(run_folder / "last.pth")["classes"]


def test_weights_of_another_epoch_have_no_card(run_folder, capsys, tmp_path):
    """The errors of the last epoch are not theirs."""
    content = checkpoint.load(run_folder / "last.pth")
    other = tmp_path / "other.pth"
    other.with_name("result.json").write_text(json.dumps({"net": "a", "dataset": "b", "epochs trained": 9}))
    checkpoint.save(other, content)
    assert main.main(["-export", "card", "-weights", str(other)]) == 2
    assert "is not of the epoch" in capsys.readouterr().err and not other.with_suffix(".md").exists()
