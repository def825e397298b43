"""Name the class of a row from the state at its extract token (Radford et al. 2018, equations 3 and 4).

A similarity pair has two such states, one an order, which are added (section 3.3).
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from torch import Tensor, nn

from gradus.core.example import Example, ExampleTargets, Targets
from gradus.nn.heads import LinearHead
from gradus.nn.losses import cross_entropy_sum
from gradus.nn.transformer import Transformer
from gradus.objectives.base import HeadConfig, Measure, Objective, Task, added, one_target


class ClassificationConfig(HeadConfig):
    """`{kind: classification}`: softmax over the classes of the stage's labels."""

    measure: ClassVar[Measure] = "classes"

    kind: Literal["classification"] = "classification"
    bias: bool = False
    """Whether the linear layer has a bias: no, as Hugging Face keeps it; OpenAI's release has one."""

    def build(self, task: Task) -> Classification:
        return Classification(self, task)


class Classification(Objective):
    """One target a row, at its extract token. A row without a label weighs nothing."""

    name = "classification"
    measure = "classes"

    def __init__(self, config: ClassificationConfig, task: Task):
        self.weight, self.head_name = config.weight, task.stage
        self._width, self._classes, self._config = task.model.width, len(task.labels), config
        self._weights = task.class_weights or (1.0,) * self._classes

    def targets(self, example: Example) -> ExampleTargets:
        label = int(example.label or 0)
        weight = 0.0 if example.label is None else self._weights[label]
        return one_target(example, np.array([label], np.int64), weight)

    def make_head(self) -> nn.Module:
        return LinearHead(self._width, self._classes, self._config.dropout, self._config.bias)

    def loss(
        self, states: Tensor, targets: Targets, transformer: Transformer, head: nn.Module | None
    ) -> Tensor:
        assert head is not None
        return cross_entropy_sum(head(added(states, targets)), targets.value, targets.weight)

    def predict(
        self, states: Tensor, targets: Targets, transformer: Transformer, head: nn.Module | None
    ) -> Tensor:
        assert head is not None
        return head(added(states, targets)).float()
