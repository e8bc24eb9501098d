"""Recipes, settings, and the learning rate that follows from them."""

import math
import os

import hypothesis
import pytest
import torch
import yaml
from hypothesis import strategies as st

from conf import FIELDS, Settings, convert, is_list, option, value_type
from conf.resolve import FOLDER, KEYS, NETWORK_RECIPES, read_recipe, settings
from engine.schedule import learning_rate_factor, make_optimizer, make_schedule

STEPS = 391  # of an epoch of 50,000 images in batches of 128


def original(**given):
    return settings({"net": "cheapV3", "dataset": "cifar100", **given})


def rates(chosen, steps_per_epoch, count=None):
    """Every rate of a run, or the first of them, as the training loop sees it: through the optimizer and torch's
    scheduler."""
    optimizer = make_optimizer(torch.nn.Linear(1, 1), chosen)
    schedule = make_schedule(optimizer, steps_per_epoch, chosen)
    seen = []
    for _ in range(count or chosen.epochs * steps_per_epoch):
        seen.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return seen


def test_original_recipe_is_the_published_one():
    """Against the schedule written out: epochs counted from 1, x0.2 from epochs 60, 120 and 160."""
    chosen = original()
    assert (chosen.epochs, chosen.batch_size, chosen.momentum, chosen.nesterov) == (300, 128, 0.9, False)
    assert (chosen.weight_decay, chosen.crop, chosen.flip, chosen.rotation) == (5e-4, 4, "random", 15.0)
    seen = rates(chosen, 10)
    for step, rate in enumerate(seen):
        epoch = step // 10 + 1
        expected = 0.1 * (step + 1) / 10 if epoch == 1 else 0.1 * 0.2 ** sum(epoch >= m for m in (60, 120, 160))
        assert rate == pytest.approx(expected, rel=1e-9), step


def test_imagenet_recipe():
    """150 epochs in batches of 256, from 0.05 to 0 along a cosine, the first step at the full rate."""
    chosen = settings({"net": "cheapV3", "dataset": str(FOLDER), "recipe": "imagenet"})  # any folder
    assert (chosen.epochs, chosen.batch_size, chosen.momentum, chosen.weight_decay) == (150, 256, 0.9, 4e-5)
    assert (chosen.random_resized_crop, chosen.flip, chosen.crop, chosen.rotation) == (0.08, "random", 0, 0.0)
    for step, rate in enumerate(rates(chosen, 2)):
        assert rate == pytest.approx(0.025 * (1 + math.cos(math.pi * step / 300)))


@pytest.mark.parametrize("epochs", [1, 30, 299])
def test_other_lengths_keep_the_shape(epochs):
    """At the same share of the run, a shorter run has the rate of the 300 epochs."""
    short, whole = original(epochs=epochs), original()
    total, reference_total = epochs * STEPS, 300 * STEPS
    assert short.warm / epochs == pytest.approx(whole.warm / 300)
    for share in (0.26, 0.35, 0.41, 0.5, 0.54, 0.99):
        rate = learning_rate_factor(int(share * total), STEPS, short)
        reference = learning_rate_factor(int(share * reference_total), STEPS, whole)
        assert rate == pytest.approx(reference, rel=1e-9), share


@pytest.mark.parametrize(("epochs", "steps"), [(1, STEPS / 4), (2, 100), (30, 100), (100, STEPS / 3), (300, STEPS)])
def test_warm_up_of_a_short_run(epochs, steps):
    """Its share, but no fewer than 100 steps, nor more than a quarter of the run."""
    count = min(epochs * STEPS, STEPS + 1)
    seen = rates(original(epochs=epochs, milestones=[]), STEPS, count)
    assert len(seen) == count
    for step, rate in enumerate(seen):
        assert rate == pytest.approx(0.1 * min(1, (step + 1) / steps)), step


def test_given_warm_up_is_in_epochs_of_this_run():
    assert original(epochs=30, warm=5.0).warm == 5.0
    assert original(epochs=30).warm == pytest.approx(0.1)
    assert rates(original(epochs=1, warm=0.1), 100)[:11] == pytest.approx([0.01 * min(10, n) for n in range(1, 12)])


