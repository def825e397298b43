"""Noise by noise: how much of a text it strikes, what it leaves, and that the original is what is said."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from test_objectives import WORDS, shape
from words import STOP

from gradus.core.errors import UserError
from gradus.core.example import Example
from gradus.core.keyed import keyed_generator
from gradus.core.sentences import SentenceEnds
from gradus.objectives import DenoisingConfig, Task
from gradus.objectives.denoising import infilled, permuted_sentences, span_lengths, struck
from gradus.tokenizers import BytePairTokenizer, CharacterTokenizer, Tokenizer

MASK = 999
ENGLISH = 'He said "Go home." "Why?!" she asked... Nobody knew. The end'
CHINESE = "玄德曰：“备欲同往。”关公曰：“某亦愿往！”飞大叫：“何不早言？”三人遂行。"


def poisson(mean: float, value: int) -> float:
    return math.exp(-mean) * mean**value / math.factorial(value)


def test_span_lengths_are_poisson() -> None:
    """Of spans that were not cut to the sum: shares within three and a half standard deviations."""
    random = keyed_generator(1)
    found = np.concatenate([span_lengths(10_000, 0.3, 3.0, random)[:-1] for _ in range(20)])
    for value in range(8):
        expected = poisson(3.0, value)
        share = float((found == value).mean())
        assert abs(share - expected) < 3.5 * math.sqrt(expected * (1 - expected) / len(found)), value


@given(st.integers(1, 80), st.floats(0.05, 0.9), st.floats(0.5, 6), st.integers(0, 999))
def test_infilling_leaves_a_mask_a_span_and_the_rest_in_order(
    length: int, share: float, mean: float, key: int
) -> None:
    text = np.arange(length)
    found = infilled(text, share, mean, MASK, keyed_generator(key), 10_000)
    stay = found[found != MASK]
    assert len(stay) == length - math.ceil(length * share) and (np.diff(stay) > 0).all()
    spans = span_lengths(length, share, mean, keyed_generator(key))
    assert (found == MASK).sum() == len(spans)


def test_infilling_takes_its_share_and_every_place_as_often() -> None:
    random, draws, length = keyed_generator(2), 4000, 100
    kept = np.zeros(length)
    for _ in range(draws):
        found = infilled(np.arange(length), 0.3, 3.0, MASK, random, 1000)
        assert (found != MASK).sum() == 70
        kept[found[found != MASK]] += 1
    middle = kept[30:70] / draws  # an end is in a span only where one begins or ends exactly there
    assert abs(middle.mean() - 0.7) < 0.02
    assert np.abs(middle - middle.mean()).max() < 4.5 * math.sqrt(0.3 * 0.7 / draws)


def test_masks_that_have_no_place_are_left_out() -> None:
    for key in range(200):
        found = infilled(np.arange(12), 0.1, 0.2, MASK, keyed_generator(key), 12)
        assert len(found) <= 12 and (found != MASK).sum() == 10


def test_masking_and_deletion_strike_their_share() -> None:
    random, draws = keyed_generator(3), 4000
    hits = np.zeros(50)
    for _ in range(draws):
        places = struck(50, 0.3, random)
        assert len(set(places.tolist())) == 15
        hits[places] += 1
    assert np.abs(hits / draws - 0.3).max() < 4.5 * math.sqrt(0.3 * 0.7 / draws)
    assert len(struck(1, 0.9, random)) == 0


def one(noise: str, text: np.ndarray, key: int) -> np.ndarray:
    made = DenoisingConfig(noises=[noise]).build(Task(shape("encoder_decoder"), "toy", vocabulary=WORDS))
    row = made.corrupt(Example(0, (text,), following=1), keyed_generator(key))
    assert row.decoded[0].tolist() == [WORDS.role("start"), *text, WORDS.role("end")]
    assert row.sequences[0][-1] == WORDS.role("end")
    return row.sequences[0][:-1]


def test_each_noise_by_its_name() -> None:
    text = np.array([1, 2, STOP, 3, 4, 5, STOP, 6, STOP, 8, 9])
    mask = WORDS.role("mask")
    masked = one("token_masking", text, 1)
    assert len(masked) == len(text) and ((masked == text) | (masked == mask)).all()
    assert (masked == mask).sum() == round(0.3 * len(text))
    deleted = one("token_deletion", text, 1)
    assert len(deleted) == len(text) - 3 and mask not in deleted
    rotations = {tuple(one("document_rotation", text, key)) for key in range(200)}
    assert rotations == {tuple(np.roll(text, turn)) for turn in range(len(text))}
    orders = {tuple(one("sentence_permutation", text, key)) for key in range(400)}
    assert len(orders) == math.factorial(4)
    assert (1, 2, STOP, 6, STOP, 8, 9, 3, 4, 5, STOP) in orders
    assert mask in one("text_infilling", text, 1)


def test_sentence_orders_are_equally_likely() -> None:
    random, draws = keyed_generator(5), 6000
    text, ends = np.array([1, STOP, 2, STOP, 3, STOP]), SentenceEnds(((STOP,),))
    found: dict[tuple[int, ...], int] = {}
    for _ in range(draws):
        key = tuple(permuted_sentences(text, ends, random).tolist())
        found[key] = found.get(key, 0) + 1
    assert len(found) == 6
    deviation = math.sqrt(1 / 6 * 5 / 6 / draws)
    assert max(abs(count / draws - 1 / 6) for count in found.values()) < 3.5 * deviation


def sentences(tokens: Tokenizer, text: str) -> list[str]:
    return [tokens.decode(part) for part in tokens.sentence_ends.cut(tokens.encode([text])[0])]


def characters() -> Tokenizer:
    return CharacterTokenizer(kind="char").build(iter([ENGLISH, CHINESE]))


def bytes_alone() -> Tokenizer:
    """A vocabulary in which a Chinese mark is three tokens."""
    return BytePairTokenizer(kind="bpe", vocab_size=263).build(iter([ENGLISH]))


def merged() -> Tokenizer:
    return BytePairTokenizer(kind="bpe", vocab_size=500).build(iter([ENGLISH, CHINESE] * 20))


@pytest.mark.parametrize("make", [characters, bytes_alone, merged])
def test_sentences_are_found_in_chinese(make) -> None:
    found = sentences(make(), CHINESE)
    assert "".join(found) == CHINESE
    wanted = ["玄德曰：“备欲同往。”", "关公曰：“某亦愿往！”", "飞大叫：“何不早言？”", "三人遂行。"]
    if make is bytes_alone:  # a closing mark of three bytes has no id of its own and opens what comes
        assert [part.strip("”") for part in found] == [part.strip("”") for part in wanted]
    else:
        assert found == wanted


@pytest.mark.parametrize("make", [characters, bytes_alone, merged])
def test_sentences_are_found_in_english(make) -> None:
    found = [part.strip() for part in sentences(make(), ENGLISH)]
    assert found == ['He said "Go home."', '"Why?!"', "she asked...", "Nobody knew.", "The end"]


def test_the_end_of_a_document_ends_a_sentence() -> None:
    tokens = characters()
    end = tokens.role("end")
    ids = np.concatenate([tokens.encode(["三人"])[0], [end], tokens.encode(["玄德"])[0]])
    assert [len(part) for part in tokens.sentence_ends.cut(ids)] == [3, 2]


@given(st.lists(st.integers(0, 9), max_size=40))
def test_sentences_end_to_end_are_the_text(text: list[int]) -> None:
    ends = SentenceEnds(((1,), (2, 3, 4), (5,)), frozenset({6, 7}))
    found = ends.cut(np.array(text, np.int64))
    assert [token for part in found for token in part] == text and all(len(part) for part in found)


def test_what_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValidationError, match="twice"):
        DenoisingConfig(noises=["token_masking", "token_masking"])
    with pytest.raises(UserError, match="too short for spans of 3"):
        DenoisingConfig().window(shape("encoder_decoder").model_copy(update={"context": 3}))
