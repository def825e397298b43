"""Labelled rows: every reader on well-formed files, every mistake told with its place."""

from __future__ import annotations

import io
import json
import re
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gradus.core.errors import UserError
from gradus.data.reader_options import ReaderOptions
from gradus.data.readers import Row, Skipped, read_rows, read_stream
from gradus.data.rows import stream_rows


def read(tmp_path: Path, content: str | bytes, name: str = "a.tsv", **options: Any) -> list[dict[str, str]]:
    return [row.fields for row in rows(tmp_path, content, name, **options)]


def rows(tmp_path: Path, content: str | bytes, name: str = "a.tsv", **options: Any) -> list[Row]:
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return list(read_rows(tmp_path / name, ReaderOptions.model_validate(options)))


def test_tables(tmp_path: Path) -> None:
    wanted = [{"text": '"好", 他说', "label": "1"}, {"text": "two\u2028lines\x85", "label": "0"}]
    table = '"好", 他说\t1\r\n\r\ntwo\u2028lines\x85\t0'
    assert read(tmp_path, "\ufefftext\tlabel\r\n" + table) == wanted
    assert read(tmp_path, "\ufeff" + table, columns=["text", "label"]) == wanted
    assert read(tmp_path, "a\tb\n" + table, columns=["text", "label"], header=True) == wanted
    assert read(tmp_path, table + "\textra\textra", columns=["text", "label"]) == wanted
    assert read(tmp_path, 'a\t\n"x\ty"\t1\n', quotes=True) == [{"a": "x\ty", "column 2": "1"}]
    assert read(tmp_path, '"x,y\n', "a.csv", quotes=False, columns=["a", "b"]) == [{"a": '"x', "b": "y"}]
    assert read(tmp_path, "a\nx\0y\n") == [{"a": "x\0y"}]


def test_a_row_wider_than_the_first_is_never_cut_in_silence(tmp_path: Path) -> None:
    named: dict[str, Any] = {"columns": ["text", "label"]}
    renamed = named | {"header": True}
    wide = "text number 1,1\nI, for one, like it,1\n"
    for content, options, told in [
        ("a,b\n" + wide, renamed, "a.csv:3: 4 fields below a header of 2: ' like it'"),
        (wide, named, "a.csv:2: 4 fields where the first row has 2"),
        ("I, for one, like it,1\nfine,1\n", named, "a.csv:2: 2 fields where the first row has 4"),
    ]:
        with pytest.raises(UserError, match=re.escape(told)):
            read(tmp_path, content, "a.csv", **options)
    assert read(tmp_path, "a,b,c\n好,1,x\n坏,0,\n差,0\n", "a.csv", **renamed)[2] == {
        "text": "差",
        "label": "0",
    }
    assert read(tmp_path, "好,1,\n坏,0,x\n", "a.csv", **named)[1] == {"text": "坏", "label": "0"}


def test_a_field_that_is_not_there_is_dropped_as_an_empty_one(tmp_path: Path) -> None:
    lines = ['{"text": "好", "label": null}', '{"text": "坏"}', '{"text": "差", "label": ""}']
    lines = "\n".join([*lines, '{"text": "x", "label": "1"}'])
    assert read(tmp_path, lines, "a.jsonl", drop={"label": ""}) == [{"text": "x", "label": "1"}]


def test_quoted_csv_knows_where_its_rows_begin(tmp_path: Path) -> None:
    text = 'text,label\r\n"一,\r\n""二""",1\r\nplain,0\r\n\r\n"a\n\n\nb",1\r\n' + f'"{"长" * 200_000}",0'
    found = rows(tmp_path, text, "a.csv")
    assert [row.line for row in found] == [2, 4, 6, 10]
    assert found[0].fields == {"text": '一,\n"二"', "label": "1"}
    assert found[2].fields["text"] == "a\n\n\nb" and len(found[3].fields["text"]) == 200_000


def test_json_values_become_text(tmp_path: Path) -> None:
    value = {"a": "好", "b": 3, "c": 0.5, "d": True, "e": None, "f": ["好", 1], "g": {"x": None}, "h": 1e-7}
    wanted = {
        "a": "好",
        "b": "3",
        "c": "0.5",
        "d": "true",
        "f": '["好", 1]',
        "g": '{"x": null}',
        "h": "1e-07",
    }
    line = json.dumps(value)
    assert read(tmp_path, f"\ufeff{line}\r\n\n{line}", "a.jsonl") == [wanted, wanted]
    found = rows(tmp_path, f"\ufeff[\n {line},\n\n {json.dumps(value, indent=1)}\n, {line}]\n", "a.json")
    assert [row.fields for row in found] == [wanted] * 3 and [row.line for row in found] == [2, 4, 19]


