"""Knobs that would have no effect beside the others are refused where they are given, not where a recipe has them."""

import re

import pytest

from conf.resolve import settings


def chosen(words: str):
    """The settings of EffNet on digits with these knobs, the last of each counting."""
    values: dict = dict(pair.split("=") for pair in words.split())
    if "milestones" in values:
        values["milestones"] = values["milestones"].split(",")
    values |= {name: value == "true" for name, value in values.items() if value in ("true", "false")}
    return settings({"net": "EffNet", "dataset": "digits", **values})


@pytest.mark.parametrize(
    ("words", "message", "advice"),
    [
        ("schedule=step epochs=30 milestones=10,30", "-milestones 10.0 30.0: no epoch of the 30", "milestones=10,29"),
        ("schedule=step milestones=4,4", "4.0 4.0: one stands twice", "milestones=4"),
        ("milestones=4", "the linear schedule has none", "schedule=step"),
        ("schedule=step", "-milestones, and there are none", "milestones=4"),
        ("schedule=step", "-milestones, and there are none", "schedule=constant"),
        ("gamma=0.5", "no milestones at which it counts", "schedule=step milestones=4"),
        ("momentum=0.8", "adamw has none", "optimizer=sgd"),
        ("adamw_lr=0.1", "rate beside muon's", "optimizer=muon"),
        ("decay_norms=false weight_decay=0", "nothing is decayed", "weight_decay=0.1"),
        ("patience=9", "never stops a run of 10 epochs", "patience=8"),
        ("patience=1 epochs=2", "give at most 0", "patience=0"),
        ("accumulate=17", "-b 32 has 16 parts", "accumulate=16"),
        ("crop=16", "could cut a whole image of 16x16 pixels away", "crop=15"),
        ("least_warm_steps=9 warm=0", "there is no warm-up", "warm=1"),
        ("steps=100000 batch_size=100000", "more than 200,000,000 images", "batch_size=100"),
        ("distill_temperature=2", "there is no teacher", "distill=teacher.pth"),
        ("distill_share=0.3", "there is no teacher", "distill=teacher.pth"),
        ("deterministic=true cudnn_benchmark=true", "other algorithms each time", "deterministic=false"),
        ("optimizer=adamw nesterov=true", "give -nesterov false", "nesterov=false"),
    ],
)  # fmt: skip
def test_refused_and_the_advice_is_taken(words, message, advice):
    with pytest.raises(ValueError, match=re.escape(message)):
        chosen(words)
    chosen(f"{words} {advice}")


def test_what_a_recipe_brings_may_be_idle():
    """The command line overrules what it goes with."""
    base = {"net": "cheapV3", "recipe": "original"}
    assert settings({**base, "schedule": "cosine"}).milestones and settings({**base, "optimizer": "adam"}).momentum
    driving = settings({"net": "EffNet_steering", "dataset": "driving", "epochs": 10})
    assert driving.patience == 15
    assert settings({**base, "epochs": 1}).milestones[-1] < 1
