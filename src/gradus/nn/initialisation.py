"""The start of every tensor: a function of the seed and the tensor's name, and of nothing else.

So a new head moves no other tensor, and two models that share a name and a shape share that start.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from torch import nn

from gradus.core.keyed import keyed_hash


@runtime_checkable
class StartsItself(Protocol):
    """A module that changes its parameters once they are drawn."""

    def start(self) -> None: ...


def initialise(module: nn.Module, seed: int, deviation: float, prefix: str = "") -> None:
    """Fills `module` in place: matrices N(0, deviation), biases 0, gains 1 (GPT-1 section 4.1).

    A part may have a `deviation` of its own, and a method `start` that is called at the end. `prefix` stands
    before the module's own names ("heads.sst." for a head). Numbers are drawn on the CPU in fp32 whatever the
    device and precision.
    """
    with torch.no_grad():
        for path, part in module.named_modules(prefix=prefix.removesuffix(".")):
            own = getattr(part, "deviation", None) or deviation
            for name, parameter in part.named_parameters(prefix=path, recurse=False):
                if parameter.dim() > 1:
                    generator = torch.Generator().manual_seed(keyed_hash("initialisation", seed, name))
                    drawn = torch.empty(parameter.shape).normal_(0.0, own, generator=generator)
                    parameter.copy_(drawn)
                else:
                    parameter.fill_(0.0 if name.endswith("bias") else 1.0)
        for part in module.modules():
            if isinstance(part, StartsItself):
                part.start()
