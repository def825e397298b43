"""Tell of every label whether a row has it: a sigmoid each, from the state at the row's extract token.

Each label is a question of its own (binary relevance: Tsoumakas and Katakis 2007, section 3.1), as in Hugging
Face's `problem_type: multi_label_classification`: of a row the mean of its K binary cross-entropies.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from gradus.core.example import Example, ExampleTargets, Targets
from gradus.nn.losses import binary_cross_entropy_sum
from gradus.nn.transformer import Transformer
from gradus.objectives.base import HeadConfig, RowObjective, Task, wanted


class LabelSetClassification(RowObjective):
    """One target a row, zeros and ones [K]. A row whose labels are not known weighs nothing."""

    name = "multi_label"
    measure = "sets"

    def __init__(self, config: HeadConfig, task: Task):
        super().__init__(config, task, len(task.labels))
        self._unknown = np.zeros(len(task.labels))
        self._positive = np.array(task.class_weights or (1.0,) * len(task.labels))

    def targets(self, example: Example) -> ExampleTargets:
        """The value is what is wanted, and what a one counts there [2, K]: data sets that share a head may
        weigh labels differently."""
        value = np.stack([wanted(example, self._unknown), self._positive])
        return self.row_targets(example, value[None], np.array([float(example.label is not None)]))

    def loss(
        self, states: Tensor, targets: Targets, transformer: Transformer, head: nn.Module | None
    ) -> Tensor:
        logits = self.outputs(states, targets, transformer, head)
        wanted_of, positive = targets.value.unbind(1)
        return binary_cross_entropy_sum(logits, wanted_of, targets.weight, positive)
