# ruff: noqa: E501  (one mistake a line: the table is read across)
"""Rows of words with tags: how files say them, where each word is read, and what is no such row."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradus.core.errors import UserError
from gradus.core.model import ModelConfig
from gradus.data.formats import Entities, Words
from gradus.data.frame import Frame
from gradus.data.reader_options import ReaderOptions
from gradus.data.readers import Row, read_rows
from gradus.data.tagged import Tags
from gradus.data.tags import entities
from gradus.data.word_pieces import WordEncoder
from gradus.tokenizers import BytePairTokenizer, CharacterTokenizer

ENGLISH, CHINESE = ["EU", "rejects", "German", "call"], list("曹操在赤壁败给周瑜")
NAMES = ("O", "B-LOC", "I-LOC", "B-PER", "I-PER")
TEXTS = [" ".join(ENGLISH), "".join(CHINESE), "nothing else", "北京 New York"] * 20
TOKENIZERS = {
    "char": CharacterTokenizer().build(iter(TEXTS)),
    "bytes": BytePairTokenizer(vocab_size=330).build(iter(TEXTS)),
}  # fmt: skip
FORM, SPANS = Words(words="w", tags="t"), Entities(text="w", spans="t")


def row(words: object, tags: object = "O", line: int = 7) -> Row:
    fields = {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in (("w", words), ("t", tags))
    }
    return Row(0, fields, "ner.tsv", line)


def encoder(kind: str = "char", context: int = 64, form: Any = FORM, **options: Any) -> WordEncoder:
    tokens = TOKENIZERS[kind].with_roles(["start", "extract", "end"])
    return WordEncoder(form, tokens, context, Tags(NAMES), **options)


FILES = {
    "columns.conll": ("在 O\n赤 B-LOC\n壁 I-LOC\n\n\n败 O\n", {"columns": ["w", "t"]}),
    "tabs.txt": ("-DOCSTART-\tO\n\n在\tX\tO\n赤\tX\tB-LOC\n壁\tX\tI-LOC\n \n败\tX\tO", {"reader": "conll", "columns": ["w", "x", "t"]}),
    "characters.tsv": ("w\tt\n在 赤 壁\tO B-LOC I-LOC\n败\tO\n", {}),
    "lists.jsonl": ('{"w": ["在", "赤", "壁"], "t": ["O", "B-LOC", "I-LOC"]}\n{"w": ["败"], "t": ["O"]}\n', {}),
    "spans.jsonl": ('{"w": "在赤壁", "t": [{"start": 1, "end": 3, "type": "LOC"}]}\n{"w": "败", "t": []}\n', {}),
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_files_of_every_form_say_the_same(tmp_path: Path, name: str) -> None:
    text, options = FILES[name]
    (tmp_path / name).write_text(text, encoding="utf-8")
    found = list(read_rows(tmp_path / name, ReaderOptions.model_validate(options)))
    form = SPANS if name.startswith("spans") else FORM
    assert [form.laid(one).words for one in found] == [["在", "赤", "壁"], ["败"]]
    assert [form.tags_of(one) for one in found] == [["O", "B-LOC", "I-LOC"], ["O"]]
    assert form.corpus(found[0]) == ["在赤壁"] and form.shown(found[0]) == "在赤壁"
    if name == "columns.conll":
        assert [one.line for one in found] == [1, 6]


COLUMNS = {
    "fewer": ("在 O\n赤\n", r"a.conll:2: 1 column where the first line has 2: '赤'"),
    "more": ("在 O\n# text = 赤 壁\n", r"a.conll:2: 5 columns where the first line has 2"),
    "one": ("在\n赤\n", r"a.conll:1: 1 column for w, t"),
    "nothing": ("\n\n", r"the file holds no rows"),
}


@pytest.mark.parametrize("case", COLUMNS)
def test_columns_that_do_not_fit_are_told(tmp_path: Path, case: str) -> None:
    text, told = COLUMNS[case]
    (tmp_path / "a.conll").write_text(text, encoding="utf-8")
    with pytest.raises(UserError, match=told):
        list(read_rows(tmp_path / "a.conll", ReaderOptions(columns=["w", "t"])))
    with pytest.raises(UserError, match="a.conll: columns: sentences in columns need names"):
        list(read_rows(tmp_path / "a.conll", ReaderOptions()))


def test_a_bad_sentence_is_skipped_whole_and_a_file_without_tags_is_read_for_predict(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text("在 O\n\n赤 O\n壁\n\n败 O\n", encoding="utf-8")
    options = ReaderOptions(columns=["w", "t"], bad_rows="skip up to 1")
    assert [one.fields["w"] for one in read_rows(tmp_path / "a.conll", options)] == ['["在"]', '["败"]']
    (tmp_path / "b.conll").write_text("在\n赤\n", encoding="utf-8")
    (one,) = read_rows(tmp_path / "b.conll", options, absent=frozenset({"t"}))
    assert one.fields == {"w": '["在", "赤"]'}


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("words", [ENGLISH, CHINESE, ["New", "York", "北京"]])
def test_every_word_is_read_at_its_first_piece(kind: str, words: list[str]) -> None:
    made = encoder(kind)
    (example,) = made.encode([row(words, ["O"] * len(words))])
    (every,) = encoder(kind, form=FORM.model_copy(update={"pieces": "all"})).encode(
        [row(words, ["O"] * len(words))]
    )
    (ids,) = example.sequences
    text = FORM.laid(row(words)).text
    assert made.tokenizer.decode(ids[1:-1].tolist()) == text and example.truncated == 0
    ends = [*example.tagged[1:, 0].tolist(), len(ids) - 1]
    for (place, number, tag), end in zip(example.tagged.tolist(), ends):
        piece = made.tokenizer.decode(ids[place:end].tolist()).strip()
        assert piece == words[number] and tag == 0
    places = every.tagged[:, 0]
    spaces = sum(not made.tokenizer.decode([int(one)]).strip() for one in ids[1:-1])
    assert len(places) == len(ids) - 2 - spaces and (np.diff(places) > 0).all()
    firsts = np.unique(every.tagged[:, 1], return_index=True)[1]
    assert np.array_equal(every.tagged[firsts], example.tagged)


def test_words_that_the_context_cuts_are_counted() -> None:
    (example,) = encoder(context=6).encode([row(CHINESE, ["B-PER", "I-PER"] + ["O"] * 7)])
    assert example.truncated == 5 and len(example.sequences[0]) == 6
    assert example.tagged[:, 0].tolist() == [1, 2, 3, 4, -1, -1, -1, -1, -1]
    assert example.tagged[:, 2].tolist() == [3, 4, 0, 0, 0, 0, 0, 0, 0]
    with pytest.raises(UserError, match=r"ner.tsv:7: w: the row has 9 tokens, the context has room for 4"):
        encoder(context=6, long="error").encode([row(CHINESE, ["O"] * 9)])
    frame = Frame.of(ModelConfig(arrangement="encoder", segments=2))
    (example,) = encoder(frame=frame).encode([row(CHINESE)], labelled=False)
    assert example.segments[0].tolist() == [0] * 11 and set(example.tagged[:, 2]) == {-1}


def test_spans_are_tags_of_the_words_they_cover() -> None:
    text = "Mr. Smith-Jones去了New York的赤壁。"
    spans = [("PER", "Smith-Jones"), ("LOC", "New York"), ("LOC", "赤壁")]
    said = [
        {"start": text.index(one), "end": text.index(one) + len(one), "type": kind} for kind, one in spans
    ]
    laid = SPANS.laid(row(text))
    assert laid.words == ["Mr", ".", "Smith", "-", "Jones", "去", "了", "New", "York", "的", "赤", "壁", "。"]
    for scheme in ("bio", "bmes", "iobes"):
        form = SPANS.model_copy(update={"scheme": scheme})
        found = entities(form.tags_of(row(text, said)))
        told = [form.told(laid, one) for one in found]
        assert told == [one | {"text": text[one["start"] : one["end"]]} for one in said]
    assert FORM.told(FORM.laid(row(ENGLISH)), entities(["O", "B-A", "I-A"])[0]) == {
        "text": "rejects German", "type": "A", "start": 1, "end": 3,
    }  # fmt: skip


def test_the_tags_of_train_are_the_models() -> None:
    train = [row(["在", "赤"], ["O", "B-LOC"])]
    assert Tags.of_rows(train, FORM, None).names == ("O", "B-LOC", "I-LOC")
    assert Tags.of_rows(train, FORM, ["B-LOC", "I-LOC", "O"]).of_words(train[0], FORM) == [2, 0]
    pos = FORM.model_copy(update={"scheme": "none"})
    assert Tags.of_rows([row(["a", "b"], ["X", "NOUN"])], pos, None).names == ("NOUN", "X")
    assert Tags.of_rows([row(["a", "b"], [3, 0])], pos, None).names == ("0", "3")
    with pytest.raises(
        UserError, match="ner.tsv:9: t: this tag is not among those of the training rows: 'B-PER'"
    ):
        Tags.of_rows(train, FORM, None).of_words(row(["曹"], ["B-PER"], 9), FORM)
    with pytest.raises(UserError, match="this tag is not among.*'O'"):
        Tags.of_rows(train, FORM, ["B-LOC", "I-LOC"])
    with pytest.raises(UserError, match="every word of the training rows has the same tag: 'X'"):
        Tags.of_rows([row("a b", "X X")], pos, None)


BAD: dict[str, tuple[Any, Any, Any, str]] = {
    "counts": (FORM, "在 赤 壁", "O O", r"t: 2 tags for 3 words: '在 赤 壁'"),
    "transition": (FORM, "在 赤 壁", "O I-LOC I-LOC", r"t: word 2, after O, begins no entity of the scheme bio: 'I-LOC I-LOC' \(written B-LOC I-LOC; `repair: true`"),
    "other type": (FORM, "赤 壁", "B-LOC I-PER", r"word 2, after B-LOC, begins no entity of the scheme bio: 'I-PER'"),
    "first": (FORM, "壁", "I-PER", r"word 1, after nothing, begins"),
    "end": (FORM.model_copy(update={"scheme": "bmes"}), "赤 壁 在", "B-LOC M-LOC O", r"scheme bmes: 'B-LOC M-LOC' \(written B-LOC E-LOC"),
    "scheme": (FORM, "赤 壁", "B-LOC E-LOC", r"t: the scheme bio has no such tag: 'E-LOC' \(`scheme: bmes or iobes` has"),
    "no scheme": (FORM, "a b", "NOUN X", r"t: the scheme bio has no such tag: 'NOUN' \(`scheme: none` is for"),
    "numbers": (FORM, ["a", "b"], [0, 3], r"t: the scheme bio has no such tag: '0'"),
    "no texts": (FORM, ["a", None], ["O", "O"], r"w: a list of texts is wanted: '.\"a\", null.'"),
    "no tag": (FORM, ["a"], [["O"]], r"t: a list of texts is wanted"),
    "empty word": (FORM, ["a", " "], ["O", "O"], r"w: word 2 is empty"),
    "no words": (FORM, "", "", r"w: the row has no words"),
    "no column": (FORM.model_copy(update={"tags": "tag"}), "a", "O", r"there is no such column: 'tag'"),
    "overlap": (SPANS, "曹操在赤壁", [{"start": 0, "end": 3, "type": "A"}, {"start": 2, "end": 5, "type": "B"}], r"t: the entities from 0 to 3 and from 2 to 5 overlap: '曹操在赤壁'"),
    "nested": (SPANS, "曹操在赤壁", [{"start": 0, "end": 5, "type": "A"}, {"start": 0, "end": 2, "type": "B"}], r"overlap"),
    "beyond": (SPANS, "赤壁", [{"start": 1, "end": 3, "type": "A"}], r"t: the text has 2 characters, and no place from 1 to 3"),
    "before": (SPANS, "赤壁", [{"start": -1, "end": 2, "type": "A"}], r"no place from -1 to 2"),
    "nothing": (SPANS, "赤壁", [{"start": 1, "end": 1, "type": "A"}], r"no place from 1 to 1"),
    "within": (SPANS, "British", [{"start": 0, "end": 4, "type": "A"}], r"from 0 to 4 begins or ends within a word.*: 'A Brit'"),
    "space": (SPANS, "a b", [{"start": 0, "end": 2, "type": "A"}], r"or at white space: 'A a '"),
    "no list": (SPANS, "赤壁", "LOC", r'a JSON list of .* is wanted: .LOC'),
    "no type": (SPANS, "赤壁", [{"start": 0, "end": 2}], r"is wanted"),
    "no number": (SPANS, "赤壁", [{"start": "0", "end": 2, "type": "A"}], r"is wanted"),
    "an object": (SPANS, "赤壁", {"start": 0, "end": 2, "type": "A"}, r"is wanted"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_mistakes_are_told_with_row_and_text(case: str) -> None:
    form, words, tags, told = BAD[case]
    with pytest.raises(UserError, match=f"^ner.tsv:7: .*{told}"):
        encoder(form=form).encode([row(words, tags)])


def test_brackets_with_spaces_between_are_words() -> None:
    assert FORM.laid(row("[ 1 ]")).words == ["[", "1", "]"] and FORM.laid(row("[新 华]")).words == [
        "[新",
        "华]",
    ]


def test_marks_belong_to_the_letters_they_are_combined_with() -> None:
    """Vowel signs and decomposed accents part no word; Thai goes by letters."""
    form = SPANS
    assert form.laid(row("हिन्दी में लिखो")).words == ["हिन्दी", "में", "लिखो"]
    assert form.laid(row("Vie\u0323\u0302t Nam, đe\u0323p")).words == [
        "Vie\u0323\u0302t",
        "Nam",
        ",",
        "đe\u0323p",
    ]
    assert form.laid(row("ที่นี่")).words == ["ที่", "นี่"]
    assert form.laid(row("赵云, ok!")).words == ["赵", "云", ",", "ok", "!"]


def test_repair_is_asked_for() -> None:
    form = FORM.model_copy(update={"repair": True})
    said = row("a b c d e", "I-A I-A I-B O I-A")  # IOB1
    assert form.tags_of(said) == ["B-A", "I-A", "B-B", "O", "B-A"]
    assert form.mends(said) and not form.mends(row("赵 云", "B-PER I-PER")) and not FORM.mends(said)


@pytest.mark.data
@pytest.mark.parametrize(
    ("file", "options", "form", "rows", "words"),
    [
        ("MSRA_NER/dev.tsv", {}, {"words": "text_a", "tags": "label"}, 2318, 109870),
        ("WNUT17/emerging.test.annotated", {"reader": "conll", "columns": ["w", "t"]}, {}, 1287, 23394),
        ("UD_EWT/en_ewt-dev.form_upos_xpos.tsv", {"reader": "conll", "columns": ["w", "t", "xpos"]}, {"scheme": "none"}, 2001, 25147),
    ],
)  # fmt: skip
def test_public_data_read_by_recipe_alone(
    file: str, options: dict[str, Any], form: dict[str, Any], rows: int, words: int
) -> None:
    root = Path(os.environ.get("GRADUS_DATA") or "/nowhere", file)
    if not root.is_file():
        pytest.skip("GRADUS_DATA names no folder of public data sets")
    made = Words.model_validate({"words": "w", "tags": "t", **form})
    found = list(read_rows(root, ReaderOptions.model_validate(options)))
    assert len(found) == rows and sum(len(made.tags_of(one)) for one in found) == words
