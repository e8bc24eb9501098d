"""A small real run on scikit-learn's digits, and what it leaves. The fixture `finished` in conftest.py runs it once."""

import contextlib
import io
import json
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata
from tensorboard.summary.writer import event_file_writer

import main

# TensorBoard reads a folder's event files in the order of their names, which end in a counter. A test that stops a run
# and goes on with it within the same second needs counters of one length: file 10 would be read before file 9.
event_file_writer._global_uid = event_file_writer.AtomicCounter(10**6)

EPOCHS = 3
RUN = (
    f"-net EffNet -dataset digits -size 8 -epochs {EPOCHS} -b 64 -warm 0.5 -lr 0.01 -ema 0.5 "
    "-val 0.1 -name try1 -seed 3 -gpu false"
)


def start(words: str, out: Path) -> str:
    """Runs the command line in this process to its end; returns what it printed."""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        status = main.main([*words.split(), "-out", str(out)])
    assert status == 0, printed.getvalue()
    return printed.getvalue()


def checkpoints(out: Path) -> Path:
    return out / "checkpoints" / "EffNet" / "digits-try1"


def curves(out: Path) -> EventAccumulator:
    events = EventAccumulator(str(out / "runs" / "EffNet" / "digits-try1"), {"scalars": 0, "images": 0, "tensors": 0})
    return events.Reload()


def hparams(out: Path) -> tuple[dict[str, object], list[str]]:
    """The run's row of TensorBoard's HParams table: its knobs, and the tags of its metrics."""
    contents = curves(out).PluginTagToContent("hparams")
    start = metadata.parse_session_start_info_plugin_data(contents[metadata.SESSION_START_INFO_TAG]).hparams
    experiment = metadata.parse_experiment_plugin_data(contents[metadata.EXPERIMENT_TAG])
    knobs = {name: getattr(value, value.WhichOneof("kind")) for name, value in start.items()}
    return knobs, [each.name.tag for each in experiment.metric_infos]


def result(out: Path) -> dict:
    return json.loads((checkpoints(out) / "result.json").read_text())


def call(capsys, *words: str) -> tuple[int, str]:
    """(exit status, what stood on stderr) of main.py with these words."""
    status = main.main(words)
    return status, capsys.readouterr().err
