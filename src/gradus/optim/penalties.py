"""Penalties on the weights: their gradients are added before the whole is clipped.

Weight decay is the optimizer's (`weight_decay`: apart from the gradient in AdamW, AdaFactor and Muon, part of
it in Adam and SGD). The loss that is reported is without penalties.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from pydantic import Field
from torch import Tensor, nn

from gradus.core.config import Config


class Penalties(Config):
    """What is added to the loss of every step."""

    l1: float = Field(0.0, ge=0)
    """Times the sum of |w| over all matrices (Tibshirani 1996)."""
    l2_start: float = Field(0.0, ge=0)
    """Half of this times the sum of (w - start) ** 2 over all that was taken over: it stays near where it
    began (Li, Grandvalet and Davoine 2018, section 3, L2-SP)."""
    l2_new: float = Field(0.0, ge=0)
    """Half of this times the sum of w ** 2 over what is new in this stage (the same)."""

    def bind(self, named: Iterable[tuple[str, nn.Parameter]], taken: frozenset[str]) -> Penalty:
        """The penalty of parameters, `taken` over or new by their names; they are at their start now."""
        found = list(named)
        matrices = [parameter for _, parameter in found if parameter.dim() > 1] if self.l1 else []
        pulled = [
            (parameter, parameter.detach().clone() if name in taken else None, strength)
            for name, parameter in found
            if (strength := self.l2_start if name in taken else self.l2_new)
        ]
        return Penalty(matrices, self.l1, pulled)


class Penalty:
    """Adds to the gradients of parameters."""

    def __init__(
        self,
        matrices: list[nn.Parameter],
        l1: float,
        pulled: list[tuple[nn.Parameter, Tensor | None, float]],
    ):
        self.matrices, self.l1, self.pulled = matrices, l1, pulled

    @torch.no_grad()
    def add(self) -> None:
        """Adds the gradient of the penalty to every parameter that has one."""
        for parameter in self.matrices:
            if parameter.grad is not None:
                parameter.grad.add_(parameter.sign(), alpha=self.l1)
        for parameter, start, strength in self.pulled:
            if parameter.grad is not None:
                parameter.grad.add_(parameter if start is None else parameter - start, alpha=strength)
