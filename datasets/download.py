"""Downloads the official files, verifies their checksums, and bounds the size and the time of a transfer.

A file has its name only when its checksum is right. No library's limits hold against a server that sends a byte at a
time, requests' no more than those of pooch, which is built on it: a socket's timeout bounds each read, and headers,
redirects and the sizes of chunks take as many reads as the server likes. A thread therefore does the transfer, and this
one watches how much arrives.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from time import monotonic, sleep
from typing import BinaryIO
from urllib.parse import urljoin

import requests
import urllib3
from tqdm import tqdm

from conf.datasets import DatasetRow, OfficialFile
from datasets.archives import digest
from datasets.files import NotAFile, open_file
from utils import write_in_one_step

CHUNK = 1 << 18  # bytes
REDIRECTS = 10  # that are followed
GLANCE = 0.1  # seconds between two updates of the progress bar


class _Refused(Exception):
    """A transfer failed in a way that another attempt would not change."""


@dataclass(frozen=True)
class Limits:
    """The limits of a download.

    size     bytes of a file; the largest official file has 0.25 GiB
    timeout  seconds without a byte
    answer   seconds until the headers have come, redirects included
    window   seconds in which slowest * window bytes must arrive
    slowest  bytes a second
    retries  further attempts after a connection that broke off; the first after a second, the next after two
    """

    size: int = 1 << 30
    timeout: float = 30.0
    answer: float = 60.0
    window: float = 60.0
    slowest: float = 2048.0
    retries: int = 2


LIMITS = Limits()


def download(row: DatasetRow, folder: Path, limits: Limits = LIMITS) -> None:
    """Downloads the row's official files into the folder, which is made; a file that is there and whole is kept.

    Raises ValueError in one line that names the file, why it could not be downloaded, and where to put it by hand.
    """
    if not row.files:
        raise ValueError(f"{row.name}: not found; put {row.layout} into {folder}")
    for file in row.files:
        try:
            _download_file(file, folder / file.name, limits)
        except (_Refused, requests.RequestException) as error:
            raise _failure(row, file, folder, _reason(error, limits)) from error
        except OSError as error:  # RequestException is one too
            reason = (
                str(error) if isinstance(error, NotAFile) else f"it could not be written: {error.strerror or error}"
            )
            raise _failure(row, file, folder, reason) from error


def _download_file(file: OfficialFile, path: Path, limits: Limits) -> None:
    """Raises _Refused or RequestException for what the server does, OSError for a file that cannot be written."""
    if path.exists():
        with open_file(path) as found:
            if _is_whole(found, file):
                return

    def write(output: BinaryIO) -> None:
        _Transfer(file.url, limits).run(output)
        if not _is_whole(output, file):
            raise requests.RequestException("what arrived does not have the published checksum")

    for attempt in range(limits.retries + 1):
        try:
            write_in_one_step(path, write)
            return
        except requests.RequestException:
            if attempt == limits.retries:
                raise
            sleep(1.0 + attempt)


def _is_whole(content: BinaryIO, file: OfficialFile) -> bool:
    algorithm, _, expected = file.checksum.partition(":")
    return digest(content, algorithm) == expected


class _Session(requests.Session):
    """Follows no redirect by itself: requests would read the whole body of each, however long it is."""

    def get_redirect_target(self, response: requests.Response) -> None:
        return None


class _Transfer:
    """One attempt to download: work() is done by a thread of its own, and run() ends it when a limit is passed."""

    def __init__(self, url: str, limits: Limits) -> None:
        self.url, self.limits = url, limits
        self.received, self.total = 0, None  # bytes; the total is None where the server does not announce it
        self.error: Exception | None = None
        self.answered, self.ended, self.abandoned = threading.Event(), threading.Event(), threading.Event()

    def run(self, output: BinaryIO) -> None:
        """Raises _Refused, RequestException or OSError."""
        # A daemon: where the server holds it for ever, the program ends all the same.
        threading.Thread(target=self.work, args=(output,), daemon=True).start()
        try:
            if not self.answered.wait(self.limits.answer):
                raise _Refused(f"the server did not answer in {self.limits.answer:g} s")
            with _progress_bar(self.url, self.total) as progress:
                self._watch(progress)
        finally:
            self.abandoned.set()
        if self.error is not None:
            raise self.error

    def _watch(self, progress: tqdm) -> None:
        start, before = monotonic(), self.received
        while not self.ended.wait(GLANCE):
            received, elapsed = self.received, monotonic() - start
            progress.update(received - progress.n)
            if elapsed >= self.limits.window:
                if received - before < self.limits.slowest * elapsed:
                    raise _Refused(f"the server is too slow ({(received - before) / elapsed:.0f} bytes a second)")
                start, before = monotonic(), received

    def work(self, output: BinaryIO) -> None:
        try:
            with _Session() as session, self._answer(session) as response:
                length = response.headers.get("Content-Length", "")
                self.total = int(length) if length.isdigit() else None
                self.answered.set()
                self._copy(response, output)
        except Exception as error:  # for run(), which raises it
            self.error = error
        finally:
            self.ended.set()
            self.answered.set()

    def _answer(self, session: _Session) -> requests.Response:
        # identity: some servers send a .gz file as an encoding and have it unpacked on the way.
        headers, url = {"Accept-Encoding": "identity"}, self.url
        for _ in range(REDIRECTS + 1):
            response = session.get(url, stream=True, timeout=self.limits.timeout, headers=headers)
            if not response.is_redirect:
                if 400 <= response.status_code < 500:
                    raise _Refused(f"the server answered {response.status_code} {response.reason}")
                response.raise_for_status()
                return response
            response.close()
            url = urljoin(url, response.headers["location"])
        raise _Refused(f"the server redirects more than {REDIRECTS} times")

    def _copy(self, response: requests.Response, output: BinaryIO) -> None:
        limit, total = self.limits.size, self.total
        if total is not None and total > limit:
            raise _Refused(f"the server announces {total:,} bytes, more than the {limit:,} allowed")
        while not self.abandoned.is_set():
            try:
                # read1 returns what has arrived; read would wait for a whole chunk, however slowly it comes.
                part = response.raw.read1(CHUNK, decode_content=False)
            except urllib3.exceptions.TimeoutError as error:
                raise requests.ReadTimeout from error
            except (urllib3.exceptions.HTTPError, OSError) as error:
                raise requests.ConnectionError(f"the connection broke off after {self.received:,} bytes") from error
            if not part:
                break
            output.write(part)
            self.received += len(part)
            if self.received > limit:
                raise _Refused(f"the server sends without end (more than {limit:,} bytes)")
        if total is not None and self.received < total:
            raise requests.ConnectionError(f"the connection broke off after {self.received:,} of {total:,} bytes")


def _progress_bar(url: str, total: int | None) -> tqdm:
    name = url.rpartition("/")[2]
    return tqdm(total=total, desc=f"downloading {name}", unit="B", unit_scale=True, leave=False, disable=None)


def _reason(error: _Refused | requests.RequestException, limits: Limits) -> str:
    if isinstance(error, requests.Timeout):
        return f"nothing arrived for {limits.timeout:g} s"
    if getattr(error, "response", None) is not None:
        return f"the server answered {error.response.status_code} {error.response.reason}"
    if error.args and isinstance(error.args[0], str):
        return error.args[0]
    return "the server cannot be reached"


def _failure(row: DatasetRow, file: OfficialFile, folder: Path, reason: str) -> ValueError:
    return ValueError(
        f"{row.name}: {file.url} could not be downloaded ({reason}). Put {file.name} into {folder}, "
        "or use -dataset digits, which needs no download"
    )
