"""Law 6: evaluation scores every row once, whatever the batch size, the order and the world."""

from __future__ import annotations

import numpy as np
import pytest
import toy

from gradus.core.example import Example
from gradus.data.sources import Rows, Windows
from gradus.distributed.world import World
from gradus.evaluation.evaluator import Scores, score, summarise


def source(rows: list[Example]) -> Rows:
    return Rows(rows, [""] * len(rows))


def close(a: Scores, b: Scores) -> bool:
    same = np.array_equal(a.rows, b.rows) and np.array_equal(a.counts, b.counts)
    return same and np.array_equal(a.labels, b.labels) and np.allclose(a.values, b.values, atol=1e-6)


@pytest.mark.parametrize("budget", [1, 30, 100, 10_000])
def test_the_batch_size_does_not_matter(budget: int) -> None:
    learner, rows = toy.learner(), source(toy.examples(13))
    whole = score(learner, rows, World(), 500)
    parts = score(learner, rows, World(), budget)
    assert all(close(a, b) for a, b in zip(whole, parts))
    assert np.array_equal(parts[0].rows, np.arange(13))


def test_a_forward_takes_as_many_rows_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    learner, taken = toy.learner(), []
    prepare = learner.prepare
    monkeypatch.setattr(learner, "prepare", lambda rows: taken.append(len(rows)) or prepare(rows))
    score(learner, source([Example(row, (np.arange(10),), label=0) for row in range(11)]), World(), 35)
    assert taken == [3, 3, 3, 2]


def test_shares_of_ranks_are_the_whole() -> None:
    learner, rows = toy.learner(), source(toy.examples(13))
    whole = score(learner, rows, World(), 100)
    shares = [score(learner, rows, Alone(rank, 3), 100) for rank in range(3)]
    for place, expected in enumerate(whole):
        joined = np.concatenate([share[place].rows for share in shares])
        assert sorted(joined) == expected.rows.tolist()
        values = np.concatenate([share[place].values for share in shares])[np.argsort(joined)]
        assert np.allclose(values, expected.values, atol=1e-6)


class Alone(World):
    """A rank that hears nobody else."""

    def gather(self, value: object) -> list:
        return [value]


def test_the_order_does_not_matter() -> None:
    learner, rows = toy.learner(), toy.examples(13)
    there = score(learner, source(rows), World(), 100)
    back = score(learner, source(rows[::-1]), World(), 100)
    assert all(close(a, b) for a, b in zip(there, back))


class Memory:
    """Tokens of running text held in memory."""

    def __init__(self, tokens: np.ndarray, documents: list[int]):
        self.total, self.documents, self._tokens = len(tokens), np.array(documents), tokens

    def read(self, start: int, stop: int) -> np.ndarray:
        return self._tokens[start:stop]


@pytest.mark.parametrize("context", [2, 5, 7, 20, 24])
def test_windows_predict_every_token_but_the_first_once(context: int) -> None:
    tokens = np.arange(1, 48)
    windows = Windows(Memory(tokens, [0, 20, 47]), context)
    read, predicted = [], []
    for index in range(len(windows)):
        example = windows.example(index)
        read += example.sequences[0].tolist()
        predicted += [*example.sequences[0][1:].tolist(), example.following]
    assert read == tokens[:-1].tolist() and predicted == tokens[1:].tolist()
    assert windows.tokens == len(read)


def test_windows_of_documents_never_look_across() -> None:
    """A document is predicted from its first token on, from nothing but the end of the one before."""
    borders = [0, 20, 21, 47]
    windows = Windows(Memory(np.arange(1, 48), borders), 8, "document")
    predicted = []
    for index in range(len(windows)):
        example = windows.example(index)
        first, last = int(example.sequences[0][0]), int(example.following)
        assert not [border for border in borders if first < border < last - 1], "tokens of one document"
        predicted += [*example.sequences[0][1:].tolist(), last]
    assert predicted == [*range(2, 48)]
    assert windows.tokens == len(predicted)


def test_bits_per_byte_do_not_depend_on_the_context_windows_only_on_the_text() -> None:
    learner = toy.learner()
    tokens = np.arange(1, 48)
    scores = score(learner, Windows(Memory(tokens, [0, 47]), 12), World(), 100)[1]
    metrics = summarise(learner.objectives[1], scores, (), 94)
    assert scores.counts.sum() == 46
    assert metrics["bits_per_byte"] == pytest.approx(scores.values.sum() / np.log(2) / 94)
