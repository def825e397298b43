"""What running sequences keep: the states of new tokens are those of the whole sequence, for every model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from test_arrangements import AXES, BOTH, VOCABULARY, model, rows
from torch import Tensor

from gradus.core.example import ragged
from gradus.nn.cache import Cache
from gradus.nn.kernels import KERNELS
from gradus.nn.transformer import Transformer

DECODERS: dict[str, dict[str, Any]] = {
    "gpt1": {},
    "gpt2": {"norm": "before", "kv_heads": 1, "position_offset": 2},
    "sinusoidal": {"positions": "sinusoidal"},
    "rotary": AXES["rotary"],
    "windowed": AXES["windowed"],
    "windowed and rotary": {"window": 3, "positions": "rotary", "kv_heads": 2},
    "relative": AXES["relative"] | {"arrangement": "decoder"},
    "segments": {"segments": 2, "embedding_norm": True},
    "lstm": {"body": "lstm", "units": 10},
}
ALL = DECODERS | BOTH
TURNS: dict[int, list[int]] = {5: [2, 0, 1, 3], 9: [1, 1, 3], 20: [0, 1, 2, 0, 2], 23: [4, 0]}
"""Before these steps beams change places, go on twice or end."""


class Running:
    """Sequences that run in a cache, and whole beside it."""

    def __init__(self, built: Transformer, texts: list[np.ndarray], sources: list[np.ndarray] | None):
        self.built, self.texts, self.sources = built, texts, sources
        self.cache: Cache = built.begin(None if sources is None else ragged(sources))
        self.extend(texts)

    def extend(self, new: list[np.ndarray], round_to: int = 64) -> None:
        states = self.built.extend(ragged(new, round_to), self.cache)
        ends = np.cumsum([len(one) for one in new])
        whole, expected = self.whole()
        found = states[: ends[-1]] if self.texts is new else states[ends - 1]
        wanted = whole if self.texts is new else expected
        assert (found - wanted).abs().max() < 1e-12
        assert self.cache.lengths.tolist() == [len(text) for text in self.texts]

    def whole(self) -> tuple[Tensor, Tensor]:
        """The states of all tokens of the sequences without a cache, and of their last ones."""
        decoded = ragged(self.texts)
        with torch.no_grad():
            given = (decoded,) if self.sources is None else (ragged(self.sources), decoded)
            states = self.built(*given)
        return states[: decoded.offsets[-1]], states[decoded.offsets[1:] - 1]

    def select(self, chosen: list[int]) -> None:
        self.cache.select(chosen)
        self.texts = [self.texts[row] for row in chosen]
        if self.sources is not None:
            self.sources = [self.sources[row] for row in chosen]


@pytest.mark.parametrize("kernel", list(KERNELS))
@pytest.mark.parametrize("name", list(ALL))
def test_a_cache_changes_nothing(name: str, kernel: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prompts of several lengths, then steps over the borders of what is rounded and of where it grows."""
    monkeypatch.setattr("gradus.nn.cache.GROWTH", 16)
    built = model(ALL[name] | {"initial_deviation": 0.3}, kernel=kernel)
    sources = rows(30, 5, 41, 1, seed=5) if name in BOTH else None
    prompts = rows(1, 1, 1, 1) if name == "t5" else rows(3, 17, 1, 30)
    running, random = Running(built, prompts, sources), np.random.default_rng(4)
    for step in range(40):
        if step in TURNS:
            running.select(TURNS[step])
        new = [random.integers(0, VOCABULARY, 1) for _ in running.texts]
        running.texts = [np.concatenate([text, one]) for text, one in zip(running.texts, new)]
        running.extend(new, round_to=64 if step == 3 else 1)


def test_equal_prompts_and_a_shared_prefix() -> None:
    built = model({})
    running = Running(built, rows(16, 16), None)
    for token in (3, 5):
        new = [np.array([token])] * 2
        running.texts = [np.concatenate([text, one]) for text, one in zip(running.texts, new)]
        running.extend(new, 1)
    texts, cache = rows(9, 14), built.begin()
    built.extend(ragged(texts, prefix=[4, 14]), cache)
    found = built.extend(ragged([np.array([7])] * 2, 1), cache)
    longer = [np.append(text, 7) for text in texts]
    with torch.no_grad():
        wanted = built(ragged(longer, prefix=[4, 14]))[[9, 24]]
    assert (found - wanted).abs().max() < 1e-12


def test_what_is_encoded_serves_again() -> None:
    built, sources = model(BOTH["bart"]), rows(12, 40, 3)
    cache = built.begin(ragged(sources))
    built.extend(ragged(rows(2, 1, 5)), cache)
    again = cache.restarted([2, 1])
    texts = rows(7, 20, seed=9)
    found = built.extend(ragged(texts), again)
    with torch.no_grad():
        wanted = built(ragged([sources[2], sources[1]]), ragged(texts))
    assert (found[:27] - wanted[:27]).abs().max() < 1e-12
    assert cache.lengths.tolist() == [2, 1, 5] and cache.across[0].pairs.shape[0] == 3
    kept = cache.across[0].pairs
    cache.select([0, 1, 2])
    assert cache.across[0].pairs is kept
