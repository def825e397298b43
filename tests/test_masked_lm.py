"""masked_lm: how many are chosen and what becomes of them, whole words, spans, keys, and the laws with
corruption on.

Shapes: V vocabulary, T tokens.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
import torch
import toy
from test_laws import farthest, gradients

from gradus.core.errors import UserError
from gradus.core.example import Example
from gradus.core.keyed import keyed_generator
from gradus.core.sentences import SentenceEnds
from gradus.core.words import WordEdges
from gradus.data.sources import Rows
from gradus.distributed.world import World
from gradus.evaluation.evaluator import score, summarise_all
from gradus.nn.transformer import Transformer
from gradus.objectives import MaskedLMConfig, NextSentenceConfig, Task
from gradus.objectives.masked_lm import MaskedLM
from gradus.training.learner import Learner

V, ROLES = toy.VOCABULARY, {"start": 0, "delimiter": 1, "end": 2, "mask": 3}
SPECIAL = np.array(sorted(ROLES.values()))
BEGINS = np.arange(V) % 3 == 0
"""Every third token begins a word; none says where one ends."""


@dataclass(frozen=True)
class Tokens:
    """What an objective asks of a tokenizer."""

    ids: dict[str, int]
    word_edges: WordEdges
    size: int = V
    sentence_ends: SentenceEnds = SentenceEnds()

    @property
    def roles(self) -> dict[str, str]:
        return {name: f"<{name}>" for name in self.ids}

    def role(self, name: str) -> int:
        if name not in self.ids:
            raise UserError(f"the tokenizer has no token for the role {name!r}")
        return self.ids[name]


KNOWN = Tokens(ROLES, WordEdges(BEGINS, np.zeros(V, dtype=bool)))
SHAPE = {
    "arrangement": "encoder",
    "segments": 2,
    "pooler": True,
    "output_transform": True,
    "output_bias": True,
}


def objective(**options: Any) -> MaskedLM:
    return MaskedLMConfig(**options).build(Task(toy.model(**SHAPE), "toy", vocabulary=KNOWN))


def text(length: int, row: int = 0) -> Example:
    """A window between start and end, with a delimiter in the middle."""
    ids = keyed_generator("text", row, length).integers(len(ROLES), V, length)
    ids[[0, length // 2, -1]] = 0, 1, 2
    return Example(row, (ids,), segments=((np.arange(length) > length // 2).astype(np.int64),))


def corrupted(example: Example, how: MaskedLM, *key: object) -> Example:
    return how.corrupt(example, keyed_generator("corrupt", how.name, *key, example.row))


def many(how: MaskedLM, count: int = 200, length: int = 103) -> list[tuple[Example, Example]]:
    texts = [text(length, row) for row in range(count)]
    return [(one, corrupted(one, how, 1, 0)) for one in texts]


def within(found: float, expected: float, count: int) -> bool:
    """Whether a share of `count` draws lies within 3 standard deviations."""
    return abs(found - expected) <= 3 * math.sqrt(expected * (1 - expected) / count)


@pytest.mark.parametrize("length", [4, 5, 9, 10, 103])
@pytest.mark.parametrize("unit", ["token", "span"])
def test_exactly_the_rounded_share_is_chosen_and_one_at_least(length: int, unit: str) -> None:
    for share in (0.01, 0.15, 0.4, 1.0):
        before = text(length)
        index, truth = corrupted(before, objective(share=share, unit=unit)).chosen
        assert len(index) == max(1, round(share * (length - 3)))
        assert np.array_equal(before.sequences[0][index], truth)
        assert not np.isin(truth, SPECIAL).any() and len(set(index.tolist())) == len(index)


def test_eight_of_ten_are_masked_one_is_another_and_one_stays() -> None:
    seen, truth = (np.concatenate(column) for column in zip(*(
        (after.sequences[0][after.chosen[0]], after.chosen[1]) for _, after in many(objective(), 400)
    )))  # fmt: skip
    count, ordinary = len(truth), V - len(ROLES)
    assert count == 400 * 15
    assert within((seen == ROLES["mask"]).mean(), 0.8, count)
    assert within((seen == truth).mean(), 0.1 + 0.1 / ordinary, count)
    others = seen[(seen != truth) & (seen != ROLES["mask"])]
    assert within(len(others) / count, 0.1 * (1 - 1 / ordinary), count)
    assert not np.isin(others, SPECIAL).any() and len(set(others.tolist())) == ordinary


def test_positions_are_chosen_evenly() -> None:
    counts = np.zeros(103)
    for _, after in many(objective(), 1000):
        counts[after.chosen[0]] += 1
    open_places = np.delete(counts, [0, 51, 102])
    share, deviation = 0.15, math.sqrt(0.15 * 0.85 * 1000)
    assert counts[[0, 51, 102]].sum() == 0 and open_places.sum() == 15 * 1000
    assert (np.abs(open_places - share * 1000) < 4.5 * deviation).all()


def test_the_shares_are_the_users() -> None:
    for _, after in many(objective(masked=1, random=0), 20):
        assert (after.sequences[0][after.chosen[0]] == ROLES["mask"]).all()
    for before, after in many(objective(masked=0, random=0), 20):
        assert np.array_equal(before.sequences[0], after.sequences[0]) and len(after.chosen[0]) == 15
    with pytest.raises(ValueError, match="more than all of the chosen"):
        MaskedLMConfig(masked=0.8, random=0.3)


def words_of(example: Example) -> list[list[int]]:
    """The words by hand: a token that begins one, and those behind it up to the next or to a role."""
    found: list[list[int]] = []
    going = False
    for place, token in enumerate(example.sequences[0].tolist()):
        if token in SPECIAL:
            going = False
        elif going and not BEGINS[token]:
            found[-1].append(place)
        else:
            found.append([place])
            going = True
    return found


def test_whole_words_are_whole() -> None:
    total = 0
    for before, after in many(objective(unit="word")):
        chosen = set(after.chosen[0].tolist())
        for word in words_of(before):
            assert set(word) <= chosen or not set(word) & chosen
        total += len(chosen)
        assert len(chosen) <= 15
    assert total > 0.98 * 200 * 15
    long = np.array([0, *[4] * 20, 2])  # one word of twenty tokens
    assert len(corrupted(Example(0, (long,)), objective(unit="word")).chosen[0]) == 20


def test_spans_are_runs_of_words_with_geometric_lengths() -> None:
    """Joshi et al. 2020, 3.1: p = 0.2, at most 10, a mean of 3.8 words; one fate a span."""
    how = objective(unit="span", masked=0.5, random=0.0)
    assert abs(float(how.length_odds @ np.arange(1, 11)) - 3.8) < 0.01
    for row in range(100):
        before, random = text(103, row), keyed_generator("spans", row)
        tokens, words = before.sequences[0], words_of(before)
        index, group = how._chosen(before, tokens, random)
        first_places = {word[0] for word in words}
        for run in np.split(index, np.flatnonzero(np.diff(index) > 1) + 1):
            assert run[0] in first_places
        shown = how._shown(tokens[index], group, random)
        for span in set(group.tolist()):
            assert len(set((shown == ROLES["mask"])[group == span].tolist())) == 1
    alone = replace(KNOWN, word_edges=WordEdges(np.ones(V, dtype=bool), np.ones(V, dtype=bool)))
    task = Task(toy.model(**SHAPE), "toy", vocabulary=alone)
    single = MaskedLMConfig(unit="span", share=0.0001).build(task)
    assert len(corrupted(text(200), single).chosen[0]) == 1
    random, lengths = keyed_generator("spans"), []
    for _ in range(3000):
        index, group = single._spans([np.array([at]) for at in range(400)], 10, random)
        lengths.append(int((group == 0).sum()) if index[group == 0].max() < 395 else 0)
    kept = np.array([length for length in lengths if length])
    for length in (1, 2, 5):
        assert within((kept == length).mean(), float(single.length_odds[length - 1]), len(kept))


def test_a_word_ends_with_its_sequence() -> None:
    parts = (np.array([6, 4, 4]), np.array([4, 4, 7]))
    how = objective(unit="word", share=0.5)
    words = how._words(Example(0, parts), np.concatenate(parts), np.arange(6))
    assert [word.tolist() for word in words] == [[0, 1, 2], [3, 4, 5]]


def test_the_key_decides_and_static_asks_for_the_row_alone() -> None:
    learner = built()
    first = learner.corrupted(text(60), 7, 0)
    assert np.array_equal(first.sequences[0], learner.corrupted(text(60), 7, 0).sequences[0])
    for key in ((7, 1), (8, 0)):
        assert not np.array_equal(first.chosen[0], learner.corrupted(text(60), *key).chosen[0])
    still = built(draw="static")
    before = still.corrupted(text(60), 7, 0)
    after = still.corrupted(text(60), 8, 3)
    assert np.array_equal(before.sequences[0], after.sequences[0])
    assert not np.array_equal(before.chosen[0], still.corrupted(text(60, row=1), 7, 0).chosen[0])


def built(dropout: float = 0.0, dtype: torch.dtype = torch.float64, **options: Any) -> Learner:
    shape = toy.model(dropout, **SHAPE).model_copy(update={"context": 64})
    task = Task(shape, "toy", vocabulary=KNOWN)
    objectives = [MaskedLMConfig(**options).build(task), NextSentenceConfig().build(task)]
    return Learner(Transformer(shape, dtype), objectives).initialise(1).to(dtype)


def rows(count: int = 8) -> list[Example]:
    """Windows of many lengths, some without a label."""
    return [replace(text(5 + 6 * row, row), label=None if row % 4 == 3 else row % 2) for row in range(count)]


@pytest.mark.parametrize("unit", ["token", "word", "span"])
def test_law_1_any_cut_gives_the_same_gradient(unit: str) -> None:
    learner = built(unit=unit)
    examples = [learner.corrupted(row, 1, 0) for row in rows()]
    whole = gradients(learner, [examples])
    for size in (1, 2, 3):
        parts = [examples[start : start + size] for start in range(0, 8, size)]
        assert farthest(whole, gradients(learner, parts)) < 1e-12


def test_law_1_the_sum_is_the_plain_formula() -> None:
    learner = built()
    examples = [learner.corrupted(row, 1, 0) for row in rows(4)]
    by_hand = 0.0
    for example in examples:
        index, truth = example.chosen
        states = learner.transformer(learner.prepare([example]).source)[torch.from_numpy(index)]
        scores = learner.transformer.logits(states)
        nats = torch.nn.functional.cross_entropy(scores, torch.from_numpy(truth), reduction="sum")
        by_hand += float(nats.detach())
    assert float(learner(learner.prepare(examples))[0].detach()) == pytest.approx(by_hand, rel=1e-12)


def test_accuracy_is_the_share_of_hidden_tokens_that_are_the_likeliest() -> None:
    windows = [replace(row, label=row.row % 2) for row in rows()]
    learner = built(share=0.4)
    list(toy.trainer(learner, windows, total=8 * 20, budget=500).steps(toy.always))
    learner.eval()
    right: list[bool] = []
    for window in windows:
        example = learner.corrupted(window, "evaluate", 0)
        index, truth = example.chosen
        with torch.no_grad():
            states = learner.transformer(learner.prepare([example]).source)[torch.from_numpy(index)]
        right += (learner.transformer.logits(states).argmax(1).numpy() == truth).tolist()
    assert 0 < np.mean(right) < 1
    for budget in (1, 90, 10_000):
        found = score(learner, Rows(windows, ()), World(), budget)
        hidden, pairs = learner.objectives
        metrics = summarise_all(learner.objectives, found, hidden, (), None)
        assert metrics["accuracy"] == pytest.approx(np.mean(right))
        beside = summarise_all(learner.objectives, found, pairs, (), None)
        assert beside["masked_lm.accuracy"] == metrics["accuracy"]


def test_nothing_to_choose_gives_zero_with_a_gradient() -> None:
    learner = built()
    for unit in ("token", "word", "span"):
        bare = corrupted(Example(0, (np.array([0, 1, 2]),)), objective(unit=unit))
        assert len(bare.chosen[0]) == 0
        sums = learner(learner.prepare([bare]))
        assert sums.tolist() == [0, 0]
        sums.sum().backward()
    assert float(learner.transformer.output_transform.dense.weight.grad.abs().max()) == 0


def test_hidden_tokens_leak_nothing() -> None:
    """Two texts that differ in what the mask hides have the same states, and every state sees what is not
    hidden."""
    learner = built(masked=1, random=0).eval()
    before = text(60)
    after = learner.corrupted(before, 1, 0)
    index = after.chosen[0]
    other = before.sequences[0].copy()
    other[index] = len(ROLES) + (other[index] - len(ROLES) + 1) % (V - len(ROLES))
    changed = learner.corrupted(replace(before, sequences=(other,)), 1, 0)
    assert np.array_equal(changed.chosen[0], index) and not np.array_equal(changed.chosen[1], after.chosen[1])
    with torch.no_grad():
        states = [learner.transformer(learner.prepare([one]).source) for one in (after, changed)]
        assert torch.equal(*states)
        seen = after.sequences[0].copy()
        open_place = next(place for place in range(1, 59) if place not in index and place != 30)
        seen[open_place] = 4 + (seen[open_place] - 3) % (V - 4)
        moved = learner.transformer(learner.prepare([replace(after, sequences=(seen,))]).source)
    assert float((moved - states[0])[:60].abs().amax(1).min()) > 0


def test_a_batch_is_learnt_by_heart() -> None:
    windows = [replace(text(20, row), label=row % 2) for row in range(8)]
    learner = built(draw="static")
    trainer = toy.trainer(learner, windows, batch=8, total=8 * 150, budget=80)
    reports = list(trainer.steps(toy.always))
    assert reports[0].losses["masked_lm"] > 3 and reports[0].losses["next_sentence"] > 0.5
    assert reports[-1].losses["masked_lm"] < 0.1 and reports[-1].losses["next_sentence"] < 0.1


def test_a_vocabulary_without_a_mask_is_told() -> None:
    task = Task(toy.model(**SHAPE), "toy", vocabulary=replace(KNOWN, ids={"start": 0}))
    with pytest.raises(UserError, match="no token for the role 'mask'"):
        corrupted(text(20), MaskedLMConfig().build(task))
