"""The optimizers a recipe may name. Each config builds torch's own; what they keep of a parameter is counted
in `numbers`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from pydantic import Field, model_validator
from torch.optim import Optimizer

from gradus.core.config import Config, wrong
from gradus.optim.groups import Group, Named, parameter_groups


class _Optimizer(Config):
    lr: float = Field(gt=0)
    """The largest learning rate; the schedule multiplies it."""
    weight_decay: float = Field(0.0, ge=0)
    layer_decay: float | None = Field(None, ge=1)
    """Each layer learns so many times slower than the one above it (ULMFiT: 2.6)."""
    groups: list[Group] | None = None
    """Rates and decays of parameters by their names; the first pattern that matches counts."""

    def _groups(self, parameters: Named, decoupled: bool = True) -> list[dict[str, Any]]:
        return parameter_groups(parameters, self.lr, self.weight_decay, decoupled=decoupled,
                                layer_decay=self.layer_decay, groups=self.groups or ())  # fmt: skip

    def build(self, parameters: Named) -> list[Optimizer]:
        """torch's optimizers of these (name, parameter); each parameter is in one of them."""
        raise NotImplementedError

    def numbers(self, name: str, shape: Sequence[int]) -> int:
        """How many fp32 numbers are kept of a parameter of this name and shape, beside itself and its
        gradient."""
        raise NotImplementedError


class SGD(_Optimizer):
    """Stochastic gradient descent; `weight_decay` is the coupled L2 penalty, added to the gradient."""

    kind: Literal["sgd"] = "sgd"
    momentum: float = Field(0.0, ge=0, lt=1)
    """Polyak 1964; in torch's form, in which the rate multiplies the sum of past gradients."""
    nesterov: bool = False
    """The gradient is looked at where momentum will lead (Sutskever et al. 2013, section 3)."""

    @model_validator(mode="after")
    def _has_momentum(self) -> SGD:
        if self.nesterov and not self.momentum:
            raise wrong("nesterov", "this is a kind of momentum, and there is none", None, "momentum: 0.9")
        return self

    def build(self, parameters: Named) -> list[Optimizer]:
        groups = self._groups(parameters, decoupled=False)
        return [
            torch.optim.SGD(groups, lr=self.lr, momentum=self.momentum, nesterov=self.nesterov, fused=True)
        ]

    def numbers(self, name: str, shape: Sequence[int]) -> int:
        return _size(shape) if self.momentum else 0


class _AdamLike(_Optimizer):
    lr: float = Field(2.5e-4, gt=0)
    """The largest learning rate; the schedule multiplies it (GPT-1 pre-training: 2.5e-4, fine-tuning:
    6.25e-5)."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Kingma and Ba 2015, section 2."""
    epsilon: float = Field(1e-8, gt=0)

    def numbers(self, name: str, shape: Sequence[int]) -> int:
        return 2 * _size(shape)


class Adam(_AdamLike):
    """Adam (Kingma and Ba 2015); `weight_decay` is the coupled L2 penalty, added to the gradient."""

    kind: Literal["adam"] = "adam"

    def build(self, parameters: Named) -> list[Optimizer]:
        groups = self._groups(parameters, decoupled=False)
        return [torch.optim.Adam(groups, lr=self.lr, betas=self.betas, eps=self.epsilon, fused=True)]


class AdamW(_AdamLike):
    """Adam with decoupled decay (Loshchilov and Hutter 2019, algorithm 2)."""

    kind: Literal["adamw"] = "adamw"
    weight_decay: float = Field(0.01, ge=0)
    """GPT-1, section 4.1: 0.01 on all that is neither a bias nor a gain."""

    def build(self, parameters: Named) -> list[Optimizer]:
        groups = self._groups(parameters)
        return [torch.optim.AdamW(groups, lr=self.lr, betas=self.betas, eps=self.epsilon, fused=True)]


class AdaFactor(_Optimizer):
    """Adam's scaling with a row and a column of second moments a matrix and no first ones (Shazeer and Stern
    2018, algorithms 4 and 5; T5 was trained with it): relative steps, updates clipped.

    A step is the learning rate, but never more than 1 / sqrt(step), times the root mean square of the
    parameter. So the paper's own is `lr: 1e-2` with a `constant` schedule.
    """

    kind: Literal["adafactor"] = "adafactor"
    lr: float = Field(1e-2, gt=0)
    """Of each parameter's own size (section 8: at most 1e-2)."""
    decay: float = Field(-0.8, le=0)
    """The second moments' memory after step t is 1 - t ** decay (section 7.2)."""
    clip_update: float = Field(1.0, gt=0)
    """An update's root mean square is at most this, before the rate (section 6)."""
    epsilon: float = Field(1e-3, gt=0)
    """A parameter counts as at least this large (section 8)."""

    def build(self, parameters: Named) -> list[Optimizer]:
        # torch squares the first epsilon: the paper's 1e-30, which is added to squared gradients.
        groups = self._groups(parameters)
        return [torch.optim.Adafactor(groups, lr=self.lr, beta2_decay=self.decay, eps=(1e-15, self.epsilon),
                                      d=self.clip_update)]  # fmt: skip

    def numbers(self, name: str, shape: Sequence[int]) -> int:
        return _size(shape) if len(shape) < 2 else _size(shape[:-1]) + _size((*shape[:-2], shape[-1]))


class Muon(_AdamLike):
    """Momentum whose updates of the blocks' matrices are made orthogonal by five steps of Newton and Schulz
    (Jordan et al. 2024, as torch has it); embeddings, heads, biases and gains learn by AdamW.

    Updates are scaled to the size of AdamW's (Liu et al. 2025, section 2.2, "match RMS"), so that one `lr`
    and one `weight_decay` do for both.
    """

    kind: Literal["muon"] = "muon"
    lr: float = Field(gt=0)
    weight_decay: float = Field(0.1, ge=0)
    momentum: float = Field(0.95, ge=0, lt=1)

    def build(self, parameters: Named) -> list[Optimizer]:
        named = list(parameters)
        inner = {name for name, parameter in named if _is_inner(name, parameter.shape)}
        found: list[Optimizer] = []
        if matrices := self._groups([one for one in named if one[0] in inner]):
            found.append(
                torch.optim.Muon(matrices, lr=self.lr, weight_decay=self.weight_decay, momentum=self.momentum,
                                 adjust_lr_fn="match_rms_adamw")
            )  # fmt: skip
        if others := self._groups([one for one in named if one[0] not in inner]):
            adam = torch.optim.AdamW(others, lr=self.lr, betas=self.betas, eps=self.epsilon, fused=True)
            found.append(adam)
        return found

    def numbers(self, name: str, shape: Sequence[int]) -> int:
        return (1 if _is_inner(name, shape) else 2) * _size(shape)


OptimizerConfig = Annotated[SGD | Adam | AdamW | AdaFactor | Muon, Field(discriminator="kind")]


def _is_inner(name: str, shape: Sequence[int]) -> bool:
    return "blocks." in name and len(shape) == 2


def _size(shape: Sequence[int]) -> int:
    return int(torch.Size(shape).numel())
