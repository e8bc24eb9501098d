"""benchmarks/growth.py and what it takes from measure.py: fits of known laws, one network at all sides, its picture."""

import sys
from itertools import count

import pytest

from benchmarks import growth
from benchmarks.measure import alternate, ratios, summary

pytestmark = pytest.mark.usefixtures("threads_put_back")


def test_rounds_alternate_and_ratios_stay_within_them():
    ticks = count()
    found = alternate({"first": lambda: next(ticks), "second": lambda: next(ticks)}, 3)
    assert found == {"first": [0, 3, 4], "second": [1, 2, 5]}  # every other round in reverse
    assert ratios([2.0, 9.0], [1.0, 3.0]) == [2.0, 3.0]
    assert summary([1000.0, 3000.0, 1500.0], 1) == "1,500.0 (1,000.0 to 3,000.0)"


@pytest.mark.parametrize(
    ("law", "overall", "last", "worse"),
    [
        (lambda size: 0.01 * size, 1.0, 1.0, False),
        (lambda size: 5.0, 0.0, 0.0, False),
        (lambda size: 0.01 * size**1.2, 1.2, 1.2, True),
        (lambda size: 1.0 if size < 128 else 2.2, None, 1.1375, True),  # bends upwards at the end: 2.2 for twice
        (lambda size: 1.0 + size / 32, None, 0.7370, False),
    ],
)
def test_exponents_of_known_laws(law, overall, last, worse):
    """Slopes against closed formulas: log2(2.2) = 1.1375, log2(5 / 3) = 0.7370."""
    seconds = {size: [law(size), 3 * law(size)] for size in (16, 32, 64, 128)}
    whole, ends = growth.exponents(seconds)
    assert ends == pytest.approx([last, last], abs=1e-4)
    if overall is not None:
        assert whole == pytest.approx([overall, overall])
    assert growth.is_worse_than_linear(seconds) == worse
    assert ("WORSE" in growth.describe("images", seconds, [1, 2, 4, 8])) == worse
    assert "WORSE" not in growth.describe("width", seconds, [1, 2, 4, 8])


def test_growth_measures_one_network_at_every_side():
    """The multiply-accumulates of a fully convolutional network are in proportion to pixels, its head's apart."""
    axes = growth.make_axes("cheapV2", batch=2)
    for axis, share in (("pixels", 0.01), ("images", 1e-9)):
        built = {size: build()[1] for size, build in axes[axis].items()}
        first = min(built)
        for size, macs in built.items():
            assert macs / built[first] == pytest.approx(size / first, rel=share)
    step, _ = axes["pixels"][128 * 128]()
    assert step.images.shape == (2, 3, 128, 128)


def test_growth_draws_a_picture_only_where_it_is_told_to(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    words = "growth.py -net EffNet -batch 2 -rounds 1 -seconds 0 -axes images width".split()
    monkeypatch.setattr(sys, "argv", words)
    assert growth.main() in (0, 1)
    printed = capsys.readouterr().out
    assert "images: exponent" in printed and "16 images" in printed and "width: left out" in printed
    assert list(tmp_path.iterdir()) == []
    monkeypatch.setattr(sys, "argv", [*words, "-out", "growth.png"])
    assert growth.main() in (0, 1)
    assert (tmp_path / "growth.png").read_bytes().startswith(b"\x89PNG")
