"""Exact match and F1 of answers out of a text, against the published scripts' algorithms written out here."""

from __future__ import annotations

import re
import string
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradus.evaluation.floors import span_floors
from gradus.evaluation.spans import span_metrics, span_scores

ENGLISH, CHINESE = "Some plain English text.", "三国时期，赤壁之战发生在建安十三年。"


def squad(right: str, predicted: str) -> tuple[float, float]:
    """evaluate-v2.0.py: normalize_answer, compute_exact and compute_f1."""

    def normal(text: str) -> str:
        text = "".join(letter for letter in text.lower() if letter not in set(string.punctuation))
        return " ".join(re.sub(r"\b(a|an|the)\b", " ", text, flags=re.UNICODE).split())

    a, b = normal(right).split(), normal(predicted).split()
    exact = float(normal(right) == normal(predicted))
    if not a or not b:
        return exact, float(a == b)
    same = sum((Counter(a) & Counter(b)).values())
    if same == 0:
        return exact, 0.0
    precision, recall = same / len(b), same / len(a)
    return exact, 2 * precision * recall / (precision + recall)


MARKS = [
    "-", ":", "_", "*", "^", "/", "\\", "~", "`", "+", "=", "，", "。", "：", "？", "！", "“", "”", "；", "’",
    "《", "》", "……", "·", "、", "「", "」", "（", "）", "－", "～", "『", "』",
]  # fmt: skip


def cmrc(right: str, predicted: str) -> tuple[float, float]:
    """cmrc2018_evaluate.py: remove_punctuation, mixed_segmentation (with words between spaces for NLTK's) and
    find_lcs, a table of common substrings."""

    def units(text: str) -> list[str]:
        found, word = [], ""
        for letter in text.lower().strip():
            if letter in MARKS:
                continue
            if re.search("[\u4e00-\u9fa5]", letter):
                found, word = [*found, *word.split(), letter], ""
            else:
                word += letter
        return [*found, *word.split()]

    def bare(text: str) -> str:
        return "".join(letter for letter in text.lower().strip() if letter not in MARKS)

    a, b, most = units(right), units(predicted), 0
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i in range(len(a)):
        for j in range(len(b)):
            if a[i] == b[j]:
                table[i + 1][j + 1] = table[i][j] + 1
                most = max(most, table[i + 1][j + 1])
    if most == 0:
        return float(bare(right) == bare(predicted)), 0.0
    precision, recall = most / len(b), most / len(a)
    return float(bare(right) == bare(predicted)), 2 * precision * recall / (precision + recall)


words = st.lists(
    st.sampled_from(["the", "Cat", "cat's", "sat,", "An", "a", "mat", "theme", "10%", "猫"]), max_size=7
)
letters = st.text(st.sampled_from("曹操《》，·。在赤壁 A大b-"), min_size=1, max_size=12)


def test_an_answer_that_is_an_article_alone_makes_silence_right_only_where_it_stands_alone() -> None:
    """evaluate-v2.0.py keeps the answers of which something is left, and "" where there are none."""
    assert span_scores("", ["a", "a cat"], ENGLISH) == (0, 0)
    assert span_scores("", ["a"], ENGLISH) == span_scores("The", ["a"], ENGLISH) == (1, 1)


@given(words, words)
def test_english_is_scored_as_squad_does(right: list[str], predicted: list[str]) -> None:
    a, b = " ".join(right), " ".join(predicted)
    assert span_scores(b, [a], ENGLISH) == pytest.approx(squad(a, b))


@given(letters, letters)
def test_chinese_is_scored_as_cmrc_does(right: str, predicted: str) -> None:
    exact, f1 = cmrc(right, predicted)
    found = span_scores(predicted, [right], CHINESE)
    assert found[0] == exact
    if f1 or not exact:  # of nothing but marks on both sides it gives 0
        assert found[1] == pytest.approx(f1)


def test_what_differs_between_the_two() -> None:
    assert span_scores("赤壁之战", ["《赤壁之战》"], CHINESE) == (1.0, 1.0)
    assert span_scores("战之壁赤", ["赤壁之战"], CHINESE) == (0.0, pytest.approx(1 / 4))  # order counts
    assert span_scores("cat the sat", ["sat cat"], ENGLISH) == (0.0, 1.0)  # here it does not
    assert span_scores("13年", ["建安13年"], CHINESE)[1] == pytest.approx(2 * 2 / (2 + 4))
    assert span_scores("W. H. Auden", ["Auden, W. H."], CHINESE)[1] > 0  # English out of a Chinese text


def test_the_best_of_several_answers_counts_and_none_may_be_right() -> None:
    assert span_scores("赤壁", ["建安", "赤壁"], CHINESE) == (1.0, 1.0)
    assert span_scores("the mat", ["a cat on a mat", "mat"], ENGLISH) == (1.0, 1.0)
    for context in (ENGLISH, CHINESE):
        assert span_scores("", [], context) == (1.0, 1.0)
        assert span_scores("赤壁 cat", [], context) == (0.0, 0.0) == span_scores("", ["赤壁 cat"], context)
    rows = ["赤壁", "", "cat"], [["赤壁"], [], ["the cats"]], [CHINESE, ENGLISH, ENGLISH]
    assert span_metrics(*rows) == {"exact_match": pytest.approx(2 / 3), "f1": pytest.approx(2 / 3)}


def test_the_floor_answers_with_the_sentence_most_like_the_question() -> None:
    context = "曹操引军北还。周瑜在赤壁大破曹操！时在冬十二月。"
    floors = span_floors(["周瑜在哪里大破曹操？"], [context], [["赤壁"]])
    assert floors == {"word_overlap": {"exact_match": 0.0, "f1": pytest.approx(2 * 2 / (2 + 9))}}
    english = "Cats sleep. Dogs run in parks. Birds sing"
    floors = span_floors(["Where do dogs run?", "Why?"], [english] * 2, [["Dogs run in parks"], []])
    assert floors["word_overlap"]["exact_match"] == 0.5 and floors["no_answer"]["f1"] == 0.5
