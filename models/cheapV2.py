"""cheapV2: MobileNetV2 whose 1x1 expansions are Reuse(6), and whose shortcuts and head have no convolution.

Between Reuse and the depthwise convolution stands no activation. Where channels change at stride 1, the input
itself is cut or repeated to the width and added. The head repeats its channels four times in place of a 1x1
convolution. PyTorch's default initialisation.
"""

if __name__ == "__main__":
    __import__("as_script").run(__file__)

from torch import nn

from models.MobileNetV2 import MobileNetV2
from models.parts import Parts
from models.registry import register

CHEAP_V2 = Parts(expansion="reuse", shortcut="resize", head="reuse", activates_copies=False)


@register(about="MobileNetV2 with Reuse for its expansions: half of its weights and MACs", baseline="MobileNetV2")
def cheapV2(
    num_classes: int,
    in_channels: int,
    image_size: int,
    width: float = 1.0,
    literal: bool = False,
    parts: Parts = CHEAP_V2,
) -> nn.Module:
    return MobileNetV2(num_classes, in_channels, image_size, width, literal, parts)
