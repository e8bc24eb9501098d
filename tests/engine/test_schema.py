"""A checkpoint with anything changed in it is refused in one line, or gives what it gave before: never a traceback."""

import contextlib
import io
import random
import shutil

import numpy
import pytest
import torch
from PIL import Image

import main
from engine.saved import checkpoint
from tests.helpers.runs import checkpoints

pytestmark = pytest.mark.usefixtures("finished", "without_pictures")

VALUES = (None, True, -1, 0, 1.5, 10**400, float("nan"), "x", "", [], [[]], {}, {"a": 1}, {7: 1}, (1, 2))
TENSORS = (torch.tensor(2.0), torch.zeros(3), torch.zeros(2, 2, dtype=torch.int64), torch.zeros(3).to_sparse())


def places(value: object, draw: random.Random, place: tuple = ()) -> list[tuple]:
    """The keys that lead to a value and to those inside it; of many alike, three that are drawn."""
    keys = list(value) if isinstance(value, dict) else list(range(len(value))) if isinstance(value, list) else []
    few = draw.sample(keys, 3) if len(place) > 0 and len(keys) > 14 and place != ("settings",) else keys
    return [place, *(each for key in few for each in places(value[key], draw, (*place, key)))]


def changed(content: dict, place: tuple, *value: object) -> dict:
    """A copy of content with another value in a place, or with nothing there."""

    def copy(each: object) -> object:
        if isinstance(each, dict):
            return {key: copy(inner) for key, inner in each.items()}
        return [copy(inner) for inner in each] if isinstance(each, list) else each

    whole = at = copy(content)
    for key in place[:-1]:
        at = at[key]
    if value:
        at[place[-1]] = value[0]
    else:
        del at[place[-1]]
    return whole


def call(*words: object) -> tuple[int, str, str]:
    out, error = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(error):
        status = main.main([str(word) for word in words])
    return status, out.getvalue(), error.getvalue()


def variations(content: dict, count: int, seed: int) -> list[tuple[tuple, tuple]]:
    draw = random.Random(seed)
    everywhere = [place for place in places(content, draw) if place]
    values = [(), *((value,) for value in (*VALUES, *TENSORS))]
    top = [((key,), ()) for key in content]
    return top + [(draw.choice(everywhere), draw.choice(values)) for _ in range(count)]


@pytest.mark.parametrize("command", ["-test", "-predict", "-resume"])
def test_anything_changed_is_refused_or_changes_nothing(finished, tmp_path, command):
    content = checkpoint.load(checkpoints(finished) / "last.pth")
    picture = tmp_path / "picture.png"
    Image.fromarray(numpy.arange(64, dtype=numpy.uint8).reshape(8, 8)).save(picture)
    folder = tmp_path / "checkpoints" / "EffNet" / "digits-try1"
    words = {"-test": ["-test", "-weights", folder / "last.pth"], "-resume": ["-resume", folder]}
    words = words.get(command, ["-predict", picture, "-weights", folder / "last.pth"])

    def outcome(content: dict) -> tuple[int, str, str, bool]:
        shutil.rmtree(folder, ignore_errors=True)
        checkpoint.save(folder / "last.pth", content)
        before = {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()}
        status, out, error = call(*words)
        after = {path: path.read_bytes() for path in tmp_path.rglob("*.*") if path.is_file()}
        return (
            status,
            "\n".join(line for line in out.splitlines() if "error" in line or "%" in line),
            error,
            before == after,
        )

    expected = outcome(content)
    assert expected[0] == 0
    refused = 0
    for place, value in variations(content, 12 if command == "-resume" else 10, seed=len(command)):
        status, out, error, untouched = outcome(changed(content, place, *value))
        what = f"{command} with {value or 'nothing'} at {place}: {error or out}"
        if status == 0:  # a name of a class is what -predict prints
            assert out == expected[1] or (command == "-predict" and place[0] == "classes"), what
        else:
            assert (status, len(error.splitlines()), untouched) == (2, 1, True), what
            refused += bool(value)  # of the drawn ones: without a key of the top it is always refused
    assert refused > 2
