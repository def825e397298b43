"""Name the class of a row from the state at its extract token (Radford et al. 2018, equations 3 and 4)."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field
from torch import Tensor, nn

from gradus.core.config import Config
from gradus.core.example import Example, ExampleTargets, Targets
from gradus.nn.heads import ClassificationHead
from gradus.nn.losses import cross_entropy_sum
from gradus.nn.transformer import Transformer
from gradus.objectives.base import Objective, Task, select


class ClassificationConfig(Config):
    """`{kind: classification}`: softmax over the classes of the stage's labels."""

    kind: Literal["classification"] = "classification"
    weight: float = Field(1.0, ge=0)
    """Its share of the summed loss."""
    dropout: float = Field(0.1, ge=0, lt=1)
    """On the state before the linear layer (section 4.1)."""

    def build(self, task: Task) -> Classification:
        return Classification(self, task)


class Classification(Objective):
    """One target a row, at its last token, the extract token. A row without a label weighs nothing."""

    name = "classification"
    measure = "classes"

    def __init__(self, config: ClassificationConfig, task: Task):
        self.weight, self.head_name = config.weight, task.stage
        self._width, self._classes, self._dropout = task.model.width, len(task.labels), config.dropout
        self._weights = task.class_weights or (1.0,) * self._classes

    def targets(self, example: Example) -> ExampleTargets:
        last = np.array([example.tokens - 1])
        label = int(example.label or 0)
        weight = 0.0 if example.label is None else self._weights[label]
        return ExampleTargets(last, np.array([label], np.int64), np.array([weight]))

    def make_head(self) -> nn.Module:
        return ClassificationHead(self._width, self._classes, self._dropout)

    def loss(
        self, states: Tensor, targets: Targets, transformer: Transformer, head: nn.Module | None
    ) -> Tensor:
        assert head is not None
        return cross_entropy_sum(head(select(states, targets)), targets.value, targets.weight)

    def predict(
        self, states: Tensor, targets: Targets, transformer: Transformer, head: nn.Module | None
    ) -> Tensor:
        assert head is not None
        return head(select(states, targets)).float()
