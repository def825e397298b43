"""Tell from the first state whether two segments belong together: BERT's next sentence, ALBERT's order.

The windows bring the label (data/pairs.py): `windows: sentence_pairs` for next_sentence, half of whose second
segments come from another document (Devlin et al. 2019, section 3.1 and appendix A.2), and `windows:
sentence_order`, half of whose segments have changed places (Lan et al. 2020, section 3.1).
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field

from gradus.core.example import PairKind
from gradus.core.model import Arrangement
from gradus.objectives.base import HeadConfig, Measure, Task
from gradus.objectives.classification import Classification


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


class SentencePairs(Classification):
    """One target a window: which of two classes it is. A window without a label weighs nothing."""

    def __init__(self, config: NextSentenceConfig | SentenceOrderConfig, task: Task):
        super().__init__(config, replace(task, labels=config.labels, class_weights=None))
        self.name, self.windows, self.labels = config.kind, config.windows, config.labels
