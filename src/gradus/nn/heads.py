"""What stands on the transformer's states to answer a task."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gradus.nn.layers import Dropout, Linear


class Heads(nn.ModuleDict):
    """Heads by any name: torch's own dictionary refuses those of its methods, such as `train`."""

    def add_module(self, name: str, module: nn.Module | None) -> None:
        self._modules[name] = module  # type: ignore[assignment]


class LinearHead(nn.Module):
    """K scores a state: [J, D] -> [J, K] in the precision of the weights (fp32 or better).

    Dropout 0.1 on the state (GPT-1 section 4.1) and a linear layer `score`. K is the number of classes, 1 for
    a number or for the one logit of a choice. With `dense` the state first goes through dropout, a linear
    layer and tanh (RoBERTa, BART: as released).
    """

    def __init__(
        self,
        width: int,
        outputs: int,
        dropout: float = 0.1,
        bias: bool = False,
        dense: bool = False,
        dtype: torch.dtype = torch.float32,
    ):
        super().__init__()
        self.dropout = Dropout(dropout)
        if dense:
            self.dense = Linear(width, width, dtype=dtype)
        self.before = self._dense if dense else nn.Identity()
        self.score = Linear(width, outputs, bias=bias, dtype=dtype)

    def forward(self, states: Tensor, owner: Tensor | None = None) -> Tensor:
        """Where `owner` [J] is given, states of one owner share one dropout mask."""
        states = self.before(states.to(self.score.weight.dtype))
        if owner is None or not self.training or not self.dropout.struck:
            return self.score(self.dropout(states))
        mask = self.dropout(states.new_ones(int(owner[-1]) + 1 if len(owner) else 0, states.shape[1]))
        return self.score(states * mask.index_select(0, owner))

    def _dense(self, states: Tensor) -> Tensor:
        return torch.tanh(self.dense(self.dropout(states)))
