"""How the next token is chosen: settings, what is kept of the probabilities, and the draw.

Shapes: V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Any, Self

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor

from gradus.core.config import Config


class Sampling(Config):
    """How the next token is chosen, and when it is enough. Generation always stops at the role `end`."""

    tokens: int = Field(100, ge=1)
    """The most tokens that are written."""
    temperature: float = Field(1.0, ge=0)
    """Logits are divided by it before the draw; at 0 the likeliest token is taken (greedy)."""
    top_k: int | None = Field(None, ge=1)
    """Draw from the so many likeliest tokens (Fan, Lewis and Dauphin 2018, section 5.3)."""
    top_p: float | None = Field(None, gt=0, le=1)
    """Draw from the likeliest tokens that together have this probability (Holtzman et al. 2020, 3.1)."""
    repetition_penalty: float = Field(1.0, gt=0, allow_inf_nan=False)
    """Above 1: tokens that stand in the prompt or were said already become less likely; see `penalised`."""
    stop: tuple[Annotated[str, Field(min_length=1)], ...] = ()
    """Generation ends as soon as the new text contains one of these; the text is cut before it. One string
    may stand without a list. Not with beam search, which has many texts at a time."""
    beams: int = Field(1, ge=1)
    """From 2 on: search for the likeliest answer with so many at a time, and draw nothing."""
    length_penalty: float = 1.0
    """Beam search ranks answers by log-likelihood / tokens ** this."""
    seed: int = 0
    """The same seed draws the same tokens; each prompt of several has draws of its own."""

    @field_validator("stop", mode="before")
    @classmethod
    def _one(cls, found: Any) -> Any:
        return (found,) if isinstance(found, str) else found

    @model_validator(mode="after")
    def _agree(self) -> Self:
        drawing = {"top_k": self.top_k is not None, "top_p": self.top_p is not None}
        drawing = {"temperature": self.temperature not in (0, 1), **drawing}
        if self.beams > 1 and any(drawing.values()):
            names = " and ".join(name for name, given in drawing.items() if given)
            raise ValueError(f"beam search draws nothing: leave out {names}, or beams")
        if self.beams > 1 and self.stop:
            raise ValueError("beam search has many texts at a time: leave out stop, or beams")
        if self.beams == 1 and self.length_penalty != 1:
            raise ValueError("length_penalty is for beam search: set beams too, or leave it out")
        return self


def penalised(scores: Tensor, seen: Sequence[int], penalty: float) -> Tensor:
    """Scores [V] with those of the tokens in `seen` divided by `penalty`, or multiplied where they are
    negative, so that a penalty above 1 lowers both.

    Keskar et al. 2019, section 4.1, divide whatever the sign; multiplying is what transformers does.
    """
    if penalty == 1 or not len(seen):
        return scores
    index = torch.tensor(sorted(set(seen)), device=scores.device)
    found = scores.index_select(0, index)
    return scores.index_copy(0, index, torch.where(found < 0, found * penalty, found / penalty))


def kept_probabilities(logits: Tensor, sampling: Sampling) -> Tensor:
    """Probabilities [V] of logits [V] after temperature, top-k and top-p, in this order, as in transformers.

    What is left sums to the probability it had before top-p, not to 1. Ties at the border of top-k stay in.
    """
    logits = (logits - logits.max()) / sampling.temperature
    if sampling.top_k is not None and sampling.top_k < len(logits):
        logits = logits.masked_fill(logits < logits.topk(sampling.top_k).values[-1], -math.inf)
    probabilities = logits.softmax(0)
    if sampling.top_p is not None and sampling.top_p < 1:
        ordered, place = probabilities.sort(descending=True, stable=True)
        before = ordered.cumsum(0) - ordered
        probabilities = probabilities.index_fill(0, place[before >= sampling.top_p], 0.0)
    return probabilities


def draw(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    """One token: a single uniform number, inverted through the sum of the probabilities that are left."""
    probabilities = kept_probabilities(logits.double(), sampling)
    sums = probabilities.cumsum(0)
    threshold = torch.rand(1, generator=generator, dtype=torch.float64) * sums[-1]
    last = int(probabilities.nonzero()[-1])  # rounding may lift the threshold to the whole sum
    return min(int(torch.searchsorted(sums, threshold, right=True)), last)


def before_stop(text: str, stop: Sequence[str]) -> str:
    """The text up to the first place where one of `stop` begins; all of it where none does."""
    return text[: min((place for one in stop if (place := text.find(one)) >= 0), default=len(text))]
