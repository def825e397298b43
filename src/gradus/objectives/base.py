"""What every objective can do: corrupt an example, say what it scores there, sum a loss, make predictions.

Every kind of training is `L = sum_k w_k * S_k / N_k`: objective k returns the sum S_k over its targets, and
the trainer divides it by N_k, their weight over all ranks and micro-batches of the step.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal, Protocol

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from gradus.core.config import Config
from gradus.core.example import Example, ExampleTargets, PairKind, Targets
from gradus.core.model import Arrangement, ModelConfig
from gradus.core.sentences import SentenceEnds
from gradus.core.words import WordEdges
from gradus.nn.heads import LinearHead
from gradus.nn.transformer import Transformer

Measure = Literal["tokens", "classes", "sets", "number", "choices", "spans", "tags"]
"""What an objective predicts: tokens of a text, the class of a row, which labels it has, its number, which
of its answers is right, where in its context the answer stands, or the tags of its words."""

EVERY: frozenset[Arrangement] = frozenset({"decoder", "encoder", "encoder_decoder"})
"""All arrangements."""


class Vocabulary(Protocol):
    """What an objective asks of a tokenizer."""

    @property
    def size(self) -> int: ...

    @property
    def roles(self) -> Mapping[str, str]: ...

    def role(self, name: str) -> int: ...

    @property
    def sentence_ends(self) -> SentenceEnds: ...

    @property
    def word_edges(self) -> WordEdges: ...

    @property
    def spelling(self) -> Sequence[bytes]: ...


@dataclass(frozen=True)
class Task:
    """What an objective may need to know of the stage it serves: the model's shape, the classes, and what its
    head is called."""

    model: ModelConfig
    stage: str
    """The name of the stage, or of the data sets of a mixture that it scores."""
    labels: tuple[str, ...] = ()
    class_weights: tuple[float, ...] | None = None
    """What each label weighs; 1 unless given. See `data.label_weights`."""
    range: tuple[float, float] | None = None
    """The least and the largest number that train has seen."""
    special: tuple[int, ...] = ()
    """The ids of the tokens that play a role."""
    vocabulary: Vocabulary | None = None
    """The tokens; only objectives with `roles` ask."""
    sets: bool = False
    """Whether a row has any number of the labels."""
    follows: np.ndarray | None = None
    """Which tag may follow which [K+1, K+1], as `data.tags.may_follow` says; None where any may."""

    @property
    def tokens(self) -> Vocabulary:
        assert self.vocabulary is not None, "an objective with roles is built with a vocabulary"
        return self.vocabulary


class ObjectiveSettings(Config):
    """What every objective says of itself, and may be told."""

    measure: ClassVar[Measure] = "tokens"
    serves: ClassVar[frozenset[Arrangement]]
    """The arrangements that it can teach."""
    reads: ClassVar[frozenset[Literal["text", "rows"]]]
    """The kinds of data that it can learn from."""
    corrupts: ClassVar[bool] = False
    """Whether it changes what the model reads: at most one objective of a stage may."""
    every_token: ClassVar[bool] = False
    """Whether it predicts every token of a text once, from those before it: bits per byte mean something."""
    windows: ClassVar[PairKind | None] = None
    """The windows of text whose label it reads; None for what reads tokens or the label of a row."""
    labels: ClassVar[tuple[str, ...]] = ()
    """The classes it tells apart by itself; none where they are the stage's."""

    weight: float = Field(1.0, ge=0)
    """Its share of the summed loss."""
    on: str | Annotated[list[str], Field(min_length=1)] | None = None
    """Which data sets of a mixture it scores; a head is named after them. All of them unless given."""

    @property
    def members(self) -> tuple[str, ...]:
        """The data sets that it names."""
        return (self.on,) if isinstance(self.on, str) else tuple(self.on or ())

    def head(self, stage: str) -> str:
        """What a head of it is called in a stage of this name."""
        return "+".join(self.members) or stage

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles that tokens must play for it."""
        return ()

    @property
    def libraries(self) -> dict[str, str]:
        """The versions of the libraries that decide what it reads. Raises UserError where one is missing."""
        return {}

    def window(self, model: ModelConfig) -> int:
        """How many tokens of running text a window may have, so that what is read and said fits the context.

        Raises UserError where it cannot work in this context."""
        return model.context

    @property
    def least(self) -> int:
        """Tokens that a window must have for it to have something to do."""
        return 1


class HeadConfig(ObjectiveSettings):
    """What every objective with a linear layer of its own may be told."""

    serves: ClassVar[frozenset[Arrangement]] = EVERY
    reads: ClassVar[frozenset[Literal["text", "rows"]]] = frozenset({"rows"})

    dropout: float = Field(0.1, ge=0, lt=1)
    """On the state before the linear layer (GPT-1, section 4.1)."""
    bias: bool | None = None
    """Whether the linear layer has a bias. Unless given as Hugging Face's classes: in a decoder it has none
    (OpenAI's release of GPT-1 has one), beside an encoder it has."""

    @property
    def chained(self) -> bool:
        """Whether a CRF stands on the linear layer."""
        return False

    def biased(self, model: ModelConfig) -> bool:
        """Whether the linear layer has a bias on this model."""
        return model.arrangement != "decoder" if self.bias is None else self.bias

    def described(self, objective: Objective, model: ModelConfig, labels: Sequence[str]) -> dict[str, Any]:
        """What gradus.json says of the head that it built: it goes from stage to stage if all is equal."""
        told = {"objective": objective.name, "labels": list(objective.labels or labels)}
        return told | {"bias": self.biased(model)} | ({"crf": True} if self.chained else {})


class Objective(ABC):
    """Stateless; its trained parameters, if any, are a head that the learner owns."""

    name: str
    """The key of its loss in reports."""
    weight: float
    """w_k of the sum."""
    head_name: str | None = None
    """The head it reads; None where the transformer's own output embedding is enough."""
    measure: Measure
    """What its predictions are, and so which metrics they have."""
    every_token: bool = False
    """As `ObjectiveSettings.every_token`."""
    names_tokens: bool = False
    """Whether it also tells which of its tokens the model finds likeliest: they have an accuracy."""
    windows: PairKind | None = None
    labels: tuple[str, ...] = ()
    """As `ObjectiveSettings.windows` and `labels`."""

    @property
    def corrupts(self) -> bool:
        """Whether it changes what the model sees."""
        return type(self).corrupt is not Objective.corrupt

    def corrupt(self, example: Example, random: np.random.Generator) -> Example:
        """The example as the model will see it; `random` is keyed by (seed, epoch, row)."""
        return example

    @abstractmethod
    def targets(self, example: Example) -> ExampleTargets:
        """What it scores in one example: positions from its first token, values, weights."""

    def make_head(self) -> nn.Module | None:
        """A new head, or None."""
        return None

    @abstractmethod
    def loss(
        self, states: Tensor, targets: Targets, transformer: Transformer, head: nn.Module | None
    ) -> Tensor:
        """The sum of weighted losses in nats, a scalar, from the states [N, D]. No targets: 0 that has a
        gradient."""

    @abstractmethod
    def predict(
        self, states: Tensor, targets: Targets, transformer: Transformer, head: nn.Module | None
    ) -> Tensor:
        """One line a target, float32: nats [M] for tokens (where it `names_tokens` [M, 2], with whether the
        token is the likeliest), logits [M, K] for classes, numbers [M, 1], and for choices the logits [M, K]
        of the K answers that the row with most of them has, -inf beyond; spans and tags: see
        `QuestionAnswering` and `TokenClassification`."""

    def of_rows(self, predicted: np.ndarray, examples: Sequence[Example]) -> np.ndarray:
        """A line a row, of the lines of `predict` for these rows."""
        return predicted


class Reads(Protocol):
    """An objective or its config."""

    @property
    def measure(self) -> Measure: ...

    @property
    def windows(self) -> PairKind | None: ...


def reads_row_label(objective: Reads) -> bool:
    """Whether it reads the label of a row, and neither tokens nor the label of a window."""
    return objective.measure != "tokens" and objective.windows is None


def main_place(objectives: Sequence[Reads]) -> int:
    """The place of the one that a model is judged by: what reads the label of a row, else what predicts
    tokens, else what reads the label of a window."""
    on_rows = [place for place, one in enumerate(objectives) if reads_row_label(one)]
    on_tokens = [place for place, one in enumerate(objectives) if one.measure == "tokens"]
    return [*on_rows, *on_tokens, 0][0]


def select(states: Tensor, targets: Targets) -> Tensor:
    """The scored states [J, D]: only these reach a head."""
    return states.index_select(0, targets.index)


def added(states: Tensor, targets: Targets) -> Tensor:
    """One state a target [M, D]: where a target has several, their sum (GPT-1 section 3.3, similarity), each
    times its share where rows are mixed."""
    chosen = select(states, targets)
    if targets.owner is None:
        return chosen
    wide = chosen.to(torch.promote_types(chosen.dtype, torch.float32))
    if targets.share is not None:
        wide = wide * targets.share.to(wide.dtype).unsqueeze(1)
    return wide.new_zeros(len(targets.value), wide.shape[1]).index_add(0, targets.owner, wide)


def in_lines(scores: Tensor, owner: Tensor, count: int) -> Tensor:
    """Scores [J, ...] of `count` = M owners, one owner a line [M, K, ...]; -inf where it has fewer than K."""
    sizes = torch.bincount(owner, minlength=count)
    place = torch.arange(len(owner), device=owner.device) - (sizes.cumsum(0) - sizes)[owner]
    most = int(sizes.max()) if count else 1
    lines = scores.new_full((count, most, *scores.shape[1:]), -math.inf)
    return lines.index_put((owner, place), scores)


def lengths(example: Example) -> np.ndarray:
    """How many states each sequence has: of the decoder's where there is one beside the encoder."""
    if example.decoded:
        return np.array([len(said) - 1 for said in example.decoded])
    return np.array([len(sequence) for sequence in example.sequences])


def extracts(example: Example, model: ModelConfig) -> np.ndarray:
    """Where each sequence is read: at its last token, which has seen all others, or in an encoder at its
    first."""
    sizes = lengths(example)
    ends = np.cumsum(sizes)
    return ends - sizes if model.arrangement == "encoder" else ends - 1


def wanted(example: Example, unknown: float | np.ndarray) -> np.ndarray:
    """What the label says, `unknown` where there is none; of a mixed row what is between both, by what each
    weighs (Zhang et al. 2018, section 2)."""
    own = np.asarray(unknown if example.label is None else example.label, np.float64)
    if (partner := example.partner) is None:
        return own
    other = np.asarray(unknown if partner.label is None else partner.label)
    return own + partner.share * (other - own)


class TokenObjective(Objective):
    """Names tokens by the model's own output embedding: the sum of their cross-entropies."""

    measure = "tokens"

    def loss(
        self, states: Tensor, targets: Targets, transformer: Transformer, head: nn.Module | None
    ) -> Tensor:
        return transformer.token_loss(select(states, targets), targets.value, targets.weight)

    def predict(
        self, states: Tensor, targets: Targets, transformer: Transformer, head: nn.Module | None
    ) -> Tensor:
        return transformer.token_nats(select(states, targets), targets.value)


class RowObjective(Objective):
    """One target a row, read by a linear layer of its own at the row's extract tokens."""

    def __init__(self, config: HeadConfig, task: Task, outputs: int):
        self.weight, self.head_name, self.model = config.weight, task.stage, task.model
        self._shape = (
            task.model.width,
            outputs,
            config.dropout,
            config.biased(task.model),
            task.model.dense_head,
        )

    def make_head(self) -> LinearHead:
        return LinearHead(*self._shape)

    def outputs(
        self, states: Tensor, targets: Targets, transformer: Transformer, head: nn.Module | None
    ) -> Tensor:
        """What the linear layer says of each target [M, K]."""
        assert head is not None
        result: Tensor = head(transformer.pooled(added(states, targets)))
        return result

    def predict(
        self, states: Tensor, targets: Targets, transformer: Transformer, head: nn.Module | None
    ) -> Tensor:
        return self.outputs(states, targets, transformer, head).float()

    def row_targets(self, example: Example, value: np.ndarray, weight: np.ndarray) -> ExampleTargets:
        """A row with targets [M] that all read the extracts of all its sequences: one, or two where it is
        mixed with another row, whose states are added by what each row weighs (Guo et al. 2019, section
        3.2)."""
        index, several, share = extracts(example, self.model), len(value), None
        owner = np.repeat(np.arange(several), len(index)) if len(index) > 1 else None
        if (partner := example.partner) is not None:
            theirs = np.arange(len(index)) >= partner.begins
            share = np.tile(np.where(theirs, partner.share, 1 - partner.share), several)
        return ExampleTargets(np.tile(index, several), value, weight, owner, share)
