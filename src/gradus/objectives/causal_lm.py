"""Predict each token from those before it (Radford et al. 2018, equation 1); beside a task it is the
auxiliary loss of equation 5, with weight 0.5 there."""

from __future__ import annotations

from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from gradus.core.example import Example, ExampleTargets
from gradus.core.model import Arrangement
from gradus.objectives.base import ObjectiveSettings, Task, TokenObjective


class CausalLMConfig(ObjectiveSettings):
    """`{kind: causal_lm}` for pre-training, `{kind: causal_lm, weight: 0.5}` beside a task."""

    serves: ClassVar[frozenset[Arrangement]] = frozenset({"decoder"})
    reads: ClassVar[frozenset[Literal["text", "rows"]]] = frozenset({"text", "rows"})
    every_token: ClassVar[bool] = True

    kind: Literal["causal_lm"] = "causal_lm"
    weight: float = Field(1.0, ge=0)
    """Its share of the summed loss; GPT-1's auxiliary loss has 0.5 (section 4.1)."""
    average: Literal["token", "row"] = "token"
    """The mean over the tokens of the step, or over those of a sequence and then over sequences, as OpenAI's
    release does: a token then weighs 1 / length, and a short row as much as a long one."""
    scored: Literal["all", "special"] = "all"
    """All tokens, or only those that play a role (start, delimiter, extract, end): a reading of some
    retellings."""

    def build(self, task: Task) -> CausalLM:
        return CausalLM(self, task)


class CausalLM(TokenObjective):
    """Every token but a sequence's first is a target; in a window of running text so is the one that follows
    it."""

    name = "causal_lm"
    every_token = True

    def __init__(self, config: CausalLMConfig, task: Task):
        self.weight, self._by_row = config.weight, config.average == "row"
        self._special = np.array(task.special) if config.scored == "special" else None

    def targets(self, example: Example) -> ExampleTargets:
        parts, start = [], 0
        for sequence, following in zip(example.sequences, _followers(example)):
            value = np.concatenate([sequence[1:], following]).astype(np.int64)
            index = np.arange(start, start + len(value))
            if self._special is not None:
                special = np.isin(value, self._special)
                index, value = index[special], value[special]
            parts.append((index, value, np.full(len(value), 1 / max(len(value), 1) if self._by_row else 1.0)))
            start += len(sequence)
        return ExampleTargets(*(np.concatenate(column) for column in zip(*parts)))


def _followers(example: Example) -> list[list[int]]:
    """What follows each sequence: of a window in pieces the head of the next piece, of rows nothing."""
    if example.following is None:
        return [[] for _ in example.sequences]
    return [[int(piece[0])] for piece in example.sequences[1:]] + [[example.following]]
