"""Name the tag of every word from the state of its first token, or of all of them.

Devlin et al. 2019, section 5.3. A softmax over the tags, each word by itself. Shapes: J tokens of a batch
that say a tag, K tags, R rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from gradus.core.example import Example, ExampleTargets, Targets
from gradus.core.model import Arrangement
from gradus.nn.heads import LinearHead
from gradus.nn.losses import cross_entropy_sum
from gradus.nn.transformer import Transformer
from gradus.objectives.base import HeadConfig, Measure, Objective, Task, select

SAID = 4
"""Numbers that are said of a token: its word, the tag, how likely that is, and the loss."""


class TokenClassificationConfig(HeadConfig):
    """`{kind: token_classification}`: rows of the formats `words` and `entities`."""

    measure: ClassVar[Measure] = "tags"
    serves: ClassVar[frozenset[Arrangement]] = frozenset({"decoder", "encoder"})

    kind: Literal["token_classification"] = "token_classification"
    bias: bool = True
    """Whether the linear layer has a bias: yes, as in Hugging Face's classes."""

    def build(self, task: Task) -> TokenClassification:
        return TokenClassification(self, task)


class TokenClassification(Objective):
    """A target for every token that says a tag; one whose tag is not known weighs nothing."""

    name = "token_classification"
    measure = "tags"

    def __init__(self, config: TokenClassificationConfig, task: Task):
        self.weight, self.head_name = config.weight, task.stage
        self._shape = task.model.width, len(task.labels), config.dropout, config.bias
        self._weights = np.array(task.class_weights or (1.0,) * len(task.labels))

    def make_head(self) -> LinearHead:
        return LinearHead(*self._shape)

    def targets(self, example: Example) -> ExampleTargets:
        """The value of a target is the number of its word and its tag [J, 2]."""
        assert example.tagged is not None, "rows of words have them"
        place, *value = example.tagged[example.tagged[:, 0] >= 0].T
        return ExampleTargets(place, np.stack(value, 1), self._weights[value[1]] * (value[1] >= 0))

    def loss(
        self, states: Tensor, targets: Targets, transformer: Transformer, head: nn.Module | None
    ) -> Tensor:
        logits = self._logits(states, targets, head)
        return cross_entropy_sum(logits, targets.value[:, 1].clamp(min=0), targets.weight)

    def predict(
        self, states: Tensor, targets: Targets, transformer: Transformer, head: nn.Module | None
    ) -> Tensor:
        """Of every token [J, 4] its word, the likeliest tag and its probability, and the loss."""
        odds = self._logits(states, targets, head).float().log_softmax(1)
        best, tag = odds.max(1)
        word, wanted = targets.value.unbind(1)
        nats = -odds.gather(1, wanted.clamp(min=0).unsqueeze(1))[:, 0]
        return torch.stack([word.float(), tag.float(), best.exp(), nats], 1)

    def of_rows(self, predicted: np.ndarray, examples: Sequence[Example]) -> np.ndarray:
        """Of every row [R, 4 T] what is said of its tokens, one after another, -inf beyond them."""
        sizes = [SAID * len(self.targets(example).index) for example in examples]
        lines = np.full((len(sizes), max([0, *sizes])), -np.inf)
        lines[np.arange(lines.shape[1]) < np.array(sizes)[:, None]] = predicted.ravel()
        return lines

    def _logits(self, states: Tensor, targets: Targets, head: nn.Module | None) -> Tensor:
        assert head is not None
        logits: Tensor = head(select(states, targets))
        return logits
