"""Rows of nested JSON by paths: sets as they were published, lines told truly, paths that do not fit."""
# ruff: noqa: E501  (one mistake a line: the table is read across)

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gradus.core.errors import UserError
from gradus.data.reader_options import Picked, ReaderOptions
from gradus.data.readers import Row, read_rows
from gradus.data.rows import RowsData, row_splits, stream_rows
from gradus.pipeline.models.opening import Reading

DIALOGUES = [
    [["女：好吗？", "M: Fine."], [{"question": "谁？", "choice": ["a", "b"], "answer": "b"},
                                 {"question": "Où ?", "choice": ["x", "y", "z"], "answer": "x"}], "id-1"],
    [["M: Hm."], [], "id-2"],
    [["[M]: {", "F: \"}\\"], [{"question": "何?", "choice": ["一", "二"], "answer": "一", "note": None}], "id-3"],
]  # fmt: skip
DREAM: dict[str, Any] = {
    "rows": "*/1/*",
    "fields": {"dialogue": {"path": "*/0", "join": "\n"}, "choices": "*/1/*/choice", "document": "*/2"},
}
SQUAD = {
    "version": "1",
    "data": [
        {"title": "T", "paragraphs": [{"context": "文", "qas": [{"id": 7, "question": "q",
         "answers": [{"text": "a"}, {"text": "b"}]}]}]},
        {"title": "U", "paragraphs": [{"context": "c2", "qas": [{"id": 8, "question": "r", "answers": []}]}]},
    ],
}  # fmt: skip


def read(
    tmp_path: Path, value: Any, name: str = "a.json", indent: int | None = 1, **options: Any
) -> list[Row]:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=indent)
    (tmp_path / name).write_text(text, encoding="utf-8")
    return list(read_rows(tmp_path / name, ReaderOptions.model_validate(options)))


@pytest.mark.parametrize("indent", [None, 0, 3])
def test_rows_inside_documents(tmp_path: Path, indent: int | None) -> None:
    found = read(tmp_path, DIALOGUES, indent=indent, **DREAM)
    assert [row.fields["dialogue"] for row in found] == ["女：好吗？\nM: Fine."] * 2 + ['[M]: {\nF: "}\\']
    assert [row.fields["document"] for row in found] == ["id-1", "id-1", "id-3"]
    assert [json.loads(row.fields["choices"]) for row in found] == [["a", "b"], ["x", "y", "z"], ["一", "二"]]
    assert [row.fields["question"] for row in found] == ["谁？", "Où ?", "何?"]  # the row's own keys
    assert "note" not in found[2].fields and [row.index for row in found] == [0, 1, 2]
    lines = (tmp_path / "a.json").read_text(encoding="utf-8").split("\n")
    for row in found if indent is not None else ():
        assert (
            lines[row.line - 1].strip() == "{"
            and json.dumps(row.fields["question"], ensure_ascii=False) in (lines[row.line])
        )


def test_one_object_with_everything_in_it(tmp_path: Path) -> None:
    paths = {"context": "data/*/paragraphs/*/context", "title": "data/*/title", "version": "version"}
    gathered = {
        "first": "data/*/paragraphs/*/qas/*/id",
        "answers": "data/*/paragraphs/*/qas/*/answers/*/text",
    }
    found = read(tmp_path, SQUAD, rows="data/*/paragraphs/*/qas/*", fields=paths | gathered)
    assert [row.fields for row in found] == [
        {"id": "7", "question": "q", "answers": '["a", "b"]', "first": "7", "context": "文", "title": "T",
         "version": "1"},
        {"id": "8", "question": "r", "answers": "[]", "first": "8", "context": "c2", "title": "U",
         "version": "1"},
    ]  # fmt: skip
    lines = (tmp_path / "a.json").read_text(encoding="utf-8").split("\n")
    assert ['"id": 7' in lines[found[0].line], '"id": 8' in lines[found[1].line]] == [True, True]


def test_without_rows_paths_begin_at_the_row(tmp_path: Path) -> None:
    rows = [{"question": {"stem": s, "choices": [{"label": "A", "text": "一"}, {"label": "B", "text": "2"}]},
             "answerKey": "B"} for s in ("x", "y")]  # fmt: skip
    options = {
        "fields": {
            "stem": "question/stem",
            "answers": "question/choices/*/text",
            "one": "question/choices/0/text",
        }
    }
    wanted = [{"stem": s, "answers": '["一", "2"]', "one": "一", "answerKey": "B"} for s in ("x", "y")]
    lines = "\n".join(json.dumps(row) for row in rows)
    for name, text in (("a.json", json.dumps(rows)), ("a.jsonl", lines)):
        found = read(tmp_path, text, name, **options)
        assert [{k: v for k, v in row.fields.items() if k != "question"} for row in found] == wanted
        assert json.loads(found[0].fields["question"]) == rows[0]["question"]
    assert [row.line for row in found] == [1, 2]


