"""What `gradus init` sees in rows as users have them: separators, encodings, headers, labels, texts."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from user_files import LABELS, TEXTS, table, write

from gradus.pipeline.look_rows import SeenRows, look_at_rows

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
    assert seen.options == ({} if name == "a.jsonl" else {"reader": "jsonl"}) | {"drop": {"label": ["-"]}}
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
