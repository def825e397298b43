"""What every objective owes, whatever it does: sums and counts, nothing from nothing, one batch by heart, no
leaks, the same corruption for the same key."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from test_laws import farthest, gradients
from words import STOP, Vocabulary

from gradus.core.example import Example, Targets, collate
from gradus.core.keyed import keyed_generator
from gradus.core.model import ModelConfig
from gradus.data.tags import all_written, entities, may_follow
from gradus.nn.transformer import Transformer
from gradus.objectives import (
    DenoisingConfig,
    ObjectiveSettings,
    PrefixLMConfig,
    QuestionAnsweringConfig,
    Seq2SeqConfig,
    SpanCorruptionConfig,
    Task,
    TokenClassificationConfig,
)
from gradus.training.learner import Learner

WORDS = Vocabulary()
TAGS = ("O", "B-地名", "I-地名")
SPANS = SpanCorruptionConfig(sentinels=20)
EVERY_NOISE = DenoisingConfig(
    noises=["text_infilling", "token_masking", "token_deletion", "sentence_permutation", "document_rotation"],
)
CASES: dict[str, tuple[ObjectiveSettings, str]] = {
    "span_corruption": (SPANS, "encoder_decoder"),
    "denoising": (DenoisingConfig(), "encoder_decoder"),
    "every noise": (EVERY_NOISE, "encoder_decoder"),
    "prefix_lm, said": (PrefixLMConfig(), "encoder_decoder"),
    "prefix_lm": (PrefixLMConfig(), "decoder"),
    "seq2seq, said": (Seq2SeqConfig(), "encoder_decoder"),
    "seq2seq, smoothed": (Seq2SeqConfig(label_smoothing=0.1), "encoder_decoder"),
    "seq2seq": (Seq2SeqConfig(), "decoder"),
    "spans, decoder": (QuestionAnsweringConfig(), "decoder"),
    "spans, encoder": (QuestionAnsweringConfig(), "encoder"),
    "tags, decoder": (TokenClassificationConfig(dropout=0.0), "decoder"),
    "tags, encoder": (TokenClassificationConfig(dropout=0.0), "encoder"),
    "tags, chained": (TokenClassificationConfig(dropout=0.0, loss="crf"), "decoder"),
    "tags, legal": (TokenClassificationConfig(dropout=0.0, loss="crf", transitions="legal"), "encoder"),
    "spans, beside an encoder": (QuestionAnsweringConfig(), "encoder_decoder"),
}
each = pytest.mark.parametrize("case", CASES)
each_that_says = pytest.mark.parametrize(
    "case", [case for case, (one, _) in CASES.items() if one.measure == "tokens"]
)


def shape(arrangement: str, **changes: Any) -> ModelConfig:
    return ModelConfig(
        layers=2, width=16, heads=2, context=48, vocab_size=WORDS.size, dropout=0.0,
        arrangement=arrangement, initial_deviation=0.3, **changes,
    )  # fmt: skip


def learner(case: str, dtype: torch.dtype = torch.float64) -> Learner:
    config, arrangement = CASES[case]
    model = shape(arrangement)
    task = Task(model, "toy", TAGS, vocabulary=WORDS, follows=may_follow(TAGS, "bio"))
    objective = config.build(task)
    return Learner(Transformer(model, dtype), [objective]).initialise(1).to(dtype)


def windows(case: str, count: int = 8) -> list[Example]:
    """Windows of text of many lengths, or rows with an answer where the objective wants them."""
    config, arrangement = CASES[case]
    if config.measure == "spans":
        return questions(arrangement, count)
    if config.measure == "tags":
        return tagged(count)
    random, made = keyed_generator("windows", count), []
    start, delimiter, end = (WORDS.role(name) for name in ("start", "delimiter", "end"))
    for row in range(count):
        text = random.integers(0, WORDS.words, int(random.integers(3, 40)))
        text[::6] = STOP
        if "rows" not in config.reads:
            made.append(Example(row, (text,), following=int(random.integers(WORDS.words))))
            continue
        read, said = text[: len(text) // 2], text[len(text) // 2 :]
        if arrangement == "encoder_decoder":
            source = np.concatenate([read, [end]])
            made.append(Example(row, (source,), decoded=(np.concatenate([[start], said, [end]]),)))
        else:
            made.append(Example(row, (np.concatenate([[start], read, [delimiter], said, [end]]),)))
    return made


def questions(arrangement: str, count: int) -> list[Example]:
    """Rows of one window to three, some without an answer."""
    random, made = keyed_generator("questions", count), []
    for row in range(count):
        read, spans = [], []
        for window in range(1 + row % 3):
            read.append(random.integers(0, WORDS.words, int(random.integers(6, 40))))
            begin = int(random.integers(3, len(read[-1]) - 1))
            answer = [begin, min(begin + window, len(read[-1]) - 1)] if (row + window) % 4 else [-1, -1]
            spans.append([*answer, 3, len(read[-1]) - 1])
        said = tuple(np.concatenate([[WORDS.role("start")], ids]) for ids in read)
        decoded = said if arrangement == "encoder_decoder" else ()
        made.append(Example(row, tuple(read), spans=np.array(spans), decoded=decoded))
    return made


def tagged(count: int) -> list[Example]:
    """Rows of some words to many, each of a token or two, the last beyond the context."""
    random, made = keyed_generator("tagged", count), []
    for row in range(count):
        ids = random.integers(0, WORDS.words, int(random.integers(4, 40)))
        places = np.append(np.arange(1, len(ids) - 1, 1 + row % 2), -1)
        found = entities(TAGS[tag] for tag in ids[places] % len(TAGS))
        tags = [TAGS.index(tag) for tag in all_written(found, len(places), "bio")]
        made.append(Example(row, (ids,), tagged=np.stack([places, np.arange(len(places)), tags], 1)))
    return made


def corrupted(made: Learner, rows: list[Example], epoch: int = 0) -> list[Example]:
    return [made.corrupted(row, 3, epoch) for row in rows]


@each
@pytest.mark.parametrize("size", [1, 2, 4])
def test_any_cut_gives_the_same_gradient(case: str, size: int) -> None:
    made = learner(case)
    rows = corrupted(made, windows(case))
    whole = gradients(made, [rows])
    parts = gradients(made, [rows[start : start + size] for start in range(0, 8, size)])
    assert farthest(whole, parts) < 1e-12


@each
def test_no_targets_give_zero_and_a_gradient(case: str) -> None:
    made = learner(case)
    rows = corrupted(made, windows(case, 2))
    batch = made.prepare(rows)
    (targets,) = batch.targets
    owner = None if targets.owner is None else targets.owner[:0]
    none = Targets(targets.index[:0], targets.value[:0], targets.weight[:0], owner)
    empty = replace(batch, targets=(none,))
    sums = made(empty)
    sums.sum().backward()
    assert float(sums.detach().sum()) == 0
    assert float(made.transformer.embedding.tokens.weight.grad.abs().max()) == 0


@each
def test_the_same_key_corrupts_alike_and_another_epoch_does_not(case: str) -> None:
    made, rows = learner(case), windows(case)
    first, again, other = corrupted(made, rows), corrupted(made, rows), corrupted(made, rows, 1)
    assert all(same(a, b) for a, b in zip(first, again))
    if CASES[case][0].corrupts:
        assert not all(same(a, b) for a, b in zip(first, other))


def same(a: Example, b: Example) -> bool:
    pairs = zip((*a.sequences, *a.decoded), (*b.sequences, *b.decoded))
    return a.prefix == b.prefix and all(np.array_equal(one, two) for one, two in pairs)


@each
def test_a_batch_is_learnt_by_heart(case: str) -> None:
    rows = corrupted(learner(case), windows(case, 4))
    made = learner(case, torch.float32)
    optimizer = torch.optim.Adam(made.parameters(), 1e-2)
    batch = made.prepare(rows)
    count = float(batch.targets[0].weight.sum())
    for _ in range(150):
        optimizer.zero_grad()
        loss = made(batch).sum() / count
        loss.backward()
        optimizer.step()
        if float(loss.detach()) < 0.1:
            break
    (found,) = made.eval().predict(batch)
    nats = found if found.dim() == 1 else found[:, -1]
    assert float(nats.mean()) < 0.15  # smoothed targets leave 0.104


@each_that_says
def test_what_is_to_be_said_is_hidden_from_the_states_that_say_it(case: str) -> None:
    """Changing one target changes the inputs of what comes after it and nothing before."""
    made = learner(case).eval()
    row = corrupted(made, [max(windows(case), key=lambda row: row.tokens)])[0]
    (objective,) = made.objectives
    targets = objective.targets(row)
    place = len(targets.value) // 2
    other = with_target(row, place, len(targets.value))
    changed = objective.targets(other)
    assert np.flatnonzero(changed.value != targets.value).tolist() == [place]
    states, after = (
        made.transformer(batch.source, batch.decoded)[torch.from_numpy(targets.index)]
        for batch in (collate([one], [[objective.targets(one)]]) for one in (row, other))
    )
    difference = (states - after).detach().abs()
    assert float(difference[: place + 1].max()) < 1e-12
    assert float(difference[place + 1 :].max()) > 1e-6


def with_target(row: Example, place: int, count: int) -> Example:
    """The row with its target number `place` of `count` another token."""
    if row.decoded:
        (said,) = row.decoded
        said = said.copy()
        said[len(said) - count + place] = (said[len(said) - count + place] + 1) % WORDS.words
        return replace(row, decoded=(said,))
    (tokens,) = row.sequences
    tokens = tokens.copy()
    following = 0 if row.following is None else 1
    at = len(tokens) + following - count + place
    tokens[at] = (tokens[at] + 1) % WORDS.words
    return replace(row, sequences=(tokens,))


@each
def test_source_and_target_fit_the_context(case: str) -> None:
    config, arrangement = CASES[case]
    if "text" not in config.reads:
        return
    made = learner(case)
    size = config.window(shape(arrangement))
    text = keyed_generator("full").integers(0, WORDS.words, size)
    for epoch in range(300):
        row = made.corrupted(Example(epoch, (text,), following=1), 0, epoch)
        assert all(len(one) <= 48 for one in row.sequences)
        assert all(len(one) - 1 <= 48 for one in row.decoded)


@each
def test_a_window_of_one_token_is_no_reason_to_fail(case: str) -> None:
    config, _ = CASES[case]
    if "text" not in config.reads:
        return
    made = learner(case)
    for tokens in ([3], [WORDS.role("end")]):
        row = made.corrupted(Example(0, (np.array(tokens),), following=5), 0, 0)
        total = made(made.prepare([row]))
        assert torch.isfinite(total).all() and float(total.detach()) > 0


def test_label_smoothing_is_the_plain_formula() -> None:
    made = learner("seq2seq, smoothed")
    batch = made.prepare(windows("seq2seq, smoothed"))
    (targets,) = batch.targets
    states = made.transformer(batch.source, batch.decoded).index_select(0, targets.index)
    logits = states @ made.transformer.output_weight.T
    wanted = torch.nn.functional.cross_entropy(logits, targets.value, reduction="sum", label_smoothing=0.1)
    own = torch.autograd.grad(made(batch).sum(), list(made.parameters()))
    assert float(made(batch).detach().sum()) == pytest.approx(float(wanted.detach()), rel=1e-12)
    theirs = torch.autograd.grad(wanted, list(made.parameters()))
    assert max(float((a - b).abs().max()) for a, b in zip(own, theirs)) < 1e-10
    (nats,) = made.predict(batch)
    plain = torch.nn.functional.cross_entropy(logits, targets.value, reduction="sum")
    assert float(nats.sum()) == pytest.approx(float(plain.detach()), rel=1e-9)


def test_bart_begins_as_released() -> None:
    model = shape("encoder_decoder", source_start=True)
    made = DenoisingConfig().build(Task(model, "toy", vocabulary=WORDS))
    row = made.corrupt(Example(0, (np.arange(20, 40),)), keyed_generator(1))
    start, end = WORDS.role("start"), WORDS.role("end")
    assert row.sequences[0][[0, -1]].tolist() == [start, end]
    assert row.decoded[0].tolist() == [end, start, *range(20, 40), end]
    assert made.targets(row).value.tolist() == [start, *range(20, 40), end]
