"""Name the class of a row from the state at its extract token (Radford et al. 2018, equations 3 and 4).

A similarity pair has two such states, one an order, which are added (section 3.3).
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field
from torch import Tensor, nn

from gradus.core.example import Example, ExampleTargets, Targets
from gradus.nn.losses import cross_entropy_sum
from gradus.nn.transformer import Transformer
from gradus.objectives.base import HeadConfig, Measure, RowObjective, Task
from gradus.objectives.label_sets import LabelSetClassification


class ClassificationConfig(HeadConfig):
    """`{kind: classification}`: softmax over the classes of the stage's labels; with `multi_label` a sigmoid
    each."""

    measure: ClassVar[Measure] = "classes"

    kind: Literal["classification"] = "classification"
    label_smoothing: float | None = Field(None, ge=0, lt=1)
    """The share of each target that is spread evenly over all classes (Szegedy et al. 2016, section 7)."""

    def build(self, task: Task) -> RowObjective:
        if task.sets:
            return LabelSetClassification(self, task)
        return Classification(self, task, self.label_smoothing or 0.0)


class Classification(RowObjective):
    """One target a row, its class. A row without a label weighs nothing."""

    name = "classification"
    measure = "classes"

    def __init__(self, config: HeadConfig, task: Task, smoothing: float = 0.0):
        super().__init__(config, task, len(task.labels))
        self.smoothing = smoothing
        self._weights = task.class_weights or (1.0,) * len(task.labels)

    def targets(self, example: Example) -> ExampleTargets:
        """Of a mixed row the classes of both, weighing what each row does: its loss is linear in what is
        wanted (Zhang et al. 2018, section 2)."""
        partner = example.partner
        rows = [(example.label, 1 - partner.share if partner else 1.0)]
        rows += [(partner.label, partner.share)] if partner else []
        value = np.array([label or 0 for label, _ in rows], np.int64)
        shares = np.array([share * (label is not None) for label, share in rows])
        return self.row_targets(example, value, shares * np.array(self._weights)[value])

    def loss(
        self, states: Tensor, targets: Targets, transformer: Transformer, head: nn.Module | None
    ) -> Tensor:
        logits = self.outputs(states, targets, transformer, head)
        return cross_entropy_sum(logits, targets.value, targets.weight, self.smoothing)
