"""An objective among several tasks: it scores the examples of its own data sets, and in all others nothing.

So the tasks of a mixture share one step and one forward: each objective has a sum and a count of its own
(Liu et al. 2019, "Multi-Task Deep Neural Networks", algorithm 1, takes one task a step instead).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

import numpy as np
from torch import Tensor, nn

from gradus.core.example import Example, ExampleTargets, Targets
from gradus.core.keyed import keyed_generator
from gradus.nn.transformer import Transformer
from gradus.objectives.base import Objective


class OfMembers(Objective):
    """One objective as each of its data sets knows it (they may weigh classes differently), with one head."""

    def __init__(self, own: Mapping[str, Objective], first: Example, titled: bool):
        """`first` is an example of the first data set; `titled`: whether the names of the data sets stand
        before that of the objective."""
        self._own, self._one = dict(own), next(iter(own.values()))
        self.name = f"{'+'.join(own)}.{self._one.name}" if titled else self._one.name
        self.weight, self.head_name, self.measure = self._one.weight, self._one.head_name, self._one.measure
        self.windows, self.labels = self._one.windows, self._one.labels
        found = self._one.targets(self._one.corrupt(first, keyed_generator("shape")))
        parts = (getattr(found, field.name) for field in fields(found))
        self._nothing = ExampleTargets(*(None if part is None else part[:0] for part in parts))  # type: ignore[arg-type]

    @property
    def corrupts(self) -> bool:
        return self._one.corrupts

    def corrupt(self, example: Example, random: np.random.Generator) -> Example:
        own = self._own.get(example.member)
        return example if own is None else own.corrupt(example, random)

    def targets(self, example: Example) -> ExampleTargets:
        own = self._own.get(example.member)
        return self._nothing if own is None else own.targets(example)

    def make_head(self) -> nn.Module | None:
        return self._one.make_head()

    def loss(
        self, states: Tensor, targets: Targets, transformer: Transformer, head: nn.Module | None
    ) -> Tensor:
        return self._one.loss(states, targets, transformer, head)

    def predict(
        self, states: Tensor, targets: Targets, transformer: Transformer, head: nn.Module | None
    ) -> Tensor:
        return self._one.predict(states, targets, transformer, head)
