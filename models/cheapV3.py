"""cheapV3: MobileNetV3 whose 1x1 expansions, squeeze-excite expansions and head convolutions are Reuse.

cheapV3, cheapV3_small, and the shuffle networks, which have another stem and squeeze-excite.
"""

# NOTE: the gates of cheapV3's squeeze-excite have no sigmoid; as they are drawn half of them start at zero and the rest
# near it (gate_start in models.create).
# NOTE: cheapV3_small has expansion 6 throughout; the original's small mode has widths that are no multiples.
# NOTE: a shuffle before Reuse renames channels and does nothing else (tests/models/test_reuse.py proves it), so the
# default form of cheapV3_shuffle6 shuffles no feature map.

if __name__ == "__main__":
    __import__("as_script").run(__file__)

from torch import nn

from models.MobileNetV3 import LARGE, LAST, LAST_SMALL, SMALL, Shape, build
from models.parts import Parts
from models.registry import register

CHEAP_V3 = Parts(expansion="reuse", se="reuse", gate="none", head="reuse")
SHUFFLE = Parts(expansion="reuse", se="reuse", gate="hardsigmoid", head="reuse", stem="reuse")
SHUFFLE6_OUTS = (24, 24, 24, 48, 48, 48, 96, 96, 96, 96, 120, 120, 180, 180, 180)
SHUFFLE6_ROWS = tuple((*row[:2], out, *row[3:]) for row, out in zip(LARGE, SHUFFLE6_OUTS, strict=True))
SHUFFLE6_SHAPE = Shape(SHUFFLE6_ROWS, LAST, first=24, reduction=8, groups=6)


# revision 1 of these networks activated (and cheapV3_shuffle6 shuffled) before the first row's depthwise convolution
@register(
    revision=2,
    about="MobileNetV3-Large with Reuse for its expansions and in its squeeze-excite",
    baseline="MobileNetV3",
)
def cheapV3(
    num_classes: int,
    in_channels: int,
    image_size: int,
    width: float = 1.0,
    literal: bool = False,
    parts: Parts = CHEAP_V3,
) -> nn.Module:
    return build(Shape(LARGE, LAST), parts, num_classes, in_channels, image_size, width, literal)


@register(revision=2, about="MobileNetV3-Small with Reuse", baseline="MobileNetV3_small")
def cheapV3_small(
    num_classes: int,
    in_channels: int,
    image_size: int,
    width: float = 1.0,
    literal: bool = False,
    parts: Parts = CHEAP_V3,
) -> nn.Module:
    return build(Shape(SMALL, LAST_SMALL), parts, num_classes, in_channels, image_size, width, literal)


@register(revision=2, about="cheapV3 with a bounded gate and a stem by Reuse", baseline="MobileNetV3")
def cheapV3_shuffle(
    num_classes: int,
    in_channels: int,
    image_size: int,
    width: float = 1.0,
    literal: bool = False,
    parts: Parts = SHUFFLE,
) -> nn.Module:
    # the original shuffles with as many groups as channels, which is the identity, as 1 is
    return build(Shape(LARGE, LAST, reduction=8), parts, num_classes, in_channels, image_size, width, literal)


@register(
    revision=2,
    about="cheapV3_shuffle with other widths, its channels shuffled in 6 groups",
    baseline="MobileNetV3",
)
def cheapV3_shuffle6(
    num_classes: int,
    in_channels: int,
    image_size: int,
    width: float = 1.0,
    literal: bool = False,
    parts: Parts = SHUFFLE,
) -> nn.Module:
    return build(SHUFFLE6_SHAPE, parts, num_classes, in_channels, image_size, width, literal)
