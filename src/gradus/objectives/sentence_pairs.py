"""Tell from the first state whether two segments belong together: BERT's next sentence, ALBERT's order.

The windows bring the label (data/pairs.py): `windows: sentence_pairs` for next_sentence, half of whose second
segments come from another document (Devlin et al. 2019, section 3.1 and appendix A.2), and `windows:
sentence_order`, half of whose segments have changed places (Lan et al. 2020, section 3.1).
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field
from torch import Tensor, nn

from gradus.core.example import Example, ExampleTargets, PairKind, Targets
from gradus.core.model import Arrangement
from gradus.nn.losses import cross_entropy_sum
from gradus.nn.transformer import Transformer
from gradus.objectives.base import HeadConfig, Measure, RowObjective, Task


class _PairConfig(HeadConfig):
    measure: ClassVar[Measure] = "classes"
    serves: ClassVar[frozenset[Arrangement]] = frozenset({"encoder"})
    reads: ClassVar[frozenset[Literal["text", "rows"]]] = frozenset({"text"})

    dropout: float = Field(0.0, ge=0, lt=1)
    """On the state before the linear layer: none, as in BERT's release."""
    bias: bool = True
    """Whether the linear layer has a bias: yes, as in BERT's release."""


class NextSentenceConfig(_PairConfig):
    """`{kind: next_sentence}`: does the second segment follow the first, or come from another document?"""

    windows: ClassVar[PairKind | None] = "sentence_pairs"
    labels: ClassVar[tuple[str, ...]] = ("next", "other")

    kind: Literal["next_sentence"] = "next_sentence"

    def build(self, task: Task) -> SentencePairs:
        return SentencePairs(self, task)


class SentenceOrderConfig(_PairConfig):
    """`{kind: sentence_order}`: do two segments stand in their order, or have they changed places?"""

    windows: ClassVar[PairKind | None] = "sentence_order"
    labels: ClassVar[tuple[str, ...]] = ("in order", "swapped")

    kind: Literal["sentence_order"] = "sentence_order"

    def build(self, task: Task) -> SentencePairs:
        return SentencePairs(self, task)


class SentencePairs(RowObjective):
    """One target a window: which of two classes it is. A window without a label weighs nothing."""

    measure = "classes"

    def __init__(self, config: NextSentenceConfig | SentenceOrderConfig, task: Task):
        super().__init__(config, task, len(config.labels))
        self.name, self.windows, self.labels = config.kind, config.windows, config.labels

    def targets(self, example: Example) -> ExampleTargets:
        return self.one_target(example, int(example.label or 0), float(example.label is not None), np.int64)

    def loss(
        self, states: Tensor, targets: Targets, transformer: Transformer, head: nn.Module | None
    ) -> Tensor:
        logits = self.outputs(states, targets, transformer, head)
        return cross_entropy_sum(logits, targets.value, targets.weight)

    def predict(
        self, states: Tensor, targets: Targets, transformer: Transformer, head: nn.Module | None
    ) -> Tensor:
        return self.outputs(states, targets, transformer, head).float()
