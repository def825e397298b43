"""Transformer, heads and losses in ONE forward, so that whatever wraps a module sees everything there is to
train."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from gradus.core.example import Batch, Example, collate
from gradus.core.keyed import keyed_generator
from gradus.nn.adapters import Adapters
from gradus.nn.heads import Heads
from gradus.nn.initialisation import initialise
from gradus.nn.transformer import Transformer
from gradus.objectives import Objective
from gradus.optim.groups import freeze


class Learner(nn.Module):
    """A transformer taught by K objectives; `heads` are named after the stages they were made for, or after
    the data sets of a mixture."""

    def __init__(self, transformer: Transformer, objectives: Sequence[Objective]):
        super().__init__()
        self.transformer = transformer
        self.objectives = tuple(objectives)
        made = {objective.head_name: objective.make_head() for objective in objectives if objective.head_name}
        self.heads = Heads({name: head for name, head in made.items() if head is not None})

    def initialise(self, seed: int) -> Learner:
        """Draws every parameter from a stream keyed by (seed, its name): a new head moves no other tensor."""
        initialise(self, seed, self.transformer.config)
        return self

    def lighten(self, adapters: Adapters | None, frozen: Sequence[str], seed: int) -> list[str]:
        """Takes parameters whose names match `frozen` out of training; with adapters all but these and the
        heads. Returns the names of what adapters add. Raises UserError as `Adapters.add_to` does."""
        freeze(self, frozen)
        if adapters is None:
            return []
        self.transformer.requires_grad_(False)
        return adapters.add_to(self, self.transformer.config, seed)

    @property
    def weights(self) -> Tensor:
        """w_k [K], float64."""
        return torch.tensor([objective.weight for objective in self.objectives], dtype=torch.float64)

    @property
    def plain(self) -> Learner:
        """What is evaluated and leaves a stage: all of it, unless it has lessons beside it."""
        return self

    def corrupted(self, example: Example, *key: object) -> Example:
        """The example as the objectives corrupt it, drawing from a generator keyed by (seed, epoch, row)."""
        for objective in self.objectives:
            example = objective.corrupt(
                example, keyed_generator("corrupt", objective.name, *key, example.row)
            )
        return example

    def prepare(self, examples: Sequence[Example]) -> Batch:
        """Examples end to end with what each objective scores in them."""
        targets = [[objective.targets(example) for example in examples] for objective in self.objectives]
        return collate(examples, targets)

    def forward(self, batch: Batch) -> Tensor:
        """The sums S_k [K] of the batch, undivided, in at least fp32."""
        states = self.transformer(batch.source, batch.decoded, batch.below)
        return torch.stack(
            [
                objective.loss(states, targets, self.transformer, self._head(objective))
                for objective, targets in zip(self.objectives, batch.targets)
            ]
        )

    @torch.no_grad()
    def predict(self, batch: Batch) -> list[Tensor]:
        """The predictions of each objective, on the host: one line a target (see `Objective.predict`)."""
        states = self.transformer(batch.source, batch.decoded)
        return [
            objective.predict(states, targets, self.transformer, self._head(objective)).cpu()
            for objective, targets in zip(self.objectives, batch.targets)
        ]

    def asked(self, objectives: Sequence[Objective]) -> Learner:
        """The same modules, asked for these objectives alone; in evaluation mode, as the modules then are."""
        alone = Learner(self.transformer, [])
        alone.objectives, alone.heads = tuple(objectives), self.heads
        return alone.eval()

    def _head(self, objective: Objective) -> nn.Module | None:
        return self.heads[objective.head_name] if objective.head_name else None
