"""Find the answer to a question in its context: of every token, does the answer begin or end there?

Devlin et al. 2019, sections 4.2 and 4.3, and the released run_squad.py: two softmaxes over the tokens of a
window, the mean of both cross-entropies. Where the answer does not stand in the window, both name the token
at which rows are read: the first of an encoder's, else the last, which has seen all others.
Shapes: M windows, K tokens of the longest.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from gradus.core.example import Example, ExampleTargets, Targets
from gradus.nn.heads import LinearHead
from gradus.nn.losses import cross_entropy_sum
from gradus.nn.transformer import Transformer
from gradus.objectives.base import (
    HeadConfig,
    Measure,
    Objective,
    Task,
    extracts,
    in_lines,
    lengths,
    select,
)


class QuestionAnsweringConfig(HeadConfig):
    """`{kind: question_answering}`: rows of the format `question`."""

    measure: ClassVar[Measure] = "spans"

    kind: Literal["question_answering"] = "question_answering"
    dropout: float = Field(0.0, ge=0, lt=1)
    """On the states before the linear layer: none, as released."""
    bias: bool = True
    """Whether the linear layer has a bias: yes, as released and in Hugging Face's classes."""
    longest: int = Field(30, ge=1)
    """Tokens of an answer that is given (`max_answer_length` of run_squad.py)."""
    threshold: float = 0.0
    """Where questions may have no answer: how much better none must score than the best one to be said
    (`null_score_diff_threshold` of run_squad.py)."""

    def build(self, task: Task) -> QuestionAnswering:
        return QuestionAnswering(self, task)


class QuestionAnswering(Objective):
    """A target for every window of a row: where in it the answer begins and ends."""

    name = "question_answering"
    measure = "spans"

    def __init__(self, config: QuestionAnsweringConfig, task: Task):
        self.weight, self.head_name, self.model = config.weight, task.stage, task.model
        self._shape = task.model.width, 2, config.dropout, config.bias
        self._longest, self._threshold = config.longest, config.threshold
        self._at_first = task.model.arrangement == "encoder"

    def make_head(self) -> LinearHead:
        return LinearHead(*self._shape)

    def targets(self, example: Example) -> ExampleTargets:
        assert example.spans is not None, "rows of the format question have them"
        sizes, value = lengths(example), example.spans.copy()
        nowhere = extracts(example, self.model) - (np.cumsum(sizes) - sizes)
        value[:, :2] = np.where(value[:, :2] < 0, nowhere[:, None], value[:, :2])
        owner = np.repeat(np.arange(len(sizes)), sizes)
        return ExampleTargets(np.arange(sizes.sum()), value, np.ones(len(sizes)), owner)

    def loss(
        self, states: Tensor, targets: Targets, transformer: Transformer, head: nn.Module | None
    ) -> Tensor:
        logits = self._logits(states, targets, head)
        wanted = targets.value[:, :2].flatten()
        return cross_entropy_sum(logits.flatten(0, 1), wanted, targets.weight.repeat_interleave(2) / 2)

    def predict(
        self, states: Tensor, targets: Targets, transformer: Transformer, head: nn.Module | None
    ) -> Tensor:
        """Of every window [M, 6] the best answer's score (the sum of its two logits), the places of its first
        and last token, and its probability; the score of no answer, less the threshold; and the loss.

        All answers of up to `longest` tokens of the context are looked at.
        """
        logits = self._logits(states, targets, head).float()
        wanted, text = targets.value.split(2, 1)
        places = torch.arange(logits.shape[2], device=logits.device)
        legal = (places >= text[:, :1]) & (places <= text[:, 1:])
        never = torch.finfo(logits.dtype).min / 4  # two of them are still a number
        first, last = logits.masked_fill(~legal.unsqueeze(1), never).unbind(1)
        ends = F.pad(last, (0, self._longest - 1), value=never).unfold(1, self._longest, 1)
        best, further = ends.max(2)
        score, begin = (first + best).max(1)
        end = begin + further.gather(1, begin.unsqueeze(1))[:, 0]
        total = logits.logsumexp(2).sum(1)
        sizes = (logits[:, 0] > -torch.inf).sum(1)
        nowhere = torch.zeros_like(sizes) if self._at_first else sizes - 1
        found = [
            score, begin, end, (score - total).exp(), _both(logits, nowhere, nowhere) - self._threshold,
            (total - _both(logits, *wanted.unbind(1))) / 2,
        ]  # fmt: skip
        return torch.stack([column.float() for column in found], 1)

    def of_rows(self, predicted: np.ndarray, examples: Sequence[Example]) -> np.ndarray:
        """Of every row [R, 7] the best window's answer; the least score of no answer, the summed loss of its
        windows, and the number of the best one."""
        lines = []
        for own in np.split(predicted, np.cumsum([len(row.sequences) for row in examples])[:-1]):
            best = own[:, 0].argmax()
            lines.append([*own[best, :4], own[:, 4].min(), own[:, 5].sum(), best])
        return np.array(lines).reshape(-1, 7)

    def _logits(self, states: Tensor, targets: Targets, head: nn.Module | None) -> Tensor:
        """[M, 2, K]: of beginning and ending at each token, -inf where a window has fewer than K."""
        assert head is not None and targets.owner is not None
        return in_lines(head(select(states, targets)), targets.owner, len(targets.value)).transpose(1, 2)


def _both(logits: Tensor, first: Tensor, last: Tensor) -> Tensor:
    """The logits [M] of beginning at `first` and of ending at `last`, added."""
    return logits.gather(2, torch.stack([first, last], 1).unsqueeze(2)).sum((1, 2))
