"""Which parameters decay, and which learn at a rate of their own.

A group's learning rate is the recipe's times a factor: of the parameter itself (the maximal update
parametrisation), of its layer (Howard and Ruder 2018, section 3.2, discriminative fine-tuning), and of the
patterns that its name matches.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from pydantic import Field
from torch import nn

from gradus.core.config import Config

Named = Iterable[tuple[str, nn.Parameter]]
BLOCK = re.compile(r"(.*?)blocks\.(\d+)\.")


class Group(Config):
    """Parameters by their names, as the transfer table of the report has them."""

    match: str = Field(min_length=1)
    """A pattern of the whole name; * stands for anything: "transformer.embedding.*"."""
    rate: float = Field(1.0, ge=0)
    """Their learning rate is the stage's times this; 0 leaves them where they are."""
    weight_decay: float | None = Field(None, ge=0)
    """In place of the stage's, for matrices and vectors alike."""


def parameter_groups(
    parameters: Named,
    lr: float,
    weight_decay: float,
    *,
    decoupled: bool = True,
    layer_decay: float | None = None,
    groups: Sequence[Group] = (),
) -> list[dict[str, object]]:
    """The groups that torch's optimizers take, the largest rates first, those that decay before the others.

    Matrices decay; biases and gains, which have one dimension, do not (GPT-1, section 4.1). A `decoupled`
    decay, which torch multiplies by the group's learning rate, stays what it was. With `layer_decay` a layer
    learns so many times slower than the one above it, embeddings as a layer below the first; heads and what
    stands behind the last layer have the full rate. Of `groups` the first that matches a name counts.
    """
    named = [(name, parameter) for name, parameter in parameters if parameter.requires_grad]
    depth_of = depths([name for name, _ in named])
    found: dict[tuple[float, float], list[nn.Parameter]] = {}
    for name, parameter in named:
        own = next((group for group in groups if fnmatchcase(name, group.match)), None)
        rate = float(getattr(parameter, "rate", 1.0)) * (own.rate if own is not None else 1.0)
        rate *= (layer_decay or 1.0) ** -depth_of[name]
        decay = weight_decay if parameter.dim() > 1 else 0.0
        decay = own.weight_decay if own is not None and own.weight_decay is not None else decay
        found.setdefault((decay, rate), []).append(parameter)
    return [
        {"params": members, "lr": lr * rate, "weight_decay": decay / rate if decoupled and rate else decay}
        for (decay, rate), members in sorted(found.items(), key=lambda item: (-item[0][0], -item[0][1]))
    ]


def matching(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """The names that any of the patterns matches."""
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def unmatched(names: Sequence[str], patterns: Sequence[str]) -> list[str]:
    """The patterns that match no name."""
    return [pattern for pattern in patterns if not matching(names, [pattern])]


def freeze(module: nn.Module, patterns: Sequence[str]) -> None:
    """Parameters whose names match take no gradient: below the lowest that learns nothing goes backward."""
    frozen = set(matching([name for name, _ in module.named_parameters()], patterns))
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(name not in frozen)


def depths(names: Sequence[str]) -> dict[str, int]:
    """How many layers stand above a parameter in its stack: 0 for the last layer and what comes after it."""
    layers: dict[str, int] = {}
    for name in names:
        if place := BLOCK.match(name):
            layers[place[1]] = max(layers.get(place[1], 0), int(place[2]) + 1)
    return {name: _depth(name, layers) for name in names}


def _depth(name: str, layers: dict[str, int]) -> int:
    if place := BLOCK.match(name):
        return layers[place[1]] - 1 - int(place[2])
    stack = next((one for one in sorted(layers, key=len, reverse=True) if name.startswith(one)), None)
    return layers[stack] if stack is not None and name.removeprefix(stack).startswith("embedding") else 0
