"""One prompt's answer in the making: a single text that grows, or a beam of several.

A `Walk` is given the logits of what follows each of its sequences and says which of them go on with which
token. Many walks advance together; none knows of another. Shapes: B sequences of a walk, V vocabulary.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from gradus.core.keyed import keyed_hash
from gradus.evaluation.sampling import Sampling, draw, penalised

Text = Callable[[list[int]], str]
"""The new text that tokens of an answer make."""
Found = tuple[float, list[int]]
"""The tokens of an answer and its log-likelihood in nats, by length once it is finished."""
Step = tuple[int, int]
"""Which of a walk's sequences goes on, and with what token."""


class Walk(Protocol):
    """What `generate` asks of an answer in the making."""

    @property
    def width(self) -> int:
        """Sequences that run."""

    def take(self, logits: Tensor) -> list[Step]:
        """What goes on after logits [B, V]; nothing when the answer stands."""

    def answer(self) -> list[int]:
        """The tokens of the answer, without the `end` that stopped it."""


class Continuation:
    """One token after the other: the likeliest, or drawn. `seen` are the tokens before the answer, `index`
    is the prompt's place among several, which keys its draws."""

    def __init__(
        self, seen: list[int], sampling: Sampling, end: int | None, index: int = 0, text: Text | None = None
    ):
        self.seen, self.sampling, self.end, self.text = seen, sampling, end, text
        key = ("generate", sampling.seed, index) if index else ("generate", sampling.seed)
        self.generator = torch.Generator().manual_seed(keyed_hash(*key))
        self.said: list[int] = []

    @property
    def width(self) -> int:
        return 1

    def take(self, logits: Tensor) -> list[Step]:
        sampling = self.sampling
        scores = penalised(logits[0], self.seen + self.said, sampling.repetition_penalty)
        greedy = sampling.temperature == 0
        token = int(scores.argmax()) if greedy else draw(scores, sampling, self.generator)
        if token == self.end:
            return []
        self.said.append(token)
        return [] if len(self.said) == sampling.tokens or self._stopped() else [(0, token)]

    def answer(self) -> list[int]:
        return self.said

    def _stopped(self) -> bool:
        if not self.sampling.stop:
            return False
        assert self.text is not None, "stop strings need to know the text"
        text = self.text(self.said)
        return any(stop in text for stop in self.sampling.stop)


class BeamSearch:
    """Beam search as transformers does it: twice as many candidates as beams, so that enough go on.

    It stops when the best answer that still runs, as it stands, ranks no higher than the worst of a full
    set of finished ones. The repetition penalty is on the log-probabilities.
    """

    def __init__(self, seen: list[int], sampling: Sampling, end: int | None):
        self.seen, self.sampling, self.end = seen, sampling, end
        self.running: list[Found] = [(0.0, [])]
        self.finished: list[Found] = []

    @property
    def width(self) -> int:
        return len(self.running)

    def take(self, logits: Tensor) -> list[Step]:
        sampling, going = self.sampling, []
        length = len(self.running[0][1]) + 1
        by_length = length**sampling.length_penalty
        for rank, (total, parent, token) in enumerate(self._candidates(logits)):
            said = [*self.running[parent][1], token]
            if token != self.end and length < sampling.tokens:
                going.append((total, said, (parent, token)))
            elif rank < sampling.beams:
                self.finished.append((total / by_length, said))
        going = going[: sampling.beams]
        self.running = [(total, said) for total, said, _ in going]
        self.finished = sorted(self.finished, key=lambda found: -found[0])[: sampling.beams]
        full = len(self.finished) == sampling.beams
        if not going or (full and going[0][0] / by_length <= self.finished[-1][0]):
            return []
        return [step for _, _, step in going]

    def answer(self) -> list[int]:
        said = self.finished[0][1]
        return said[:-1] if said[-1] == self.end else said

    def _candidates(self, logits: Tensor) -> list[tuple[float, int, int]]:
        """The likeliest of all answers one token longer than those that run, best first: log-likelihood,
        which of them it prolongs, and with what."""
        penalty, totals = self.sampling.repetition_penalty, logits.log_softmax(1)
        if penalty != 1:
            each = zip(totals, self.running)
            totals = torch.stack([penalised(own, self.seen + said, penalty) for own, (_, said) in each])
        before = torch.tensor([total for total, _ in self.running], dtype=torch.float64)
        sums = (totals.double() + before[:, None]).flatten()
        values, places = sums.topk(min(2 * self.sampling.beams, len(sums)))
        return [
            (value, *divmod(place, logits.shape[1]))
            for value, place in zip(values.tolist(), places.tolist())
            if value > -math.inf
        ]
