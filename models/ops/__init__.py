"""Functions of tensors that the widened block is trained with; nothing here knows a module or a network.

widen              activation, Reuse, depthwise convolution, and the moments of the widened map
activated_conv1x1  scale and shift, activation, 1x1 convolution
reuse_depthwise    Reuse and depthwise convolution as plain functions of torch, in the form that suits the device

The first two are registered with torch, so that autograd, torch.compile and autocast treat them as torch's own: one
form in torch's functions for every device, and one by models/ops/kernels.c for a CPU with a C compiler.
"""

from models.ops.activated_conv import activated_conv1x1
from models.ops.build import LANES, load_library
from models.ops.build import REALS as DTYPES
from models.ops.depthwise import repeats_the_map, reuse_depthwise
from models.ops.widen import widen

__all__ = ["DTYPES", "LANES", "activated_conv1x1", "load_library", "repeats_the_map", "reuse_depthwise", "widen"]
