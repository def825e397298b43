"""Learn what teachers say: a student's task with soft labels in place of labels, and their states and
attention beside it.

A row's soft labels (`Example.taught`) are said before training. What is said of tokens, and of states and
attention, is said live, on the very input that the student reads. Shapes: M targets, K classes, D width.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from gradus.core.config import Config, wrong
from gradus.core.example import Example, ExampleTargets, Targets
from gradus.core.model import Arrangement, ModelConfig
from gradus.nn.layers import Linear
from gradus.nn.losses import squared_error_sum
from gradus.nn.seen import Seen
from gradus.nn.soft_losses import Said, linear_soft_cross_entropy, soft_cross_entropy_sum
from gradus.nn.transformer import Transformer
from gradus.objectives.base import (
    EVERY,
    Objective,
    ObjectiveSettings,
    RowObjective,
    lengths,
    select,
)

TOLD_OF_ROWS = ("classification", "multiple_choice", "regression")
TOLD_OF_TOKENS = ("causal_lm", "prefix_lm", "masked_lm", "seq2seq", "span_corruption", "denoising")
"""Objectives that a teacher can have soft labels for."""
PROJECTION = "hidden-states"
"""The head that projects a student's states: no stage can be called so."""
LayerMap = Literal["uniform", "last"] | dict[int, int]


class TeacherFolder(Config):
    """A model folder, written by Gradus or by Hugging Face tools."""

    folder: str


Teacher = str | TeacherFolder


class MatchedStates(Config):
    """Which layers' states the student's come near to, through a projection that is learnt beside it."""

    weight: float = Field(1.0, ge=0)
    map: LayerMap = "uniform"
    """Student's layer -> teacher's, both counted from 0. uniform: evenly, the last from the last (TinyBERT:
    Jiao et al. 2020, section 4.2, g(m) = 3 m). last: from the teacher's last ones (its "top strategy")."""


class MatchedAttention(MatchedStates):
    """The same for the attention of the layers."""

    of: Literal["scores", "probabilities"] = "scores"
    """Before the softmax, as in TinyBERT (section 3.1: it converges faster), or after it."""


class DistillationConfig(ObjectiveSettings):
    """`{kind: distillation, teacher: NAME}` beside the objective whose answers are to be learnt from it."""

    serves: ClassVar[frozenset[Arrangement]] = EVERY
    reads: ClassVar[frozenset[Literal["text", "rows"]]] = frozenset({"text", "rows"})

    kind: Literal["distillation"] = "distillation"
    teacher: Teacher | list[Teacher]
    """An earlier stage, a `{folder: DIR}`, or a list of them, whose probabilities are averaged."""
    weight: float = Field(0.5, ge=0)
    """Of the soft labels; 0 where only states or attention are learnt."""
    hard: bool = False
    """Learn only what the teachers find likeliest, not how likely."""
    temperature: float | None = Field(None, gt=0)
    """Of both softmaxes; 2 unless given (Hinton et al. 2015 used 1 to 20)."""
    hidden: MatchedStates | None = None
    """Also learn the states after the layers (TinyBERT, equation 9)."""
    attention: MatchedAttention | None = None
    """Also learn what the layers attend to (TinyBERT, equation 7)."""

    @model_validator(mode="after")
    def _make_sense(self) -> Self:
        if not self.teachers:
            raise wrong("teacher", "nobody teaches", "[]", "a stage, or {folder: DIR}")
        if not self.weight and self.inside is None:
            hint = "more than 0, or `hidden` or `attention`"
            raise wrong("weight", "nothing is learnt from the teacher", self.weight, hint)
        if self.hard and self.temperature is not None:
            hint = "leave it out, or `hard: false`"
            raise wrong("temperature", "hard labels have no temperature", self.temperature, hint)
        if len(self.teachers) > 1 and (key := self.inside):
            raise wrong(key, "of several teachers only the labels have a mean", None, "a single teacher")
        return self

    @property
    def teachers(self) -> list[Teacher]:
        return self.teacher if isinstance(self.teacher, list) else [self.teacher]

    @property
    def inside(self) -> Literal["hidden", "attention"] | None:
        """The first key that asks for what happens inside a teacher, beside what it says."""
        return "hidden" if self.hidden else "attention" if self.attention else None

    @property
    def heat(self) -> float:
        """The temperature at which soft labels are compared."""
        return 1.0 if self.hard else self.temperature or 2.0

    def live(self, task: str) -> bool:
        """Whether teachers run beside the student, on the tokens that it reads, where it learns `task`."""
        return task in TOLD_OF_TOKENS or self.inside is not None

    def lessons(self, task: Objective, student: ModelConfig, teacher: ModelConfig) -> list[Lesson]:
        """What is learnt beside `task`, each with a loss of its own; where states or attention are, from the
        only teacher. Raises ValueError for layers that are not there."""
        lessons: list[Lesson] = []
        if self.weight:
            kind = SoftTokens if task.measure == "tokens" else SoftLabels
            lessons.append(kind(self, task))
        if self.hidden is not None:
            widths, layers = (student.width, teacher.width), mapped(self.hidden.map, student, teacher)
            lessons.append(HiddenStates(self.hidden, layers, widths))
        if self.attention is not None:
            layers = mapped(self.attention.map, student, teacher)
            lessons.append(AttentionMaps(self.attention, layers))
        return lessons


