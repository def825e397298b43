"""Hide some tokens and name what stood there (Devlin et al. 2019, section 3.1): how encoders learn from text.

15 % of the tokens are chosen; of those 80 % become the mask token, 10 % another token, 10 % stay, so that a
state never knows whether its own token is true. Only the chosen positions reach the vocabulary. Whole words
are BERT's later release (its README of May 2019), spans are SpanBERT's (Joshi et al. 2020, section 3.1).

Shapes: T tokens of an example, C those that may be chosen, M those that are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from gradus.core.config import wrong
from gradus.core.example import Example, ExampleTargets, Targets
from gradus.core.keyed import keyed_generator
from gradus.core.model import Arrangement
from gradus.core.words import WordEdges
from gradus.nn.transformer import Transformer
from gradus.objectives.base import ObjectiveSettings, Task, TokenObjective, Vocabulary, select
from gradus.tokenizers.segmenters import SegmentedWords, Segmenter, segmenter_versions


@dataclass(frozen=True)
class Known:
    """What masking knows of a vocabulary: the mask, which tokens play a role [V], the ids of those that play
    none, and where words have their borders."""

    mask: int
    plays_role: np.ndarray
    ordinary: np.ndarray
    words: WordEdges | SegmentedWords

    @classmethod
    def of(cls, vocabulary: Vocabulary, segmenter: Segmenter | None) -> Known:
        """Raises UserError where no token plays the role `mask`, and where the segmenter is not installed."""
        plays_role = np.zeros(vocabulary.size, dtype=bool)
        plays_role[[vocabulary.role(name) for name in vocabulary.roles]] = True
        ordinary = np.flatnonzero(~plays_role)
        words: WordEdges | SegmentedWords = vocabulary.word_edges
        if segmenter is not None:
            words = SegmentedWords(vocabulary.word_edges, vocabulary.spelling, segmenter)
        return cls(vocabulary.role("mask"), plays_role, ordinary, words)


class MaskedLMConfig(ObjectiveSettings):
    """`{kind: masked_lm}`: BERT's masking, drawn anew every epoch as in RoBERTa (Liu et al. 2019, 4.1)."""

    serves: ClassVar[frozenset[Arrangement]] = frozenset({"encoder"})
    reads: ClassVar[frozenset[Literal["text", "rows"]]] = frozenset({"text", "rows"})
    corrupts: ClassVar[bool] = True

    kind: Literal["masked_lm"] = "masked_lm"
    share: float = Field(0.15, gt=0, le=1)
    """Of the tokens that play no role so many are chosen: that share, rounded, and at least one."""
    masked: float = Field(0.8, ge=0, le=1)
    """Of the chosen so many become the mask token."""
    random: float = Field(0.1, ge=0, le=1)
    """So many become some token of the vocabulary; the rest stay as they are. `masked: 1, random: 0` is the
    reading of retellings that know the mask token alone."""
    draw: Literal["dynamic", "static"] = "dynamic"
    """dynamic: anew every epoch (RoBERTa). static: the same for a row in every epoch."""
    unit: Literal["token", "word", "span"] = "token"
    """What is chosen as a whole. A word is a run of letters and digits; a Chinese character is a word.
    span: several words in a row."""
    words: Segmenter | None = None
    """Who finds the words of Chinese, whose characters then are no words of their own."""
    stops: float = Field(0.2, gt=0, le=1)
    """The length of a span, in words, is geometric with this chance to stop at each (SpanBERT: 0.2) ..."""
    longest: int = Field(10, ge=1)
    """... and at most this (SpanBERT: 10, a mean of 3.8)."""

    @model_validator(mode="after")
    def _at_most_all(self) -> Self:
        if self.masked + self.random > 1 + 1e-9:
            problem = f"with masked: {self.masked:g} it makes more than all of the chosen"
            raise wrong("random", problem, self.random, f"at most {1 - self.masked:g}")
        if self.words is not None and self.unit == "token":
            raise wrong("words", "single tokens are chosen here", self.words, "write `unit: word`")
        return self

    @property
    def roles(self) -> tuple[str, ...]:
        return ("mask",)

    @property
    def libraries(self) -> dict[str, str]:
        return segmenter_versions(self.words) if self.words is not None else {}

    def build(self, task: Task) -> MaskedLM:
        return MaskedLM(self, task)


