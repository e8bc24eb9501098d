"""The pictures at the end of a run."""

import io

import pytest
import torch

from engine.figures import confusion_figure, label, mistakes_figure


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
        confusion_figure(probabilities, targets, NAMES),
        mistakes_figure(torch.zeros(len(NAMES), 1, 4, 4, dtype=torch.uint8), probabilities, targets, NAMES),
    ):
        figure.savefig(io.BytesIO(), format="png")
    assert label("$5") == r"\$5" and label("two\nlines") == r"two\nlines"
    assert label("a" * 30 + "b" * 270) == "a" * 20 + "…" + "b" * 19
