"""The optimizers a recipe may name, and which parameters decay."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import nn

from gradus.core.config import Config


class _AdamLike(Config):
    lr: float = Field(2.5e-4, gt=0)
    """The largest learning rate; the schedule multiplies it (GPT-1 pre-training: 2.5e-4, fine-tuning:
    6.25e-5)."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Kingma and Ba 2015, section 2."""
    epsilon: float = Field(1e-8, gt=0)


class Adam(_AdamLike):
    """Adam (Kingma and Ba 2015); `weight_decay` is the coupled L2 penalty, added to the gradient."""

    kind: Literal["adam"] = "adam"
    weight_decay: float = Field(0.0, ge=0)

    def build(self, parameters: Iterable[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
        groups = decay_groups(parameters, self.weight_decay, self.lr, decoupled=False)
        return torch.optim.Adam(groups, lr=self.lr, betas=self.betas, eps=self.epsilon, fused=True)


class AdamW(_AdamLike):
    """Adam with decoupled decay (Loshchilov and Hutter 2019, algorithm 2)."""

    kind: Literal["adamw"] = "adamw"
    weight_decay: float = Field(0.01, ge=0)
    """GPT-1, section 4.1: 0.01 on all that is neither a bias nor a gain."""

    def build(self, parameters: Iterable[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
        groups = decay_groups(parameters, self.weight_decay, self.lr)
        return torch.optim.AdamW(groups, lr=self.lr, betas=self.betas, eps=self.epsilon, fused=True)


OptimizerConfig = Annotated[Adam | AdamW, Field(discriminator="kind")]


def decay_groups(
    parameters: Iterable[tuple[str, nn.Parameter]], weight_decay: float, lr: float, decoupled: bool = True
) -> list[dict[str, object]]:
    """Matrices decay; biases and gains, which have one dimension, do not (GPT-1, section 4.1). Parameters
    with a `rate` of their own, a factor of the learning rate, are groups of their own; a `decoupled` decay,
    which the learning rate multiplies, stays what it was."""
    groups: dict[tuple[bool, float], list[nn.Parameter]] = {}
    for _, parameter in parameters:
        if parameter.requires_grad:
            key = parameter.dim() > 1, float(getattr(parameter, "rate", 1.0))
            groups.setdefault(key, []).append(parameter)
    return [
        {"params": members, "lr": lr * rate,
         "weight_decay": weight_decay / (rate if decoupled else 1) if decays else 0.0}
        for (decays, rate), members in sorted(groups.items(), key=lambda item: (not item[0][0], -item[0][1]))
    ]  # fmt: skip
