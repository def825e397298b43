"""Name the tag of every word from the state of its first token, or of all of them.

Devlin et al. 2019, section 5.3: a softmax over the tags, each word by itself. Or a CRF, which scores the tags
of a row together (Lample et al. 2016, section 2.2). Shapes: J tokens of a batch that say a tag, K tags, R
rows, S chains.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import Tensor, nn

from gradus.core.example import Example, ExampleTargets, Targets
from gradus.core.model import Arrangement
from gradus.nn.crf import ChainHead, Chains, Scores, barred, chain_nats, likeliest, marginals
from gradus.nn.heads import LinearHead
from gradus.nn.losses import cross_entropy_sum
from gradus.nn.transformer import Transformer
from gradus.objectives.base import HeadConfig, Measure, Objective, Task, select

SAID = 4
"""Numbers that are said of a token: its word, the tag, how likely that is, and the loss."""
INSIDE, OF_ROW, AT_GAP = 0, 1, 2
"""Where a chain of words begins or ends: not at this one, where the row does, or because the next word has no
token to read. A chain knows nothing of what may stand there."""


class TokenClassificationConfig(HeadConfig):
    """`{kind: token_classification}`: rows of the formats `words` and `entities`."""

    measure: ClassVar[Measure] = "tags"
    serves: ClassVar[frozenset[Arrangement]] = frozenset({"decoder", "encoder"})

    kind: Literal["token_classification"] = "token_classification"
    bias: bool = True
    """Whether the linear layer has a bias: yes, as in Hugging Face's classes."""
    loss: Literal["cross_entropy", "crf"] = "cross_entropy"
    """Each word by itself (Devlin et al. 2019), or the tags of a row together, with a score for every tag
    that follows another (Lample et al. 2016)."""
    transitions: Literal["any", "legal"] = "any"
    """Which tags may follow which: any, or those that the scheme would write (Lester et al. 2020), in what
    is said and in the sums of a CRF."""

    @property
    def chained(self) -> bool:
        return self.loss == "crf"

    def build(self, task: Task) -> TokenClassification:
        follows = task.follows if self.transitions == "legal" else None
        kind = ChainedClassification if self.chained else TokenClassification
        return kind(self, task, follows)


class TokenClassification(Objective):
    """A target for every token that says a tag; one whose tag is not known weighs nothing."""

    name = "token_classification"
    measure = "tags"

    def __init__(self, config: TokenClassificationConfig, task: Task, follows: np.ndarray | None = None):
        self.weight, self.head_name = config.weight, task.stage
        self._shape = task.model.width, len(task.labels), config.dropout, config.bias
        self._follows = follows
        self._weights = np.array(task.class_weights or (1.0,) * len(task.labels))

    def make_head(self) -> LinearHead:
        return LinearHead(*self._shape)

    def targets(self, example: Example) -> ExampleTargets:
        """The value of a target is the number of its word and its tag, and where a chain begins and ends
        [J, 4]."""
        assert example.tagged is not None, "rows of words have them"
        place, word, tag = example.tagged[example.tagged[:, 0] >= 0].T
        begins = np.diff(word, prepend=-2) > 1
        ends = np.roll(begins, -1)
        first, last = word == 0, word == example.tagged[:, 1].max(initial=0)
        edges = [np.where(one, np.where(of_row, OF_ROW, AT_GAP), INSIDE)
                 for one, of_row in ((begins, first), (ends, last))]  # fmt: skip
        return ExampleTargets(place, np.stack([word, tag, *edges], 1), self._weights[tag] * (tag >= 0))

    def loss(
        self, states: Tensor, targets: Targets, transformer: Transformer, head: nn.Module | None
    ) -> Tensor:
        logits = self._logits(states, targets, head)
        return cross_entropy_sum(logits, targets.value[:, 1].clamp(min=0), targets.weight)

    def predict(
        self, states: Tensor, targets: Targets, transformer: Transformer, head: nn.Module | None
    ) -> Tensor:
        """Of every token [J, 4] its word, the tag that is said and its probability, and the loss."""
        odds = self._logits(states, targets, head).float().log_softmax(1)
        tag = odds.argmax(1) if self._follows is None else self._legal(odds, targets)
        nats = -odds.gather(1, targets.value[:, 1:2].clamp(min=0))[:, 0]
        return said(targets, tag, odds.exp(), nats)

    def of_rows(self, predicted: np.ndarray, examples: Sequence[Example]) -> np.ndarray:
        """Of every row [R, 4 T] what is said of its tokens, one after another, -inf beyond them."""
        sizes = [SAID * len(self.targets(example).index) for example in examples]
        lines = np.full((len(sizes), max([0, *sizes])), -np.inf)
        lines[np.arange(lines.shape[1]) < np.array(sizes)[:, None]] = predicted.ravel()
        return lines

    def _logits(self, states: Tensor, targets: Targets, head: nn.Module | None) -> Tensor:
        assert head is not None
        logits: Tensor = head(select(states, targets))
        return logits

    def _legal(self, odds: Tensor, targets: Targets) -> Tensor:
        """The likeliest tags of each row among those that may follow each other."""
        assert self._follows is not None
        walls = Scores(*(wall.to(odds.device) for wall in barred(self._follows)))
        links, chains = linked(odds, walls, targets)
        return likeliest(links, walls.transitions, chains)


