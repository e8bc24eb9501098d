"""The pictures at the end of a run."""

import io
import re
import warnings
from collections import Counter
from html import unescape
from types import SimpleNamespace

import pytest
import torch
from sklearn.metrics import confusion_matrix, recall_score
from tensorboard import plugin_util

from engine.shown.cards import table
from engine.shown.confusions import class_rows, confusions, worst_pairs
from engine.shown.figures import confusion_figure, label, mistakes_figure, pairs_figure
from engine.tasks import Classification


def test_worst_mistakes_are_mistakes_only():
    """The least probable true class first; an image that was taken for what it is does not appear, however unsure."""
    probabilities = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.51, 0.49], [0.3, 0.7]])
    targets = torch.tensor([0, 0, 0, 0, 1])  # wrong: the second and the third
    images = torch.zeros(5, 3, 4, 4, dtype=torch.uint8)
    figure = mistakes_figure(images, probabilities, targets, ("cat", "dog"))
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["cat, taken for\ndog (0.80)", "cat, taken for\ndog (0.60)"]
    assert mistakes_figure(images, probabilities, torch.tensor([0, 1, 1, 0, 1]), ("cat", "dog")).axes == []


NAMES = ("$", "$\\frac$", "a_$x$^", "\udcff", "\x00\x1b[31m", "two\nlines", "\u202egnp", "שלום", "🐈", "x" * 300, "")


@pytest.mark.filterwarnings("ignore:Glyph")
def test_any_name_of_a_class_is_drawn():
    """What matplotlib would take for a formula, and what no font and no encoding has."""
    probabilities = torch.eye(len(NAMES)).roll(1, 0)
    targets = torch.arange(len(NAMES))
    for figure in (
        confusion_figure(confusions(probabilities, targets), NAMES),
        pairs_figure(confusions(probabilities, targets), NAMES),
        mistakes_figure(torch.zeros(len(NAMES), 1, 4, 4, dtype=torch.uint8), probabilities, targets, NAMES),
    ):
        figure.savefig(io.BytesIO(), format="png")
    assert label("$5") == r"\$5" and label("two\nlines") == r"two\nlines"
    assert label("a" * 30 + "b" * 270) == "a" * 20 + "…" + "b" * 19


def drawn(classes: int, images: int = 400) -> tuple[torch.Tensor, torch.Tensor]:
    """Probabilities and targets; the last class has no image."""
    generator = torch.Generator().manual_seed(classes)
    probabilities = torch.rand(images, classes, generator=generator).softmax(1)
    return probabilities, torch.randint(classes - 1, (images,), generator=generator)


def test_classes_and_pairs_against_counting():
    probabilities, targets = drawn(6)
    guesses, names = probabilities.argmax(1), ("a", "b", "c", "d", "e", "f")
    matrix = confusions(probabilities, targets)
    wrong = Counter((t, g) for t, g in zip(targets.tolist(), guesses.tolist(), strict=True) if t != g)
    pairs = worst_pairs(matrix, 4)
    assert [count for *_, count in pairs] == [count for _, count in wrong.most_common(4)]
    assert all(wrong[true, guess] == count for true, guess, count in pairs)
    rows = class_rows(matrix, names)
    recalls = recall_score(targets, guesses, labels=range(5), average=None)
    assert [row["accuracy"] for row in rows] == [*map(pytest.approx, recalls.round(4)), ""]
    for true, row in enumerate(rows[:5]):
        most = max(count for (t, _), count in wrong.items() if t == true)
        assert row["times"] == most == wrong[true, names.index(row["most confused with"])]
    assert rows[5] == {"class": "f", "images": 0, "accuracy": "", "most confused with": "", "times": 0}


@pytest.mark.parametrize("classes", [20, 21])
def test_a_matrix_of_twenty_classes_and_pairs_by_name_of_more(classes):
    """Shares of each true class in percent, beside a colour bar; of more classes twenty bars."""
    probabilities, targets = drawn(classes)
    names = tuple(f"class{number}" for number in range(classes))
    data = SimpleNamespace(classes=names, test=SimpleNamespace(images=torch.zeros(400, 3, 4, 4, dtype=torch.uint8)))
    found = Classification(classes).figures(probabilities, targets, data)
    matrix = confusions(probabilities, targets)
    if classes == 20:
        axes, bar = found["confusion matrix"].axes
        assert "%" in bar.get_ylabel()
        shown = {text.get_position(): text.get_text() for text in axes.texts if text.get_visible()}
        expected = {
            (g, t): f"{100 * matrix[t, g] / matrix[t].sum():.0f}" for t, g in zip(*matrix.nonzero(), strict=True)
        }
        assert shown == expected
        return
    axes = found["most confused pairs"].axes[0]
    widths = [round(bar.get_width()) for bar in axes.patches]
    labels = [re.fullmatch(r"class(\d+), taken for class(\d+)", text.get_text()) for text in axes.get_yticklabels()]
    assert len(widths) == 20 and widths == [matrix[int(each[1]), int(each[2])] for each in labels]
    assert widths == sorted(widths, reverse=True)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("classes", [1, 4])
def test_the_matrix_is_scikit_learns_and_one_class_draws_no_warning(classes):
    probabilities, targets = torch.rand(50, classes), torch.arange(50) % max(1, classes - 1)
    matrix = confusions(probabilities, targets)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = confusion_matrix(targets, probabilities.argmax(1), labels=range(classes))
    assert matrix.tolist() == expected.tolist()
    confusion_figure(matrix, tuple(map(str, range(classes)))).savefig(io.BytesIO())


def test_any_name_stands_in_a_table_as_it_is():
    """What Markdown would act on, as TensorBoard renders it."""
    names = ("a|b", "__init__", "*x*", "`y`", "<b>", "[l](u)", "a\\b", "-", "#1", "x & y", "pickup_truck", "1.0", "~z~")
    page = plugin_util.markdown_to_safe_html(table({"class": name, "number": 1} for name in names))
    cells = [unescape(re.sub("<[^>]*>", "", text)) for text in re.findall(r"<td>(.*?)</td>", page, flags=re.DOTALL)]
    assert cells[::2] == list(names)
