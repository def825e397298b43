"""What stands on the transformer's states to answer a task."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gradus.nn.layers import Dropout, Linear


class ClassificationHead(nn.Module):
    """One score a class: states [M, D] -> logits [M, K] in the precision of the weights (fp32 or better).

    Dropout 0.1 on the state (GPT-1 section 4.1) and a linear layer `score` without bias, as Hugging Face
    keeps it.
    """

    def __init__(self, width: int, classes: int, dropout: float = 0.1, dtype: torch.dtype = torch.float32):
        super().__init__()
        self.dropout = Dropout(dropout)
        self.score = Linear(width, classes, bias=False, dtype=dtype)

    def forward(self, states: Tensor) -> Tensor:
        return self.score(self.dropout(states.to(self.score.weight.dtype)))
