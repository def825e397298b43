"""Say the answer to a text: an encoder-decoder reads the text and says it, a decoder continues the text with
it behind a delimiter (Sutskever et al. 2014; Raffel et al. 2020, section 2.4: every task is text to text).

The answer and its `end` alone are scored.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field
from torch import Tensor, nn

from gradus.core.example import Example, ExampleTargets, Targets
from gradus.core.model import Arrangement
from gradus.nn.transformer import Transformer
from gradus.objectives.base import ObjectiveSettings, Task, TokenObjective, select
from gradus.objectives.saying import SayingObjective


class Seq2SeqConfig(ObjectiveSettings):
    """`{kind: seq2seq}`, for rows of the format `text_to_text`."""

    serves: ClassVar[frozenset[Arrangement]] = frozenset({"decoder", "encoder_decoder"})
    reads: ClassVar[frozenset[Literal["text", "rows"]]] = frozenset({"rows"})

    kind: Literal["seq2seq"] = "seq2seq"
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """This share of each target is spread evenly over the whole vocabulary (Szegedy et al. 2016, section 7;
    Vaswani et al. 2017 and BART have 0.1). Evaluation tells the plain loss."""

    @property
    def roles(self) -> tuple[str, ...]:
        return ("start", "delimiter", "end")

    def build(self, task: Task) -> Said | Continued:
        return Said(self, task) if task.model.encodes_and_decodes else Continued(self, task)


class _Smoothed(TokenObjective):
    smoothing: float

    def loss(
        self, states: Tensor, targets: Targets, transformer: Transformer, head: nn.Module | None
    ) -> Tensor:
        chosen = select(states, targets)
        return transformer.token_loss(chosen, targets.value, targets.weight, self.smoothing)


class Said(_Smoothed, SayingObjective):
    """In an encoder-decoder."""

    name = "seq2seq"

    def __init__(self, config: Seq2SeqConfig, task: Task):
        super().__init__(config, task)
        self.smoothing = config.label_smoothing


class Continued(_Smoothed):
    """In a decoder: what stands behind the first delimiter, which no text can forge."""

    name = "seq2seq"

    def __init__(self, config: Seq2SeqConfig, task: Task):
        self.weight, self.smoothing = config.weight, config.label_smoothing
        self._delimiter = task.tokens.role("delimiter")

    def targets(self, example: Example) -> ExampleTargets:
        (tokens,) = example.sequences
        found = np.flatnonzero(tokens == self._delimiter)
        first = int(found[0]) if len(found) else len(tokens) - 1
        value = tokens[first + 1 :].astype(np.int64)
        return ExampleTargets(np.arange(first, first + len(value)), value, np.ones(len(value)))
