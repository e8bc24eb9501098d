"""-match: the width whose count is nearest, against a search through all widths."""

import pytest

import models
from models.match import nearest_width
from models.summary import mac_count, parameter_count


@pytest.mark.parametrize(
    ("net", "what", "target"),
    [("MobileNetV2", "params", 150e3), ("cheapV3_small", "macs", 1.5e6), ("MobileNetV3", "params", 4_206_658)],
)
def test_no_width_is_nearer(net, what, target):
    def create(width: float):
        return models.create(net, num_classes=10, image_size=16, width=width)

    def distance(width: float) -> float:
        network = create(width)
        return abs((parameter_count(network) if what == "params" else mac_count(network, 3, 16)) - target)

    width = nearest_width(create, what, target, 3, 16)
    found = distance(width)
    for other in (*(width * step for step in (0.5, 0.95, 0.99, 1.01, 1.05, 2)), 1.0):
        assert distance(other) >= found, other
    if target == 4_206_658:  # MobileNetV3's own count
        assert width == 1.0 and found == 0


def test_a_budget_that_no_width_meets_is_refused():
    def create(width: float):
        return models.create("MobileNetV2", num_classes=10, image_size=16, width=width)

    with pytest.raises(ValueError, match="the narrowest network has [0-9,]+ params"):
        nearest_width(create, "params", 1000, 3, 16)
