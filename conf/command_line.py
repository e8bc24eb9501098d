"""The command line as people type and read it: the parser, the text of -h, and the words of other programs."""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Sequence

from conf import FIELDS, is_list, option, value_type
from conf.knobs import MISSING, RECIPE_GROUPS
from utils import OneLineParser, parse_bool, printable

GROUPS = {
    "run": "what runs, and where",
    "network": "network",
    "machine": "machine",
    "training": "training: the recipe's knobs",
    "augmentation": "augmentation: the recipe's knobs",
}
HELP = ("-h", "--h", "-help", "--help")
USAGE = "main.py -net NET [-dataset DATASET] [-recipe RECIPE] [options]"
DESCRIPTION = "Trains a network, or does what the first options below say.\nTwo dashes work too: --net is -net."
EXAMPLES = """\
examples:
  python main.py -net cheapV2 -dataset digits   a first run, nothing to download
  python main.py -net cheapV3                   CIFAR-100, 300 epochs
  python main.py -net cheapV2 -recipe fast -val 0.1 -name try1 -dry
  python main.py -net cheapV2 -seeds 1 2 3 -recipe fast
  python main.py -resume last
  python main.py -test -weights checkpoints/cheapV2/try1/last.pth
  python main.py -list                          networks, data sets, recipes
"""

# Words that other programs have taught, and what stands for them here.
ELSEWHERE = {
    "wd": "-weight-decay",
    "device": "-gpu true or -gpu false, and the environment variable CUDA_VISIBLE_DEVICES=1 chooses the device",
    "devices": "-procs N, and the environment variable CUDA_VISIBLE_DEVICES=0,1 chooses the devices",
    "cuda": "-gpu true",
    "cpu": "-gpu false",
    "arch": "-net",
    "model": "-net",
    "bs": "-b",
    "learning-rate": "-lr",
    "data-dir": "-data",
    "data-path": "-data",
    "output-dir": "-out",
    "num-workers": "-w",
    "j": "-w",
    "opt": "-optimizer",
    "warmup-epochs": "-warm",
    "smoothing": "-label-smoothing",
    "checkpoint": "-weights",
    "pretrained": "-weights",
    "evaluate": "-test",
    "eval": "-test",
    "fp16": "-amp fp16",
}


class Stray(ValueError):
    """A word that belongs to no option. word: the first of them."""

    def __init__(self, word: str) -> None:
        super().__init__(f"{word}: belongs to no option, which begin with a dash (-h lists them)")
        self.word = word


class Parser(OneLineParser):
    """A OneLineParser that knows the words of other programs."""

    def parse_args(self, words: Sequence[str]) -> argparse.Namespace:
        known = {word.lstrip("-") for action in self._actions for word in action.option_strings}
        for word in words:
            match = re.match(r"--?([A-Za-z][^=]*)", word)
            plain = match[1].replace("_", "-") if match else ""
            if plain not in known and plain in ELSEWHERE:
                raise ValueError(f"{match[0]}: here it is {ELSEWHERE[plain]}")
        return super().parse_args(words)

    def error(self, message: str):
        if message.startswith("unrecognized arguments: "):
            raise Stray(message.removeprefix("unrecognized arguments: ").split(" ")[0])
        super().error(message)


class Help(argparse.RawDescriptionHelpFormatter):
    """-h: an option with one dash, once, and its value once."""

    def _format_action_invocation(self, action: argparse.Action) -> str:
        words = [word for word in action.option_strings if not word.startswith("--")]
        value = "" if action.nargs == 0 else self._format_args(action, self._get_default_metavar_for_optional(action))
        return f"{', '.join(words)} {value}".rstrip()


def option_strings(*words: str) -> list[str]:
    """Every option is accepted with one dash, as the original has it, and with two."""
    return [dashes + word for word in dict.fromkeys(words) for dashes in ("-", "--")]


def add_settings(parser: argparse.ArgumentParser, named: dict[str, Sequence[str]]) -> None:
    """Adds the option of each knob, in its group. named: words that the help of a knob lists, by the knob."""
    groups = {name: parser.add_argument_group(title) for name, title in GROUPS.items()}
    for name, field in FIELDS.items():
        listed = f": {', '.join(named[name])}" if name in named else ""
        add_setting(groups[field.metadata["group"]], name, field, listed)


def add_setting(group, name: str, field: dataclasses.Field, listed: str = "") -> None:
    """Adds the option of one knob to an argparse group. listed: see help_text()."""
    text = help_text(field, listed).replace("%", "%%")
    wanted = value_type(name)
    if wanted is bool:
        options = dict(nargs="?", const=True, type=parse_gpu if name == "gpu" else parse_bool, metavar="true|false")
    else:
        metavar = "|".join(field.metadata["choices"]) or {int: "N", float: "X", str: name.upper()}[wanted]
        options = dict(metavar=metavar) | (dict(nargs="+") if is_list(name) else {})  # convert() reads the numbers
        if field.metadata["switch"]:
            options |= dict(nargs="?", const=True, type=parse_bool_or_word)
    words = option_strings(option(name)[1:], name.replace("_", "-"))
    group.add_argument(*words, dest=name, help=text, **options)


def help_text(field: dataclasses.Field, listed: str = "") -> str:
    """The line of a knob, with its default. listed: what stands before the default."""
    text, default = field.metadata["help"] + listed, field.default
    if "default" in text or "(required)" in text:
        return text
    shown = "none" if default in ("", (), None) else "the data set's" if default is MISSING else f"{default}"
    if type(default) is float:
        shown = f"{default:g}"
    elif type(default) is bool:
        shown = f"{default}".lower()
    if field.metadata["group"] in RECIPE_GROUPS:
        shown = "the recipe's" + (f", or {shown}" if default is not MISSING and default is not None else "")
    if text.endswith(")"):
        return f"{text[:-1]}; default: {shown})"
    return f"{text} (default: {shown})"


def parse_bool_or_word(word: str) -> bool | str:
    """As parse_bool; any other word stays as it is."""
    try:
        return parse_bool(word)
    except argparse.ArgumentTypeError:
        return word


def parse_gpu(word: str) -> bool:
    """As parse_bool, but for what other programs take as the number or the name of a device."""
    number = re.fullmatch(r"(?:(?:cuda|gpu):?)?([0-9][0-9,]*)", word.lower())
    if number:
        raise argparse.ArgumentTypeError(
            f"{printable(word, 60)}: must be true or false, it takes no device's number; the environment variable "
            f"CUDA_VISIBLE_DEVICES={printable(number[1], 60)} chooses devices"
        )
    if word.lower() in ("cuda", "cpu"):
        wanted = "true" if word.lower() == "cuda" else "false"
        raise argparse.ArgumentTypeError(f"{word}: must be true or false; give -gpu {wanted}")
    return parse_bool(word)