class MaskedLM(TokenObjective):
    """Each chosen position is a target: the token that stood there."""

    name, names_tokens = "masked_lm", True

    def __init__(self, config: MaskedLMConfig, task: Task):
        self.weight, self.config, self._task = config.weight, config, task
        lengths = np.arange(1, config.longest + 1)
        odds = config.stops * (1 - config.stops) ** (lengths - 1)
        self.length_odds = odds / odds.sum()
        """The chance of each span length from 1 on: geometric, cut off at the longest."""

    @cached_property
    def known(self) -> Known:
        """Made when first asked for: a model in use may have no tokenizer beside it."""
        return Known.of(self._task.tokens, self.config.words)

    def corrupt(self, example: Example, random: np.random.Generator) -> Example:
        tokens = np.concatenate(example.sequences)
        if self.config.draw == "static":
            random = keyed_generator(self.name, "static", tokens.tobytes().hex())
        index, group = self._chosen(example, tokens, random)
        hidden = tokens.copy()
        hidden[index] = self._shown(tokens[index], group, random)
        parts: tuple[np.ndarray, ...] = (hidden,)
        if len(example.sequences) > 1:
            parts = tuple(np.split(hidden, np.cumsum([len(one) for one in example.sequences])[:-1]))
        return replace(example, sequences=parts, chosen=(index, tokens[index]))

    def _chosen(
        self, example: Example, tokens: np.ndarray, random: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """(positions [M] ascending, which share a fate [M])."""
        candidates = np.flatnonzero(~self.known.plays_role[tokens])
        wanted = max(1, round(self.config.share * len(candidates))) if len(candidates) else 0
        if self.config.unit == "token":
            index = np.sort(candidates[random.permutation(len(candidates))[:wanted]])
            return index, np.arange(wanted)
        words = self._words(example, tokens, candidates)
        if self.config.unit == "word":
            index = _whole_words(words, wanted, random)
            return index, np.arange(len(index))
        return self._spans(words, wanted, random)

    def _words(self, example: Example, tokens: np.ndarray, candidates: np.ndarray) -> list[np.ndarray]:
        """The positions of each word, in order. No word goes on over a token that plays a role or from one
        sequence to the next."""
        if not len(candidates):
            return []
        border = self.known.words.borders(tokens)[candidates[1:] - 1]
        starts = np.zeros(len(tokens), dtype=bool)
        starts[np.cumsum([len(sequence) for sequence in example.sequences])[:-1]] = True
        border |= (np.diff(candidates) > 1) | starts[candidates[1:]]
        return np.split(candidates, np.flatnonzero(border) + 1)

    def _spans(
        self, words: list[np.ndarray], wanted: int, random: np.random.Generator
    ) -> tuple[np.ndarray, np.ndarray]:
        """Spans of words that begin at random, until so many tokens are chosen; the last one is cut there."""
        group_of: dict[int, int] = {}
        spans = 0
        while len(group_of) < wanted:
            first = int(random.integers(len(words)))
            length = 1 + int(random.choice(len(self.length_odds), p=self.length_odds))
            for word in words[first : first + length]:
                for place in word.tolist():
                    if place not in group_of and len(group_of) < wanted:
                        group_of[place] = spans
            spans += 1
        index = np.array(sorted(group_of), dtype=np.int64)
        return index, np.array([group_of[place] for place in index.tolist()], dtype=np.int64)

    def _shown(self, truth: np.ndarray, group: np.ndarray, random: np.random.Generator) -> np.ndarray:
        """What the model sees at the chosen positions [M]; what shares a group shares its kind."""
        config, known = self.config, self.known
        drawn = random.random(int(group.max(initial=-1)) + 1)[group]
        some = known.ordinary[random.integers(len(known.ordinary), size=len(truth))]
        other = np.where(drawn < config.masked + config.random, some, truth)
        return np.where(drawn < config.masked, known.mask, other)

    def predict(
        self, states: Tensor, targets: Targets, transformer: Transformer, head: nn.Module | None
    ) -> Tensor:
        chosen = select(states, targets)
        nats = transformer.token_nats(chosen, targets.value)
        return torch.stack([nats, (transformer.likeliest(chosen) == targets.value).to(nats)], 1)

    def targets(self, example: Example) -> ExampleTargets:
        nothing = np.zeros(0, np.int64)
        index, value = example.chosen or (nothing, nothing)
        return ExampleTargets(index, value.astype(np.int64), np.ones(len(index)))


def _whole_words(words: list[np.ndarray], wanted: int, random: np.random.Generator) -> np.ndarray:
    """Words in a random order, all those that still fit, as BERT's release does; the shortest where not even
    one does."""
    chosen: list[np.ndarray] = []
    left = wanted
    order = [words[place] for place in random.permutation(len(words))]
    for word in order:
        if len(word) <= left:
            chosen.append(word)
            left -= len(word)
    if words and not chosen:
        chosen = [min(order, key=len)]
    return np.sort(np.concatenate(chosen)) if chosen else np.zeros(0, np.int64)
