"""What a language model goes on to say: greedy, sampled or by beam search, a token at a time.

Shapes: S sequences, V vocabulary. Nothing is cached between tokens: what the model sees slides along, the
last `context` tokens of prompt and answer. The same weights, prompt and settings give the same tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from gradus.core.config import Config
from gradus.core.errors import UserError
from gradus.core.example import ragged
from gradus.core.keyed import keyed_hash
from gradus.nn.transformer import Transformer

Scorer = Callable[[list[list[int]]], Tensor]
"""Token ids of S sequences -> the logits [S, V] of what follows each."""
Answer = tuple[float, list[int]]
"""The tokens of an answer and its log-likelihood in nats, by length once it is finished."""


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
    beams: int = Field(1, ge=1)
    """From 2 on: search for the likeliest answer with so many at a time, and draw nothing."""
    length_penalty: float = 1.0
    """Beam search ranks answers by log-likelihood / tokens ** this."""
    seed: int = 0
    """The same seed draws the same tokens."""

    @model_validator(mode="after")
    def _agree(self) -> Self:
        drawing = {"top_k": self.top_k is not None, "top_p": self.top_p is not None}
        drawing = {"temperature": self.temperature not in (0, 1), **drawing}
        if self.beams > 1 and any(drawing.values()):
            names = " and ".join(name for name, given in drawing.items() if given)
            raise ValueError(f"beam search draws nothing: leave out {names}, or beams")
        if self.beams == 1 and self.length_penalty != 1:
            raise ValueError("length_penalty is for beam search: set beams too, or leave it out")
        return self


def generate(
    transformer: Transformer,
    prompt: Sequence[int],
    sampling: Sampling,
    end: int | None,
    banned: Sequence[int] = (),
) -> list[int]:
    """The token ids that continue `prompt`, at most `sampling.tokens`, without the `end` that stops them.

    An empty prompt stands for the beginning of a document: the model goes on from `end`. Tokens in `banned`
    (roles that are no text) are never chosen. Greedy and beam search are those of transformers' `generate`
    (do_sample off, early_stopping off); draws come from a generator keyed by the seed, on the host. Raises
    UserError for an empty prompt where no token is `end`, and where the logits are not numbers.
    """
    ids = [int(token) for token in prompt]
    if not ids:
        if end is None:
            hint = "this tokenizer has no `end` to begin from"
            raise UserError("the prompt is empty", field="prompt", hint=hint)
        ids = [end]
    with _at_rest(transformer):

        def score(sequences: list[list[int]]) -> Tensor:
            return _next_logits(transformer, [ids + said for said in sequences], banned)

        if sampling.beams > 1:
            return _search(score, sampling, end)
        return _continue(score, sampling, end)


@contextmanager
def _at_rest(transformer: Transformer) -> Iterator[None]:
    """No gradients and no dropout inside; the mode of before afterwards."""
    training = transformer.training
    transformer.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        transformer.train(training)


def _next_logits(transformer: Transformer, sequences: list[list[int]], banned: Sequence[int]) -> Tensor:
    """The logits [S, V] of the token after each sequence, fp32 or better; those of `banned` are -inf."""
    context = transformer.config.context
    source = ragged([np.array(sequence[-context:]) for sequence in sequences])
    device = transformer.output_weight.device
    last = torch.from_numpy(source.offsets[1:] - 1).to(device)
    logits = transformer.logits(transformer(source.to(device)).index_select(0, last))
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    if not bool(torch.isfinite(logits).all()):
        hint = "its weights are damaged or its training diverged"
        raise UserError("the model's scores are not numbers", hint=hint)
    logits[:, list(banned)] = -math.inf
    return logits


def _continue(score: Scorer, sampling: Sampling, end: int | None) -> list[int]:
    """One token after the other: the likeliest, or drawn."""
    generator = torch.Generator().manual_seed(keyed_hash("generate", sampling.seed))
    said: list[int] = []
    while len(said) < sampling.tokens:
        logits = score([said])[0]
        token = int(logits.argmax()) if sampling.temperature == 0 else _draw(logits, sampling, generator)
        if token == end:
            break
        said.append(token)
    return said


def _draw(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    """One token: a single uniform number, inverted through the sum of the probabilities that are left."""
    probabilities = kept_probabilities(logits.double().cpu(), sampling)
    sums = probabilities.cumsum(0)
    threshold = torch.rand(1, generator=generator, dtype=torch.float64) * sums[-1]
    last = int(probabilities.nonzero()[-1])  # rounding may lift the threshold to the whole sum
    return min(int(torch.searchsorted(sums, threshold, right=True)), last)


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


def _search(score: Scorer, sampling: Sampling, end: int | None) -> list[int]:
    """Beam search as transformers does it: twice as many candidates as beams, so that enough go on.

    It stops when the best answer that still runs, as it stands, ranks no higher than the worst of a full
    set of finished ones.
    """
    running: list[Answer] = [(0.0, [])]
    finished: list[Answer] = []
    for length in range(1, sampling.tokens + 1):
        candidates = _candidates(score, running, 2 * sampling.beams)
        running = []
        for rank, (total, said) in enumerate(candidates):
            over = said[-1] == end or length == sampling.tokens
            if not over:
                running.append((total, said))
            elif rank < sampling.beams:
                finished.append((total / length**sampling.length_penalty, said))
        running = running[: sampling.beams]
        finished = sorted(finished, key=lambda answer: -answer[0])[: sampling.beams]
        full = len(finished) == sampling.beams
        if not running or (full and running[0][0] / length**sampling.length_penalty <= finished[-1][0]):
            break
    said = finished[0][1]
    return said[:-1] if said[-1] == end else said


def _candidates(score: Scorer, running: list[Answer], most: int) -> list[Answer]:
    """The `most` likeliest of all answers one token longer than those that run, best first."""
    before = torch.tensor([total for total, _ in running], dtype=torch.float64)
    totals = score([said for _, said in running]).log_softmax(1).double().cpu() + before[:, None]
    values, places = totals.flatten().topk(min(most, totals.numel()))
    return [
        (value, [*running[place // totals.shape[1]][1], place % totals.shape[1]])
        for value, place in zip(values.tolist(), places.tolist())
        if value > -math.inf
    ]
