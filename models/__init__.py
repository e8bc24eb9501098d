"""The networks: create(name, ...) builds one, names() lists them, load(FILE) gives a trained one.

A network is one file and one import here.
"""

from models import (  # noqa: F401  (importing a file registers its networks)
    EffNet,
    MobileNetV2,
    MobileNetV3,
    SqueezeNet,
    cheapSqueezeNet,
    cheapV2,
    cheapV3,
)
from models.pretrained import load
from models.registry import cheap_names, create, names

__all__ = ["cheap_names", "create", "load", "names"]
