"""Whatever happens to what a run prints, the run is trained and saved, and nothing ends in a traceback."""

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

import main
from engine.streams import SafeStream
from tests.helpers.runs import checkpoints

PROGRAM = [sys.executable, str(Path(main.__file__))]
SHORT = "-net EffNet -dataset digits -size 8 -epochs 1 -b 719 -name try1 -gpu false -kernels false".split()


class Strict(io.TextIOWrapper):
    """A terminal or file of another encoding than UTF-8."""

    def __init__(self, encoding: str) -> None:
        super().__init__(io.BytesIO(), encoding=encoding)


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_what_cannot_be_shown_is_escaped(encoding):
    """Letters that the encoding lacks, bytes of a name that is not UTF-8, and what a terminal would act on."""
    stream = Strict(encoding)
    SafeStream(stream, kept="\n").write("漢 \udcff \x1b[31m \x9b \u202e \r\n")
    stream.flush()
    shown = stream.buffer.getvalue().decode(encoding)
    assert shown == ("漢" if encoding == "utf-8" else "\\u6f22") + " \\udcff \\x1b[31m \\x9b \\u202e \\r\n"


@pytest.mark.skipif(os.name != "posix", reason="closes outputs by a POSIX shell")
@pytest.mark.slow
@pytest.mark.parametrize("outputs", ["2>&1 | true", ">&- 2>&-", "| head -1"])
def test_closed_outputs_cost_nothing(tmp_path, outputs):
    """The exit status is that of the program, not of the pipe's other end; nothing is said on stderr."""
    words = " ".join([*PROGRAM, *SHORT, "-out", str(tmp_path)])
    command = f"set -o pipefail; {words} {outputs}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.returncode == 0 and done.stderr == "", done.stderr
    assert (checkpoints(tmp_path) / "result.json").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_that_a_full_disk_took_is_a_failure(capfd):
    """Here the output is all that the program does. In the same process, whose own stdout comes back."""
    with open("/dev/full", "w") as full, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", full)
        assert main.main(["-net", "cheapV3", "-dry"]) == 1
        assert sys.stdout is full
    error = capfd.readouterr().err
    assert "stdout: not written (No space left on device)" in error and len(error.splitlines()) == 1


def test_no_outputs_at_all(monkeypatch, tmp_path):
    """As pythonw and a service start it."""
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    assert main.main(["-net", "cheapV3", "-dry"]) == 0 and main.main(["-net", "no"]) == 2
    assert sys.stdout is None
