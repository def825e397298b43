"""Gradual unfreezing: the upper layers learn first, and the lower ones join them (Howard and Ruder 2018,
section 3.3)."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from pydantic import Field
from torch import nn

from gradus.core.config import Config
from gradus.core.duration import Interval, Quantity
from gradus.optim.groups import Named, depths


class Unfreeze(Config):
    """At first heads and the last layers learn; at every interval so many layers more, embeddings last."""

    layers: int = Field(1, ge=1)
    every: Interval = Quantity(1, "epochs")

    def bind(self, parameters: Named, boundaries: Sequence[int]) -> Unfreezing:
        """For parameters that learn in the end; `boundaries` are the steps after which more of them do."""
        named = [(name, parameter) for name, parameter in parameters if parameter.requires_grad]
        depth_of = depths([name for name, _ in named])
        return Unfreezing([(parameter, depth_of[name]) for name, parameter in named], boundaries, self.layers)


class Unfreezing:
    """Which parameters learn is a function of the step."""

    def __init__(self, depths: Sequence[tuple[nn.Parameter, int]], boundaries: Sequence[int], layers: int):
        self.depths, self.boundaries, self.layers = depths, sorted(boundaries), layers
        self._open = 0

    def apply(self, step: int) -> bool:
        """Lets those learn that do at step `step` (0-based); whether they are others than before."""
        opened = (bisect_right(self.boundaries, step) + 1) * self.layers
        if opened == self._open:
            return False
        self._open = opened
        for parameter, depth in self.depths:
            parameter.requires_grad_(depth < opened)
        return True
