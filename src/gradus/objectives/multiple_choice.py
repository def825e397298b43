"""Choose the right one of a row's answers: one logit an answer, softmax over the answers of the row
(Radford et al. 2018, section 3.3)."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from torch import Tensor, nn
from torch.nn.functional import one_hot

from gradus.core.example import Example, ExampleTargets, Targets
from gradus.nn.losses import binary_cross_entropy_sum, cross_entropy_sum
from gradus.nn.transformer import Transformer
from gradus.objectives.base import HeadConfig, Measure, RowObjective, Task, extracts, in_lines, select


class MultipleChoiceConfig(HeadConfig):
    """`{kind: multiple_choice}`: rows may have different numbers of answers."""

    measure: ClassVar[Measure] = "choices"

    kind: Literal["multiple_choice"] = "multiple_choice"
    bias: bool = True
    """Whether the linear layer has a bias: yes, as OpenAI's release and Hugging Face's double-headed class
    have it; softmax does not see it, so it stays what it was."""
    dropout_mask: Literal["answer", "row"] = "answer"
    """Every answer draws its own mask, or all answers of a row share one, as in OpenAI's release."""
    odds: Literal["softmax", "sigmoid"] = "softmax"
    """Over the answers of the row, as the paper says; or for each answer whether it is right, a reading of
    some retellings (the mean over the answers of the row). What evaluation and `predict` tell is the softmax
    either way."""

    def build(self, task: Task) -> MultipleChoice:
        return MultipleChoice(self, task)


class MultipleChoice(RowObjective):
    """One target a row: which of its sequences, read at their extract tokens, is right. A row without a label
    weighs nothing."""

    name = "multiple_choice"
    measure = "choices"

    def __init__(self, config: MultipleChoiceConfig, task: Task):
        super().__init__(config, task, 1)
        self._shared = config.dropout_mask == "row"
        self._summed = {"softmax": cross_entropy_sum, "sigmoid": _sigmoids_sum}[config.odds]

    def targets(self, example: Example) -> ExampleTargets:
        weight = 0.0 if example.label is None else 1.0
        owner = np.zeros(len(example.sequences), np.int64)
        value = np.array([int(example.label or 0)], np.int64)
        return ExampleTargets(extracts(example, self.model), value, np.array([weight]), owner)

    def loss(
        self, states: Tensor, targets: Targets, transformer: Transformer, head: nn.Module | None
    ) -> Tensor:
        return self._summed(self.outputs(states, targets, transformer, head), targets.value, targets.weight)

    def outputs(
        self, states: Tensor, targets: Targets, transformer: Transformer, head: nn.Module | None
    ) -> Tensor:
        """[M, K], -inf where a row has fewer than K answers."""
        assert head is not None and targets.owner is not None
        owner = targets.owner
        scores = head(transformer.pooled(select(states, targets)), owner if self._shared else None)[:, 0]
        return in_lines(scores, owner, len(targets.value))


def _sigmoids_sum(logits: Tensor, value: Tensor, weight: Tensor) -> Tensor:
    """Each answer is asked alone whether it is right."""
    return binary_cross_entropy_sum(logits, one_hot(value, logits.shape[1]), weight)
