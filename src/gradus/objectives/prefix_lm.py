"""Say the tail of a text after its head, cut at a place drawn anew each time (Raffel et al. 2020, section
3.2.3; in T5's released code `random_prefix_noise_mask`).

In a decoder the head sees all of itself (`Example.prefix`) and the tail alone is scored; an encoder-decoder
reads the head and says the tail.
"""

from __future__ import annotations

from dataclasses import replace
from typing import ClassVar, Literal

import numpy as np

from gradus.core.example import Example, ExampleTargets
from gradus.core.model import Arrangement, ModelConfig
from gradus.objectives.base import ObjectiveSettings, Task, TokenObjective
from gradus.objectives.saying import SayingObjective


class PrefixLMConfig(ObjectiveSettings):
    """`{kind: prefix_lm}`, for decoders and encoder-decoders."""

    serves: ClassVar[frozenset[Arrangement]] = frozenset({"decoder", "encoder_decoder"})
    reads: ClassVar[frozenset[Literal["text", "rows"]]] = frozenset({"text"})
    corrupts: ClassVar[bool] = True

    kind: Literal["prefix_lm"] = "prefix_lm"

    @property
    def roles(self) -> tuple[str, ...]:
        return ("start", "end")

    @property
    def least(self) -> int:
        return 2

    def window(self, model: ModelConfig) -> int:
        if not model.encodes_and_decodes:
            return model.context
        # Head and tail have at least one token each.
        around = max(sum(map(len, model.encoder_roles)), len(model.decoder_roles))
        return model.context - around + 1

    def build(self, task: Task) -> PrefixLM | SaidPrefixLM:
        return SaidPrefixLM(self, task) if task.model.encodes_and_decodes else PrefixLM(self, task)


def drawn_head(length: int, random: np.random.Generator) -> int:
    """How many of `length` >= 2 tokens are the head: uniform in 1 to length - 1."""
    return int(random.integers(1, length))


class PrefixLM(TokenObjective):
    """In a decoder: every token behind the head is a target, the one that follows the window among them."""

    name = "prefix_lm"

    def __init__(self, config: PrefixLMConfig, task: Task):
        self.weight = config.weight

    def corrupt(self, example: Example, random: np.random.Generator) -> Example:
        (tokens,) = example.sequences
        length = len(tokens) + (example.following is not None)
        return replace(example, prefix=(drawn_head(length, random) if length > 1 else 1,))

    def targets(self, example: Example) -> ExampleTargets:
        (tokens,) = example.sequences
        (head,) = example.prefix or (1,)
        following = [] if example.following is None else [example.following]
        value = np.concatenate([tokens[head:], following]).astype(np.int64)
        return ExampleTargets(np.arange(head - 1, head - 1 + len(value)), value, np.ones(len(value)))


class SaidPrefixLM(SayingObjective):
    """In an encoder-decoder; of a text of one token the decoder says `end` alone."""

    name = "prefix_lm"

    def corrupt(self, example: Example, random: np.random.Generator) -> Example:
        tokens = self.text(example)
        head = drawn_head(len(tokens), random) if len(tokens) > 1 else len(tokens)
        return self.pair(example, tokens[:head], tokens[head:])
