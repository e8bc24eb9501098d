"""Checkpoints: damage anywhere is found, nothing in them is run, and bare weights of other projects are read."""

import os
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.saved import checkpoint

CONTENT = {
    "settings": {"net": "cheapV3", "epochs": 3},
    "revision": 2,
    "network": {"weight": torch.arange(600.0).reshape(20, 30), "count": torch.tensor(7)},
    "optimizer": {"state": {0: {"momentum_buffer": torch.ones(20, 30)}}, "param_groups": [{"lr": 0.1}]},
    "history": [{"epoch": 1, "test loss": 0.25}],
}
WHOLE = checkpoint.to_bytes(CONTENT)


def read(path, data: bytes) -> dict:
    path.write_bytes(data)
    return checkpoint.load(path)


def test_what_was_saved_is_read(tmp_path):
    content = read(tmp_path / "a.pth", WHOLE)
    assert torch.equal(content["network"]["weight"], CONTENT["network"]["weight"])
    assert content["history"] == CONTENT["history"] and content["settings"] == CONTENT["settings"]


@pytest.mark.parametrize("content", [{**CONTENT, "revision": 1}, {k: v for k, v in CONTENT.items() if k != "revision"}])
def test_weights_of_an_earlier_revision_are_refused(tmp_path, content):
    """The first row of cheapV3 once activated before its depthwise convolution: the same weights, another function."""
    checkpoint.save(tmp_path / "a.pth", content)
    with pytest.raises(ValueError, match="trained as revision 1 of cheapV3, and this is revision 2"):
        checkpoint.load(tmp_path / "a.pth")
    checkpoint.save(tmp_path / "b.pth", {**content, "settings": {"net": "MobileNetV3"}, "revision": 1})
    checkpoint.load(tmp_path / "b.pth")


TRAINED = {**CONTENT, "classes": ["a"], "mean": [0.5], "std": [0.2], "image_size": 8, "in_channels": 1}


@pytest.mark.parametrize("key", ["classes", "mean", "image_size"])
@pytest.mark.parametrize("value", ["missing", {"of": "another type"}])
def test_a_missing_or_strange_key_is_named(tmp_path, key, value):
    checkpoint.save(tmp_path / "a.pth", TRAINED)
    assert checkpoint.load_run(tmp_path / "a.pth")["classes"] == ["a"]
    changed = {**TRAINED, key: value}
    if value == "missing":
        del changed[key]
    checkpoint.save(tmp_path / "a.pth", changed)
    with pytest.raises(ValueError, match=f"a.pth: (holds no|its) '{key}'"):
        checkpoint.load_run(tmp_path / "a.pth")


def test_a_resume_needs_all_keys(tmp_path):
    """Weights alone can be tested; a run goes on only from all that it was."""
    checkpoint.save(tmp_path / "last.pth", TRAINED)
    with pytest.raises(ValueError, match="last.pth: holds no"):
        checkpoint.load_newest(tmp_path)


def test_torch_reads_it_too(tmp_path):
    """Another project needs nothing of this one to take the weights."""
    checkpoint.save(tmp_path / "a.pth", CONTENT)
    content = torch.load(tmp_path / "a.pth", weights_only=True)
    assert torch.equal(content["network"]["weight"], CONTENT["network"]["weight"])


@settings(max_examples=300, deadline=None)
@given(position=st.integers(0, 8 * len(WHOLE) - 1))
def test_a_flipped_bit_anywhere_is_found(tmp_path_factory, position):
    damaged = bytearray(WHOLE)
    damaged[position // 8] ^= 1 << position % 8
    with pytest.raises(ValueError, match="damaged"):
        read(tmp_path_factory.getbasetemp() / "flipped.pth", bytes(damaged))


def test_a_flipped_bit_in_the_end_of_the_file_is_found(tmp_path):
    """Every bit of the zip file's end record and of the checksum itself."""
    for position in range(8 * (len(WHOLE) - 110), 8 * len(WHOLE)):
        damaged = bytearray(WHOLE)
        damaged[position // 8] ^= 1 << position % 8
        with pytest.raises(ValueError, match="damaged"):
            read(tmp_path / "a.pth", bytes(damaged))


@settings(max_examples=200, deadline=None)
@given(length=st.integers(0, len(WHOLE) - 1))
def test_a_file_cut_short_anywhere_is_found(tmp_path_factory, length):
    with pytest.raises(ValueError, match="damaged"):
        read(tmp_path_factory.getbasetemp() / "short.pth", WHOLE[:length])


def test_a_file_cut_short_by_its_checksum_is_found(tmp_path):
    for length in range(len(WHOLE) - 120, len(WHOLE)):
        with pytest.raises(ValueError, match="damaged"):
            read(tmp_path / "a.pth", WHOLE[:length])


@settings(max_examples=200, deadline=None)
@given(data=st.binary(max_size=2000), keep=st.integers(0, len(WHOLE)))
def test_any_bytes_are_refused_with_a_reason(tmp_path_factory, data, keep):
    """Noise, and noise after the beginning of a real checkpoint."""
    path = tmp_path_factory.getbasetemp() / "noise.pth"
    for noise in (data, WHOLE[:keep] + data):
        if noise != WHOLE:
            with pytest.raises(ValueError, match="noise.pth"):
                read(path, noise)


class Code:
    """What an attacker would put in the place of a tensor: it makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("make", [checkpoint.to_bytes, pickle.dumps], ids=["with a checksum", "a bare pickle"])
@pytest.mark.parametrize("key", ["network", "settings", "other"])
def test_code_is_refused_and_not_run(tmp_path, make, key):
    data = make({**CONTENT, key: Code(tmp_path / "made")})
    pickle_loads_it = pickle.loads if make is pickle.dumps else None
    with pytest.raises(ValueError, match="could run code|damaged"):
        read(tmp_path / "a.pth", data)
    assert not (tmp_path / "made").exists()
    if pickle_loads_it:  # the test would pass for harmless data as well: this is not
        pickle_loads_it(data)
        assert (tmp_path / "made").exists()


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path, monkeypatch):
    path = tmp_path / "last.pth"
    path.write_bytes(b"old")

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        checkpoint.save(path, CONTENT)
    assert path.read_bytes() == b"old" and list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX's")
def test_others_may_read_what_the_mask_lets_them(tmp_path):
    """As any file that a program writes; a temporary file's would be for its owner alone."""
    before = os.umask(0o027)
    try:
        checkpoint.save(tmp_path / "a.pth", CONTENT)
    finally:
        os.umask(before)
    assert (tmp_path / "a.pth").stat().st_mode & 0o777 == 0o640


def test_newest_epoch_first(tmp_path):
    """By number, not by letter; names of networks may hold digits and hyphens."""
    names = ["EffNet-9-best.pth", "EffNet-10-regular.pth", "my-net-3-100-regular.pth", "last.pth", "weights.pth"]
    paths = checkpoint.by_epoch(tmp_path / name for name in names)
    assert [path.name for path in paths] == ["my-net-3-100-regular.pth", "EffNet-10-regular.pth", "EffNet-9-best.pth"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="named pipes are POSIX's")
def test_a_pipe_or_device_is_refused(tmp_path):
    """Opening one could wait for ever, or read without end."""
    os.mkfifo(tmp_path / "a.pth")
    for path in (tmp_path / "a.pth", Path("/dev/zero")):
        with pytest.raises(ValueError, match="a pipe or a device"):
            checkpoint.load(path)
