"""The packed cache of a data set: what it outlives, when it is made again, where it is written."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
import sys
import tempfile
import zlib
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

import datasets
from tests.helpers.made_data import (
    ROOT,
    cifar_pickles,
    cifar_row,
    lay_out,
    load_folder,
    pixels,
    same,
    save_image,
)


def packed_file(data: Path) -> Path:
    (path,) = (data / "packed").iterdir()  # one file, and no temporary one beside it
    return path


@pytest.mark.usefixtures("downloads_without_waiting")
def test_packed_data_outlives_its_source(tmp_path):
    contents = cifar_pickles()
    lay_out(tmp_path, contents)
    row = cifar_row(b"", contents)
    first = datasets.load(row, tmp_path)
    shutil.rmtree(tmp_path / "cifar-100-python")
    assert same(first, datasets.load(row, tmp_path))
    other = replace(row, members=(*row.members[:-1], (row.members[-1][0], "md5:0")))
    with pytest.raises(ValueError, match="could not be downloaded"):
        datasets.load(other, tmp_path)


@pytest.mark.parametrize("position", [0.0, 0.0005, 0.3, 0.99, 1.0, "mean", "cut", "longer", "empty"])
def test_damaged_packed_data_is_made_again(image_folder, capsys, position):
    first = load_folder(image_folder, size=64)
    path = packed_file(image_folder.parent / "data")
    good = path.read_bytes()
    if position == "mean" or isinstance(position, float):
        # A flipped bit in a digit of the mean leaves a header that reads well.
        index = good.index(rb"\"mean\": [") + 14 if position == "mean" else round(position * (len(good) - 1))
        bad = good[:index] + bytes((good[index] ^ 1,)) + good[index + 1 :]
    else:
        bad = {"cut": good[:-1], "longer": good + b"\0", "empty": b""}[position]
    path.write_bytes(bad)
    assert same(first, load_folder(image_folder, size=64))
    assert f"{path} is damaged" in capsys.readouterr().err
    assert packed_file(image_folder.parent / "data").read_bytes() == good


def test_a_packed_file_is_a_safetensors_that_all_may_read_as_the_folder_says(image_folder):
    made = load_folder(image_folder)
    path = packed_file(image_folder.parent / "data")
    tensors = safetensors.torch.load_file(path)
    assert set(tensors) == {f"{split}.{kind}" for split in ("train", "test") for kind in ("images", "targets")}
    assert torch.equal(tensors["train.images"], made.train.images)
    assert all(tensor.data_ptr() % tensor.itemsize == 0 for tensor in tensors.values())
    (path.parent / "other").touch()
    assert path.stat().st_mode == (path.parent / "other").stat().st_mode


def test_packed_data_of_the_earlier_format_is_replaced(image_folder, capsys):
    first = load_folder(image_folder)
    path = packed_file(image_folder.parent / "data")
    good = path.read_bytes()
    path.write_bytes(struct.pack("<8sQI", b"REUSEPK1", 2, zlib.crc32(b"{}")) + b"{}" + bytes(100))
    assert same(first, load_folder(image_folder))
    assert packed_file(image_folder.parent / "data").read_bytes() == good
    assert capsys.readouterr().err == ""


def test_what_is_mapped_stays_when_the_file_is_made_again(image_folder):
    load_folder(image_folder)
    mapped = load_folder(image_folder).train.images
    before = mapped.clone()
    save_image(image_folder / "train" / "dog" / "1.png", pixels(1, side=20, seed=7)[0])
    assert not torch.equal(load_folder(image_folder).train.images, before)
    assert torch.equal(mapped, before)
    mapped.zero_()  # nor does what is done to it reach the file
    assert load_folder(image_folder).train.images.any()


def test_packed_data_is_made_again_when_an_image_changes(image_folder, monkeypatch):
    load_folder(image_folder)
    path = packed_file(image_folder.parent / "data")
    made = path.stat().st_mtime_ns
    monkeypatch.chdir(image_folder.parent)
    load_folder(Path("images"))  # the same folder by another name
    assert path.stat().st_mtime_ns == made
    image = image_folder / "train" / "dog" / "1.png"
    changed = pixels(1, side=20, seed=7)[0]
    before = image.stat()
    save_image(image, changed)  # in place: the folder's own time does not change
    os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    assert torch.equal(load_folder(image_folder).train.images[3], torch.from_numpy(changed))
    save_image(image_folder / "test" / "dog" / "b.png", changed)
    assert len(load_folder(image_folder).test.targets) == 3
    (image_folder / "test" / "dog" / "b.png").unlink()
    assert len(load_folder(image_folder).test.targets) == 2


def test_a_cache_that_cannot_be_written_does_not_stop_the_run(image_folder, capsys):
    first = load_folder(image_folder)
    shutil.rmtree(image_folder.parent / "data" / "packed")
    (image_folder.parent / "data" / "packed").write_bytes(b"in the way")
    assert same(first, load_folder(image_folder))
    assert "going on without it" in capsys.readouterr().err


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
import datasets
from conf.datasets import find_row
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
print(len(datasets.load(find_row(sys.argv[1]), Path(sys.argv[2])).train.targets))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits the size of files by setrlimit")
def test_a_full_disk_leaves_no_part_of_a_packed_file(image_folder, tmp_path):
    command = [sys.executable, "-c", FULL_DISK, str(image_folder), str(tmp_path / "data")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "4\n"), done.stderr
    assert "going on without it" in done.stderr
    assert list((tmp_path / "data" / "packed").iterdir()) == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the cache folder is set by XDG_CACHE_HOME")
def test_a_read_only_data_folder_is_packed_in_the_users_cache(monkeypatch):
    with tempfile.TemporaryDirectory() as folder:
        base = Path(folder)
        contents = cifar_pickles()
        lay_out(base / "data", contents)
        row = cifar_row(b"", contents)
        (base / "cache").mkdir()
        monkeypatch.setenv("XDG_CACHE_HOME", str(base / "cache"))
        (base / "data").chmod(0o555)
        base.chmod(0o755)
        (base / "cache").chmod(0o777)
        user = os.geteuid()
        if user == 0:
            os.seteuid(65534)  # root may write anywhere
        try:
            first = datasets.load(row, base / "data")
            monkeypatch.setitem(datasets.READERS, "cifar", replace(datasets.READERS["cifar"], read=None))
            second = datasets.load(row, base / "data")  # from the cache: there is no reader any more
        finally:
            os.seteuid(user)
            (base / "data").chmod(0o755)
        assert same(first, second)
        assert len(list((base / "cache").rglob("*.packed"))) == 1
        assert not (base / "data" / "packed").exists()
