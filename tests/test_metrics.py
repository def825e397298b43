"""Metrics against their formulas, floors against counting by hand, and what the paired test may claim."""

from __future__ import annotations

import math
import os
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradus.core.errors import UserError
from gradus.core.keyed import keyed_generator
from gradus.core.scripts import without_spaces
from gradus.evaluation.floors import classification_floors, unigram_floor
from gradus.evaluation.metrics import (
    LARGER_IS_BETTER,
    better,
    classification_metrics,
    language_metrics,
    larger_is_better,
    per_class,
)
from gradus.evaluation.statistics import deviation, mean, paired_bootstrap, verdict

LABELS = ["差评", "中评", "好评"]
indices = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=40)


@given(indices)
@settings(max_examples=60, deadline=None)
def test_classification_metrics_follow_their_formulas(rows: list[tuple[int, int]]) -> None:
    truth, guess = (np.array(column) for column in zip(*rows))
    scores = classification_metrics(truth, guess, None, LABELS)
    assert scores["accuracy"] == pytest.approx(np.mean(truth == guess))
    occurring = sorted({*truth.tolist(), *guess.tolist()})
    f1 = [
        2 * np.sum((truth == k) & (guess == k)) / (np.sum(truth == k) + np.sum(guess == k)) for k in occurring
    ]
    assert scores["macro_f1"] == pytest.approx(np.mean(f1))
    x, y = np.eye(3)[truth] - np.eye(3)[truth].mean(0), np.eye(3)[guess] - np.eye(3)[guess].mean(0)
    scale = math.sqrt((x * x).sum() * (y * y).sum())
    assert scores["matthews"] == pytest.approx((x * y).sum() / scale if scale > 1e-12 else 0.0, abs=1e-9)


@given(indices)
@settings(max_examples=40, deadline=None)
def test_per_class_agrees_with_the_confusion(rows: list[tuple[int, int]]) -> None:
    truth, guess = zip(*rows)
    found = per_class(truth, guess, LABELS)
    confusion = np.array(found["confusion"])
    assert confusion.sum() == len(rows) and [entry["label"] for entry in found["classes"]] == LABELS
    for k, entry in enumerate(found["classes"]):
        assert entry["support"] == confusion[k].sum()
        assert entry["recall"] == pytest.approx(confusion[k, k] / max(1, confusion[k].sum()))
        assert entry["precision"] == pytest.approx(confusion[k, k] / max(1, confusion[:, k].sum()))


