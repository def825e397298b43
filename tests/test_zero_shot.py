"""Zero-shot and few-shot scoring: the figures are those of a slow loop over tokens, and what is said of
them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from made_up_probes import TEXTS, expected, question
from scipy.stats import binomtest
from sklearn.metrics import matthews_corrcoef

from gradus.core.errors import UserError
from gradus.core.model import ModelConfig
from gradus.data.templates import filled, names_in
from gradus.distributed.world import World
from gradus.evaluation.prompts import SEPARATOR, Asked, Asker
from gradus.evaluation.shots import shots_said
from gradus.evaluation.statistics import matthews, matthews_interval, wilson_interval
from gradus.evaluation.zero_shot import answer_nats, best_threshold, line, verdict
from gradus.nn.transformer import Transformer
from gradus.tokenizers import BytePairTokenizer, Tokenizer

CONTEXT = 24


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return BytePairTokenizer(vocab_size=420).build(TEXTS)


@pytest.fixture(scope="module")
def transformer(tokenizer: Tokenizer) -> Transformer:
    config = ModelConfig(layers=2, width=16, heads=2, context=CONTEXT, vocab_size=tokenizer.size)
    return Transformer(config, torch.float64).initialise(3).eval()


@pytest.fixture(scope="module")
def asker(tokenizer: Tokenizer) -> Asker:
    return Asker(tokenizer, CONTEXT, tokenizer.role("end"))


QUESTIONS = [
    question("The film is very", " good", " bad", " good good, very good"),
    question("这部电影很", "好看", "难看。", "好"),
    question("", "A", "电"),
    question("The book is very bad. 这部电影很好看。" * 6, " good", " bad"),
    question("上午好", "。", "。。", "。。。"),
]


def test_scores_are_those_of_a_loop_over_tokens(asker: Asker, transformer: Transformer) -> None:
    with torch.no_grad():
        found = answer_nats(transformer, asker.ask(QUESTIONS), World(), 100)
        for one, nats in zip(QUESTIONS, found):
            assert np.allclose(-nats, expected(one, asker, transformer), rtol=1e-9, atol=1e-9), one.prompt


@pytest.mark.parametrize("budget", [1, 40, 10_000])
def test_the_batch_size_does_not_matter(budget: int, asker: Asker, transformer: Transformer) -> None:
    asked = asker.ask(QUESTIONS)
    whole = answer_nats(transformer, asked, World(), 200)
    parts = answer_nats(transformer, asked, World(), budget)
    assert all(np.allclose(a, b, rtol=1e-12) for a, b in zip(whole, parts))


class Ranks(World):
    """A rank whose fellows have sent what `heard` holds; nothing arrives before the last has sent its own."""

    heard: list[list[Any]] = []

    def gather(self, value: Any) -> list[Any]:
        Ranks.heard.append(value)
        return list(Ranks.heard) if len(Ranks.heard) == self.size else []


def test_ranks_share_the_rows(asker: Asker, transformer: Transformer) -> None:
    asked = asker.ask(QUESTIONS)
    whole = answer_nats(transformer, asked, World(), 200)
    Ranks.heard = []
    for rank in range(3):
        shared = answer_nats(transformer, asked, Ranks(rank, 3), 200)
    assert len(shared) == len(whole)
    assert all(np.allclose(a, b, rtol=1e-12) for a, b in zip(whole, shared))


def test_answers_that_read_the_same_share_a_sequence(asker: Asker) -> None:
    (one,) = asker.ask([question("The film is very", " good", " bad")])
    assert one.lengths.tolist() == [1, 1] and len(one.example.sequences) == 1
    (longer,) = asker.ask([question("上午好", "。", "。。", "。。。")])
    assert longer.lengths.tolist() == [1, 2, 3] and len(longer.example.sequences) == 1
    (other,) = asker.ask([question("上午好", "。A", "A。")])
    assert len(other.example.sequences) == 2


def spoken(asked: Asked, asker: Asker) -> list[str]:
    """The text that is scored of each answer."""
    values = asked.targets.value
    return [
        asker.tokenizer.decode(values[asked.answer == number])  # type: ignore[attr-defined]
        for number in range(len(asked.lengths))
    ]


def test_text_is_tokenised_whole(asker: Asker, tokenizer: Tokenizer) -> None:
    joint = tokenizer.encode(["这部电影很好看"])[0].tolist()
    apart = tokenizer.encode(["这部电影很"])[0].tolist() + tokenizer.encode(["好看"])[0].tolist()
    assert joint != apart, "the tokenizer of this test must have a token across the border"
    (one,) = asker.ask([question("这部电影很", "好看", "X")])
    first, second = spoken(one, asker)
    assert first.endswith("好看") and second.endswith("X") and first != "好看"
    assert first.removesuffix("好看") == second.removesuffix("X"), "the same beginning is scored for both"


def test_the_head_of_the_prompt_is_cut_and_counted(asker: Asker, tokenizer: Tokenizer) -> None:
    prompt = "这部电影很好看。The film is very good. " * 5 + "It is"
    (one,) = asker.ask([question(prompt, " good", " very very bad")])
    size = max(len(tokenizer.encode([prompt + answer])[0]) for answer in (" good", " very very bad"))
    assert one.example.truncated == size - CONTEXT > 0
    assert all(sequence[0] == asker.opening for sequence in one.example.sequences)
    assert max(map(len, one.example.sequences)) == CONTEXT
    assert spoken(one, asker) == [" good", " very very bad"]


def test_an_answer_is_never_cut(asker: Asker) -> None:
    with pytest.raises(UserError, match=r"rows.tsv:7: an answer has \d+ tokens, the context holds 24"):
        asker.ask([question("It is", " good" * 40, " bad")])
    with pytest.raises(UserError, match="rows.tsv:7: there is nothing to score"):
        asker.ask([question("It is", "", " bad")])


def test_texts_alone_are_scored_from_their_first_token(asker: Asker, transformer: Transformer) -> None:
    texts = ["The film is good.", "电影", "这部电影很好看。" * 20]
    asked = asker.read([question("", text) for text in texts])
    assert [one.example.truncated > 0 for one in asked] == [False, False, True]
    found = answer_nats(transformer, asked, World(), 100)
    with torch.no_grad():
        for text, nats in list(zip(texts, found))[:2]:
            assert np.allclose(-nats, expected(question("", text), asker, transformer), rtol=1e-9)
    assert asked[2].lengths.tolist() == [CONTEXT]


def test_shots_that_do_not_fit_are_left_out_whole(asker: Asker) -> None:
    shots = tuple(f"The film is {word}{SEPARATOR}" for word in ("good", "bad", "very bad", "very good"))
    few, whole = asker.ask(
        [question("It is", " good", " bad", shots=shots), question("", "A", "B", shots=shots[:1])]
    )
    assert 0 < few.shots < 4 and whole.shots == 1
    text = asker.tokenizer.decode(few.example.sequences[0][1:])  # type: ignore[attr-defined]
    assert text == "".join(shots[4 - few.shots :]) + "It is" and few.example.truncated == 0


def test_prompts_name_columns() -> None:
    assert names_in("{标题}: {text} {{x}} {text}") == ["标题", "text"]
    assert filled("{标题}: {{{text}}}", {"标题": "好", "text": "{a}"}) == "好: {{a}}"
    for bad in ("{text", "text}", "{}", "{a}} b"):
        with pytest.raises(ValueError, match="brace"):
            names_in(bad)


def test_intervals_and_matthews_are_those_of_others() -> None:
    for right, rows in ((0, 10), (10, 10), (457, 872), (1, 2)):
        interval = binomtest(right, rows).proportion_ci(method="wilson")
        assert np.allclose(wilson_interval(right, rows), (interval.low, interval.high), atol=1e-9)
    random = np.random.default_rng(1)
    truth, guess = random.random(200) < 0.7, random.random(200) < 0.5
    guess |= truth & (random.random(200) < 0.4)
    cells = [int((guess & truth).sum()), int((guess & ~truth).sum()),
             int((~guess & truth).sum()), int((~guess & ~truth).sum())]  # fmt: skip
    assert np.isclose(matthews(*cells), matthews_corrcoef(truth, guess))
    assert matthews(5, 5, 0, 0) == 0 == matthews(0, 0, 0, 0)
    low, high = matthews_interval(cells)
    drawn = [random.integers(0, 200, 200) for _ in range(1000)]
    slow = np.percentile([np.corrcoef(truth[rows], guess[rows])[0, 1] for rows in drawn], [2.5, 97.5])
    assert np.allclose((low, high), slow, atol=0.02)
    assert matthews_interval(cells) == (low, high) != matthews_interval(cells, key=("other",))


def test_the_threshold_is_the_best_of_all() -> None:
    random = np.random.default_rng(2)
    for rows in (2, 3, 40):
        truth = np.arange(rows) % 3 > 0
        scores = np.round(random.normal(size=rows) + truth, 1)
        found = best_threshold(scores, truth)
        every = [matthews_corrcoef(truth, scores > border) for border in np.unique(scores)]
        assert np.isclose(matthews_corrcoef(truth, scores > found), max(every))
    assert best_threshold(np.array([1.0, 1.0]), np.array([True, False])) == 1.0


def test_a_threshold_is_never_worse_than_one_class_for_all() -> None:
    for truth in ([True, True, False], [True, False, False], [True, False]):
        likely = np.array(truth)  # the likelier the text, the less it is of the likely class
        scores = np.arange(len(truth)) - 5.0
        borders = scores[:-1] + 0.5
        assert max(matthews_corrcoef(likely, scores > border) for border in borders) < 0
        named = scores > best_threshold(scores, likely)
        assert named.tolist() == [likely.mean() > 0.5] * len(truth), "the class of most rows, for all"
    random = np.random.default_rng(3)
    for _ in range(200):
        scores, likely = random.integers(-4, 0, 5) * 1.0, np.append(random.random(3) < 0.5, [True, False])
        found = best_threshold(scores, likely)
        every = [matthews_corrcoef(likely, scores > border) for border in (-9, *np.unique(scores))]
        assert np.isfinite(found) and np.isclose(matthews_corrcoef(likely, scores > found), max(every))


def test_what_a_person_reads() -> None:
    figures = {"low": 0.476, "high": 0.5422, "chance": 0.5, "majority": 0.5092, "most_named": 1.0, "shots": 8}
    found = {"name": "sst2", "split": "dev", "metric": "accuracy", "verdict": "at chance",
             "metrics": {"accuracy": 0.50917, **figures}}  # fmt: skip
    assert line(found) == (
        "zero-shot sst2 (dev, 8 shots): accuracy 0.5092 [0.4760, 0.5422], chance 0.5000, majority 0.5092: "
        "at chance, the same answer for every row"
    )
    found["metrics"] = {"matthews": 0.1, **figures, "shots": 0, "most_named": 0.9}
    shown = line(found | {"metric": "matthews", "verdict": "above chance"})
    assert shown == "zero-shot sst2 (dev): matthews 0.1000 [0.4760, 0.5422], chance 0.5000: above chance"


def test_shots_that_were_not_shown_are_not_claimed() -> None:
    def said(shots: int, shown: float | None = None) -> str:
        return shots_said({"shots": shots} | ({} if shown is None else {"shots_shown": shown}))

    assert said(0, 0.0) == said(0) == ""
    assert said(3, 3.0) == said(3) == "3 shots" and said(1, 1.0) == "1 shot"
    assert said(3, 0.4) == "3 shots, 0.4 shown"
    assert said(3, 0.0) == "zero-shot: none of 3 shots shown"
    assert said(3, 0.004) == "3 shots, 0.004 shown", "some are not none"
    assert said(3, 2.996) == "3 shots, 2.996 shown", "nor all"
    assert said(8, 1 / 3) == "8 shots, 0.3 shown"


def test_verdicts() -> None:
    figures = {"low": 0.48, "high": 0.55, "chance": 0.5, "majority": 0.6}
    assert verdict("accuracy", figures) == "at chance"
    assert verdict("accuracy", figures | {"low": 0.3, "high": 0.4}) == "below chance"
    assert (
        verdict("accuracy", figures | {"low": 0.55, "high": 0.62}) == "above chance, not above the majority"
    )
    assert verdict("accuracy", figures | {"low": 0.61, "high": 0.7}) == "above chance"
    assert verdict("matthews", figures | {"chance": 0.0}) == "above chance"
