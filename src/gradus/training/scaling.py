"""A loss scale that finds itself, for gradients in fp16, whose smallest number is 2 ** -24.

The loss is multiplied before the backward pass and the gradients are divided after it (Micikevicius et al.
2018, section 3.2). A step whose gradients overflow is skipped and halves the scale; after `GROWTH` steps
without one it doubles. Numbers as in torch's GradScaler.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

FIRST, LEAST, GROWTH = 2.0**16, 1.0, 2000


class LossScale:
    """The scale, and how long it has held."""

    def __init__(self) -> None:
        self.value, self.held, self.skipped = FIRST, 0, 0

    @torch.no_grad()
    def unscale(self, parameters: Sequence[torch.nn.Parameter]) -> bool:
        """Divides the gradients by the scale, and says whether all of them are numbers. Moves the scale for
        the next step; `collapsed` tells where that is no use any more."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        torch._foreach_mul_(gradients, 1 / self.value)
        finite = bool(torch.stack([gradient.isfinite().all() for gradient in gradients]).all())
        self.held = self.held + 1 if finite else 0
        if not finite:
            self.value, self.skipped = self.value / 2, self.skipped + 1
        elif self.held == GROWTH:
            self.value, self.held = self.value * 2, 0
        return finite

    @property
    def collapsed(self) -> bool:
        return self.value < LEAST

    def state(self) -> list[float]:
        return [self.value, self.held, self.skipped]

    def restore(self, state: Sequence[float]) -> None:
        self.value, self.held, self.skipped = float(state[0]), int(state[1]), int(state[2])
