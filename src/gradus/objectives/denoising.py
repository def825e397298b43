"""Say the original of a text that was spoilt (Lewis et al. 2020, section 2.2: BART).

Its large models were taught by text infilling and sentence permutation (section 5.1: 30 % of the tokens, all
sentences), which is the default. Noises strike in one order, whatever the order in the recipe: sentence
permutation, token deletion, token masking, text infilling, document rotation.
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import AfterValidator, Field

from gradus.core.config import wrong
from gradus.core.errors import UserError
from gradus.core.example import Example
from gradus.core.model import Arrangement, ModelConfig
from gradus.core.sentences import SentenceEnds
from gradus.objectives.base import ObjectiveSettings, Task
from gradus.objectives.saying import SayingObjective

Noise = Literal[
    "sentence_permutation", "token_deletion", "token_masking", "text_infilling", "document_rotation"
]


def _once(noises: list[Noise]) -> list[Noise]:
    twice = next((noise for noise in noises if noises.count(noise) > 1), None)
    if twice is not None:
        raise wrong("", "this noise stands there twice", twice)
    return noises


class DenoisingConfig(ObjectiveSettings):
    """`{kind: denoising}`: BART's pre-training."""

    serves: ClassVar[frozenset[Arrangement]] = frozenset({"encoder_decoder"})
    reads: ClassVar[frozenset[Literal["text", "rows"]]] = frozenset({"text"})
    corrupts: ClassVar[bool] = True

    kind: Literal["denoising"] = "denoising"
    noises: Annotated[list[Noise], Field(min_length=1), AfterValidator(_once)] = [
        "text_infilling",
        "sentence_permutation",
    ]
    """text_infilling: spans, each replaced by one mask; one of no token inserts a mask. token_masking: a mask
    for each token. token_deletion: they are gone. sentence_permutation: sentences in another order.
    document_rotation: the text begins at another token, and its own beginning follows its end."""
    share: float = Field(0.3, gt=0, lt=1)
    """Of the tokens, those that infilling, masking and deletion each strike (Lewis et al. 2020, 5.1)."""
    mean_span: float = Field(3.0, gt=0)
    """Of infilling: the lengths of spans are drawn from a Poisson distribution with this mean."""

    @property
    def roles(self) -> tuple[str, ...]:
        return ("start", "end", "mask")

    @property
    def least(self) -> int:
        return 2

    def window(self, model: ModelConfig) -> int:
        around = max(sum(map(len, model.encoder_roles)), len(model.decoder_roles))
        if model.context - around < max(2, self.mean_span):
            problem = f"a context of {model.context} tokens is too short for spans of {self.mean_span:g}"
            raise UserError(problem, field="model.context")
        return model.context - around

    def build(self, task: Task) -> Denoising:
        return Denoising(self, task)


class Denoising(SayingObjective):
    """The encoder reads the spoilt text, the decoder says the original and `end`. A text of one token is said
    as it is."""

    name = "denoising"

    def __init__(self, config: DenoisingConfig, task: Task):
        super().__init__(config, task)
        self._config, self._mask = config, task.tokens.role("mask")
        self._room = task.model.context - len(self._before) - len(self._after)
        permutes = "sentence_permutation" in config.noises
        self._sentences = task.tokens.sentence_ends if permutes else SentenceEnds()

    def corrupt(self, example: Example, random: np.random.Generator) -> Example:
        text = self.text(example)
        return self.pair(example, self._spoilt(text, random) if len(text) > 1 else text, text)

    def _spoilt(self, text: np.ndarray, random: np.random.Generator) -> np.ndarray:
        noises, share = self._config.noises, self._config.share
        if "sentence_permutation" in noises:
            text = permuted_sentences(text, self._sentences, random)
        if "token_deletion" in noises:
            text = np.delete(text, struck(len(text), share, random))
        if "token_masking" in noises:
            text = text.copy()
            text[struck(len(text), share, random)] = self._mask
        if "text_infilling" in noises:
            text = infilled(text, share, self._config.mean_span, self._mask, random, self._room)
        if "document_rotation" in noises:
            text = np.roll(text, -int(random.integers(len(text))))
        return text


def struck(length: int, share: float, random: np.random.Generator) -> np.ndarray:
    """The places of round(length x share) tokens, drawn without repetition; never of all of them."""
    return random.choice(length, min(round(length * share), length - 1), replace=False)


def permuted_sentences(text: np.ndarray, ends: SentenceEnds, random: np.random.Generator) -> np.ndarray:
    """The sentences of `text` in an order drawn uniformly."""
    sentences = ends.cut(text)
    return np.concatenate([sentences[place] for place in random.permutation(len(sentences))])


def span_lengths(length: int, share: float, mean: float, random: np.random.Generator) -> np.ndarray:
    """Lengths of spans drawn from Poisson(mean), some 0, until ceil(length x share) tokens are in them; the
    last is cut to that sum."""
    wanted, total, found = math.ceil(length * share), 0, []
    while total < wanted:
        drawn = min(int(random.poisson(mean)), wanted - total)
        found.append(drawn)
        total += drawn
    return np.array(found, np.int64)


def infilled(
    text: np.ndarray, share: float, mean: float, mask: int, random: np.random.Generator, room: int
) -> np.ndarray:
    """`text` with spans of Poisson(mean) tokens, `share` of all, each replaced by one `mask`.

    Spans lie anywhere between the tokens that stay, every order of spans and tokens equally likely, and a
    span of no token inserts a mask. Of those as many are left out as `room` tokens have no place for.
    """
    spans = span_lengths(len(text), share, mean, random)
    stay = len(text) - int(spans.sum())
    if (excess := stay + len(spans) - room) > 0:
        spans = np.delete(spans, np.flatnonzero(spans == 0)[:excess])
    slots = np.ones(stay + len(spans), np.int64)
    places = np.sort(random.choice(len(slots), len(spans), replace=False))
    slots[places] = spans
    first = np.cumsum(slots) - slots
    found = text[np.minimum(first, len(text) - 1)].copy()
    found[places] = mask
    return found
