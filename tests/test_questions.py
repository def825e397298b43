# ruff: noqa: E501  (one mistake a line: the table is read across)
"""Questions: which windows a context makes, what is learnt in each, and what is cut out of it again."""

from __future__ import annotations

import json
import os
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gradus.core.errors import UserError
from gradus.core.example import Example
from gradus.core.model import ModelConfig
from gradus.data.frame import Frame
from gradus.data.labels import Spans
from gradus.data.question_windows import QuestionEncoder
from gradus.data.questions import Question
from gradus.data.reader_options import ReaderOptions
from gradus.data.readers import Row, read_rows
from gradus.data.text_to_text import row_encoder
from gradus.nn.transformer import Transformer
from gradus.objectives import QuestionAnsweringConfig, Task
from gradus.tokenizers import BytePairTokenizer, CharacterTokenizer, Tokenizer
from gradus.tokenizers.files import post_processor
from gradus.training.learner import Learner

ROLES = ["start", "delimiter", "extract", "end", "pad"]
TEXTS = [
    "周瑜与诸葛亮在赤壁大破曹操，曹操引军北还。时在建安十三年冬十二月。",
    "The Battle of Hastings was fought on 14 October 1066 (a Saturday), wasn't it?",
    "《战国无双3》是由光荣和ω-force开发的naïve🎮游戏。",
]
FORM = Question(question="q", context="c", answers="a")


def tokenizers() -> dict[str, Tokenizer]:
    made = {
        "bpe": BytePairTokenizer(vocab_size=300).build(TEXTS * 3),
        "char": CharacterTokenizer().build(TEXTS),
    }
    return {name: one.with_roles(ROLES) for name, one in made.items()}


TOKENIZERS = tokenizers()


def row(context: str, answers: str, question: str = "谁？", **more: str) -> Row:
    return Row(0, {"q": question, "c": context, "a": answers, **more}, "rows.json", 7)


def encoder(
    kind: str = "char", context: int = 30, long: str = "window", arrangement: str = "encoder", **form: object
) -> QuestionEncoder:
    model = ModelConfig(
        arrangement=arrangement, context=context, segments=2 * (arrangement == "encoder"), vocab_size=400
    )
    made = row_encoder(FORM.model_copy(update=form), TOKENIZERS[kind], model, Spans(), long)
    assert isinstance(made, QuestionEncoder)
    return made


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("arrangement", ["encoder", "decoder", "encoder_decoder"])
@given(st.data())
@settings(max_examples=30, deadline=None)
def test_every_answer_is_cut_out_of_the_window_that_holds_it(
    kind: str, arrangement: str, data: st.DataObject
) -> None:
    """Whatever the text, the tokenizer and the window: characters in, the same characters out."""
    context = data.draw(st.sampled_from(TEXTS))
    begin = data.draw(st.integers(0, len(context) - 1))
    text = context[begin : begin + data.draw(st.integers(1, 9))].strip()
    if not text:
        return
    begin = context.index(text)
    made = encoder(kind, data.draw(st.integers(24, 60)), arrangement=arrangement)
    asked = row(context, text)
    (example,) = made.encode([asked])
    assert example.spans is not None and len(example.spans) == len(example.sequences)
    for window, (first, last, *bounds) in enumerate(example.spans.tolist()):
        assert (first < 0) == (last < 0)
        if first < 0:
            continue
        assert bounds[0] <= first <= last <= bounds[1]
        found = slice(*made.cut_out(asked, window, first, last))
        assert found.start <= begin and found.stop >= begin + len(text)
        if kind == "char":
            assert context[found] == text and found.start == begin


def test_windows_cover_the_context_and_share_the_stride() -> None:
    context, question = "一二三四五六七八九十" * 4, "谁在赤壁？"
    for size, stride in product((20, 29, 60), (0, 3, 6)):
        made = encoder(context=size, stride=stride)
        (example,) = made.encode([row(context, "一", question)])
        assert example.truncated == 0 and max(map(len, example.sequences)) <= size
        room, ids = size - 3 - 5, made.tokenizer.encode([context])[0]
        pieces = [one[bounds[2] : bounds[3] + 1] for one, bounds in zip(example.sequences, example.spans)]
        assert all(len(piece) == room for piece in pieces[:-1]) and 0 < len(pieces[-1]) <= room
        assert all(np.array_equal(a[len(a) - stride :], b[:stride]) for a, b in zip(pieces, pieces[1:]))
        assert np.array_equal(np.concatenate([pieces[0], *(piece[stride:] for piece in pieces[1:])]), ids)


