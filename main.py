"""The command line, and nothing else: settings in, one run out. See -h, and README.md for examples."""

from __future__ import annotations

import argparse
import dataclasses
import re
import sys
from pathlib import Path

from conf import FIELDS, Settings, is_list, kind, option
from utils import nearest

GROUPS = {
    "run": "what runs, and where",
    "network": "network",
    "machine": "machine",
    "training": "training: the recipe's knobs",
    "augmentation": "augmentation: the recipe's knobs",
}
# What may be changed when a run goes on or is tested: it does not change what was trained.
FREE = ("data", "gpu", "amp", "channels_last", "save_every", "log_every")


class OneLineParser(argparse.ArgumentParser):
    """argparse with its errors as ValueError, for main() to print as one line."""

    def error(self, message: str):
        raise ValueError(message.replace("argument ", "", 1))


def truth(word: str) -> bool:
    """The old command lines' True and False, and mean what they say."""
    if word.lower() in ("true", "1", "yes", "on"):
        return True
    if word.lower() in ("false", "0", "no", "off"):
        return False
    raise argparse.ArgumentTypeError(f"{word}: must be true or false")


def spellings(*words: str) -> list[str]:
    """Every option with one dash, as the originals have it, and with two."""
    return [dashes + word for word in dict.fromkeys(words) for dashes in ("-", "--")]


def make_parser() -> OneLineParser:
    parser = OneLineParser(
        prog="main.py",
        description="Trains a network: python main.py -net cheapV3. Every option is accepted with two dashes too.",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    command = parser.add_argument_group("instead of training from the start")
    command.add_argument(*spellings("weights"), metavar="FILE", help="start from these weights, or test them")
    command.add_argument(*spellings("test"), action="store_true", help="evaluate -weights on the test set")
    command.add_argument(*spellings("resume"), metavar="DIR", help="go on with the run in checkpoints/..., or 'last'")
    command.add_argument(*spellings("dry"), action="store_true", help="print the effective settings and stop")
    groups = {name: parser.add_argument_group(title) for name, title in GROUPS.items()}
    for name, field in FIELDS.items():
        add_option(groups[field.metadata["group"]], name, field)
    return parser


def add_option(group, name: str, field: dataclasses.Field) -> None:
    words = [option(name)[1:], name.replace("_", "-")]
    default = "the recipe's" if field.default is dataclasses.MISSING else field.default
    text = field.metadata["help"].replace("%", "%%")
    if field.metadata["group"] in ("training", "augmentation"):
        text += " (default: the recipe's)"
    elif "(" not in text and default not in ("", None, "the recipe's"):
        text += f" (default: {default})"
    if kind(name) is bool:
        group.add_argument(
            *spellings(*words), dest=name, nargs="?", const=True, type=truth, metavar="true|false", help=text
        )
    else:
        shape = dict(nargs="+") if is_list(name) else {}
        metavar = "|".join(field.metadata["choices"]) or {int: "N", float: "X", str: name.upper()}[kind(name)]
        group.add_argument(*spellings(*words), dest=name, type=kind(name), metavar=metavar, help=text, **shape)


def check_words(parser: argparse.ArgumentParser, words: list[str]) -> None:
    """argparse guesses at prefixes of single-dash options (-ep 3, -wdith 0.5): ask for the whole word first."""
    known = {word.lstrip("-") for action in parser._actions for word in action.option_strings}
    for word in words:
        option_word = re.match(r"--?([A-Za-z][^=]*)", word)
        if option_word and option_word[1] not in known:
            near = nearest(option_word[1], sorted(known)).replace(" or ", " or -")
            raise ValueError(f"{option_word[0]}: unknown option; did you mean -{near}? (-h lists them all)")


def run(words: list[str]) -> None:
    """Raises ValueError for the user's mistakes."""
    parser = make_parser()
    check_words(parser, words)
    given = vars(parser.parse_args(words))
    commands = {name: given.pop(name) for name in ("weights", "test", "resume", "dry") if name in given}
    check_commands(commands, given)

    from conf.resolve import settings as resolve  # the heavy imports come after the cheap checks

    if "resume" in commands or "test" in commands:
        from engine import run as engine_run

        if "test" in commands:
            engine_run.test(Path(commands["weights"]), given)
        else:
            out = Path(given.pop("out", "."))
            folder = engine_run.newest_run(out) if commands["resume"] == "last" else Path(commands["resume"])
            engine_run.resume(folder, given)
        return
    settings = resolve(given)
    if "dry" in commands:
        for name, value in dataclasses.asdict(settings).items():
            print(f"{name}: {value}")
        return
    from engine import run as engine_run

    engine_run.train(settings, Path(commands["weights"]) if "weights" in commands else None)


def check_commands(commands: dict[str, object], given: dict[str, object]) -> None:
    """Options that contradict each other, or that a command cannot do without."""
    if "test" in commands and "weights" not in commands:
        raise ValueError("-test: needs -weights FILE, a checkpoint of a run")
    if "resume" in commands and ("weights" in commands or "test" in commands):
        raise ValueError("-resume: goes on with a run's own weights; leave out -weights and -test")
    if "resume" in commands or "test" in commands:
        allowed = (*FREE, "out") if "resume" in commands else (*FREE, "dataset")
        for name in given:
            if name not in allowed:
                command = "-resume" if "resume" in commands else "-test"
                raise ValueError(f"{option(name)}: contradicts {command}, which takes it from the checkpoint; leave it out")
    elif "net" not in given:
        raise ValueError("-net: which network? for example: python main.py -net cheapV3 (-h lists the options)")


def main() -> int:
    try:
        run(sys.argv[1:])
    except ValueError as error:
        print(f"main.py: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
