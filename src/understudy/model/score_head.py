"""The head that reads a score from a hidden state: the reward of an answer, or the value of a state.

Shapes: D model width.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class ScoreHead(nn.Linear):
    """Scores (...) from hidden states (..., D), zero at first.

    The product is taken in fp32 even under autocast, since in bf16 scores that differ little would be equal. The head is
    trained in full beside adapters, and kept in fp32 when a model is quantized.
    """

    def __init__(self, width: int) -> None:
        super().__init__(width, 1, bias=False)

    def forward(self, hidden: Tensor) -> Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            return F.linear(hidden.float(), self.weight.float())[..., 0]
