"""Low-rank adapters: a few new weights beside the frozen matrices of a trained model (Hu et al. 2021).

An adapted layer computes x W^T + (alpha / rank) (x A^T) B^T. A and B are trained, and B starts at zero, so that the
model starts as it was. Merging adds the product to W, which gives a plain layer again. Not here: which layers a model has.

Shapes: R rank, I input width, O output width.
"""

from __future__ import annotations

import copy
import math
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from understudy.config.model import LoraConfig

ModuleT = TypeVar("ModuleT", bound=nn.Module)


class LoraLinear(nn.Linear):
    """A linear layer with an adapter. Its own weight keeps its name, so that checkpoints of the plain layer fit."""

    def __init__(self, plain: nn.Linear, config: LoraConfig) -> None:
        super().__init__(plain.in_features, plain.out_features, plain.bias is not None, device="meta")
        self.weight, self.bias = plain.weight, plain.bias
        device = plain.weight.device
        self.lora_a = nn.Parameter(torch.empty(config.rank, plain.in_features, device=device))  # (R, I)
        self.lora_b = nn.Parameter(torch.zeros(plain.out_features, config.rank, device=device))  # (O, R)
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))
        self.scale = config.alpha / config.rank
        self.lora_dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        if self.weight.dtype == torch.bfloat16:  # one cast for both products
            x = x.to(self.weight.dtype)
        low = F.linear(self.lora_dropout(x), self.lora_a)  # (..., R)
        y = super().forward(x)
        # one pass over y, where a product and an addition would take three
        return torch.addmm(y.flatten(0, -2), low.flatten(0, -2), self.lora_b.T, alpha=self.scale).view(y.shape)

    def frozen(self) -> nn.Linear:
        """The layer without its adapter; the weights are shared."""
        plain = nn.Linear(self.in_features, self.out_features, self.bias is not None, device="meta")
        plain.weight, plain.bias = self.weight, self.bias
        return plain

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """The plain layer that computes the same."""
        plain = self.frozen()
        plain.weight += self.scale * (self.lora_b @ self.lora_a)
        return plain.requires_grad_()


def add_lora(model: nn.Module, config: LoraConfig) -> None:
    """Freeze ``model`` and put adapters into the layers named by ``config.targets``.

    A score head is trained in full: a parent without one leaves it zero, and no gradient would pass a frozen zero. With
    ``config.embeddings`` so are the token embeddings (and an untied head), which tokens that the model has never met need.
    """
    trained = ("score.", "token_embedding.", "head.") if config.embeddings else ("score.",)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(trained))
    for owner in list(model.modules()):
        for name, layer in list(owner.named_children()):
            if name in config.targets and isinstance(layer, nn.Linear):
                setattr(owner, name, LoraLinear(layer, config))


def hold_frozen_weights(model: nn.Module, dtype: torch.dtype) -> None:
    """Hold the frozen matrices and embeddings of ``model`` in ``dtype``. Norms, biases and trained weights stay in fp32.

    Products under autocast in ``dtype`` then need no cast, which is otherwise made at each use of a frozen weight.
    """
    for parameter in model.parameters():
        if parameter.ndim > 1 and not parameter.requires_grad:
            parameter.data = parameter.data.to(dtype)


def without_lora(model: ModuleT) -> ModuleT:
    """The frozen model under the adapters: a second module in evaluation mode that shares the memory of the weights of
    ``model``. None of its own parameters requires a gradient."""
    shared: dict[int, Tensor] = {id(p): nn.Parameter(p.data, requires_grad=False) for p in model.parameters()}
    plain = copy.deepcopy(model, shared | {id(buffer): buffer for buffer in model.buffers()})
    for owner in list(plain.modules()):
        for name, layer in list(owner.named_children()):
            if isinstance(layer, LoraLinear):
                setattr(owner, name, layer.frozen())
    return plain.eval()


def merge_lora(model: nn.Module) -> None:
    """Replace every adapted layer by the plain one that computes the same; all weights are in fp32 afterwards."""
    for parameter in model.parameters():
        parameter.data = parameter.data.float()
    for owner in list(model.modules()):
        for name, layer in list(owner.named_children()):
            if isinstance(layer, LoraLinear):
                setattr(owner, name, layer.merged())
    model.requires_grad_()
