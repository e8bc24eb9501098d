"""Downloads the official files, verifies their checksums, and bounds the size and the time of a transfer.

pooch writes to a temporary file and renames it only when the checksum is right. The transfer itself is written here,
since pooch's has no limit of size, and its timeout does not stop a server that sends a byte at a time.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path

import pooch
import requests
import urllib3
from tqdm import tqdm

from conf.datasets import DatasetRow, OfficialFile

CHUNK = 1 << 18  # bytes


class _Refused(Exception):
    """A transfer failed in a way that another attempt would not change."""


@dataclass(frozen=True)
class Limits:
    """The limits of a download.

    size     bytes of a file; the largest official file has 0.25 GiB
    timeout  seconds without an answer or a byte
    window   seconds in which slowest * window bytes must arrive
    slowest  bytes a second
    retries  further attempts after a connection that broke off
    """

    size: int = 1 << 30
    timeout: float = 30.0
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
    logger = pooch.get_logger()
    level = logger.level
    logger.setLevel("WARNING")  # progress is the bar's; what went wrong is said in one line below
    try:
        for file in row.files:
            _download_file(row, file, folder, limits)
    finally:
        logger.setLevel(level)


def _download_file(row: DatasetRow, file: OfficialFile, folder: Path, limits: Limits) -> None:
    manager = pooch.create(
        folder,
        base_url="",
        registry={file.name: file.checksum},
        urls={file.name: file.url},
        retry_if_failed=limits.retries,
    )
    try:
        path = manager.fetch(file.name, downloader=_Transfer(limits))
        os.chmod(path, 0o644)  # pooch's temporary files are the user's alone; the data folder may be a group's
    except _Refused as error:
        raise _failure(row, file, folder, str(error)) from error
    except requests.Timeout as error:
        raise _failure(row, file, folder, f"nothing arrived for {limits.timeout:g} s") from error
    except requests.RequestException as error:
        raise _failure(row, file, folder, _reason(error)) from error
    except ValueError as error:  # pooch's word for a wrong checksum
        raise _failure(row, file, folder, "what arrived does not have the published checksum") from error
    except OSError as error:
        raise _failure(row, file, folder, f"it could not be written: {error.strerror or error}") from error


class _Transfer:
    """One attempt to download, in the form that pooch calls."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits

    def __call__(self, url: str, output_file: str, pooch: object) -> None:
        # identity: some servers send a .gz file as an encoding and have it unpacked on the way.
        headers = {"Accept-Encoding": "identity"}
        with requests.get(url, stream=True, timeout=self.limits.timeout, headers=headers) as response:
            if 400 <= response.status_code < 500:
                raise _Refused(f"the server answered {response.status_code} {response.reason}")
            response.raise_for_status()
            length = response.headers.get("Content-Length", "")
            total = int(length) if length.isdigit() else None
            with open(output_file, "wb") as output, _progress_bar(url, total) as progress:
                self._copy(response, total, output, progress)

    def _copy(self, response: requests.Response, total: int | None, output, progress: tqdm) -> None:
        limits, received, window_start, window_bytes = self.limits, 0, time.monotonic(), 0
        if total is not None and total > limits.size:
            raise _Refused(f"the server announces {total:,} bytes, more than the {limits.size:,} allowed")
        while True:
            try:
                # read1 returns what has arrived; read would wait for a whole chunk, however slowly it comes.
                part = response.raw.read1(CHUNK, decode_content=False)
            except urllib3.exceptions.TimeoutError as error:
                raise requests.ReadTimeout from error
            except (urllib3.exceptions.HTTPError, OSError) as error:
                raise requests.ConnectionError(f"the connection broke off after {received:,} bytes") from error
            if not part:
                break
            output.write(part)
            progress.update(len(part))
            received, window_bytes = received + len(part), window_bytes + len(part)
            if received > limits.size:
                raise _Refused(f"the server sends without end (more than {limits.size:,} bytes)")
            elapsed = time.monotonic() - window_start
            if elapsed >= limits.window:
                if window_bytes < limits.slowest * elapsed:
                    raise _Refused(f"the server is too slow ({window_bytes / elapsed:.0f} bytes a second)")
                window_start, window_bytes = time.monotonic(), 0
        if total is not None and received < total:
            raise requests.ConnectionError(f"the connection broke off after {received:,} of {total:,} bytes")


def _progress_bar(url: str, total: int | None) -> tqdm:
    name = url.rpartition("/")[2]
    return tqdm(total=total, desc=f"downloading {name}", unit="B", unit_scale=True, leave=False, disable=None)


def _reason(error: requests.RequestException) -> str:
    if error.response is not None:
        return f"the server answered {error.response.status_code} {error.response.reason}"
    if error.args and isinstance(error.args[0], str):
        return error.args[0]
    return "the server cannot be reached"


def _failure(row: DatasetRow, file: OfficialFile, folder: Path, reason: str) -> ValueError:
    return ValueError(
        f"{row.name}: {file.url} could not be downloaded ({reason}). Put {file.name} into {folder}, "
        "or use -dataset digits, which needs no download"
    )
