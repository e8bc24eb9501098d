"""What reads what in a network of any make: its calls as torch.fx traces them, and the chains that can be read off."""

from __future__ import annotations

import sys
from collections import Counter

import torch.fx
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


class Calls(torch.fx.Tracer):
    """The calls of a network's modules, each of which is one step: convolutions, norms, and all without children.

    Raises ValueError for a network that torch.fx cannot trace: one whose forward() asks for values of its maps.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        try:
            self.nodes = list(self.trace(network).nodes)
        except Exception as error:  # whatever the network's own code raises for the stand-ins of its maps
            raise ValueError(f"torch.fx cannot trace the network ({type(error).__name__})") from error
        self.modules = dict(network.named_modules())
        self.times = Counter(id(self.modules[node.target]) for node in self.nodes if node.op == "call_module")

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        # timm's BatchNormAct2d has children, and is a norm all the same
        is_step = isinstance(m, nn.Conv2d | nn.Linear | _BatchNorm) or next(m.children(), None) is None
        return is_step or super().is_leaf_module(m, module_qualified_name)

    def module(self, node: torch.fx.Node) -> nn.Module | None:
        """The module that a step calls; None where it calls none, or one that is called elsewhere too."""
        if node.op != "call_module":
            return None
        module = self.modules[node.target]
        return module if self.times[id(module)] == 1 else None

    def reader(self, node: torch.fx.Node) -> torch.fx.Node | None:
        """The one step that reads what a step gives, where that is all it reads; None where there is no such one."""
        readers = list(node.users)
        return readers[0] if len(readers) == 1 and readers[0].args == (node,) and not readers[0].kwargs else None


def replace(network: nn.Module, name: str, module: nn.Module) -> None:
    """Puts a module in the place of the one of this full name."""
    parent, _, own = name.rpartition(".")
    setattr(network.get_submodule(parent), own, module)


def is_plain_norm(norm: nn.Module) -> bool:
    """Whether it is one of torch's batch norms, and not a subclass that may compute something else."""
    return isinstance(norm, _BatchNorm) and type(norm).__module__.startswith("torch.nn.")


def after_norm(norm: nn.Module) -> nn.Module | None:
    """What is left to compute of a batch norm once it has been taken out: nothing, or the activation that timm's
    BatchNormAct2d has in it. None where that is not known.
    """
    if is_plain_norm(norm):
        return nn.Identity()
    kind = of_timm("norm_act", "BatchNormAct2d")
    return norm.act if kind and type(norm) is kind and type(norm.drop) is nn.Identity else None


def of_timm(file: str, name: str) -> type | None:
    """A class of timm's layers, where timm has been imported: else no network has such a layer."""
    return getattr(sys.modules.get(f"timm.layers.{file}"), name, None)
