"""A run's weights without its optimizer, in a file that says all that is needed to use them (models/weight_file.py)."""

from __future__ import annotations

import json
import math
import typing
from pathlib import Path

from conf import FIELDS
from conf.resolve import saved_settings
from datasets.stream import TEST_SHARE
from engine.saved.schema import LaterContent, TrainedContent
from engine.shown.result import to_json
from engine.views import how_made, task_name, view_of_content

PRIVATE = ("data", "out", "name")  # settings that are the machine's or the user's, and change no result


def about_weights(content: TrainedContent, path: Path, result: dict) -> dict[str, object]:
    """What a file of weights says of those in the content of a checkpoint at path, in plain values:

    settings, classes, mean, std, image_size, in_channels, task, ...  as the checkpoint has them (schema.py)
    create        the arguments of models.create()
    file_side, shorter_side  how an image in a file is cut: models.pretrained.Preprocess
    result        as result.json has it
    """
    settings = saved_settings(content["settings"], path, {})
    view = view_of_content(settings, content)
    keys = {**typing.get_type_hints(TrainedContent), **typing.get_type_hints(LaterContent)}
    kept = {key: content[key] for key in keys if key in content and key != "network"}
    if not math.isfinite(kept.get("target_mean", 0.0)):
        del kept["target_mean"]
    return kept | {
        "create": how_made(settings, view).arguments(),
        "file_side": 0 if task_name(settings, content) == "regression" else view.file_side,
        "shorter_side": round(view.file_side / TEST_SHARE) if view.middle else 0,
        "result": json.loads(to_json(result)),
    }


def without_paths(about: dict[str, object]) -> dict[str, object]:
    """The same for others to read: without the folders of the machine on which the run was trained."""
    settings: dict[str, object] = dict(about["settings"])
    settings |= {name: FIELDS[name].default for name in PRIVATE}
    settings |= {name: Path(settings[name]).name for name in ("dataset", "weights")}
    return {key: value for key, value in about.items() if key != "working_folder"} | {"settings": settings}
