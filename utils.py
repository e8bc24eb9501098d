"""A few helpers with more than one caller each. No file access, nothing at import."""

from __future__ import annotations

import argparse
import difflib
import hashlib
import re
from collections.abc import Iterable, Sequence


def nearest(word: str, known: Iterable[str], count: int = 3) -> str:
    """The known words that are most similar to `word`, as "a or b", or all of them where none is close.

    Upper and lower case are the same.
    """
    by_lower = {name.lower(): name for name in known}
    close = difflib.get_close_matches(word.lower(), by_lower, n=count, cutoff=0.5)
    return " or ".join(by_lower[name] for name in close) if close else ", ".join(by_lower.values())


def visible(text: str, keep: str = "") -> str:
    """text with every character that is not printed as itself written out, such as \\x1b, except those in `keep`.

    Names of files, classes and checkpoints come from anywhere: raw, a control character can clear a terminal or write
    to its title, and a mark of writing direction can show a name backwards.
    """
    return "".join(c if c.isprintable() or c in keep else c.encode("unicode_escape").decode("ascii") for c in text)


def derived_seed(seed: int, stream: str, number: int) -> int:
    """A 63-bit seed, derived from a run's seed, for the `number`-th use of a named stream of random numbers.

    It depends on nothing that was drawn before, so that a resumed run draws what it would have drawn.
    """
    digest = hashlib.blake2b(f"{seed}/{stream}/{number}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


class OneLineParser(argparse.ArgumentParser):
    """An argparse parser that raises ValueErrors of one line and accepts whole option names only.

    For options with one dash, argparse takes prefixes even with allow_abbrev=False: it reads -ep 3 as -epochs 3, and
    -wdith 0.5 as -w dith.
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
