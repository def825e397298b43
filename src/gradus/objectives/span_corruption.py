"""Say the spans that were taken out of a text (Raffel et al. 2020, section 3.1.4; the code released with T5,
`random_spans_noise_mask` and `noise_span_to_unique_sentinel` in its preprocessors).

Each span leaves one sentinel in what the encoder reads; the decoder says sentinel, span, sentinel, span ...
and `end`. As in the released code, and unlike the paper's figure 2, no sentinel stands behind the last span.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from gradus.core.errors import UserError
from gradus.core.example import Example
from gradus.core.model import Arrangement, ModelConfig
from gradus.objectives.base import ObjectiveSettings, Task
from gradus.objectives.saying import SayingObjective


class SpanCorruptionConfig(ObjectiveSettings):
    """`{kind: span_corruption}`: T5's pre-training."""

    serves: ClassVar[frozenset[Arrangement]] = frozenset({"encoder_decoder"})
    reads: ClassVar[frozenset[Literal["text", "rows"]]] = frozenset({"text"})
    corrupts: ClassVar[bool] = True

    kind: Literal["span_corruption"] = "span_corruption"
    share: float = Field(0.15, gt=0, lt=1)
    """Of the tokens, those that are taken out (Raffel et al. 2020, section 3.3.3)."""
    mean_span: float = Field(3.0, ge=1)
    """The mean length of a span, in tokens (section 3.3.4)."""
    sentinels: int = Field(100, ge=1)
    """Tokens that stand for spans; T5 has 100."""

    @property
    def roles(self) -> tuple[str, ...]:
        return ("start", "end", *(f"sentinel {number}" for number in range(self.sentinels)))

    @property
    def least(self) -> int:
        return 2

    def counts(self, length: int) -> tuple[int, int]:
        """(tokens taken out, spans) of `length` tokens."""
        if length < 2:
            return 0, 0
        hidden = min(max(round(length * self.share), 1), length - 1)
        return hidden, min(max(round(hidden / self.mean_span), 1), length - hidden)

    def window(self, model: ModelConfig) -> int:
        """The longest text whose source and target both fit, longer than the context itself, as in the
        released code (`random_spans_helper`)."""
        extra = sum(map(len, model.encoder_roles))

        def fits(length: int) -> bool:
            hidden, spans = self.counts(length)
            read, said = length - hidden + spans + extra, len(model.decoder_roles) + hidden + spans
            return max(read, said) <= model.context

        found = next((length for length in range(4 * model.context, 1, -1) if fits(length)), 0)
        if found < 2 or self.counts(found)[0] < self.mean_span:
            problem = f"a context of {model.context} tokens is too short for spans of {self.mean_span:g}"
            raise UserError(problem, field="model.context")
        if (spans := self.counts(found)[1]) > self.sentinels:
            problem, hint = f"a full window has {spans} spans", f"sentinels: {spans}"
            raise UserError(problem, field="sentinels", text=self.sentinels, hint=hint)
        return found

    def build(self, task: Task) -> SpanCorruption:
        return SpanCorruption(self, task)


class SpanCorruption(SayingObjective):
    """Of a text of one token nothing is taken out: the decoder says `end` alone."""

    name = "span_corruption"

    def __init__(self, config: SpanCorruptionConfig, task: Task):
        super().__init__(config, task)
        self._config = config
        self.sentinels = np.array([task.tokens.role(f"sentinel {n}") for n in range(config.sentinels)])

    def corrupt(self, example: Example, random: np.random.Generator) -> Example:
        tokens = self.text(example)
        hidden, spans = self._config.counts(len(tokens))
        if not spans:
            return self.pair(example, tokens, tokens[:0])
        mask = span_mask(len(tokens), hidden, spans, random)
        return self.pair(
            example, shortened(tokens, mask, self.sentinels), shortened(tokens, ~mask, self.sentinels)
        )


def span_mask(length: int, hidden: int, spans: int, random: np.random.Generator) -> np.ndarray:
    """Which of `length` tokens are taken out [T]: `hidden` of them in `spans` runs, each after a run that
    stays. Runs of both kinds are a uniformly drawn way to cut their tokens into so many parts."""
    stay, go = parts(length - hidden, spans, random), parts(hidden, spans, random)
    runs = np.stack([stay, go], axis=1).ravel()
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs)


def parts(items: int, count: int, random: np.random.Generator) -> np.ndarray:
    """The sizes of `count` parts, none empty, of `items` in a row, every way to cut them equally likely."""
    cuts = np.sort(random.choice(items - 1, count - 1, replace=False)) + 1
    return np.diff(np.concatenate([[0], cuts, [items]]))


def shortened(tokens: np.ndarray, mask: np.ndarray, sentinels: np.ndarray) -> np.ndarray:
    """`tokens` with each run of `mask` replaced by a sentinel, the first by the first."""
    first = mask & ~np.concatenate([[False], mask[:-1]])
    numbered = np.where(first, sentinels[np.minimum(np.cumsum(first) - 1, len(sentinels) - 1)], tokens)
    return numbered[~mask | first]


def restored(source: np.ndarray, target: np.ndarray, sentinels: Sequence[int] | np.ndarray) -> np.ndarray:
    """The text that was corrupted, from source and target without the special tokens around them.

    Raises ValueError where they do not belong together.
    """
    place = {int(token): number for number, token in enumerate(sentinels)}
    spans: list[list[int]] = []
    for token in target.tolist():
        if token in place:
            if place[token] != len(spans):
                raise ValueError(f"the target has sentinel {place[token]} where {len(spans)} is due")
            spans.append([])
        elif not spans:
            raise ValueError("the target does not begin with a sentinel")
        else:
            spans[-1].append(token)
    whole: list[int] = []
    seen = 0
    for token in source.tolist():
        if token not in place:
            whole.append(token)
            continue
        if place[token] != seen or seen >= len(spans):
            raise ValueError(f"the source has sentinel {place[token]}, the target has {len(spans)} spans")
        whole += spans[seen]
        seen += 1
    if seen != len(spans):
        raise ValueError(f"the source has {seen} sentinels, the target {len(spans)} spans")
    return np.array(whole, np.int64)
