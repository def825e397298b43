"""Tell the number of a row from the state at its extract token: the similarity scores of GPT-1's STS-B.

The paper reports the task (table 4) without its loss. Mean squared error is what GLUE's baselines and
Hugging Face's `problem_type: regression` use; the released code has, unused, an encoding of STS-B's scores as
six soft classes (`stsb_label_encoding` in its utils.py).
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from torch import Tensor, nn

from gradus.core.example import Example, ExampleTargets, Targets
from gradus.nn.losses import squared_error_sum
from gradus.nn.transformer import Transformer
from gradus.objectives.base import HeadConfig, Measure, RowObjective, Task, wanted


class RegressionConfig(HeadConfig):
    """`{kind: regression}`: mean squared error; predictions stay in the range that train has seen."""

    measure: ClassVar[Measure] = "number"

    kind: Literal["regression"] = "regression"

    def build(self, task: Task) -> Regression:
        return Regression(self, task)


class Regression(RowObjective):
    """One target a row, its number. A row without a number weighs nothing."""

    name = "regression"
    measure = "number"

    def __init__(self, config: RegressionConfig, task: Task):
        super().__init__(config, task, 1)
        self._range = task.range

    def targets(self, example: Example) -> ExampleTargets:
        weight = float(example.label is not None)
        return self.row_targets(example, wanted(example, 0.0)[None], np.array([weight]))

    def loss(
        self, states: Tensor, targets: Targets, transformer: Transformer, head: nn.Module | None
    ) -> Tensor:
        predicted = self.outputs(states, targets, transformer, head)[:, 0]
        return squared_error_sum(predicted, targets.value, targets.weight)

    def predict(
        self, states: Tensor, targets: Targets, transformer: Transformer, head: nn.Module | None
    ) -> Tensor:
        numbers = super().predict(states, targets, transformer, head)
        return numbers if self._range is None else numbers.clamp(*self._range)