def test_a_file_of_json_lines_is_the_list_of_its_lines(tmp_path: Path) -> None:
    lines = "\n\n".join(json.dumps(document) for document in DIALOGUES)
    found = read(tmp_path, lines, "a.jsonl", **DREAM)
    assert [(row.fields["answer"], row.line) for row in found] == [("b", 1), ("x", 1), ("一", 5)]
    with pytest.raises(UserError, match=r"a.jsonl: rows: in JSON Lines a path begins with \*.*'data/\*'"):
        read(tmp_path, "{}", "a.jsonl", rows="data/*")


def test_parallel_lists_bind_the_same_star(tmp_path: Path) -> None:
    value = {"texts": ["好", "坏"], "labels": [1, 0], "line": ["a"]}
    found = read(tmp_path, value, rows="texts/*", fields={"text": "texts/*", "label": "labels/*"})
    assert [row.fields for row in found] == [{"text": "好", "label": "1"}, {"text": "坏", "label": "0"}]
    with pytest.raises(
        UserError, match=r"a.json:4: fields.b: the list is too short.*'line/\*' \(a list of 1\)"
    ):
        read(tmp_path, value, rows="texts/*", fields={"b": "line/*"})


WRONG: dict[str, tuple[Any, dict[str, Any], str]] = {
    "key of rows": (DIALOGUES, {"rows": "*/1/*/x"}, "a.json:2: rows: there is no such key: '*/1/*/x' (one of question, ch"),
    "near key": (DIALOGUES, {"rows": "*/1/*", "fields": {"a": "*/1/*/choise"}},
                 "a.json:8: fields.a: there is no such key: '*/1/*/choise' (did you mean 'choice'? one of"),
    "index": (DIALOGUES, {"rows": "*/7/*"}, "rows: there is no such element: '*/7' (a list of 3, counted from 0)"),
    "star on text": (DIALOGUES, {"rows": "*/2/*"}, "and this is none: '*/2/*' ('id-1')"),
    "star on object": (SQUAD, {"rows": "*"}, "a.json:1: rows: * stands for the elements of a list, and this is "
                       "none: '*' (an object with the keys version, data)"),
    "key on list": (DIALOGUES, {"rows": "data/*"}, "rows: this key leads nowhere: 'data' (a number or * goes on"),
    "past a number": (SQUAD, {"rows": "data/*/title/x"}, "'data/*/title/x' (no path goes on from here: 'T')"),
    "no object": (DIALOGUES, {"rows": "*/0/*"}, "a row must be a JSON object: '女：好吗？'"[:30]),
    "nothing": ([[1, []]], {"rows": "*/1/*"}, "a.json: rows: the file holds no rows: '*/1/*'"),
    "join": (DIALOGUES, {"rows": "*/1/*", "fields": {"a": {"path": "*/2", "join": " "}}},
             "fields.a: `join` wants a list of texts: '*/2' (\"id-1\")"),
    "join numbers": ([{"a": [1]}], {"fields": {"b": {"path": "a", "join": ""}}}, "`join` wants a list of texts: 'a' ([1])"),
    "no array": (SQUAD, {}, "a.json:1: a JSON array of objects is wanted"),
    "after the end": ('{"a": [{}]}\n]', {"rows": "a/*"}, "a.json:2: not JSON: expecting the end of the file: ']'"),
    "cut": ('{"a": [{}', {"rows": "a/*"}, "a.json:1: not JSON: "),
    "second array": ('[{"a": 1}]\n[{"a": 2}]\n', {}, "a.json:2: not JSON: expecting the end of the file: '[{\"a\": 2}]"),
    "second array, rows": ('[{"a": [{}]}]\n[]', {"rows": "*/a/*"}, "a.json:2: not JSON: expecting the end of the file: '[]'"),
    "words after the array": ('[{"a": 1}] 多余', {}, "a.json:1: not JSON: expecting the end of the file: '多余' (column 12)"),
    "after an empty array": ("[\n]\n\n]", {}, "a.json:4: not JSON: expecting the end of the file: ']'"),
    "comma at the end": ('[{"a": 1},\n]', {}, "a.json:2: not JSON: "),
    "comma alone": ("[,]", {}, "a.json:1: not JSON: "),
    "no comma": ('[{"a": 1}\n{"a": 2}]', {}, "a.json:2: not JSON: expecting , or ] after a row"),
    "array cut": ('[{"a": 1},\n\n', {}, "a.json:2: not JSON: "),
    "long index": ([{"a": [1]}], {"fields": {"b": "a/" + "1" * 5000}}, "a.json:2: fields.b: this key leads nowhere"),
    "half a pair": ('[{"a": {"b": "\\ud83d"}}]', {"fields": {"c": "a/b"}}, "a.json:1: a: half of a"),
    "wrong reader": ("x", {"reader": "lines", "rows": "*"}, "a.json: rows: this option is not for lines files"),
    "wrong reader, fields": ("x\ny", {"reader": "tsv", "fields": {"a": "b"}}, "fields: this option is not for tsv"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_paths_that_do_not_fit(tmp_path: Path, case: str) -> None:
    value, options, message = WRONG[case]
    with pytest.raises(UserError) as caught:
        read(tmp_path, value, **options)
    assert message in str(caught.value) and "\n" not in str(caught.value)


def test_white_space_after_the_array_is_nothing(tmp_path: Path) -> None:
    assert len(read(tmp_path, ' \n[ {"a": "好"} , {"a": "坏"} ] \r\n\t\n')) == 2


@pytest.mark.parametrize(
    "options", [{"rows": ""}, {"rows": "a//b"}, {"fields": {"a": "/b"}}, {"fields": {"a": {"join": "b"}}}]
)
def test_paths_that_are_none(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ReaderOptions.model_validate(options)


def test_a_document_that_does_not_fit_may_be_skipped(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([*DIALOGUES, {"x": 1}], indent=1), encoding="utf-8")
    skipped: list[Any] = []
    options = ReaderOptions.model_validate(DREAM | {"bad_rows": "skip up to 1"})
    assert len(list(read_rows(tmp_path / "a.json", options, skipped))) == 3
    lines = (tmp_path / "a.json").read_text(encoding="utf-8").split("\n")
    assert [bad.line for bad in skipped] == [len(lines) - 3] and "no such key: '*/1'" in skipped[0].problem


def test_documents_are_held_out_whole_and_the_label_may_be_absent(tmp_path: Path) -> None:
    value = [
        [["t"], [{"question": f"{n} {m}", "choice": ["a"], "answer": "a"} for m in range(3)], f"d{n}"]
        for n in range(60)
    ]
    (tmp_path / "a.json").write_text(json.dumps(value))
    form = {"kind": "pair", "first": "dialogue", "second": "question", "label": "answer"}
    share = {"share": "20 %", "by": "document"}
    data = RowsData.model_validate({"kind": "rows", "train": "a.json", "dev": share, "format": form, **DREAM})
    splits = row_splits(data, tmp_path)
    documents = [{row.fields["document"] for row in splits[name].rows} for name in ("train", "dev")]
    assert (
        documents[1] and not documents[0] & documents[1] and len(splits["dev"].rows) == 3 * len(documents[1])
    )
    for one in value:
        for question in one[1]:
            del question["answer"]  # type: ignore[union-attr, attr-defined]
    (tmp_path / "new.json").write_text(json.dumps(value))
    kept = ReaderOptions.model_validate_json(data.reader_options().model_dump_json())
    options = Reading(reader=kept).options(str(tmp_path / "new.json"), None)
    found = list(stream_rows(options, tmp_path / "new.json", frozenset({"answer"})))
    assert len(found) == 180 and "answer" not in found[0].fields and found[0].fields["dialogue"] == "t"
    named = kept.model_copy(update={"fields": {**kept.fields, "answer": Picked(path="*/1/*/answer")}})
    assert len(list(stream_rows(named, tmp_path / "new.json", frozenset({"answer"})))) == 180
    with pytest.raises(UserError, match=r"new.json:1: fields.answer: there is no such key"):
        list(stream_rows(named, tmp_path / "new.json"))
    assert Reading(reader=kept).options("rows.tsv", "tsv").rows is None


def test_the_first_bad_byte_is_told_with_its_place(tmp_path: Path) -> None:
    for name, data, options, told in (
        ("a.tsv", "text\n好\n".encode() + b"a\xf1o\n", {}, "a.tsv:3: bytes f1 at byte 10 are not utf-8"),
        ("a.csv", 'text\r\n"好\r\n'.encode() + b'\xff",1\r\n', {}, "a.csv:3: bytes ff at byte 12 are not"),
        ("a.json", b'[\n{"a":\n"\xff"}]', {}, "a.json:3: bytes ff at byte 9 are not utf-8"),
        (
            "a.tsv",
            "上\n上\n".encode("utf-16") + b"\0\xd8",
            {"encoding": "utf-16"},
            "a.tsv:3: bytes 00 d8 at byte 10",
        ),
    ):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(UserError) as caught:
            list(read_rows(tmp_path / name, ReaderOptions.model_validate(options)))
        assert told in str(caught.value)


@pytest.mark.data
def test_published_sets() -> None:
    folder = os.environ.get("GRADUS_DATA")
    if not folder:
        pytest.skip("GRADUS_DATA names no folder of public data sets")
    options = ReaderOptions.model_validate(DREAM)
    counts = {"DREAM/train.json": 6116, "DREAM/dev.json": 2040, "DREAM/test.json": 2041, "C3/dev.json": 3816}
    for name, count in counts.items():
        found = list(read_rows(Path(folder) / name, options))
        assert len(found) == count
        assert all(row.fields["answer"] in json.loads(row.fields["choices"]) for row in found)
    assert {len(json.loads(row.fields["choices"])) for row in found} == {2, 3, 4}
    squad = {"rows": "data/*/paragraphs/*/qas/*", "fields": {"context": "data/*/paragraphs/*/context"}}
    found = list(read_rows(Path(folder) / "CMRC2018/dev.json", ReaderOptions.model_validate(squad)))
    assert len(found) == 3219 and all(row.fields["context"] for row in found)
