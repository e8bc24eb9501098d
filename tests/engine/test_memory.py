"""Out of memory: every library's error is known, and a run that meets it ends in one line with what it had saved."""

import errno
import itertools
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import torch

import main
from conf import convert
from conf.datasets import find_row
from conf.resolve import settings
from engine.checks import check_run
from engine.memory import is_out_of_memory, out_of_memory_line
from engine.saved import checkpoint

ROOT = Path(main.__file__).parent
HUGE = 1 << 60


@pytest.mark.parametrize(
    "ask", [lambda: torch.empty(HUGE // 8), lambda: numpy.empty(HUGE // 8), lambda: bytearray(HUGE)]
)
def test_errors_of_each_library(ask):
    with pytest.raises((RuntimeError, MemoryError)) as error:
        ask()
    assert is_out_of_memory(error.value)


def test_other_errors_are_not_taken_for_it():
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    assert is_out_of_memory(OSError(errno.ENOMEM, "Cannot allocate memory"))
    for error in (OSError(errno.ENOSPC, "full"), RuntimeError("shape '[2]' is invalid"), ValueError("memory"), None):
        assert not is_out_of_memory(error)


def test_only_options_that_are_accepted_are_named():
    line = out_of_memory_line(MemoryError(), None, settings({"net": "EffNet", "dataset": "digits", "batch_size": 48}))
    assert "-b 24" in line and "-width" not in line and "-memory" not in line and "-gpu" not in line
    words = [word for word in line.replace(",", "").replace(";", "").split() if word.startswith("-")]
    lowered = main.make_parser().parse_args(["-b", "24", "-accumulate", "2", "-size", "8"])
    assert set(words) == {"-accumulate", "-b", "-size"} and int(lowered.batch_size) == 24
    assert "-gpu false" in out_of_memory_line(torch.OutOfMemoryError("CUDA out of memory"), "test")
    assert "-b" not in out_of_memory_line(MemoryError(), "test")


@pytest.mark.parametrize(
    ("given", "lowered"),
    [
        ({"match": "params:400K"}, ["-accumulate", "-b", "-size"]),
        ({"batch_size": 4, "accumulate": 2}, ["-size", "-width"]),
        ({"batch_size": 8, "accumulate": 2}, ["-accumulate", "-b", "-size", "-width"]),
        ({"batch_size": 8, "accumulate": 3}, ["-size", "-width"]),
        ({"size": 16, "crop": 8}, ["-accumulate", "-b", "-width"]),
        ({"size": 32, "sizes": (16, 32), "epochs": 10}, ["-accumulate", "-b", "-width"]),
    ],
    ids=str,
)
def test_every_option_that_is_named_is_accepted(given, lowered):
    """Each in the place of what was given, as the user would type it."""
    given = {"net": "cheapV3", "dataset": "digits", "gpu": False, **given}
    words = out_of_memory_line(MemoryError(), None, settings(given)).replace(",", "").replace(";", "").split()
    named = {word: value for word, value in itertools.pairwise(words) if word.startswith("-")}
    assert sorted(named) == lowered
    for word, value in named.items():
        name = {"-b": "batch_size"}.get(word, word[1:])
        check_run(settings(given | {name: convert(name, value)}), find_row("digits"), processes=1)


PROGRAM = """
import resource, sys
import main, commands.train, engine.run
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 400_000_000,) * 2)
raise SystemExit(main.main(sys.argv[1:]))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits on memory and /proc are Linux's")
def test_a_run_without_enough_memory(tmp_path):
    words = "-net cheapV2 -kernels false -dataset digits -size 128 -b 512 -epochs 1 -warm 0 -gpu false -name a".split()
    words += ["-out", str(tmp_path)]
    done = subprocess.run([sys.executable, "-c", PROGRAM, *words], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1, done.stderr
    assert "memory ran out" in done.stderr and "-b 256" in done.stderr and "-size 64" in done.stderr
    assert checkpoint.load_run(tmp_path / "checkpoints/cheapV2/digits-a/last.pth")["step"] == 0