def test_lines(tmp_path: Path) -> None:
    assert read(tmp_path, "一\n\n二\n", reader="lines") == [{"text": "一"}, {"text": "二"}]
    assert read(tmp_path, "一\n", reader="lines", columns=["句"]) == [{"句": "一"}]
    pattern = r"(?P<label>[A-Z]+):(?P<fine>\w+) (?P<text>.*?)(?P<mark>\?)?"
    found = read(
        tmp_path,
        "LOC:city Où est-il ?\nHUM:x 谁\n".encode("latin-1", "ignore"),
        "a.txt",
        pattern=pattern,
        encoding="latin-1",
    )
    assert found[0] == {"label": "LOC", "fine": "city", "text": "Où est-il ", "mark": "?"}
    assert "mark" not in found[1]


def test_map_then_drop_compare_text(tmp_path: Path) -> None:
    options = ReaderOptions.model_validate(
        {"map": {"label": {0: "差", "1": "好"}}, "drop": {"label": ["-", 2.5]}}
    )
    assert options.map == {"label": {"0": "差", "1": "好"}} and options.drop == {"label": ["-", "2.5"]}
    found = rows(tmp_path, "label\n0\n-\n1\n2.5\n", **options.model_dump())
    assert [(row.index, row.fields["label"], row.line) for row in found] == [(0, "差", 2), (1, "好", 4)]
    assert ReaderOptions.model_validate_json(options.model_dump_json()) == options
    with pytest.raises(ValidationError, match="in quotes"):
        ReaderOptions.model_validate({"drop": {"label": False}})


