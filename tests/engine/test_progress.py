"""What a terminal shows of a run: in a real one (a pty) of 80 columns, and an epoch's line at its worst."""

import io
import os
import re
import struct
import subprocess
import sys
from pathlib import Path

import pytest

from engine.shown.progress import LINE, duration, epoch_line
from engine.tasks import Classification, Regression

ROOT = Path(__file__).resolve().parents[2]


def line(metrics: dict, epochs: int = 300, speed: float = 98765.4) -> str:
    return epoch_line(100, epochs, Classification(100), metrics, speed)


def values(**given: float) -> dict[str, float]:
    return {"loss": 4.6789, "accuracy": 0.0123, "top-5": 0.0567, "overflowing images": 0.0} | given


EVALUATED = values(**{"median loss": 0.5})


def test_an_epochs_line_fits():
    """The errors and losses of all splits always stand in it; then what there is room for."""
    two = line({"Train": values(), "Test": EVALUATED})
    assert two == (
        "epoch 100/300  train loss 4.6789  error 98.77 % | test loss 4.6789  error 98.77 %  top-5 94.33 % | "
        "98765 images/s"
    )
    three = line({"Train": values(), "Val": EVALUATED, "Test": EVALUATED}, epochs=1000)
    assert len(three) <= LINE and three.count("loss 4.6789  error 98.77 %") == 3 and "top-5" not in three


def test_an_epochs_line_of_an_overflowing_network():
    overflown = EVALUATED | {"loss": 3.2e15, "overflowing images": 123.0}
    found = line({"Train": values(), "Test": overflown})
    assert len(found) <= LINE and "test loss 3.2e+15  error 98.77 %  median 0.5000  overflows 123" in found


def test_an_epochs_line_keeps_its_columns():
    """From 9.9 to 10 %, and from epoch 9 to 10."""
    first, second = (
        epoch_line(epoch, 10, Classification(100), {"Train": values(accuracy=share), "Test": EVALUATED}, 500)
        for epoch, share in ((9, 0.901), (10, 0.9))
    )
    assert len(first) == len(second) and "error  9.90 %" in first


def test_an_epochs_line_of_angles_fits():
    task = Regression(25.0, 0.1)
    metrics = task.metrics([1.0, 2.0, 3.0, 4.0, 5.0, 10.0])
    found = epoch_line(1, 21, task, {"Train": metrics, "Test": metrics}, 1234)
    assert len(found) <= LINE and found.count("MSE 0.1000  error  5.00 degrees") == 2


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(31.4, "31 s"), (720, "12 min"), (12_000, "3 h 20 min"), (190_800, "2 days 5 h"), (0.2, "0 s")],
)
def test_duration(seconds, text):
    assert duration(seconds) == text


def shown_in_a_terminal(words: str, columns: int) -> list[str]:
    """The texts that a program prints on a terminal so wide, one for each carriage return or line feed."""
    fcntl, pty, termios = (pytest.importorskip(name) for name in ("fcntl", "pty", "termios"))
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    program = subprocess.Popen(
        [sys.executable, str(ROOT / "main.py"), *words.split()], stdout=follower, stderr=follower, stdin=follower
    )
    os.close(follower)
    text = io.BytesIO()
    while True:
        try:
            text.write(os.read(leader, 65536))
        except OSError:  # the program has ended
            break
    os.close(leader)
    assert program.wait() == 0, text.getvalue()
    return re.split(r"[\r\n]+", text.getvalue().decode())


@pytest.mark.slow
def test_a_run_in_a_terminal_of_80_columns(tmp_path):
    words = "-net EffNet -dataset digits -epochs 2 -b 16 -log-every 5 -gpu false -name a -out"
    shown = shown_in_a_terminal(f"{words} {tmp_path}", 80)
    bars = [each for each in shown if re.match(r"epoch [12]/2 \|", each)]
    assert len(set(bars)) > 3 and max(map(len, bars)) < 80  # how often it is drawn depends on the time
    assert re.fullmatch(
        r"epoch 2/2 \|.+\| \d+/90, \d\d:\d\d left, error +\d+\.\d\d %, loss \d+\.\d{4}, \d+ images/s", bars[-1]
    )
    [estimate] = [each for each in shown if "to go" in each]
    assert re.fullmatch(r"about \d+ (s|min) to go: 10 steps took \S+ s each", estimate)
    assert "drawing the pictures of the test set ..." in shown
    assert all(len(each) <= LINE for each in shown if re.match(r"epoch \d/2  ", each))
