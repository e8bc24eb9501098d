"""A few helpers with more than one caller each. No file access, nothing at import."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Iterable


def nearest(word: str, known: Iterable[str], count: int = 3) -> str:
    """The known words most like `word`, as "a or b"; all of them where none is close. Case does not matter."""
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), by_lower, n=count, cutoff=0.5)
    return " or ".join(by_lower[name] for name in close) if close else ", ".join(by_lower.values())


def derived_seed(seed: int, stream: str, number: int) -> int:
    """A 63-bit seed for the `number`-th use of a named stream of random numbers, from a run's seed.

    Nothing of a stream's past is needed to draw its next numbers, so a resumed run draws what it would have drawn.
    """
    digest = hashlib.blake2b(f"{seed}/{stream}/{number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1