BAD: dict[str, tuple[str, str | bytes, dict[str, Any], str]] = {
    "few fields": (
        "a.tsv",
        "text\tlabel\n好\t1\n坏\n",
        {},
        "a.tsv:3: 1 field where 2 are wanted: '坏' (the columns are text, label)",
    ),
    "many fields": (
        "a.csv",
        "text,label\na, b,1\n",
        {},
        "a.csv:2: 3 fields below a header of 2: '1' (a separator",
    ),
    "same name": (
        "a.tsv",
        "text\ttext\n1\t2\n",
        {},
        "a.tsv:1: two columns of the header have the same name: 'text'",
    ),
    "header unsaid": (
        "a.tsv",
        "text\tlabel\n1\t2\n",
        {"columns": ["text", "label"]},
        "a.tsv:1: the first line repeats",
    ),
    "header short": (
        "a.tsv",
        "a\n1\n",
        {"columns": ["b", "c"], "header": True},
        "a.tsv:1: columns: the header has 1 column where",
    ),
    "no end": (
        "a.csv",
        'a,b\n1,2\n"x,3\n4,5\n',
        {},
        "a.csv:3: a quoted field that begins here never ends (if quotes",
    ),
    "after quote": ("a.csv", 'a,b\n"x"y,3\n', {}, "a.csv:2: not CSV: "),
    "not json": (
        "a.jsonl",
        '{"a": 1}\n{"a" 1}\n',
        {},
        "a.jsonl:2: not JSON: Expecting ':' delimiter: '1}' (column 6)",
    ),
    "no object": (
        "a.jsonl",
        '{"a": 1}\n\n["好"]\n',
        {},
        "a.jsonl:3: a row must be a JSON object: '[\"好\"]' (for one JSON array",
    ),
    "array in jsonl": ("a.jsonl", '[\n{"a": 1}]\n', {}, "for one JSON array write reader: json"),
    "jsonl in array": ("a.json", '{"a": 1}\n{"a": 2}\n', {}, "a.json:1: a JSON array of objects is wanted: "),
    "broken array": (
        "a.json",
        '[{"a": 1},\n {"a": 好}]',
        {},
        "a.json:2: not JSON: Expecting value: '好}]' (column 8)",
    ),
    "open array": ("a.json", '[{"a": 1}\n', {}, "a.json:1: not JSON: expecting , or ] after a row"),
    "no object in array": ("a.json", '[{"a": 1},\n 3]', {}, "a.json:2: a row must be a JSON object: '3'"),
    "half a pair": ("a.jsonl", '{"a": "\\ud83d"}\n', {}, "a.jsonl:1: a: half of a"),
    "deep": ("a.jsonl", "[" * 100_000, {}, "a.jsonl:1: not JSON that can be read"),
    "no match": (
        "a.txt",
        "A x\nb 好\n",
        {"pattern": "(?P<label>[A-Z]) .*"},
        "a.txt:2: pattern: the line does not match: 'b 好' (wanted: ",
    ),
    "latin": (
        "a.tsv",
        "text\n好\n".encode() + "año\n".encode("latin-1"),
        {},
        "a.tsv:3: bytes f1 at byte 10 are not utf-8 (it reads as latin-1: ",
    ),
    "chinese": (
        "a.csv",
        "文\n好的，谢谢\n".encode("gb18030"),
        {},
        "a.csv:1: bytes ce at byte 0 are not utf-8 (it reads as gb18030: ",
    ),
    "chinese json": (
        "a.json",
        '[\n{"a": "好的"}]'.encode("gb18030"),
        {},
        "a.json:2: bytes ba at byte 9 are not utf-8 (it reads as gb18030",
    ),
    "not utf-16": ("a.tsv", b"\xff\xfea\0\n\0b", {"encoding": "utf-16"}, "are not utf-16"),
    "no rows": ("a.tsv", "text\tlabel\n", {}, "a.tsv: the file holds no rows"),
    "no array rows": ("a.json", "[ ]", {}, "a.json: the file holds no rows"),
    "no reader": (
        "a.txt",
        "x\n",
        {},
        "a.txt: reader: the name does not tell how to read these rows (write reader: lines",
    ),
    "wrong option": (
        "a.jsonl",
        "{}",
        {"quotes": True},
        "a.jsonl: quotes: this option is not for jsonl files",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input(tmp_path: Path, case: str) -> None:
    name, content, options, message = BAD[case]
    with pytest.raises(UserError) as caught:
        read(tmp_path, content, name, **options)
    assert message in str(caught.value) and "\n" not in str(caught.value)
    str(caught.value).encode()


@pytest.mark.parametrize(
    "options",
    [
        {"columns": ["a", "a"]},
        {"columns": []},
        {"header": False},
        {"pattern": "("},
        {"pattern": "(.*)"},
        {"pattern": "(?P<a>.*)", "reader": "csv"},
        {"pattern": "(?P<a>.*)", "columns": ["a"]},
        {"reader": "xml"},
        {"bad_rows": "skip 3"},
        {"encoding": "base64"},
        {"map": {"label": {None: "a"}}},
    ],
)
def test_wrong_options(options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        ReaderOptions.model_validate(options)


def test_bad_rows_may_be_skipped_up_to_a_number(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(
        '{"text": "好"}\n{"text\n3\n'.encode() + b'"\xff"\n' + '{"text": "二"}\n'.encode()
    )
    skipped: list[Skipped] = []
    options = ReaderOptions.model_validate({"bad_rows": "skip up to 3"})
    found = list(read_rows(tmp_path / "a.jsonl", options, skipped))
    assert [(row.index, row.line) for row in found] == [(0, 1), (1, 5)]
    assert [bad.line for bad in skipped] == [2, 3, 4] and "object" in skipped[1].problem
    with pytest.raises(UserError, match=r"a.jsonl:4: .* 2 bad rows were skipped before it"):
        list(read_rows(tmp_path / "a.jsonl", ReaderOptions(bad_rows="skip up to 2"), []))
    (tmp_path / "a.csv").write_text('text,label\n"a"b,1\nc\nd,2\n')
    skipped.clear()
    assert [row.fields["text"] for row in read_rows(tmp_path / "a.csv", options, skipped)] == ["d"]
    assert [bad.line for bad in skipped] == [2, 3]


def test_streams_of_text_and_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    options = ReaderOptions(reader="tsv", columns=["text", "label"])
    wanted = [Row(0, {"text": "好", "label": "1"}, "here", 1)]
    assert list(read_stream(io.StringIO("好\t1\n"), "here", options)) == wanted
    stream = io.BytesIO("好\t1\n".encode())
    assert list(read_stream(stream, "here", options)) == wanted
    assert not stream.closed
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO("好\t1\n".encode()), "ascii"))
    assert [row.fields for row in stream_rows(options, "-")] == [wanted[0].fields]


def test_streaming_reads_no_further_than_asked() -> None:
    def endless() -> Any:
        yield "text\n"
        for number in range(10**9):
            yield f"row {number}\n"

    class Stream:
        def read(self, size: int) -> str:
            return ""

        def __iter__(self) -> Any:
            return endless()

    found = read_stream(Stream(), "x.tsv", ReaderOptions())  # type: ignore[arg-type]
    assert [next(found).fields["text"] for _ in range(3)] == ["row 0", "row 1", "row 2"]


def test_prediction_needs_no_label_and_answers_every_row(tmp_path: Path) -> None:
    label = frozenset({"label"})
    for columns in (["label", "text"], ["text", "label"]):
        options = ReaderOptions.model_validate(
            {"columns": columns, "drop": {"label": "-"}, "bad_rows": "skip up to 9"}
        )
        (tmp_path / "a.tsv").write_text("好\n二\n", encoding="utf-8")
        assert [row.fields for row in stream_rows(options, tmp_path / "a.tsv", label)] == [
            {"text": "好"},
            {"text": "二"},
        ]
        (tmp_path / "b.tsv").write_text("-\t-\n+\t+\n")
        assert len(list(stream_rows(options, tmp_path / "b.tsv", label))) == 2
        assert len(list(stream_rows(options, tmp_path / "b.tsv", label, drop=True))) == 1
        (tmp_path / "c.tsv").write_text("-\t-\n+\n")
        with pytest.raises(UserError, match=r"c.tsv:2: 1 field where 2 are wanted"):
            list(stream_rows(options, tmp_path / "c.tsv", label))
    with pytest.raises(UserError, match="no such file"):
        list(stream_rows(options, tmp_path / "none.tsv"))
