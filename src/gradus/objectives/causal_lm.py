"""Predict each token from those before it (Radford et al. 2018, equation 1); beside a task it is the
auxiliary loss of equation 5, with weight 0.5 there."""

from __future__ import annotations

from typing import Literal

import numpy as np
from pydantic import Field
from torch import Tensor, nn

from gradus.core.config import Config
from gradus.core.example import Example, ExampleTargets, Targets
from gradus.nn.likelihood import token_nats
from gradus.nn.losses import linear_cross_entropy
from gradus.nn.transformer import Transformer
from gradus.objectives.base import Objective, Task, select


class CausalLMConfig(Config):
    """`{kind: causal_lm}` for pre-training, `{kind: causal_lm, weight: 0.5}` beside a task."""

    kind: Literal["causal_lm"] = "causal_lm"
    weight: float = Field(1.0, ge=0)
    """Its share of the summed loss; GPT-1's auxiliary loss has 0.5 (section 4.1)."""

    def build(self, task: Task) -> CausalLM:
        return CausalLM(self.weight)


class CausalLM(Objective):
    """Every token but a sequence's first is a target; in a window of running text so is the one that follows
    it."""

    name = "causal_lm"
    measure = "tokens"

    def __init__(self, weight: float):
        self.weight = weight

    def targets(self, example: Example) -> ExampleTargets:
        index, value, start = [], [], 0
        for sequence in example.sequences:
            following = [] if example.following is None else [example.following]
            value.append(np.concatenate([sequence[1:], following]).astype(np.int64))
            index.append(np.arange(start, start + len(value[-1])))
            start += len(sequence)
        values = np.concatenate(value)
        return ExampleTargets(np.concatenate(index), values, np.ones(len(values)))

    def loss(
        self, states: Tensor, targets: Targets, transformer: Transformer, head: nn.Module | None
    ) -> Tensor:
        return linear_cross_entropy(
            select(states, targets), transformer.output_weight, targets.value, targets.weight
        )

    def predict(
        self, states: Tensor, targets: Targets, transformer: Transformer, head: nn.Module | None
    ) -> Tensor:
        return token_nats(select(states, targets), transformer.output_weight, targets.value)