def test_windows_are_those_of_transformers() -> None:
    """Its tokenizers cut contexts in the same places, with the same segments."""
    transformers = pytest.importorskip("transformers")
    made = encoder(context=26, stride=5)
    model = ModelConfig(arrangement="encoder", segments=2)
    inner = TOKENIZERS["char"].inner.from_str(TOKENIZERS["char"].inner.to_str())
    inner.post_processor = post_processor(inner, TOKENIZERS["char"].roles, Frame.of(model).template(True))
    theirs = transformers.PreTrainedTokenizerFast(tokenizer_object=inner)
    for text in TEXTS:
        (example,) = made.encode([row(text, text[3:5], "谁？")])
        said = theirs(
            "谁？",
            text,
            truncation="only_second",
            max_length=26,
            stride=5,
            return_overflowing_tokens=True,
            return_token_type_ids=True,
        )
        assert said["input_ids"] == [ids.tolist() for ids in example.sequences]
        assert said["token_type_ids"] == [ids.tolist() for ids in example.segments]


def test_an_answer_that_a_window_cuts_is_none_there() -> None:
    made = encoder(context=14, stride=2)  # beside 2 tokens of the question: 9 of the context
    (example,) = made.encode([row("零一二三四五六七八九十百千万", "六七八九")])
    assert example.spans is not None
    assert example.spans[:, :2].tolist() == [[-1, -1], [-1, -1]]
    (example,) = made.encode([row("零一二三四五六七八九十百千万", "七八")])
    assert (example.spans[:, 0] >= 0).tolist() == [True, True]  # both share these two


def test_long_rows_are_cut_and_counted_or_refused() -> None:
    context = "一二三四五六七八九十" * 4
    (example,) = encoder(context=20, long="truncate").encode([row(context, "十")])
    assert len(example.sequences) == 1 and example.truncated == 40 - 15
    (example,) = encoder(context=20, long="truncate").encode([row(context + "终", "终")])
    assert example.spans[0, :2].tolist() == [-1, -1]
    with pytest.raises(UserError, match=r"rows.json:7: q, c: question and context have 2 and 40 tokens"):
        encoder(context=20, long="error").encode([row(context, "十")])
    (example,) = encoder(context=30).encode([row("周瑜", "周瑜", "谁" * 50)])
    assert example.truncated == 50 - 13 and len(example.sequences[0]) == 3 + 13 + 2


def test_the_right_answers_and_the_one_that_is_learnt() -> None:
    form = FORM.model_copy(update={"starts": "s"})
    assert FORM.place(row("在赤壁，赤壁之战", "赤壁")) == (1, 3)
    assert form.place(row("在赤壁，赤壁之战", "赤壁", s="4")) == (4, 6)
    several = row("在赤壁，赤壁之战", '["在哪里", "赤壁之战", "赤壁"]', s="[-1, 4, 1]")
    assert form.place(several) == (4, 8) and form.right(several) == ["在哪里", "赤壁之战", "赤壁"]
    assert FORM.place(several) == (4, 8)
    assert FORM.place(row('says ["a"] twice', "says")) == (0, 4)
    assert FORM.right(row("[1] is", "[1]")) == ["[1]"]
    for nothing in ("", "[]", '[""]'):
        none = row("在赤壁", nothing, s="[]")
        assert FORM.model_copy(update={"unanswerable": True}).place(none) is None
        with pytest.raises(UserError, match="rows.json:7: a: the question has no answer: '谁？'"):
            FORM.place(none)


