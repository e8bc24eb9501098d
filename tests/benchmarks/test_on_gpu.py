"""benchmarks/on_gpu.py: it runs in its small form on a CPU, keeps what it measured, and goes on where it was."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks import on_gpu, on_gpu_checks, on_gpu_plan

ROOT = Path(on_gpu.__file__).resolve().parents[1]


def run(out: Path, *words: str) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / "benchmarks" / "on_gpu.py"), "-gpu", "false", "-rounds", "1", "-threads", "1"]
    return subprocess.run([*command, "-out", str(out), *words], capture_output=True, text=True, timeout=500)


def test_what_was_measured_is_kept_and_not_measured_again(tmp_path):
    notes, seen = on_gpu.Notebook(tmp_path, "a machine"), []

    def lines(*names):
        for name in names:
            yield name, lambda name=name: seen.append(name) or {"images/s": f"{len(seen)}"}

    def broken():
        raise RuntimeError("no such kernel\nwith a long story")

    assert notes.fill("matrix", lines("one", "two", "other"), ["*o*"], limit=60)
    again = on_gpu.Notebook(tmp_path, "a machine")
    assert again.fill("matrix", [*lines("one", "three"), ("broken", broken)], ["*"], limit=60)
    assert seen == ["one", "two", "other", "three"]
    table = json.loads((tmp_path / "on_gpu.json").read_text())["tables"]["matrix"]
    assert table["two"] == {"images/s": "2"} and "no such kernel)" in table["broken"]["left out"]
    assert "| three | 4 |  |" in (tmp_path / "on_gpu.md").read_text()
    assert not again.fill("matrix", lines("late"), ["*"], limit=-1) and "late" not in seen
    with pytest.raises(ValueError, match="another machine"):
        on_gpu.Notebook(tmp_path, "another one")


def test_without_a_gpu_it_says_what_to_do(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["on_gpu.py", "-gpu", "false", "-out", str(tmp_path / "out")])
    assert on_gpu.main() == 2
    assert "give -small" in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_pattern_that_fits_no_line_is_refused(tmp_path, monkeypatch, capsys):
    words = ["-small", "-gpu", "false", "-stages", "waits", "-only", "fp16", "-out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["on_gpu.py", *words])
    assert on_gpu.main() == 2
    assert "-only fp16: fits no whole name" in capsys.readouterr().err


@pytest.mark.slow
def test_what_failed_is_named_and_what_hangs_is_stopped(tmp_path):
    path, cpu = tmp_path / "test_made.py", torch.device("cpu")
    made = "@pytest.mark.cuda\n@pytest.mark.parametrize('given', ['-amp off', '-amp fp16', 'it'])"
    body = "    assert given != '-amp fp16'\n    time.sleep(300 if given == 'it' and os.path.exists(HANG) else 0)"
    begin = f"import os, pytest, time\nHANG = {str(tmp_path / 'hang')!r}"
    path.write_text(f"{begin}\n{made}\ndef test_made(given):\n{body}\n")

    def found(seconds: float) -> dict[str, str]:
        plan = on_gpu_plan.Plan(seconds=seconds, workers=1)
        return on_gpu_checks.run_tests(on_gpu_plan.Bench(plan, {}, cpu, 1, 1, tmp_path), path)

    failed = "test_made[-amp fp16]"
    assert found(500) == {"found": "1 failed, 2 passed", "failed": failed, "not finished": ""}
    (tmp_path / "hang").touch()
    stopped = {"found": "1 failed, 1 passed, stopped after 20 s", "failed": failed, "not finished": "test_made[it]"}
    assert found(20) == stopped


@pytest.mark.slow
def test_every_stage_runs_in_its_small_form(tmp_path):
    done = run(tmp_path, "-small")
    assert done.returncode == 0, done.stderr
    tables = json.loads((tmp_path / "on_gpu.json").read_text())["tables"]
    assert list(tables) == list(on_gpu.STAGES)
    said = tables["correct"]["test_steps.py"]
    assert said["found"].startswith("2 passed, ") and not said["failed"] and not said["not finished"]
    crossed = [name.removeprefix("cheapV3_small, batch 4, ") for name in tables["crossed"]]
    forms, layouts, precisions = (set(each) for each in zip(*(name.split(", ") for name in crossed), strict=True))
    assert len(set(crossed)) == len(forms) * len(layouts) * len(precisions) == 3 * 2 * 2
    left_out = {f"{stage}: {name}" for stage, table in tables.items() for name in table if "left out" in table[name]}
    assert {each for each in left_out if not each.startswith("waits")} <= {"compare: MobileNetV3 and timm's"}
    assert "images/s" in tables["matrix"]["cheapV3_small, batch 4"]
