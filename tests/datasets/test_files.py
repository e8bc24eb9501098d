"""Files of data: what is no file, and what a killed writer leaves."""

from __future__ import annotations

import os
import signal
import socket
import sys
from typing import BinaryIO

import pytest
import torch

import datasets
from conf.datasets import find_row
from datasets.files import open_file
from tests.helpers.drive import write_drive
from tests.helpers.made_data import cifar_pickles, cifar_row, lay_out, load_folder, tar_gz
from utils import sweep, write_in_one_step

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="Windows has neither these locks nor pipes with names")


def test_leftovers_are_swept_and_a_live_writer_is_not(image_folder):
    packed = image_folder.parent / "data" / "packed"
    packed.mkdir(parents=True)
    users = ["a.packed.0123abcd", "a.packed.tmp", ".notes.0123abcd.tmp"]
    for name in users:
        (packed / name).write_bytes(b"the user's")
    child = os.fork()
    if child == 0:
        write_in_one_step(packed / "other-32.packed", lambda file: os.kill(os.getpid(), signal.SIGKILL))
    os.waitpid(child, 0)
    assert len(list(packed.iterdir())) == len(users) + 1

    def load_meanwhile(file: BinaryIO) -> None:
        load_folder(image_folder)
        (own,) = packed.glob(".third-32.packed.*")
        assert os.path.samestat(own.stat(), os.fstat(file.fileno()))

    write_in_one_step(packed / "third-32.packed", load_meanwhile)
    made = {"third-32.packed"} | {path.name for path in packed.glob("images-*-auto.packed")}
    assert {path.name for path in packed.iterdir()} == {*users, *made} and len(made) == 2


def test_a_killed_download_is_swept_though_the_file_is_there_now(tmp_path):
    contents = cifar_pickles()
    archive = tar_gz(contents)
    name = "cifar-100-python.tar.gz"
    lay_out(tmp_path, {name: archive, f".{name}.89abcdef.tmp": archive[:99], ".mine.tar.gz.89abcdef.tmp": b""})
    datasets.load(cifar_row(archive, contents), tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.tmp")) == [".mine.tar.gz.89abcdef.tmp"]


def test_a_writer_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "a.json"
    write_in_one_step(path, lambda file: file.write(b"good"))

    def fail(file) -> None:
        file.write(b"half")
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        write_in_one_step(path, fail)
    assert [each.name for each in tmp_path.iterdir()] == ["a.json"] and path.read_bytes() == b"good"
    sweep(tmp_path / "no such folder", lambda name: True)


def test_what_is_no_file_is_named_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "socket"))
        for path in (tmp_path / "pipe", tmp_path / "socket", "/dev/zero", tmp_path):
            with pytest.raises(OSError, match=f"{path} is a folder, a pipe or a device"):
                open_file(path)


@pytest.mark.parametrize("name", ["data/packed/{packed}", "drive/IMG/left_003.jpg", "drive/driving_log.csv"])
def test_a_pipe_in_the_place_of_a_data_file_never_waits(tmp_path, capsys, name):
    drive = write_drive(tmp_path / "drive", 25)
    row = find_row(str(drive))
    first = datasets.load(row, tmp_path / "data", 8)
    (packed,) = (tmp_path / "data" / "packed").iterdir()
    path = tmp_path / name.format(packed=packed.name)
    path.unlink()
    os.mkfifo(path)
    if "packed" in name:
        again = datasets.load(row, tmp_path / "data", 8)
        assert torch.equal(first.train.images, again.train.images)
        assert "a pipe or a device" in capsys.readouterr().err and packed.is_file()
    else:
        packed.unlink()
        with pytest.raises(ValueError, match="left_003.jpg is .* a pipe|not found"):
            datasets.load(row, tmp_path / "data", 8)
