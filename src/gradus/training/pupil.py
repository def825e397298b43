"""A learner with lessons: teachers, frozen and without dropout, read in the same forward what it reads."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from gradus.core.example import Batch
from gradus.nn.heads import Heads
from gradus.nn.initialisation import initialise
from gradus.nn.seen import seen
from gradus.nn.transformer import Transformer
from gradus.objectives.distillation import PROJECTION, Lesson
from gradus.training.learner import Learner


class Pupil(Learner):
    """`learner`'s own modules, objectives and heads, and beside them `lessons`, whose projection is trained,
    saved in checkpoints and left behind with the lessons: what a stage gives away is `plain`.

    Teachers are no part of the module: they have no gradient, no optimizer and no place in a checkpoint.
    """

    def __init__(
        self, learner: Learner, lessons: Sequence[Lesson], teachers: Sequence[Transformer], seed: int
    ):
        super().__init__(learner.transformer, [])
        self.objectives = (*learner.objectives, *lessons)
        self.heads = Heads(dict(learner.heads.items()))
        made = next((one.make_head() for one in lessons if one.head_name == PROJECTION), None)
        if made is not None:
            config = learner.transformer.config
            initialise(made, seed, config, f"heads.{PROJECTION}.")
            self.heads[PROJECTION] = made
        self._outside = (learner, tuple(one.requires_grad_(False).eval() for one in teachers))
        pairs = ([pair for one in lessons for pair in one.hidden], [p for one in lessons for p in one.maps])
        self._own, self._theirs = (
            tuple(sorted({pair[side] for pair in kind}) for kind in pairs) for side in (0, 1)
        )

    @property
    def plain(self) -> Learner:
        return self._outside[0]

    def forward(self, batch: Batch) -> Tensor:
        own = seen(self.transformer, batch, *self._own)
        with torch.no_grad():
            theirs = [seen(teacher, batch, *self._theirs) for teacher in self._outside[1]]
        sums = []
        for objective, targets in zip(self.objectives, batch.targets):
            head = self._head(objective)
            if isinstance(objective, Lesson):
                sums.append(objective.compare(own, theirs, targets, head))
            else:
                sums.append(objective.loss(own.states, targets, self.transformer, head))
        return torch.stack(sums)
