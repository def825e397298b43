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
from gradus.nn.heads import LinearHead
from gradus.nn.losses import squared_error_sum
from gradus.nn.transformer import Transformer
from gradus.objectives.base import HeadConfig, Measure, Objective, Task, added, one_target


class RegressionConfig(HeadConfig):
    """`{kind: regression}`: mean squared error; predictions stay in the range that train has seen."""

    measure: ClassVar[Measure] = "number"

    kind: Literal["regression"] = "regression"
    bias: bool = False
    """Whether the linear layer has a bias: no, as Hugging Face keeps it."""

    def build(self, task: Task) -> Regression:
        return Regression(self, task)


class Regression(Objective):
    """One target a row, at its extract token (or the sum of two). A row without a number weighs nothing."""

    name = "regression"
    measure = "number"

    def __init__(self, config: RegressionConfig, task: Task):
        self.weight, self.head_name = config.weight, task.stage
        self._width, self._range, self._config = task.model.width, task.range, config

    def targets(self, example: Example) -> ExampleTargets:
        weight = 0.0 if example.label is None else 1.0
        return one_target(example, np.array([float(example.label or 0.0)]), weight)

    def make_head(self) -> nn.Module:
        return LinearHead(self._width, 1, self._config.dropout, self._config.bias)

    def loss(
        self, states: Tensor, targets: Targets, transformer: Transformer, head: nn.Module | None
    ) -> Tensor:
        assert head is not None
        return squared_error_sum(head(added(states, targets))[:, 0], targets.value, targets.weight)

    def predict(
        self, states: Tensor, targets: Targets, transformer: Transformer, head: nn.Module | None
    ) -> Tensor:
        assert head is not None
        numbers = head(added(states, targets)).float()
        return numbers if self._range is None else numbers.clamp(*self._range)