@pytest.mark.parametrize("shape", ["cosine", "linear"])
def test_decays_to_zero(shape):
    seen = rates(original(epochs=4, schedule=shape, warm=1.0, milestones=()), 50)
    assert max(seen) == pytest.approx(0.1) and seen.index(max(seen)) in (49, 50)
    assert 0 < seen[-1] < 0.1 * 0.02
    middle = seen[50 + 75]
    assert middle == pytest.approx(0.05, rel=0.03)


@pytest.mark.parametrize("path", sorted(FOLDER.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_is_whole(path):
    dataset = {"driving": "driving", "imagenet": str(FOLDER)}.get(path.stem, "cifar100")  # any folder
    chosen = settings({"net": "cheapV3", "dataset": dataset, "recipe": path.stem})
    for key, value in yaml.safe_load(path.read_text()).items():
        found = getattr(chosen, key)
        if key == "least_warm_steps":
            value = 0  # it is for shorter runs
        assert found == convert(key, value)


def test_networks_with_recipes_of_their_own():
    """The published ones of the digit networks and of steering; -recipe overrules them; others take the row's."""
    for dataset in ("mnist", "fashion-mnist"):
        chosen = settings({"net": "EffNet_digits", "dataset": dataset})
        assert (chosen.optimizer, chosen.lr, chosen.batch_size, chosen.epochs) == ("adam", 1e-2, 1000, 50)
        chosen = settings({"net": "digits_baseline", "dataset": dataset})
        assert (chosen.optimizer, chosen.lr, chosen.epochs) == ("adam", 1e-3, 20)
        assert (chosen.crop, chosen.flip, chosen.rotation) == (0, "off", 0)
        assert settings({"net": "EffNet", "dataset": dataset}).recipe == "mnist"
        assert settings({"net": "EffNet_digits", "dataset": dataset, "recipe": "mnist"}).recipe == "mnist"
    for net in ("EffNet_digits", "digits_baseline"):
        assert settings({"net": net, "dataset": "digits"}).batch_size == 64
    for net in ("EffNet_steering", "steering_baseline"):
        chosen = settings({"net": net, "dataset": "driving"})
        assert (chosen.optimizer, chosen.lr, chosen.batch_size, chosen.epochs) == ("adam", 1e-3, 128, 21)
        assert (chosen.steps, chosen.correction, chosen.brightness, chosen.zero_drop) == (128, 0.25, 0.1, 0.8)
        assert chosen.flip == "random" and not chosen.warm and chosen.schedule == "constant"


def test_every_recipe_of_a_network_exists():
    import models
    from conf.datasets import DATASETS

    for (net, dataset), recipe in NETWORK_RECIPES.items():
        assert net in models.names() and dataset in DATASETS and (FOLDER / f"{recipe}.yaml").is_file()


def test_command_line_overrides_the_recipe():
    chosen = original(lr=0.2, batch_size=64, flip=False)
    assert (chosen.lr, chosen.batch_size, chosen.flip, chosen.momentum) == (0.2, 64, "off", 0.9)


@pytest.mark.parametrize(("given", "flip"), [(True, "random"), (False, "off"), ("alternating", "alternating")])
def test_flip_of_older_settings_is_true_or_false(given, flip):
    assert original(flip=given).flip == flip
    assert Settings(**vars(original()) | {"flip": given}).flip == flip


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("epoch: 3", "unknown knob 'epoch'; did you mean epochs"),
        ("epochs: many", "epochs many: must be a whole number"),
        ("epochs: 3.5", "must be a whole number"),
        ("nesterov: 1", "must be true or false"),
        ("lr: .nan", "finite"),
        ("lr: -1", "at least 0"),
        ("milestones: 60", "must be a list"),
        ("optimizer: rmsprop", "one of sgd, adam, adamw"),
        ("net: cheapV2", "unknown knob 'net'"),
        ("out: /etc", "unknown knob 'out'"),
        ("epochs: 3", "says nothing of"),
        ("- epochs", "must be a list of"),
        ("{", "not readable as YAML"),
        ("!!python/object/apply:os.system ['true']", "not readable as YAML"),
        ("epochs: !!int '3'", "only plain values"),
        ("a: &a [x, x]\nb: &b [*a, *a]\nepochs: [*b, *b]", "alias .a: write the value out"),
        ("lr: 0.1\nepochs: 3\nlr: 0.2", "lr stands twice"),
        (f"epochs: {'9' * 400}", "epochs 999.*at most 100000"),
        (f"lr: {'9' * 400}", "lr inf: must be a finite number"),
        (f"epochs: {'9' * 5000}", "must be a whole number"),
        (f"epochs: 0x{'f' * 5000}", "must be a whole number"),
        ("epochs: 1:30", "must be a whole number"),
        ("[" * 50_000, "not readable as YAML"),
        ("#" * 200_000, "larger than 100,000 bytes"),
        ("<<: {epochs: 3}", "unknown knob '<<'"),
    ],
)
def test_unsound_recipes_are_refused_by_name(tmp_path, text, message):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        original(recipe=str(path))


