"""What `gradus init` sees in rows as users have them: separators, encodings, headers, labels, texts."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from user_files import LABELS, TEXTS, table, write

from gradus.core.errors import UserError
from gradus.pipeline.looking.rows import SeenRows, look_at_rows

pytestmark = pytest.mark.usefixtures("alone")


@pytest.mark.parametrize("header", [True, False], ids=["header", "no header"])
@pytest.mark.parametrize(
    ("name", "separator", "quoted", "options"),
    [
        ("a.csv", ",", True, {}),
        ("a.tsv", "\t", False, {}),
        ("a.txt", "\t", False, {"reader": "tsv"}),
        ("a.csv", "\t", False, {"reader": "tsv"}),
        ("a.tsv", "\t", True, {"quotes": True}),
    ],
)
def test_tables(name: str, separator: str, quoted: bool, header: bool, options: dict[str, Any]) -> None:
    numbers = [str(number) for number in range(len(TEXTS))]
    write(name, table(separator, quoted, {"id": numbers, "category": LABELS, "what": TEXTS}, header))
    seen = look_at_rows(name)
    label, text = ("category", "what") if header else ("label", "text")
    assert seen.options == options | ({} if header else {"columns": ["column 1", "label", "text"]})
    assert (seen.label, seen.texts, seen.rows) == (label, (text,), 48)
    assert seen.counts == {"bad": 24, "good": 24}
    assert seen.lengths.unit == "characters"
    assert seen.lengths.longest == max(map(len, TEXTS))


def test_a_quoted_field_may_span_lines_and_a_quote_in_tsv_is_text() -> None:
    long = [text + "\n" + text for text in TEXTS]
    write("a.csv", table(",", True, {"text": long, "label": LABELS}, True))
    assert look_at_rows("a.csv").rows == 48
    odd = ['"' + text for text in TEXTS[:-1]] + ['"whole"']
    write("a.tsv", table("\t", False, {"text": odd, "label": LABELS}, True))
    assert look_at_rows("a.tsv").options == {}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "gb18030", "utf-16", "latin-1"])
def test_encodings(encoding: str) -> None:
    texts = [f"ein schöner Film, Größe {at}" for at in range(48)] if encoding == "latin-1" else TEXTS
    write("a.tsv", table("\t", False, {"text": texts, "label": LABELS}, True), encoding)
    seen = look_at_rows("a.tsv")
    assert seen.options.get("encoding", "utf-8-sig") == encoding
    assert (seen.label, seen.texts) == ("label", ("text",))


@pytest.mark.parametrize("name", ["a.json", "a.jsonl", "rows.data"])
def test_json_lines_and_arrays(name: str) -> None:
    rows = [{"genre": "x", "text": text, "label": label} for text, label in zip(TEXTS, LABELS)]
    rows[5]["label"] = rows[7]["label"] = "-"
    write(name, "\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    seen = look_at_rows(name)
    assert seen.options == ({} if name == "a.jsonl" else {"reader": "jsonl"}) | {"drop": {"label": "-"}}
    assert (seen.rows, seen.texts, seen.others) == (46, ("text",), ("genre",))
    write(name, json.dumps(rows))
    assert look_at_rows(name).options.get("reader", "json") == "json"


@pytest.mark.parametrize("prefix", ["", "__label__"])
def test_lines_that_begin_with_their_label(prefix: str) -> None:
    write("a.txt", "".join(f"{prefix}{label} {text}\n" for text, label in zip(TEXTS, LABELS)))
    seen = look_at_rows("a.txt")
    assert seen.counts == {"bad": 24, "good": 24}
    assert seen.options == {"pattern": prefix + r"(?P<label>\S+)\s+(?P<text>.+)"}


@pytest.mark.parametrize("header", [True, False], ids=["header", "no header"])
def test_pairs(header: bool) -> None:
    columns = {"premise": TEXTS, "hypothesis": [text[::-1] for text in TEXTS], "label": ["2", "10"] * 24}
    write("a.tsv", table("\t", False, columns, header))
    seen = look_at_rows("a.tsv")
    assert seen.texts == (("premise", "hypothesis") if header else ("first", "second"))
    assert list(seen.counts) == ["2", "10"]


def test_a_named_label_is_taken_before_one_with_fewer_values() -> None:
    columns = {"lang": ["en", "zh"] * 24, "label": [str(at % 5) for at in range(48)], "text": TEXTS}
    write("a.csv", table(",", True, columns, True))
    assert look_at_rows("a.csv").label == "label"


RATINGS = ["good" if at % 3 else "bad" for at in range(300)]
MANY = [f"{TEXTS[at % 48]} and {at}" for at in range(300)]


def test_brackets_without_end_are_text() -> None:
    write("a.csv", table(",", True, {"text": ["[" * 100_000, *MANY[1:]], "rating": RATINGS}, True))
    assert look_at_rows("a.csv").texts == ("text",)


def test_a_label_with_gaps_is_a_label_and_a_date_is_none() -> None:
    ratings, texts = list(RATINGS), list(MANY)
    ratings[7], texts[9], texts[11], texts[12] = "", " ", "", " "
    dates = [f"2023-{at % 12 + 1:02d}-{at % 8 + 1:02d}" for at in range(300)]
    columns = {"id": list(map(str, range(300))), "review text": texts, "rating": ratings, "date": dates}
    write("a.csv", table(",", True, columns, True))
    seen = look_at_rows("a.csv")
    assert (seen.label, seen.texts, seen.rows, seen.dropped) == ("rating", ("review text",), 296, 4)
    assert seen.options == {"drop": {"rating": "", "review text": ["", " "]}}
    assert "1 row with nothing in 'rating'" in seen.notes[0]
    assert "3 rows with nothing in 'review text'" in seen.notes[1]


@pytest.mark.parametrize("name", ["评分", "stars", "user_rating", "情感标签"])
def test_what_a_label_may_be_called(name: str) -> None:
    columns = {"lang": ["en", "zh"] * 150, "text": MANY, name: [str(at % 5) for at in range(300)]}
    write("a.csv", table(",", True, columns, True))
    assert look_at_rows("a.csv").label == name


@pytest.mark.parametrize("value", ["1 May 20{}", "{}/12/2019", "20{}年3月", "12:{}", "20{}-01-02T10:00:00Z"])
def test_dates_and_numbers_of_things_are_no_classes(value: str) -> None:
    dates = [value.format(10 + at % 4) for at in range(300)]
    columns = {"text": MANY, "when": dates, "user id": ["7", "8"] * 150, "year": ["1990", "1991"] * 150}
    write("a.csv", table(",", True, columns | {"kind": [f"k{at % 9}" for at in range(300)]}, True))
    assert look_at_rows("a.csv").label == "kind"
    write("a.csv", table(",", True, columns, True))
    with pytest.raises(UserError, match="looks like a label.*when.*--label COLUMN"):
        look_at_rows("a.csv")


def test_the_user_names_the_label() -> None:
    columns = {"label": RATINGS, "genre": [f"g{at % 4}" for at in range(300)], "text": MANY}
    write("a.csv", table(",", True, columns, True))
    assert look_at_rows("a.csv", "genre").label == "genre"
    with pytest.raises(UserError, match="--label: there is no such column: 'gendre' .*did you mean 'genre'"):
        look_at_rows("a.csv", "gendre")
    write("b.tsv", table("\t", False, columns, False))
    seen = look_at_rows("b.tsv", "column 2")
    assert (seen.label, seen.options["columns"]) == ("column 2", ["column 1", "column 2", "text"])


@pytest.mark.parametrize("header", [True, False], ids=["header", "no header"])
def test_a_stray_comma_is_told_and_the_guard_stays(header: bool) -> None:
    text = table(",", True, {"text": MANY, "label": RATINGS}, header)
    write("a.csv", text + "oops,pos,and more text here\nshort\n")
    seen = look_at_rows("a.csv")
    assert seen.options == ({} if header else {"columns": ["text", "label"]}) | {"bad_rows": "skip up to 2"}
    assert (
        f"2 rows cannot be read and will be skipped; the first: a.csv:{301 + header}: 3 fields"
        in seen.notes[0]
    )
    write("a.csv", text + "oops,pos,and more text here\n" * 100)
    with pytest.raises(UserError, match=f"a.csv:{301 + header}: 3 fields"):
        look_at_rows("a.csv")


def test_tsv_without_header_tells_what_lies_beyond_its_columns() -> None:
    lines = table("\t", False, {"text": MANY, "label": RATINGS}, False).splitlines()
    lines[5] += "\tmore"
    write("a.tsv", "\n".join(lines))
    assert look_at_rows("a.tsv").notes == ("1 row with more than 2 fields: what is beyond them is ignored",)


def test_an_object_of_json_is_no_text() -> None:
    rows = [{"meta": {"a": f"{text} and so on, and so on"}, "text": text, "sentiment": label}
            for text, label in zip(TEXTS, LABELS)]  # fmt: skip
    rows[5]["sentiment"] = None
    write("a.jsonl", "\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    seen = look_at_rows("a.jsonl")
    assert (seen.texts, seen.label, seen.others) == (("text",), "sentiment", ("meta",))
    assert seen.options == {"drop": {"sentiment": ""}}


@pytest.mark.parametrize("header", [True, False], ids=["header", "no header"])
def test_scores_of_two_texts(header: bool) -> None:
    columns = {"genre": ["news", "film"] * 24, "s1": TEXTS, "s2": TEXTS[::-1]}
    columns["score"] = [f"{at / 10:.2f}" for at in range(48)]
    write("a.tsv", table("\t", False, columns, header))
    seen = look_at_rows("a.tsv")
    names = ("s1", "s2", "score") if header else ("first", "second", "label")
    assert seen.task == "regression"
    assert seen.format == {"kind": "similarity", **dict(zip(("first", "second", "label"), names))}


@pytest.mark.parametrize("label_is", ["text", "index", "number", "letter"])
def test_rows_that_carry_their_answers(label_is: str) -> None:
    rows = []
    for at, text in enumerate(TEXTS):
        answers = [f"甲 {at}", f"yes {at}", f"no {at}"]
        right = {"text": answers[at % 3], "index": at % 3, "number": at % 3 + 1, "letter": "ABC"[at % 3]}
        rows.append({"article": text * 3, "question": "谁？", "options": answers, "answer": right[label_is]})
    write("a.jsonl", "\n".join(json.dumps(row, ensure_ascii=False) for row in rows))
    seen = look_at_rows("a.jsonl")
    form = {"kind": "multiple_choice", "context": "article", "question": "question", "answers": "options"}
    told = {} if label_is == "text" else {"label_is": label_is}
    assert (seen.task, seen.format) == ("multiple_choice", form | {"label": "answer"} | told)
    columns = {"story": [row["article"] for row in rows], "label": [str(row["answer"]) for row in rows]}
    columns |= {f"ending{place}": [row["options"][place] for row in rows] for place in range(3)}
    write("a.csv", table(",", True, columns, True))
    form = {"kind": "multiple_choice", "context": "story", "answers": ["ending0", "ending1", "ending2"]}
    assert look_at_rows("a.csv").format == form | {"label": "label"} | told


def test_dev_and_test_beside_train() -> None:
    for split in ("train", "valid", "test"):
        labels = ["?"] * 48 if split == "test" else LABELS
        write(f"d/{split}.tsv", table("\t", False, {"text": TEXTS, "label": labels}, True))
    seen = look_at_rows("d/train.tsv")
    assert seen.splits == {"dev": "d/valid.tsv"}
    assert "test.tsv" in seen.notes[0]


ROOT = os.environ.get("GRADUS_DATA")


@pytest.fixture
def data() -> Path:
    if not ROOT:
        pytest.skip("GRADUS_DATA is not set")
    return Path(ROOT)


@pytest.mark.data
@pytest.mark.parametrize(
    ("name", "label", "texts", "classes"),
    [
        ("SST2/train.tsv", "label", ("text",), 2),
        ("book_review/train.tsv", "label", ("text_a",), 2),
        ("CoLA/in_domain_train.tsv", "label", ("text",), 2),
        ("TREC/train.txt", "label", ("text",), 50),
        ("RTE/train.tsv", "label", ("sentence1", "sentence2"), 2),
        ("SNLI_devtest/dev.txt", "label", ("first", "second"), 3),
        ("OCNLI/dev.json", "label", ("sentence1", "sentence2"), 3),
        ("THUCNews_title/dev.txt", "label", ("text",), 10),
    ],
)
def test_public_rows(name: str, label: str, texts: tuple[str, ...], classes: int, data: Path) -> None:
    seen: SeenRows = look_at_rows(str(data / name))
    assert (seen.label, seen.texts, len(seen.counts)) == (label, texts, classes)