BAD = {
    "nowhere": (("周瑜破曹操", "刘备"), "a: the answer is not in its context: '刘备'"),
    "elsewhere": (("周瑜破曹操", "曹操", {"s": "1"}), "said to start: '曹操' .'瑜破' stands at 1; the answer stands at 3"),
    "beyond": (("周瑜破曹操", "刘备", {"s": "90"}), "is said to start: '刘备'.*stands nowhere"),
    "never": (("周瑜破曹操", "曹操", {"s": "-1"}), "a: the answer is not in its context: '曹操'"),
    "too many": (("周瑜破曹操", "曹操", {"s": "[3, 4]"}), "s: 2 starts for 1 answers: '.3, 4.'"),
    "words": (("周瑜破曹操", "曹操", {"s": "three"}), "s: a whole number of characters.*'three'"),
    "halves": (("周瑜破曹操", "曹操", {"s": "3.0"}), "s: a whole number of characters.*'3.0'"),
    "no starts": (("周瑜破曹操", "曹操"), "there is no such column: 's'"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_mistakes_are_told_with_row_and_text(case: str) -> None:
    (context, answers, *more), told = BAD[case]
    fields = more[0] if more else {}
    form = FORM.model_copy(update={"starts": "s"} if fields or case == "no starts" else {})
    with pytest.raises(UserError, match=f"^rows.json:7: .*{told}"):
        form.place(row(context, answers, **fields))


def test_a_stride_that_leaves_no_step_and_a_context_without_room_are_refused() -> None:
    with pytest.raises(UserError, match="format.stride: beside a question of 13 tokens a window has 14 of"):
        encoder(stride=14).encode([row("周瑜", "周瑜")])
    with pytest.raises(UserError, match="model.context: a context of 4 tokens holds little"):
        encoder(context=4).encode([row("周瑜", "周瑜")])


def brute_force(logits: np.ndarray, bounds: tuple[int, int], longest: int) -> tuple[float, int, int]:
    """The best legal span, by looking at each."""
    legal = range(bounds[0], bounds[1] + 1)
    spans = [(a, b) for a in legal for b in legal if a <= b < a + longest]
    return max((float(logits[a, 0] + logits[b, 1]), a, b) for a, b in spans)


@pytest.mark.parametrize("arrangement", ["encoder", "decoder", "encoder_decoder"])
@pytest.mark.parametrize("longest", [1, 4, 100])
def test_the_best_span_is_the_best_of_all(arrangement: str, longest: int) -> None:
    model = ModelConfig(
        layers=1, width=16, heads=2, context=40, vocab_size=50, arrangement=arrangement, initial_deviation=0.5
    )
    objective = QuestionAnsweringConfig(longest=longest, threshold=0.25).build(Task(model, "toy"))
    learner = Learner(Transformer(model), [objective]).initialise(2).eval()
    random = np.random.default_rng(0)
    rows, sizes = [], ((9, 31), (12,), (40, 7, 22))
    for number, lengths in enumerate(sizes):
        read = tuple(random.integers(0, 50, length) for length in lengths)
        decoded = (
            tuple(np.concatenate([[1], ids]) for ids in read) if arrangement == "encoder_decoder" else ()
        )
        spans = np.array([[3, 4, 3, length - 2] for length in lengths])
        rows.append(Example(number, read, spans=spans, decoded=decoded))
    batch = learner.prepare(rows)
    found = objective.of_rows(learner.predict(batch)[0].numpy(), rows)
    for example, line in zip(rows, found):  # law 6: whatever else is in the batch
        (alone,) = learner.predict(learner.prepare([example]))
        own = objective.of_rows(alone.numpy(), [example])
        np.testing.assert_allclose(own[0], line, rtol=1e-4, atol=1e-5)
    with torch.no_grad():
        states = learner.transformer(batch.source, batch.decoded)
        logits = learner.heads["toy"](states).numpy()
    ends = np.cumsum([length for one in sizes for length in one])
    windows = np.split(logits[: ends[-1]], ends[:-1])
    for line, lengths in zip(found, sizes):
        own, windows = windows[: len(lengths)], windows[len(lengths) :]
        best = [brute_force(part, (3, len(part) - 2), longest) for part in own]
        score, first, last = max(best)
        assert line[0] == pytest.approx(score, abs=1e-5) and line[6] == best.index(max(best))
        assert line[1:3].tolist() == [first, last]
        at = 0 if arrangement == "encoder" else -1
        assert line[4] == pytest.approx(min(part[at].sum() for part in own) - 0.25, abs=1e-5)
        nats = [np.log(np.exp(part).sum(0)) - [part[3, 0], part[4, 1]] for part in own]
        assert line[5] == pytest.approx(float(np.sum(nats)) / 2, abs=1e-4)
        odds = np.exp(own[int(line[6])]) / np.exp(own[int(line[6])]).sum(0)
        assert line[3] == pytest.approx(odds[first, 0] * odds[last, 1], rel=1e-4)


def test_a_card_keeps_the_format() -> None:
    form = Question(question="问", context="文", answers="答", starts="起", unanswerable=True, stride=9)
    assert Question.model_validate(json.loads(json.dumps(form.plain()))) == form
    assert form.label == "答" and form.target_fields == ("起",) and form.fields == ("问", "文")


@pytest.mark.data
def test_cmrc_2018_reads_by_recipe_alone() -> None:
    root = Path(os.environ.get("GRADUS_DATA") or "/nowhere", "CMRC2018")
    if not root.is_dir():
        pytest.skip("GRADUS_DATA names no folder of public data sets")
    rows = "data/*/paragraphs/*/qas/*"
    fields = {"context": "data/*/paragraphs/*/context", "texts": f"{rows}/answers/*/text"}
    form = Question(question="question", context="context", answers="texts")
    found = list(read_rows(root / "dev.json", ReaderOptions.model_validate({"rows": rows, "fields": fields})))
    places = [form.place(row) for row in found]
    assert len(found) == 3219 and {len(form.right(row)) for row in found} == {3}
    for row, place in zip(found, places):
        assert place is not None and row.fields["context"][slice(*place)] in form.right(row)
