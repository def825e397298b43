"""Spans that are taken out of a text: how many, how long, and back again; heads of texts, cut at random."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_objectives import WORDS, shape

from gradus.core.errors import UserError
from gradus.core.example import Example
from gradus.core.keyed import keyed_generator
from gradus.objectives import PrefixLMConfig, SpanCorruptionConfig, Task
from gradus.objectives.prefix_lm import drawn_head
from gradus.objectives.span_corruption import parts, restored, span_mask
from gradus.tokenizers import BytePairTokenizer, CharacterTokenizer, Tokenizer

ENGLISH = "Thank you for inviting me to your party last week. We came late, and stayed long."
CHINESE = "话说天下大势，分久必合，合久必分。周末七国分争，并入于秦。及秦灭之后，楚、汉分争，又并入于汉。"


def objective(share: float = 0.15, mean: float = 3.0, context: int = 48):
    config = SpanCorruptionConfig(share=share, mean_span=mean, sentinels=20)
    return config.build(Task(shape("encoder_decoder").model_copy(update={"context": context}), "toy",
                             vocabulary=WORDS))  # fmt: skip


@given(
    st.lists(st.integers(0, 59), min_size=2, max_size=60),
    st.floats(0.05, 0.6), st.floats(1, 6), st.integers(0, 1000),
)  # fmt: skip
def test_source_and_target_together_are_the_text(
    text: list[int], share: float, mean: float, key: int
) -> None:
    config = SpanCorruptionConfig(share=share, mean_span=mean, sentinels=60)
    words = type(WORDS)(sentinels=60)
    made = config.build(Task(shape("encoder_decoder"), "toy", vocabulary=words))
    row = made.corrupt(Example(0, (np.array(text),), following=1), keyed_generator(key))
    (source,), (said,) = row.sequences, row.decoded
    assert source[-1] == said[-1] == words.role("end") and said[0] == words.role("start")
    assert restored(source[:-1], said[1:-1], made.sentinels).tolist() == text


@pytest.mark.parametrize("text", [ENGLISH, CHINESE], ids=["English", "Chinese"])
def test_a_text_comes_back_from_real_tokens(text: str) -> None:
    made = CharacterTokenizer(kind="char").build(iter([ENGLISH, CHINESE]))
    config = SpanCorruptionConfig()
    tokens: Tokenizer = made.with_roles(config.roles)
    assert tokens.roles["sentinel 99"] == "<|sentinel_99|>"
    model = shape("encoder_decoder").model_copy(update={"context": 128, "vocab_size": tokens.size})
    task = Task(model, "toy", vocabulary=tokens)
    built = config.build(task)
    ids = tokens.encode([text])[0].astype(np.int64)
    row = built.corrupt(Example(0, (ids,)), keyed_generator(5))
    (source,), (said,) = row.sequences, row.decoded
    assert tokens.decode(restored(source[:-1], said[1:-1], built.sentinels)) == tokens.decode(ids)
    assert tokens.decode(said).startswith("<|start|><|sentinel_0|>")


def test_what_is_damaged_does_not_come_back() -> None:
    made = objective()
    row = made.corrupt(Example(0, (np.arange(40),)), keyed_generator(1))
    source, said = row.sequences[0][:-1], row.decoded[0][1:-1]
    firsts = np.flatnonzero(np.isin(said, made.sentinels))
    for bad_source, bad_said in (
        (source, said[firsts[1] :]), (source, said[1:]), (source[::-1], said), (source, said[: firsts[1]]),
        (np.setdiff1d(source, made.sentinels), said),
    ):  # fmt: skip
        with pytest.raises(ValueError, match="sentinel"):
            restored(bad_source, bad_said, made.sentinels)


def test_shares_and_spans_are_the_released_codes() -> None:
    """round(length x 0.15) tokens in round(that / 3) spans; the first run stays, the last is taken out."""
    config, random = SpanCorruptionConfig(), keyed_generator(2)
    for length, counts in (
        (512, (77, 26)),
        (100, (15, 5)),
        (20, (3, 1)),
        (3, (1, 1)),
        (2, (1, 1)),
        (1, (0, 0)),
    ):
        assert config.counts(length) == counts
        if counts[1]:
            mask = span_mask(length, *counts, random)
            assert mask.sum() == counts[0] and not mask[0] and mask[-1]
            assert int((np.diff(mask.astype(int)) == 1).sum()) == counts[1]


def test_every_way_to_cut_is_equally_likely() -> None:
    """4 parts of 9: the first part has 1 to 6, and P(size) = C(8 - size, 2) / C(8, 3)."""
    random, draws = keyed_generator(3), 20_000
    sizes = np.array([parts(9, 4, random) for _ in range(draws)])
    assert (sizes.sum(1) == 9).all() and sizes.min() == 1
    for column in range(4):
        for size in range(1, 7):
            expected = math.comb(8 - size, 2) / math.comb(8, 3)
            found = float((sizes[:, column] == size).mean())
            assert abs(found - expected) < 3.5 * math.sqrt(expected * (1 - expected) / draws)


def test_every_place_is_taken_out_as_often() -> None:
    """But for both ends, where a run always stays or goes, 15 % within three standard deviations."""
    random, draws, length = keyed_generator(4), 6000, 200
    masks = np.array([span_mask(length, 30, 10, random) for _ in range(draws)])
    shares = masks.mean(0)
    middle = shares[40:160]
    deviation = math.sqrt(0.15 * 0.85 / draws)
    assert abs(middle.mean() - 0.15) < 0.01
    assert np.abs(middle - middle.mean()).max() < 4.5 * deviation
    assert shares[0] == 0 and shares[-1] == 1


def test_hidden_words_do_not_reach_the_source() -> None:
    made, text = objective(), np.arange(45)
    row = made.corrupt(Example(0, (text,)), keyed_generator(9))
    hidden = np.setdiff1d(text, row.sequences[0])
    assert len(hidden) == 7 and np.isin(hidden, row.decoded[0]).all()
    other = text.copy()
    other[hidden] = 50
    again = made.corrupt(Example(0, (other,)), keyed_generator(9))
    assert np.array_equal(again.sequences[0], row.sequences[0])


def test_the_window_is_longer_than_the_context_as_in_the_released_code() -> None:
    """`random_spans_helper` of T5 gives 568 tokens for inputs of 512 and targets of 114 with `end`."""
    config = SpanCorruptionConfig()
    model = shape("encoder_decoder").model_copy(update={"context": 512})
    assert config.window(model) == 568
    hidden, spans = config.counts(568)
    assert 568 - hidden + spans + 1 == 512 and hidden + spans + 1 == 114


def test_too_little_room_and_too_few_sentinels_are_told() -> None:
    model = shape("encoder_decoder")
    with pytest.raises(UserError, match="context of 8 tokens is too short for spans of 3"):
        SpanCorruptionConfig().window(model.model_copy(update={"context": 8}))
    with pytest.raises(UserError, match="sentinels: a full window has 28 spans.*10.*sentinels: 28"):
        SpanCorruptionConfig(sentinels=10).window(model.model_copy(update={"context": 512}))


def test_heads_are_cut_uniformly() -> None:
    random, draws = keyed_generator(6), 9000
    found = np.bincount([drawn_head(10, random) for _ in range(draws)], minlength=10)
    assert found[0] == 0
    assert np.abs(found[1:] / draws - 1 / 9).max() < 3.5 * math.sqrt(1 / 9 * 8 / 9 / draws)


def test_a_prefix_of_a_decoder_scores_the_tail_alone() -> None:
    made = PrefixLMConfig().build(Task(shape("decoder"), "toy", vocabulary=WORDS))
    text = np.arange(10, 20)
    row = made.corrupt(Example(0, (text,), following=42), keyed_generator(1))
    (head,) = row.prefix
    targets = made.targets(row)
    assert targets.value.tolist() == [*range(10 + head, 20), 42]
    assert targets.index.tolist() == list(range(head - 1, 10))


def test_a_prefix_of_an_encoder_decoder_is_read_and_the_rest_said() -> None:
    made = PrefixLMConfig().build(Task(shape("encoder_decoder"), "toy", vocabulary=WORDS))
    end = WORDS.role("end")
    row = made.corrupt(Example(0, (np.array([end, *range(10, 20)]),), following=42), keyed_generator(1))
    (read,), (said,) = row.sequences, row.decoded
    assert [*read[:-1], *said[1:-1]] == list(range(10, 20)) and read[-1] == said[-1] == end
    assert len(read) > 1 and len(said) > 2


def test_sentinels_of_published_vocabularies_are_found() -> None:
    made = BytePairTokenizer(kind="bpe", vocab_size=300).build(iter([ENGLISH]))
    made.inner.add_special_tokens(["<extra_id_0>", "<extra_id_1>", "</s>"])
    from gradus.tokenizers.roles import guess_roles

    assert guess_roles(made.inner.token_to_id)["sentinel 1"] == "<extra_id_1>"
    assert "sentinel 2" not in guess_roles(made.inner.token_to_id)
