"""stdout and stderr that never stop the program: everything that it prints goes through them (main.py).

What cannot be printed is no reason to lose work. When the reader has gone (`| head -1`, `| tee` after Ctrl-C, a closed
terminal) the rest is left out in silence, and the program goes on to its end. When a disk is full under a redirected
output it goes on too, says so once on the other stream, and ends with another status than 0.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import TextIO

from utils import printable

GONE = (errno.EPIPE, errno.EBADF, errno.EIO, errno.ECONNRESET, errno.EINVAL)  # EINVAL: a closed pipe on Windows


class SafeStream:
    """Stands in for a text stream: what its encoding lacks is escaped, and what cannot be written is left out.

    Control characters are escaped as well, since a terminal would act on those in a name of a file or of a class.
    failure: why text was lost, as the system says it; "" where none was, or nobody was left to read it.
    """

    def __init__(self, stream: TextIO, kept: str) -> None:
        """kept: the control characters that are written as they are."""
        self.stream, self.kept, self.failure, self.silent = stream, kept, "", False

    def __getattr__(self, name: str) -> object:
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        if self.silent:
            return len(text)
        if not text.isprintable():
            text = "".join(c if c in self.kept else printable(c) for c in text)
        encoding = self.stream.encoding or "utf-8"  # io.StringIO has none
        with self.failing():
            self.stream.write(text.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def writelines(self, lines: list[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if not self.silent:
            with self.failing():
                self.stream.flush()

    @contextlib.contextmanager
    def failing(self) -> Iterator[None]:
        """A context in which a failure makes the stream lead nowhere from then on."""
        try:
            yield
        except BlockingIOError:  # the reader is slow, and somebody has set the pipe so that nothing waits for it
            pass
        except (OSError, ValueError) as error:  # ValueError: the stream is closed
            if isinstance(error, OSError) and error.errno not in GONE:
                self.failure = error.strerror or str(error)
            self.silent = True
            # what is left in its buffer would fail again, for the last time when the interpreter ends
            with contextlib.suppress(OSError, ValueError), open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), self.stream.fileno())


@contextlib.contextmanager
def safe_streams() -> Iterator[None]:
    """A context in which sys.stdout and sys.stderr are SafeStreams, also where the program was started without them."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed: the next file would get its number, and messages would be written into it
            os.open(os.devnull, os.O_RDWR)
    before = sys.stdout, sys.stderr
    out, err = (stream or open(os.devnull, "w", encoding="utf-8") for stream in before)  # pythonw has neither
    sys.stdout, sys.stderr = streams = SafeStream(out, kept="\n\t"), SafeStream(err, kept="\n\t\r")  # progress bars: \r
    try:
        yield
    finally:
        for stream in streams:
            stream.flush()
        sys.stdout, sys.stderr = before


def lost_output() -> str:
    """The line that says what could not be printed so far; "" where nothing was lost. For use in safe_streams()."""
    for name, stream in (("stdout", sys.stdout), ("stderr", sys.stderr)):
        stream.flush()
        if isinstance(stream, SafeStream) and stream.failure:
            return f"{name}: not written ({stream.failure}); all else is done"
    return ""
