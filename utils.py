"""A few helpers with more than one caller each. No file access, nothing at import."""

from __future__ import annotations

import argparse
import difflib
import hashlib
import re
from collections.abc import Iterable, Sequence


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


class OneLineParser(argparse.ArgumentParser):
    """argparse whose errors are ValueErrors of one line, and which takes whole option words only.

    Of single-dash options argparse guesses prefixes (-ep 3 as -epochs 3, -wdith 0.5 as -w dith), allow_abbrev or not.
    """

    def parse_args(self, words: Sequence[str]) -> argparse.Namespace:
        known = sorted({word.lstrip("-") for action in self._actions for word in action.option_strings})
        for word in words:
            match = re.match(r"--?([A-Za-z][^=]*)", word)
            if match and match[1] not in known:
                near = nearest(match[1], known).replace(" or ", " or -")
                raise ValueError(f"{match[0]}: unknown option; did you mean -{near}? (-h lists them all)")
        return super().parse_args(words)

    def error(self, message: str):
        raise ValueError(message.replace("argument ", "", 1))