def test_files_that_hold_no_recipe(tmp_path):
    """A folder, a pipe that nobody writes into, UTF-16."""
    (tmp_path / "folder.yaml").mkdir()
    os.mkfifo(tmp_path / "pipe.yaml")
    (tmp_path / "utf16.yaml").write_text("epochs: 3", encoding="utf-16")
    for name, message in {"folder": "not a file", "pipe": "not a file", "utf16": "not UTF-8"}.items():
        with pytest.raises(ValueError, match=f"{name}.yaml: .*{message}"):
            original(recipe=str(tmp_path / f"{name}.yaml"))


@pytest.mark.parametrize("crop", ["010", "0xA", "0o12", "+10"])
@pytest.mark.parametrize("rate", ["1e-3", "1E-3", ".1e-2", "'1e-3'"])
def test_numbers_of_a_recipe(tmp_path, crop, rate):
    recipe = (FOLDER / "original.yaml").read_text().replace("crop: 4", f"crop: {crop}")
    (tmp_path / "mine.yaml").write_text(recipe.replace("weight_decay: 5.0e-4", f"weight_decay: {rate}"))
    chosen = original(recipe=str(tmp_path / "mine.yaml"))
    assert (chosen.crop, chosen.weight_decay) == (10, 1e-3)


@pytest.mark.parametrize("name", [name for name in FIELDS if value_type(name) in (int, float)])
def test_every_number_has_bounds(name):
    """Whatever a word says, it is within them or refused in one short line."""
    for word in ("9" * 400, "9" * 5000, "1e300", "-1e300", "inf", "nan", 10**5000):
        with pytest.raises(ValueError, match=f"{option(name)} .*: must be") as refused:
            convert(name, [word] if is_list(name) else word)
        assert len(str(refused.value)) < 150


PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20)
NESTED = st.recursive(PLAIN, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(PLAIN, inner, max_size=4))
KNOBS = st.dictionaries(st.sampled_from(KEYS) | PLAIN, NESTED, max_size=6)


@hypothesis.settings(max_examples=150, deadline=None)
@hypothesis.given(KNOBS.map(yaml.safe_dump) | st.text(max_size=200) | st.binary(max_size=200))
def test_any_recipe_is_sound_or_refused_in_one_line(tmp_path_factory, text):
    """Values of any shape under known and unknown names, any text, any bytes."""
    path = tmp_path_factory.getbasetemp() / "fuzz.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
    whole = {key: value for key, value in vars(original()).items() if key in KEYS}
    try:
        chosen = original(**{**whole, **read_recipe(str(path))})
    except ValueError as error:
        assert len(" ".join(str(error).split())) < 700  # it may name every knob
    else:
        assert chosen.epochs >= 1 and chosen.batch_size >= 1 and 0 < chosen.lr < float("inf")
