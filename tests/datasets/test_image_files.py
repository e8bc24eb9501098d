"""Which files of a folder count as images, and what is said of the others."""

from __future__ import annotations

import os
import sys
from collections import Counter

import pytest

from datasets.image_files import ANIMATIONS, EXTENSIONS, folders_in, image_files, left_out_line

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="pipes and links of POSIX")


@pytest.fixture
def untidy(tmp_path):
    """Two images, and one of everything else that lies about in people's folders."""
    folder = tmp_path / "untidy"
    (folder / "inner.png").mkdir(parents=True)  # a folder, whatever its name
    for name in (
        "a.JFIF",
        "inner.png/b.avif",
        "notes.txt",
        "c.gif",
        "noextension",
        "._a.jpg",
        ".DS_Store",
        "Thumbs.db",
    ):
        (folder / name).write_bytes(b"x")
    for name in ("__MACOSX", "@eaDir", ".ipynb_checkpoints", "$RECYCLE.BIN"):
        (folder / name).mkdir()
        (folder / name / "copy.jpg").write_bytes(b"x")
    os.mkfifo(folder / "pipe.png")
    (folder / "device.png").symlink_to("/dev/zero")
    (folder / "nowhere.png").symlink_to("gone")
    (folder / "self.png").symlink_to("self.png")
    (folder / "inner.png" / "up").symlink_to(folder)
    (folder / "again").symlink_to(folder / "inner.png")  # a link to another folder is followed
    return folder


def test_images_are_listed_and_everything_else_is_counted(untidy):
    left_out = Counter()
    found = image_files(untidy, left_out)
    assert [os.path.relpath(path, untidy) for path in found] == ["a.JFIF", "again/b.avif", "inner.png/b.avif"]
    assert left_out == {
        "hidden or system files and folders": 7,
        ".txt files": 1,
        ".gif files": 1,
        "files without an image's extension": 1,
        "pipes, devices and sockets": 2,
        "links that lead nowhere": 2,
        "links back to a folder above them": 2,
    }
    line = left_out_line(untidy, left_out)
    assert "\n" not in line and "hidden or system files and folders 7" in line and ".txt files 1" in line
    assert left_out_line(untidy, Counter()) == ""
    assert str(untidy / "c.gif") in image_files(untidy, Counter(), EXTENSIONS | ANIMATIONS)
    assert folders_in(untidy, Counter()) == ["again", "inner.png"]


def test_names_that_are_not_text_are_written_out(tmp_path):
    folder = os.fsencode(tmp_path / "odd") + b"\xff\x1b[31m"
    os.mkdir(folder)
    open(os.path.join(folder, b"\xfe.png"), "wb").close()
    (path,) = image_files(os.fsdecode(folder), Counter())
    assert os.fsencode(path) == os.path.join(folder, b"\xfe.png")
    assert left_out_line(os.fsdecode(folder), Counter(a=1)).endswith(
        "odd\\udcff\\x1b[31m: left out, with their counts: a 1"
    )
