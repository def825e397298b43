"""How good the answers of a model that says them are, without saying a word: by what it finds likeliest.

Greedy decoding says an answer exactly if, read along that answer, the likeliest token at every place is the
answer's own; so one forward tells whether it would. Shapes: E examples, R rows, A answers of a row.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from gradus.core.example import Example, Targets, collate
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
        return (transformer.likeliest(states) != targets.value).double()

    return _summed(transformer, objective, examples, world, budget, missed) == 0


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

    def nats(states: Tensor, targets: Targets) -> Tensor:
        return transformer.token_nats(states, targets.value)

    return _summed(transformer, objective, candidates, world, budget, nats).reshape(-1, answers)


def _summed(
    transformer: Transformer,
    objective: Objective,
    examples: Sequence[Example],
    world: World,
    budget: int,
    by_token: ByToken,
) -> np.ndarray:
    """The sum of `by_token` over the targets of each example [E], float64; each rank does its share."""
    mine = [(place, examples[place]) for place in range(world.rank, len(examples), world.size)]
    found: list[tuple[int, float]] = []
    for part in _parts(mine, budget):
        of_each = [objective.targets(example) for _, example in part]
        batch = collate([example for _, example in part], [of_each]).to(world.device)
        (targets,) = batch.targets
        with torch.no_grad():
            states = transformer(batch.source, batch.decoded).index_select(0, targets.index)
            numbers = by_token(states, targets).double().cpu().numpy()
        ends = np.cumsum([len(one.value) for one in of_each])
        sums = [float(own.sum()) for own in np.split(numbers, ends[:-1])]
        found += [(place, total) for (place, _), total in zip(part, sums)]
    gathered = [one for share in world.gather(found) for one in share]
    return np.array([total for _, total in sorted(gathered)])


def _parts(numbered: Sequence[tuple[int, Example]], budget: int) -> Iterator[Sequence[tuple[int, Example]]]:
    """Micro-batches, with the places of their examples."""
    start = 0
    for examples in cut([example for _, example in numbered], budget):
        yield numbered[start : start + len(examples)]
        start += len(examples)
