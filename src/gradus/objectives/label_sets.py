"""Tell of every label whether a row has it: a sigmoid each, from the state at the row's extract token.

Each label is a question of its own (binary relevance: Tsoumakas and Katakis 2007, section 3.1), as in Hugging
Face's `problem_type: multi_label_classification`: of a row the mean of its K binary cross-entropies.
"""

from __future__ import annotations

import numpy as np
import torch
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
        self._positive = torch.tensor(task.class_weights or (1.0,) * len(task.labels), dtype=torch.float64)

    def targets(self, example: Example) -> ExampleTargets:
        weight = float(example.label is not None)
        return self.row_targets(example, wanted(example, self._unknown)[None], np.array([weight]))

    def loss(
        self, states: Tensor, targets: Targets, transformer: Transformer, head: nn.Module | None
    ) -> Tensor:
        logits = self.outputs(states, targets, transformer, head)
        return binary_cross_entropy_sum(logits, targets.value, targets.weight, self._positive)
