#!/usr/bin/env python
"""The command line: it reads the options and calls one of commands/. See -h, README.md and docs/."""

from __future__ import annotations

import argparse
import functools
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from commands.asked import ALONE, ASIDES, COMMANDS, check_commands
from conf import FIELDS, Settings, convert
from conf.command_line import DESCRIPTION, EXAMPLES, HELP, USAGE, Help, Parser, Stray, add_settings, option_strings
from engine.streams import lost_output, safe_streams
from utils import parse_bool, printable

ROWS = "results/rows.yaml"


def make_parser(**named: Sequence[str]) -> Parser:
    """The parser of the command line. named: words that the help of a knob lists, by the knob."""
    parser = Parser(
        prog="main.py",
        usage=USAGE,
        description=DESCRIPTION,
        epilog=EXAMPLES,
        formatter_class=Help,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    parser.color = False  # of Python 3.14, by control characters
    add_commands(parser.add_argument_group("instead of training from the start"))
    add_settings(parser, named)
    return parser


def add_commands(group) -> None:
    """Adds the options of COMMANDS, and -dry, to an argparse group."""

    def add(name: str, help: str, **options: object) -> None:
        group.add_argument(*option_strings(name), help=help, **options)

    switch = dict(nargs="?", const=True, type=parse_bool, metavar="true|false")
    add("test", "evaluate -weights on the test set", action="store_true")
    add("tta", "with -test: also each image together with its mirror image (default: False)", **switch)
    add(
        "export",
        "write -weights, folded, beside them as an ONNX file or a program of torch.export (pt2), or their model card; "
        "or those of a finished run as weights/NAME.safetensors",
        choices=("onnx", "pt2", "card", "weights"),
    )
    add("half", "with -export onnx: a second file in float16; weights: most as float16 (default: False)", **switch)
    add("int8", "with -export onnx: a second file in 8 bits, calibrated on training images (default: False)", **switch)
    add("with-preprocessing", "with -export onnx: from uint8 pixels to probabilities (default: False)", **switch)
    add("predict", "what -weights see in images, folders or animations", nargs="+", metavar="IMAGE")
    add("compare", "every finished run under -out as a table and a plot", action="store_true")
    add(
        "reproduce",
        f"train the rows of RESULTS.md and write its tables ({ROWS})",
        nargs="?",
        const=ROWS,
        metavar="FILE",
    )
    add("jobs", "with -reproduce: rows trained at once; 0 writes the tables only (default: 1)", type=int, metavar="N")
    add("seeds", "train a new run for each of these seeds, then -compare", nargs="+", type=int, metavar="N")
    add("resume", "go on with the run in checkpoints/..., from a FILE.pth in there, or with 'last'", metavar="DIR")
    add("dry", "check the settings of a new run without its data, print them and stop", action="store_true")
    add("list", "the networks, data sets and recipes, a line each", action="store_true")
    add("completion", "print what completes these options in a shell", choices=("bash", "zsh"))
    add("version", "print the commit of this project, and the versions of torch and Python", action="store_true")


def run(argv: list[str]) -> int:
    """Does what the command line asks for; returns the exit status.

    Raises ValueError for the user's mistakes, and where memory has run out.
    """
    if set(HELP) & set(argv):
        from commands import listing  # the names of networks take torch a second

        print(make_parser(net=listing.names(), recipe=listing.recipe_names()).format_help(), end="")
        return 0
    try:
        given = vars(make_parser().parse_args(argv))
    except Stray as stray:
        from commands import listing

        raise ValueError(listing.explain(stray.word) or stray) from None
    asked = {name: given.pop(name) for name in ("dry", "seeds", *ALONE, *ASIDES, *COMMANDS) if name in given}
    check_commands(asked, given)
    if any(name in asked for name in ALONE):
        from commands import listing

        print(listing.answer(asked, make_parser()))
        return 0
    given = {name: convert(name, value) for name, value in given.items()}
    try:
        return execute(asked, given, argv)
    except (MemoryError, RuntimeError, OSError, ImportError, ValueError) as error:
        from conf.resolve import settings
        from engine.memory import is_out_of_memory, out_of_memory_line

        if not any(map(is_out_of_memory, (error, error.__cause__))):  # an image's decoder hides it in a cause
            raise
        command = next((name for name in COMMANDS if name in asked), None)
        raise ValueError(out_of_memory_line(error, command, None if command else settings(given))) from None


def execute(asked: dict[str, object], given: dict[str, object], argv: list[str]) -> int:
    """Calls the command that is asked for, or trains; returns the exit status."""
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")  # torch's own log of connections is stack traces
    from conf.resolve import settings as resolve  # the heavy imports come after the cheap checks

    if "net" in given:
        from commands import listing

        given["net"] = listing.network_name(given["net"])

    if not any(name in asked for name in COMMANDS):  # a new run
        from engine.checks import check_given

        check_given(resolve(given), given)
    if asked.get("export") == "weights":
        from commands import publish

        named = given.get("name", FIELDS["name"].default)
        publish.publish(Path(given["weights"]), Path(given.get("out", ".")), named, asked.get("half", False))
    elif asked.get("export") == "card":
        from commands import card

        card.write_card(Path(given["weights"]))
    elif asked.get("export") == "pt2":
        from commands import program

        program.export(Path(given.pop("weights")), given)
    elif "export" in asked:
        from commands import export

        wanted = {name: asked.get(name, False) for name in ("int8", "half", "with_preprocessing")}
        export.export(Path(given.pop("weights")), given, **wanted)
    elif "predict" in asked:
        from commands import predict

        predict.predict(asked["predict"], Path(given.pop("weights")), given)
    elif "compare" in asked:
        from commands import compare

        compare.compare(Path(given.get("out", ".")))
    elif "test" in asked:
        from commands import evaluate

        evaluate.evaluate(Path(given.pop("weights")), given, asked.get("tta", False))
    elif "reproduce" in asked:
        from commands import reproduce

        where = Path(given.get("out", ".")), Path(given.get("data", FIELDS["data"].default))
        return reproduce.reproduce(Path(asked["reproduce"]), asked.get("jobs", 1), *where)
    elif "resume" in asked:
        from commands import train

        run, out = asked["resume"], Path(given.pop("out", "."))
        saved = (train.saved_processes, train.resume, train.saved_device)
        return in_processes(argv, *(functools.partial(each, run, out, given) for each in saved))
    elif "seeds" in asked:
        from commands import seeds

        return seeds.train_seeds(given, asked["seeds"], start)
    elif "dry" in asked:
        from commands import dry

        dry.dry(resolve(given))
    else:
        return start(argv, resolve(given))
    return 0


def start(argv: list[str], settings: Settings) -> int:
    """Trains a new run, of these words of a command line, in as many processes as it wants; returns the exit status."""
    from commands import train
    from engine.processes.count import wanted_processes

    count = functools.partial(wanted_processes, settings.procs, settings.gpu, settings.batch_size)
    return in_processes(argv, count, functools.partial(train.train, settings))


def in_processes(
    argv: list[str], count: Callable[[], int], work: Callable[[], object], words: Callable[[], list[str]] = list
) -> int:
    """Calls work(), or where count() is above 1 starts main.py in as many processes; returns the exit status.

    words: makes what each of them needs to be told beside argv.
    """
    from engine.processes.count import is_launched
    from engine.processes.distributed import end_with_starter, launch

    end_with_starter()
    if not is_launched() and (processes := count()) > 1:
        return launch(processes, [*argv, *words()])
    work()
    return 0


def mistake(message: object) -> int:
    """Prints what went wrong in one line on stderr; returns the exit status for the user's mistakes."""
    print(f"main.py: {printable(' '.join(str(message).split()))}", file=sys.stderr)
    return 2


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line argv, by default this program's own; returns the exit status.

    Whatever happens to stdout and stderr, the work is done (engine/streams.py); where a full disk took what was to be
    printed, the status is 1.
    """
    with safe_streams():
        status = guarded_run(sys.argv[1:] if argv is None else list(argv))
        if lost := lost_output():
            print(f"main.py: {lost}", file=sys.stderr)
        return status or int(bool(lost))


def guarded_run(argv: list[str]) -> int:
    """run(), with one line on stderr for the user's mistakes, for files that cannot be used, and for Ctrl-C."""
    try:
        return run(argv)
    except ValueError as error:
        return mistake(error)
    except OSError as error:
        return mistake(f"{error.filename or 'output'}: {error.strerror or error}")
    except MemoryError:  # even importing took more than there is
        return mistake("memory ran out: make some free and give the same again")
    except KeyboardInterrupt:  # a run under way has its own way to stop (engine/interruption.py)
        print("main.py: stopped, before or after any training", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