class ChainedClassification(TokenClassification):
    """The same targets, of which those of a row are one chain: -log p(all its tags), which counts as many
    targets as it has words."""

    def make_head(self) -> ChainHead:
        return ChainHead(*self._shape, self._follows)

    def loss(
        self, states: Tensor, targets: Targets, transformer: Transformer, head: nn.Module | None
    ) -> Tensor:
        links, transitions, chains = self._chained(states, targets, head)
        nats = chain_nats(links, transitions, targets.value[:, 1].clamp(min=0), chains)
        return (nats * targets.weight[chains.first].to(nats.dtype)).sum()

    def predict(
        self, states: Tensor, targets: Targets, transformer: Transformer, head: nn.Module | None
    ) -> Tensor:
        """Of every token [J, 4] its word, its tag in the likeliest row of tags, that tag's probability
        whatever the others are, and its share of the loss of the row."""
        links, transitions, chains = self._chained(states, targets, head)
        tag = likeliest(links, transitions, chains)
        odds = marginals(links, transitions, chains)
        nats = chain_nats(links, transitions, targets.value[:, 1].clamp(min=0), chains)
        share = nats / torch.bincount(chains.chain, minlength=len(nats))
        return said(targets, tag, odds, chains.given(share[chains.chain]))

    def _chained(
        self, states: Tensor, targets: Targets, head: nn.Module | None
    ) -> tuple[Tensor, Tensor, Chains]:
        """What links say [J, K], transitions [K, K], and the chains."""
        assert isinstance(head, ChainHead)
        scores = head.chain.scores
        links, chains = linked(self._logits(states, targets, head), scores, targets)
        return links, scores.transitions, chains


def linked(links: Tensor, scores: Scores, targets: Targets) -> tuple[Tensor, Chains]:
    """What links say [J, K] with what a chain says of the row's first and last tag, and the chains."""
    begins, ends = targets.value[:, 2], targets.value[:, 3]
    return scores.on(links, begins == OF_ROW, ends == OF_ROW), Chains.of(begins)


def said(targets: Targets, tag: Tensor, odds: Tensor, nats: Tensor) -> Tensor:
    """The numbers of every token [J, 4]: of its tag [J], the probabilities [J, K] and the loss [J]."""
    sure = odds.gather(1, tag.unsqueeze(1))[:, 0]
    return torch.stack([targets.value[:, 0].float(), tag.float(), sure.float(), nats.float()], 1)
