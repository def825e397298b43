"""An LSTM in the transformer's place: what GPT-1 compares itself with (section 5, table 5).

Sequences of any lengths run side by side, longest first: step t takes token t of every sequence that has
one, so there is no padding here either. Shapes: N flat tokens, T steps, D width, U units.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from gradus.core.model import ModelConfig
from gradus.nn.cache import Carried
from gradus.nn.layers import Dropout, Linear
from gradus.nn.layout import Move
from gradus.nn.recurrence import GATES, run_by_hand, run_by_torch, run_on


@dataclass(frozen=True, slots=True)
class Steps:
    """How N flat tokens stand step by step, the dead tail at the end as before.

    `sizes` [T] says how many sequences have a token at each step, `take` [N] names the flat token of every
    place in that order and `back` [N] the place of every token.
    """

    sizes: tuple[int, ...]
    take: Tensor
    back: Tensor

    @staticmethod
    def of(offsets: np.ndarray, total: int, device: torch.device | str = "cpu") -> Steps:
        """The steps of sequences at `offsets` [S+1] among `total` tokens."""
        lengths = np.diff(offsets)
        rank = np.empty(len(lengths), dtype=np.int64)
        rank[np.argsort(-lengths, kind="stable")] = np.arange(len(lengths))
        over = np.cumsum(np.bincount(lengths))[:-1]  # sequences of at most t tokens, for every step t
        sizes = len(lengths) - over
        within = np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths)
        back = np.arange(total)
        back[: offsets[-1]] = (np.cumsum(sizes) - sizes)[within] + np.repeat(rank, lengths)
        take = np.empty_like(back)
        take[back] = np.arange(total)
        places = [torch.from_numpy(part).to(device) for part in (take, back)]
        return Steps(tuple(sizes.tolist()), *places)

    def pack(self, flat: Tensor) -> Tensor:
        """[N, ...] in the order of steps."""
        packed: Tensor = Move.apply(flat, self.take, self.back, None)
        return packed

    def unpack(self, packed: Tensor) -> Tensor:
        """The inverse of `pack`."""
        flat: Tensor = Move.apply(packed, self.back, self.take, None)
        return flat


class LSTMLayer(nn.Module):
    """states [N, D] -> [N, D]: an LSTM of U units and a projection back to the width.

    The projection (Sak et al. 2014, section 2, but outside of the recurrence) lets the output embedding be
    tied whatever U is. Dropout is on the hidden states that leave the layer, never on those that stay in it
    (Zaremba et al. 2014, section 3.1). From the second layer on a layer's input is added to its output (Wu
    et al. 2016, section 3.1); one layer is the plain LSTM of GPT-1's ablation.

    No norm keeps the size of what passes, so the matrices begin at N(0, 1/sqrt(inputs)) (LeCun et al. 1998,
    section 4.6): about GPT-1's 0.02 for its 2048 units, and much faster learning than with 0.02 for fewer.
    """

    def __init__(self, config: ModelConfig, index: int, dtype: torch.dtype):
        super().__init__()
        self.input = Linear(config.width, GATES * config.cells, dtype=dtype)
        self.recurrent = Linear(config.cells, GATES * config.cells, bias=False, dtype=dtype)
        self.output = Linear(config.cells, config.width, dtype=dtype)
        for part in (self.input, self.recurrent, self.output):
            part.deviation = part.weight.shape[1] ** -0.5
        self.dropout = Dropout(config.dropout)
        self.residual = index > 0

    def start(self) -> None:
        """The forget gates' biases become 1, so that a new layer remembers (Jozefowicz et al. 2015)."""
        assert self.input.bias is not None
        self.input.bias.view(GATES, -1)[1].fill_(1.0)

    def forward(self, states: Tensor, steps: Steps, carried: Carried | None = None) -> Tensor:
        """`carried` is where running sequences go on from, and it takes where they stop."""
        packed = steps.pack(states)
        if carried is None:
            run = run_by_hand if states.is_cpu else run_by_torch
            hidden = run(packed, *self.matrices, steps.sizes)
        else:
            hidden = self.carry(packed, steps, carried)
        hidden = steps.unpack(hidden)
        projected = self.output(self.dropout(hidden))
        return states + projected if self.residual else projected

    def carry(self, packed: Tensor, steps: Steps, carried: Carried) -> Tensor:
        """Hidden states [N, U] of states [N, D], both in the order of steps, from where `carried` stands."""
        weight, recurrent, bias = self.matrices
        rows = steps.sizes[0]
        start = carried.states or (weight.new_zeros(rows, recurrent.shape[1]),) * 2
        before = start[0][None], start[1][None]
        hidden, last, cells = run_on(packed, weight, recurrent, bias, steps.sizes, before)
        order = steps.take[:rows].argsort()  # of the sequences, by where they begin
        carried.states = last[0].index_select(0, order), cells[0].index_select(0, order)
        return hidden

    @property
    def matrices(self) -> tuple[Tensor, Tensor, Tensor]:
        """Of the gates: [4U, D] for the input, [4U, U] for the hidden states, and the bias [4U]."""
        assert self.input.bias is not None
        return self.input.weight, self.recurrent.weight, self.input.bias