def mapped(chosen: LayerMap, student: ModelConfig, teacher: ModelConfig) -> dict[int, int]:
    """Student's layer -> teacher's. Raises ValueError where a layer is not there or the student is deeper."""
    layers, theirs = student.layers, teacher.layers
    if isinstance(chosen, str):
        if layers > theirs:
            raise ValueError(f"the student has {layers} layers, the teacher {theirs}: name them in `map`")
        if chosen == "last":
            return {layer: layer + theirs - layers for layer in range(layers)}
        return {layer: (layer + 1) * theirs // layers - 1 for layer in range(layers)}
    for whose, named, there in (("student", chosen.keys(), layers), ("teacher", chosen.values(), theirs)):
        if not named or not 0 <= min(named) <= max(named) < there:
            raise ValueError(f"`map` names layers of the {whose} that are not among 0 to {there - 1}")
    return dict(chosen)


class Lesson(Objective):
    """What teachers say is scored against what the student says. It is not evaluated: the task is."""

    hidden: Sequence[tuple[int, int]] = ()
    """Layers (student's, teacher's) whose states it compares."""
    maps: Sequence[tuple[int, int]] = ()
    """Layers (student's, teacher's) whose attention it compares."""

    @abstractmethod
    def compare(self, own: Seen, theirs: Sequence[Seen], targets: Targets, head: nn.Module | None) -> Tensor:
        """The sum of weighted losses, a scalar. No targets: 0 that has a gradient."""

    def loss(
        self, states: Tensor, targets: Targets, transformer: Transformer, head: nn.Module | None
    ) -> Tensor:
        return self.compare(Seen(transformer, states), (), targets, head)

    def predict(
        self, states: Tensor, targets: Targets, transformer: Transformer, head: nn.Module | None
    ) -> Tensor:
        raise NotImplementedError("what a student has learnt is judged by its task")


class SoftLabels(Lesson):
    """What teachers said of a row: probabilities [K], or a number. A row they were not asked about weighs
    nothing; one without a label counts as any other."""

    name = "distillation"

    def __init__(self, config: DistillationConfig, task: Objective):
        assert isinstance(task, RowObjective)
        self.weight, self.task, self.head_name = config.weight, task, task.head_name
        self._heat = config.heat
        self._summed = self._squared if task.measure == "number" else self._soft

    def make_head(self) -> nn.Module | None:
        return self.task.make_head()

    def targets(self, example: Example) -> ExampleTargets:
        places = self.task.targets(example)
        said = example.taught
        value = (np.zeros(1) if said is None else said)[None]
        return ExampleTargets(places.index, value, np.array([float(said is not None)]), places.owner)

    def compare(self, own: Seen, theirs: Sequence[Seen], targets: Targets, head: nn.Module | None) -> Tensor:
        outputs = self.task.outputs(own.states, targets, own.transformer, head)
        return self._summed(outputs, targets)

    def _soft(self, outputs: Tensor, targets: Targets) -> Tensor:
        wanted = targets.value[:, : outputs.shape[1]]
        return soft_cross_entropy_sum(outputs, wanted, targets.weight, self._heat)

    def _squared(self, outputs: Tensor, targets: Targets) -> Tensor:
        """Ba and Caruana 2014, section 2.2."""
        return squared_error_sum(outputs[:, 0], targets.value[:, 0], targets.weight)


class SoftTokens(Lesson):
    """What teachers say at the places where `task` names tokens: a softmax over the vocabulary."""

    name = "distillation"

    def __init__(self, config: DistillationConfig, task: Objective):
        self.weight, self.task, self._heat = config.weight, task, config.heat

    def targets(self, example: Example) -> ExampleTargets:
        return self.task.targets(example)

    def compare(self, own: Seen, theirs: Sequence[Seen], targets: Targets, head: nn.Module | None) -> Tensor:
        teachers = [_said(one, targets) for one in theirs]
        return linear_soft_cross_entropy(_said(own, targets), teachers, targets.weight, self._heat)


class Everywhere(Lesson):
    """Scores every token that the model reads."""

    def targets(self, example: Example) -> ExampleTargets:
        index = np.arange(int(lengths(example).sum()))
        return ExampleTargets(index, np.zeros(len(index), np.int64), np.ones(len(index)))


class HiddenStates(Everywhere):
    """A token's squared distance from the teacher's states after a learnt projection, the mean over the
    teacher's channels and the sum over the matched layers (Jiao et al. 2020, equation 9: one projection for
    all layers)."""

    name = "hidden"

    def __init__(self, config: MatchedStates, layers: Mapping[int, int], widths: tuple[int, int]):
        self.weight, self.hidden, self._shape = config.weight, tuple(layers.items()), widths
        self.head_name = PROJECTION

    def make_head(self) -> nn.Module:
        return Linear(*self._shape, bias=False)

    def compare(self, own: Seen, theirs: Sequence[Seen], targets: Targets, head: nn.Module | None) -> Tensor:
        assert head is not None
        total = nothing(own)
        for layer, other in self.hidden:
            projected = head(wide(select(own.hidden[layer], targets)))
            wanted = wide(select(theirs[0].hidden[other], targets))
            total = total + ((projected - wanted) ** 2).mean(1) @ targets.weight.to(projected.dtype)
        return total


class AttentionMaps(Everywhere):
    """A token's squared distance between its attention and the teacher's, the mean over heads and over the
    tokens that it sees, and the sum over the matched layers (Jiao et al. 2020, equation 7)."""

    name = "attention"

    def __init__(self, config: MatchedAttention, layers: Mapping[int, int]):
        self.weight, self.maps = config.weight, tuple(layers.items())
        self._read = {"scores": _scores, "probabilities": _probabilities}[config.of]

    def compare(self, own: Seen, theirs: Sequence[Seen], targets: Targets, head: nn.Module | None) -> Tensor:
        total = nothing(own)
        for layer, other in self.maps:
            layout, mine = own.maps[layer]
            lines = []
            for (scores, seen), (wanted, _) in zip(mine, theirs[0].maps[other][1]):
                distance = (self._read(scores, seen) - self._read(wanted, seen)) ** 2
                seen = seen.squeeze(1)
                lines.append((distance.mean(1) * seen).sum(-1) / seen.sum(-1))
            found = layout.collect(lines).index_select(0, targets.index)
            total = total + found @ targets.weight.to(found.dtype)
        return total


def _said(one: Seen, targets: Targets) -> Said:
    states = one.transformer.before_output(select(one.states, targets))
    return Said(states, one.transformer.output_weight, one.transformer.output_bias)


def _scores(scores: Tensor, seen: Tensor) -> Tensor:
    return wide(scores).masked_fill(~seen, 0.0)


def _probabilities(scores: Tensor, seen: Tensor) -> Tensor:
    return torch.softmax(wide(scores).masked_fill(~seen, -torch.inf), -1)


def wide(states: Tensor) -> Tensor:
    """In fp32 or better."""
    return states.to(torch.promote_types(states.dtype, torch.float32))


def nothing(own: Seen) -> Tensor:
    """0 that has a gradient."""
    return wide(own.states).sum() * 0
