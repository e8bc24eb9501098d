"""Muon for the weights of 1x1 convolutions, and AdamW for all other parameters, as one optimizer (-optimizer muon).

Muon (Jordan, "Muon: An optimizer for hidden layers in neural networks", 2024, kellerjordan.github.io/posts/muon) is for
matrices. The weight of a 1x1 convolution, out x in x 1 x 1, is one, whatever the images' side.
"""

from __future__ import annotations

import torch
from torch import nn

from conf import Settings

ADAMW_SHARE = 0.1  # AdamW's peak rate is this share of Muon's, where it is not given


def pointwise_weights(network: nn.Module) -> list[nn.Parameter]:
    """The weights of the network's 1x1 convolutions without groups, in their order (each group's would be a matrix)."""
    found = {module.weight for module in network.modules() if isinstance(module, nn.Conv2d) and module.groups == 1}
    return [each for each in network.parameters() if each in found and each.shape[2:] == (1, 1)]


def adamw_rate(settings: Settings) -> float:
    """The peak learning rate of the parameters that are not Muon's."""
    return ADAMW_SHARE * settings.lr if settings.adamw_lr is None else settings.adamw_lr


def check_muon(network: nn.Module, settings: Settings) -> None:
    """Raises ValueError where -optimizer muon is given and this torch does not have it, or it has nothing to do."""
    if settings.optimizer != "muon":
        return
    if not hasattr(torch.optim, "Muon"):
        raise ValueError(
            f"-optimizer muon: torch 2.9 and newer have it, and this is {torch.__version__}; give -optimizer adamw"
        )
    if not pointwise_weights(network):
        raise ValueError(f"-optimizer muon: {settings.net} has no 1x1 convolution, for which it is; give adamw")


class MuonWithAdamW(torch.optim.Optimizer):
    """torch's Muon and AdamW, which work on this optimizer's groups and state.

    weights  of 1x1 convolutions, for Muon; their group is the first, and has `lr`
    others   the groups of all other parameters, as torch's optimizers take them, for AdamW at `adamw_lr`

    Muon's momentum, 0.95 with Nesterov's, and its steps are torch's defaults: a step of a weight is lr times a matrix
    whose singular values are near 1, times (out / in)^0.5 where that is above 1.
    """

    def __init__(
        self,
        weights: list[nn.Parameter],
        others: list[dict],
        lr: float,
        adamw_lr: float,
        weight_decay: float,
        fused: bool | None,
    ) -> None:
        # torch's Muon takes matrices only: these share the memory of the weights, which stay what they are
        self.matrices = [nn.Parameter(weight.detach().flatten(1)) for weight in weights]
        self.muon = torch.optim.Muon(self.matrices, lr=lr, weight_decay=weight_decay)
        self.adamw = torch.optim.AdamW(others, lr=adamw_lr, weight_decay=weight_decay, fused=fused)
        super().__init__([self.muon.param_groups[0] | {"params": weights}, *self.adamw.param_groups], {})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:
        """A step of both; every parameter has a gradient."""
        assert closure is None
        # Groups and state are handed over at every step: loading a state dict makes new ones.
        own, *others = self.param_groups
        for weight, matrix in zip(own["params"], self.matrices, strict=True):
            matrix.grad = weight.grad.flatten(1)
            self.muon.state[matrix] = self.state[weight]
        self.muon.param_groups = [own | {"params": self.matrices}]
        self.adamw.param_groups, self.adamw.state = others, self.state
        self.muon.step()
        self.adamw.step()
        for matrix in self.matrices:
            matrix.grad = None  # it would keep the gradient's memory
