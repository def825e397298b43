"""How good the answers of a model that says them are, without saying a word: by what it finds likeliest.

Greedy decoding says an answer exactly if, read along that answer, the likeliest token at every place is the
answer's own; so one forward tells whether it would. Shapes: E examples, R rows, A answers of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from gradus.core.example import Example, ExampleTargets, Targets, collate
from gradus.data.feed import cut
from gradus.distributed.world import World
from gradus.nn.transformer import Transformer
from gradus.objectives import Objective

ByToken = Callable[[Tensor, Targets], Tensor]
"""States [M, D] of the targets -> one number a target [M]."""


def greedy_matches(
    transformer: Transformer, objective: Objective, examples: Sequence[Example], world: World, budget: int
) -> np.ndarray:
    """Whether greedy decoding says exactly the target of each example, its `end` included [E].

    A target that was cut counts as what was left of it. `budget` bounds the tokens of a forward. The
    transformer must be in evaluation mode.
    """

    def missed(states: Tensor, targets: Targets) -> Tensor:
        return transformer.likeliest(states) != targets.value

    asked = [(example, objective.targets(example)) for example in examples]
    return np.array([not own.any() for own in of_targets(transformer, asked, world, budget, missed)])


def answer_nats(
    transformer: Transformer,
    objective: Objective,
    candidates: Sequence[Example],
    answers: int,
    world: World,
    budget: int,
) -> np.ndarray:
    """Nats [R, A] of every answer of every row, its `end` included; `candidates` are R x A examples, the
    answers of a row together."""
    asked = [(example, objective.targets(example)) for example in candidates]
    found = of_targets(transformer, asked, world, budget, nats_by(transformer))
    return np.array([own.sum() for own in found]).reshape(-1, answers)


def nats_by(transformer: Transformer) -> ByToken:
    """The nats of every target."""
    return lambda states, targets: transformer.token_nats(states, targets.value)


def of_targets(
    transformer: Transformer,
    asked: Sequence[tuple[Example, ExampleTargets]],
    world: World,
    budget: int,
    by_token: ByToken,
) -> list[np.ndarray]:
    """The numbers that `by_token` gives the targets of each example, float64, in order; each rank does its
    share."""
    mine = asked[world.rank :: world.size]
    found: list[np.ndarray] = []
    for examples in cut([example for example, _ in mine], budget):
        own = [targets for _, targets in mine[len(found) : len(found) + len(examples)]]
        batch = collate(examples, [own]).to(world.device)
        (targets,) = batch.targets
        with torch.no_grad():
            states = transformer(batch.source, batch.decoded).index_select(0, targets.index)
            numbers = by_token(states, targets).double().cpu().numpy()
        found += np.split(numbers, np.cumsum([len(one.value) for one in own])[:-1])
    placed = list(zip(range(world.rank, len(asked), world.size), found))
    gathered = [one for share in world.gather(placed) for one in share]
    return [numbers for _, numbers in sorted(gathered, key=lambda one: one[0])]
