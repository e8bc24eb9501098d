"""The pictures at the end of a run."""

import torch

from engine.figures import mistakes_figure


def test_worst_mistakes_are_mistakes_only():
    """The least probable true class first; an image that was taken for what it is does not appear, however unsure."""
    probabilities = torch.tensor([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8], [0.51, 0.49], [0.3, 0.7]])
    targets = torch.tensor([0, 0, 0, 0, 1])  # wrong: the second and the third
    images = torch.zeros(5, 3, 4, 4, dtype=torch.uint8)
    figure = mistakes_figure(images, probabilities, targets, ("cat", "dog"))
    titles = [axes.get_title() for axes in figure.axes]
    assert titles == ["cat, taken for\ndog (0.80)", "cat, taken for\ndog (0.60)"]
    assert mistakes_figure(images, probabilities, torch.tensor([0, 1, 1, 0, 1]), ("cat", "dog")).axes == []