def test_calibration_error() -> None:
    sure = np.array([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    assert classification_metrics([0, 0, 0, 1], [0] * 4, sure, LABELS[:2])[
        "calibration_error"
    ] == pytest.approx(0.25)
    assert classification_metrics([0] * 4, [0] * 4, sure, LABELS[:2])["calibration_error"] == 0.0
    mixed = np.array([[0.9, 0.1]] * 10 + [[0.4, 0.6]] * 10)
    truth, guess = [0] * 9 + [1] + [1] * 6 + [0] * 4, [0] * 10 + [1] * 10
    assert classification_metrics(truth, guess, mixed, LABELS[:2])["calibration_error"] == pytest.approx(
        0.0, abs=1e-12
    )


def test_language_metrics() -> None:
    found = language_metrics(nats=300 * math.log(2), tokens=100, bytes=len(("字" * 50).encode()))
    assert found["loss"] == pytest.approx(3 * math.log(2)) and found["perplexity"] == pytest.approx(8.0)
    assert found["bits_per_byte"] == pytest.approx(2.0)
    assert language_metrics(1e6, 1, 1)["perplexity"] == math.inf
    with pytest.raises(UserError, match="text to score is empty"):
        language_metrics(0.0, 0, 0)


def test_what_cannot_be_scored() -> None:
    with pytest.raises(UserError, match="no rows"):
        classification_metrics([], [], None, LABELS)
    with pytest.raises(ValueError, match="below the number of labels"):
        classification_metrics([3], [0], None, LABELS)
    with pytest.raises(ValueError, match="one index a row"):
        per_class([0, 1], [0], LABELS)


def test_better_knows_the_direction() -> None:
    assert better("accuracy", 0.8, 0.7) and not better("accuracy", 0.7, 0.7)
    assert better("loss", 0.7, 0.8) and better("bits_per_byte", 1.0, 1.1) and not better("perplexity", 9, 8)
    for metric in LARGER_IS_BETTER:
        assert better(metric, 0.5, math.nan) and not better(metric, math.nan, 0.5)
    with pytest.raises(UserError, match="did you mean 'accuracy'"):
        larger_is_better("acuracy")


def test_floors_of_words() -> None:
    train = ["good good film", "a good book", "bad film", "bad bad book", "a GOOD one", "it's fine"]
    marks = ["pos", "pos", "neg", "neg", "pos", "pos"]
    floors = classification_floors(
        train, marks, ["Good", "bad", "bad book", "unseen words"], ["pos", "neg", "neg", "neg"]
    )
    assert floors["majority"] == {"accuracy": 0.25, "macro_f1": pytest.approx(0.2), "matthews": 0.0}
    assert floors["naive_bayes"]["accuracy"] == 0.75  # unseen words leave the prior, which says "pos"


def test_naive_bayes_by_hand() -> None:
    train, marks = ["x x y", "y z", "z z z"], ["b", "a", "a"]
    words, counts = ["x", "y", "z"], {"a": np.array([0, 1, 4]), "b": np.array([2, 1, 0])}
    prior = {"a": 2 / 3, "b": 1 / 3}
    texts = [" ".join(some) for some in product(words, repeat=3)]
    said = []
    for text in texts:
        seen = np.array([text.split().count(word) for word in words])
        score = {k: math.log(prior[k]) + seen @ np.log((counts[k] + 1) / (counts[k].sum() + 3)) for k in "ab"}
        said.append(max("ab", key=lambda k: score[k]))
    assert classification_floors(train, marks, texts, said)["naive_bayes"]["accuracy"] == 1.0


def test_floors_of_characters() -> None:
    train = ["这本书很好", "非常好看！", "太难看了", "难看，浪费时间 and money", "好书", "不好看，难看"]
    marks = ["1", "1", "0", "0", "1", "0"]
    assert without_spaces(train) and without_spaces(["カタカナ と ひらがな"])
    assert not without_spaces(["plain English, 一些字"]) and not without_spaces(["한국어 문장은 띄어 씁니다"])
    assert not without_spaces(["123 !?"])
    floors = classification_floors(train, marks, ["好书！", "难看"], ["1", "0"])
    assert floors["naive_bayes"]["accuracy"] == 1.0 and floors["majority"]["accuracy"] == 0.5


def test_floors_of_odd_rows() -> None:
    floors = classification_floors([" ", ""], ["b", "a"], ["x"], ["a"])
    assert (
        floors["naive_bayes"] == floors["majority"] and floors["majority"]["accuracy"] == 1.0
    )  # a tie: first in order
    only_here = classification_floors(["a b", "c"], ["x", "y"], ["a"], ["z"])
    assert only_here["naive_bayes"]["accuracy"] == 0.0
    with pytest.raises(UserError, match="no train rows"):
        classification_floors([], [], ["a"], ["x"])


def test_unigram_floor() -> None:
    found = unigram_floor([6, 2, 0], [2, 1, 1], bytes=8)
    nats = -(2 * math.log(7 / 11) + math.log(3 / 11) + math.log(1 / 11))
    assert found["bits_per_byte"] == pytest.approx(nats / math.log(2) / 8) and found["loss"] == pytest.approx(
        nats / 4
    )
    chosen = unigram_floor([6, 2, 0], [2, 1, 1], bytes=None)
    assert chosen == {"loss": found["loss"], "perplexity": found["perplexity"], "accuracy": 0.5}
    uniform = unigram_floor(np.zeros(256), np.ones(256), bytes=256)
    assert uniform["bits_per_byte"] == pytest.approx(8.0)


def test_mean_and_deviation() -> None:
    assert mean([0.1] * 10) == 0.1 and deviation([0.1] * 10) == 0.0
    assert deviation([1.0, 2.0, 4.0]) == pytest.approx(np.std([1, 2, 4], ddof=1))
    assert deviation([0.5]) is None


def test_bootstrap_tells_what_is_there() -> None:
    rng = keyed_generator("rows")
    a, b = rng.random((3, 800)) < 0.85, rng.random((3, 800)) < 0.75
    found = paired_bootstrap(a, b, key=("x",))
    assert found["difference"] == pytest.approx(a.mean() - b.mean())
    assert 0 < found["low"] < found["difference"] < found["high"] and found["p"] < 0.001
    assert verdict(found) == "better"
    other = paired_bootstrap(b, a, key=("x",))
    assert verdict(other) == "worse" and other["difference"] == -found["difference"]
    assert paired_bootstrap(a, b, key=("x",)) == found != paired_bootstrap(a, b, key=("y",))


def test_bootstrap_interval_is_the_normal_one_on_many_rows() -> None:
    rng = keyed_generator("interval")
    a, b = rng.random((5, 4000)) < 0.8, rng.random((2, 4000)) < 0.79
    rows = a.mean(0) - b.mean(0)
    error = rows.std() / math.sqrt(rows.size)
    found = paired_bootstrap(a, b, samples=20_000)
    assert found["high"] - found["low"] == pytest.approx(2 * 1.96 * error, rel=0.04)
    z = rows.mean() / error
    assert found["p"] == pytest.approx(math.erfc(abs(z) / math.sqrt(2)), abs=0.03)


def test_bootstrap_is_not_fooled() -> None:
    same = np.ones((2, 50))
    assert paired_bootstrap(same, same)["p"] == 1.0 and verdict(paired_bootstrap(same, same)) == "cannot tell"
    few = paired_bootstrap([[1, 1, 1, 1]], [[0, 0, 0, 0]])
    assert few["p"] == 2.0**-3 and verdict(few) == "cannot tell"  # the bootstrap alone would be certain
    with pytest.raises(ValueError, match="same rows"):
        paired_bootstrap(np.ones((1, 4)), np.ones((1, 5)))
    with pytest.raises(ValueError, match="same rows"):
        paired_bootstrap(np.ones((1, 0)), np.ones((1, 0)))


def test_false_alarms_are_about_as_many_as_promised() -> None:
    alarms = 0
    for turn in range(300):
        rng = keyed_generator("alarm", turn)
        a, b = rng.random((1, 200)) < 0.7, rng.random((1, 200)) < 0.7
        alarms += verdict(paired_bootstrap(a, b, samples=1000, key=(turn,))) != "cannot tell"
    assert 4 <= alarms <= 30  # 15 expected


@pytest.mark.data
@pytest.mark.skipif("GRADUS_DATA" not in os.environ, reason="GRADUS_DATA names no folder of public data sets")
@pytest.mark.parametrize(
    ("name", "split", "text", "label", "header", "wanted"),
    [("SST2", "test", 0, 1, False, 0.82), ("book_review", "dev", 1, 0, True, 0.835)],
)
def test_floors_of_public_data(
    name: str, split: str, text: int, label: int, header: bool, wanted: float
) -> None:
    def read(part: str) -> tuple[list[str], list[str]]:
        lines = (
            (Path(os.environ["GRADUS_DATA"]) / name / f"{part}.tsv").read_text(encoding="utf-8").splitlines()
        )
        rows = [line.split("\t") for line in lines[1 if header else 0 :]]
        return [row[text] for row in rows], [row[label] for row in rows]

    floors = classification_floors(*read("train"), *read(split))
    assert floors["naive_bayes"]["accuracy"] == pytest.approx(wanted, abs=0.005)
    assert floors["majority"]["accuracy"] == pytest.approx(0.5, abs=0.02)
