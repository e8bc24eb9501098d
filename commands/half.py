"""-export onnx -half: a second file whose weights and arithmetic are float16, and what it gets wrong.

Its input and output stay float32. ONNX Runtime has no float16 arithmetic on a CPU: it computes such a file in float32,
where nothing overflows. So the test images also go through the network with the result of every step rounded to
float16, as a device stores it.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from commands.export import onnx_runner, to_onnx
from commands.file_errors import errors_of
from engine.saved.trained import Trained
from engine.shown.progress import status
from models.fold import fold
from models.for_export import for_onnx
from utils import write_atomically


class InHalf(nn.Module):
    """A network in float16 for images and outputs in float32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).half()

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images.half()).float()


class RoundedToHalf(TorchDispatchMode):
    """Rounds the float32 result of each step to float16: sums within a step are float32, as GPUs add up."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        is_float = isinstance(result, Tensor) and result.dtype is torch.float32
        # a sum here is the first half of a mean, which is one step of the file (models/layers.py)
        if not is_float or function.is_view or function is torch.ops.aten.sum.dim_IntList:
            return result
        return result.half().float()


class StoredAsHalf(nn.Module):
    """A network in float32 whose weights, and whose results after each step, are those of float16."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = copy.deepcopy(network).half().float().to(memory_format=torch.channels_last)

    def forward(self, images: Tensor) -> Tensor:
        with RoundedToHalf():
            return self.network(images.contiguous(memory_format=torch.channels_last))


def halve(trained: Trained, path: Path, metadata: dict[str, str]) -> Path:
    """Writes <stem>-half.onnx beside the float file at path, and prints what both get wrong on the test set.

    metadata: strings that are stored in the file, by name. Images whose outputs are not finite are counted, and the
    file is kept: which of them matter is the user's to say.
    The network is for classes. Raises ValueError where the data set is not there.
    """
    folded = fold(trained.network).to("cpu", torch.float32, memory_format=torch.contiguous_format)
    shape = torch.Size((trained.view.channels, trained.view.side, trained.view.side))
    with status("making the float16 file"):
        data = to_onnx(InHalf(for_onnx(folded, shape)), shape, metadata)
    runs = [onnx_runner(path.read_bytes()), onnx_runner(data), StoredAsHalf(folded)]
    (single, half, stored), count = errors_of(trained, runs)
    place = path.with_name(f"{path.stem}-half.onnx")
    write_atomically(place, data)
    print(f"{place}: {len(data) / 1e6:.2f} MB, weights and arithmetic float16, input and output float32")
    print(
        f"wrong of {count:,} test images: {single} as float32, {half} as float16 in ONNX Runtime, which computes in "
        f"float32 on a CPU; {stored.wrong} where each step gives float16, of which {stored.not_finite} not finite"
    )
    return place
