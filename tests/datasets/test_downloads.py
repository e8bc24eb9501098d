"""Downloads from a server that misbehaves, and archives that are not the published ones."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
import threading
import time
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

import datasets
from conf.datasets import DATASETS, DatasetRow, OfficialFile
from datasets.archives import read_members
from datasets.download import Limits, download

pytestmark = pytest.mark.usefixtures("downloads_without_waiting")

CONTENT = np.random.default_rng(0).bytes(300_000)
LIMITS = Limits(size=2_000_000, timeout=0.5, answer=1.0, window=1.0, slowest=1000, retries=1)


class Handler(BaseHTTPRequestHandler):
    """Answers as the path says; counts the requests on the server."""

    def do_GET(self):
        kind = self.path.split("/")[1]
        self.server.requests.append(self.path)
        if kind == "flaky":
            kind = "drop" if len(self.server.requests) == 1 else "good"
        if kind.isdigit():
            self.send_error(int(kind))
            return
        self.send_response(302 if kind in ("circle", "endless_redirect") else 200)
        try:
            getattr(self, kind)()
        except OSError:
            pass  # the client has hung up
        self.close_connection = True

    def announce(self, length: int | None = len(CONTENT)) -> None:
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    def good(self):
        content = self.server.files.get(self.path, CONTENT)
        self.announce(len(content))
        self.wfile.write(content)

    def drop(self):
        self.announce()
        self.wfile.write(CONTENT[:100_000])

    def silent_drop(self):
        self.announce(None)
        self.wfile.write(CONTENT[:100_000])

    def wrong(self):
        self.announce()
        self.wfile.write(CONTENT[:-1] + bytes((CONTENT[-1] ^ 1,)))

    def huge(self):
        self.announce(3_000_000)

    def endless(self):
        self.announce(None)
        while not self.server.stop.is_set():
            self.wfile.write(bytes(65536))

    def drip(self):
        self.announce()
        self.write_slowly(b"x")

    def drip_headers(self):
        self.flush_headers()
        self.write_slowly(b"x")

    def write_slowly(self, part: bytes) -> None:
        while not self.server.stop.is_set():
            self.wfile.write(part)
            time.sleep(0.05)

    def drip_chunk_size(self):
        self.send_header("Transfer-Encoding", "chunked")
        self.announce(None)
        self.wfile.write(b"5;")
        self.write_slowly(b"x")

    def circle(self):
        self.send_header("Location", self.path)
        self.announce(0)

    def endless_redirect(self):
        self.send_header("Location", "/good/data.tar.gz")
        self.endless()

    def stall(self):
        self.announce()
        self.wfile.write(CONTENT[:1000])
        self.server.stop.wait(10)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.requests, server.files, server.stop = [], {}, threading.Event()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield server
    server.stop.set()
    server.shutdown()
    thread.join()
    server.server_close()


def row_for(server, kind: str) -> DatasetRow:
    url = f"http://127.0.0.1:{server.server_address[1]}/{kind}/data.tar.gz"
    file = OfficialFile("data.tar.gz", url, "sha256:" + hashlib.sha256(CONTENT).hexdigest())
    return replace(DATASETS["cifar100"], files=(file,))


def test_a_good_file_is_fetched_once(server, tmp_path):
    folder = tmp_path / "data"
    for _ in range(2):
        download(row_for(server, "good"), folder, LIMITS)
    assert [path.name for path in folder.iterdir()] == ["data.tar.gz"]
    assert (folder / "data.tar.gz").read_bytes() == CONTENT
    assert len(server.requests) == 1


def test_a_download_that_breaks_off_is_started_again(server, tmp_path):
    download(row_for(server, "flaky"), tmp_path, LIMITS)
    assert (tmp_path / "data.tar.gz").read_bytes() == CONTENT
    assert len(server.requests) == 2


def test_the_body_of_a_redirect_is_not_read(server, tmp_path):
    download(row_for(server, "endless_redirect"), tmp_path, LIMITS)
    assert (tmp_path / "data.tar.gz").read_bytes() == CONTENT


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="makes a pipe")
def test_a_pipe_in_the_place_of_a_file_is_named(server, tmp_path):
    os.mkfifo(tmp_path / "data.tar.gz")
    with pytest.raises(ValueError, match="data.tar.gz is a folder, a pipe or a device"):
        download(row_for(server, "good"), tmp_path, LIMITS)
    assert server.requests == []


@pytest.mark.parametrize(
    ("kind", "reason", "attempts"),
    [
        ("404", "answered 404", 1),
        ("500", "answered 500", 2),
        ("drop", "broke off", 2),
        ("silent_drop", "published checksum", 2),
        ("wrong", "published checksum", 2),
        ("huge", "announces 3,000,000 bytes", 1),
        ("endless", "without end", 1),
        ("drip", "too slow", 1),
        ("drip_headers", "did not answer in 1 s", 1),
        ("drip_chunk_size", "too slow", 1),
        ("circle", "redirects more than 10 times", 11),
        ("stall", "nothing arrived for 0.5 s", 2),
    ],
)
def test_a_bad_server_gets_one_line_and_leaves_no_file(server, tmp_path, kind, reason, attempts, capfd):
    folder = tmp_path / "data"
    start = time.monotonic()
    with pytest.raises(ValueError, match=reason) as caught:
        download(row_for(server, kind), folder, LIMITS)
    assert time.monotonic() - start < 30
    message = str(caught.value)
    assert "\n" not in message
    for word in ("cifar100", f"Put data.tar.gz into {folder}", "-dataset digits"):
        assert word in message
    assert list(folder.iterdir()) == []
    assert len(server.requests) == attempts
    assert capfd.readouterr().err == ""


def test_no_network_gets_one_line(server, tmp_path):
    row = row_for(server, "good")
    server.shutdown()
    server.server_close()
    with pytest.raises(ValueError, match="cannot be reached.*Put data.tar.gz into .*-dataset digits"):
        download(row, tmp_path / "data", LIMITS)
    assert list((tmp_path / "data").iterdir()) == []


def test_load_downloads_what_is_missing_and_then_needs_no_server(server, tmp_path):
    files = []
    for name, count in (("train", 20), ("t10k", 10)):
        for kind, shape in (("images-idx3", (count, 28, 28)), ("labels-idx1", (count,))):
            header = bytes((0, 0, 8, len(shape))) + np.array(shape, dtype=">u4").tobytes()
            content = gzip.compress(header + np.resize(np.arange(10, dtype=np.uint8), shape).tobytes())
            path = f"/good/{name}-{kind}-ubyte.gz"
            server.files[path] = content
            url = f"http://127.0.0.1:{server.server_address[1]}{path}"
            files.append(OfficialFile(path.rpartition("/")[2], url, "md5:" + hashlib.md5(content).hexdigest()))
    row = replace(DATASETS["mnist"], files=tuple(files))
    first = datasets.load(row, tmp_path)
    assert first.train.targets.tolist() == [*range(10), *range(10)]
    assert sorted(path.name for path in (tmp_path / "MNIST" / "raw").iterdir()) == sorted(f.name for f in files)
    datasets.load(row, tmp_path)
    datasets.load(row, tmp_path, size=14)  # packed anew from the files that were fetched
    assert len(server.requests) == 4


# Archives


def tarred(mode: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:
        for name, content in (("set/good", b"good"), ("set/other", b"")):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def zipped() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in (("set/", b""), ("set/good", b"good"), ("set/other", b"")):
            archive.writestr(name, content)
    return buffer.getvalue()


@pytest.mark.parametrize("archive", [tarred("w:gz"), tarred("w"), zipped()], ids=["tar.gz", "tar", "zip"])
def test_members_of_the_published_archive_are_read(archive):
    def read(archive: bytes) -> dict[str, bytes]:
        return read_members(io.BytesIO(archive), "data/a", checksum, lambda name: name.endswith("good"))

    checksum = f"sha256:{hashlib.sha256(archive).hexdigest()}"
    assert read(archive) == {"set/good": b"good"}
    for other in (archive[:-1], archive[:30] + bytes([archive[30] ^ 1]) + archive[31:], b""):
        with pytest.raises(ValueError, match="data/a is not the published file"):
            read(other)
