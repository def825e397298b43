"""`gradus predict`: an answer for every row in its order, whatever the batch, and never half a file."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_models import CONTEXT, LABELS, SINGLE, TEXTS, rows_file, use, written

from gradus.core.errors import UserError
from gradus.data.rows import RowsData
from gradus.pipeline.models.opening import Reading
from gradus.pipeline.models.serving import evaluate_file, predict_file
from gradus.tokenizers import Tokenizer


def test_predictions_come_in_order_whatever_the_batch(classifier: Path):
    model = use(classifier)
    texts = [TEXTS[number % 5] * (number % 3) + f" {number}" for number in range(150)]
    found = list(model.predict({"text": text, "other": 1} for text in texts))
    for one, text in list(zip(found, texts))[::29]:
        (alone,) = model.predict([text])
        assert one["scores"] == pytest.approx(alone["scores"], rel=1e-4, abs=1e-5)
    for one in found:
        assert sum(one["probabilities"].values()) == pytest.approx(1)
        assert one["label"] == max(LABELS, key=one["scores"].__getitem__)
        assert list(one["scores"]) == list(one["probabilities"]) == list(LABELS)
    assert len({one["label"] for one in found}) > 1


def test_rows_are_drawn_as_they_are_needed(classifier: Path):
    drawn = 0

    def endless() -> Iterator[str]:
        nonlocal drawn
        while True:
            drawn += 1
            yield TEXTS[drawn % 5]

    answers = use(classifier).predict(endless())
    for _ in range(70):
        next(answers)
    assert drawn <= 128


def test_what_does_not_fit_is_cut_and_counted(classifier: Path, tokenizer: Tokenizer, tmp_path: Path):
    long = " ".join(TEXTS)
    size = len(tokenizer.encode([long])[0])
    short, cut = use(classifier).predict(["short", long])
    assert (short["truncated"], cut["truncated"]) == (0, size - (CONTEXT - 2))
    strict = use(written(tmp_path / "strict", tokenizer, SINGLE, long="error"))
    with pytest.raises(UserError, match=r"rows:2: text: the row has \d+ tokens, the context holds 64"):
        list(strict.predict(["short", long]))


def test_a_file_of_rows_becomes_a_file_of_predictions(classifier: Path, tmp_path: Path):
    model = use(classifier)
    source, output = rows_file(tmp_path / "rows.jsonl", 100, labelled=False), tmp_path / "new" / "out.jsonl"
    assert predict_file(model, source, output) == {"rows": 100, "truncated_rows": 0, "truncated_tokens": 0}
    found = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert [(one["row"], one["line"]) for one in found] == [(number, number + 1) for number in range(100)]
    assert "坏" in output.read_text(encoding="utf-8") and found[0]["file"] == str(source)
    expected = list(model.predict(f"{TEXTS[number % 5]} {number}" for number in range(100)))
    for one, wanted in zip(found, expected):
        assert one["label"] == wanted["label"] and one["score"] == wanted["scores"][wanted["label"]]
        assert one["probabilities"] == wanted["probabilities"]
    assert [file.name for file in output.parent.iterdir()] == ["out.jsonl"]


def test_a_bad_row_leaves_the_old_predictions_untouched(classifier: Path, tmp_path: Path):
    source, output = rows_file(tmp_path / "rows.jsonl", 80), tmp_path / "out.jsonl"
    output.write_text("old")
    source.write_text(source.read_text(encoding="utf-8") + '{"txet": "?"}\n', encoding="utf-8")
    with pytest.raises(
        UserError, match=r"rows.jsonl:81: there is no such column: 'text' \(did you mean 'txet'\?"
    ):
        predict_file(use(classifier), source, output)
    assert output.read_text() == "old" and len(list(tmp_path.iterdir())) == 2


def test_standard_input_and_output(classifier: Path, tmp_path: Path, monkeypatch, capsys):
    model = use(classifier)
    data = rows_file(tmp_path / "rows.jsonl", 3).read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), "utf-8"))
    predict_file(model, "-", "-")
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["file"] for line in lines] == ["standard input"] * 3
    table = "text\tmore\n这部电影\tx\n".encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(table), "utf-8"))
    assert predict_file(model, "-", tmp_path / "out.jsonl", reader="tsv")["rows"] == 1


def piped(monkeypatch: pytest.MonkeyPatch, text: str, encoding: str = "utf-8") -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(text.encode(encoding)), encoding))


def test_standard_input_is_read_as_the_training_rows_were(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    model, out = use(written(tmp_path / "model", tokenizer, SINGLE, natural="csv")), tmp_path / "out"
    piped(monkeypatch, 'id,text\n1,"好, 很好"\n2,two\n')
    assert predict_file(model, "-", out)["rows"] == 2
    piped(monkeypatch, '{"text": "好"}\n{"text": "two"}\n')
    with pytest.raises(UserError, match="no such column: 'text'.*read as csv.*--reader"):
        predict_file(model, "-", out)
    piped(monkeypatch, '{"text": "好"}\n')
    assert predict_file(model, "-", out, reader="jsonl")["rows"] == 1
    piped(monkeypatch, "text\n电影\n", "gb18030")
    assert predict_file(model, "-", out, encoding="gb18030")["rows"] == 1


@pytest.mark.parametrize(
    ("train", "keys", "wanted"),
    [
        ("a/*.csv", {}, "csv"),
        (["a.jsonl", "b.jsonl"], {}, "jsonl"),
        ("a.txt", {"reader": "tsv"}, "tsv"),
        ("a.csv", {"pattern": "(?P<text>.*)"}, "lines"),
        ("builtin:tiny", {}, None),
        ("hub:imdb", {}, None),
    ],
)
def test_a_stage_tells_how_its_rows_were_read(train, keys: dict, wanted: str | None):
    data = RowsData(kind="rows", train=train, format=SINGLE, **keys)
    assert Reading.of_stage(data).natural == wanted


def test_a_comma_in_a_text_is_no_end_of_it(tokenizer: Tokenizer, tmp_path: Path):
    model = use(written(tmp_path / "model", tokenizer, SINGLE, natural="csv"))
    (tmp_path / "a.csv").write_text("id,text\n1,I, for one, like it\n", encoding="utf-8")
    with pytest.raises(UserError, match="a.csv:2: 4 fields below a header of 2: ' for one'.*needs quotes"):
        predict_file(model, tmp_path / "a.csv", tmp_path / "out")


def test_hints_name_the_options_that_there_are(classifier: Path, tmp_path: Path):
    model, out = use(classifier), tmp_path / "out"
    (tmp_path / "a.dat").write_text("text\n好\n", encoding="utf-8")
    (tmp_path / "a.csv").write_bytes("text\n电影很好看\n".encode("gb18030"))
    with pytest.raises(UserError, match=r"--reader: the name does not tell .*write --reader lines, tsv"):
        predict_file(model, tmp_path / "a.dat", out)
    with pytest.raises(UserError, match="write --encoding gb18030"):
        predict_file(model, tmp_path / "a.csv", out)
    assert predict_file(model, tmp_path / "a.dat", out, "csv")["rows"] == 1
    assert predict_file(model, tmp_path / "a.csv", out, encoding="gb18030")["rows"] == 1
    with pytest.raises(UserError, match="--reader: there is no such reader: 'cvs' .*did you mean 'csv'"):
        predict_file(model, tmp_path / "a.dat", out, "cvs")
    with pytest.raises(UserError, match="--encoding: no text encoding is called 'gbk9'"):
        predict_file(model, tmp_path / "a.csv", out, encoding="gbk9")


def test_rows_are_read_as_in_training_and_json_as_json(tokenizer: Tokenizer, tmp_path: Path):
    reader = {
        "columns": ["label", "text"],
        "map": {"label": {"0": "坏", "1": "好", "2": "so-so"}},
        "drop": {"label": ["-"]},
    }
    model = use(written(tmp_path / "model", tokenizer, SINGLE, reader=reader))
    (tmp_path / "rows.tsv").write_text("0\t很长\n-\tnothing\n2\tso so\n", encoding="utf-8")
    (tmp_path / "bare.tsv").write_text("很长\nnothing\nso so\n", encoding="utf-8")
    rows_file(tmp_path / "rows.jsonl", 2)
    assert predict_file(model, tmp_path / "rows.tsv", tmp_path / "a")["rows"] == 3  # an answer for every row
    assert predict_file(model, tmp_path / "bare.tsv", tmp_path / "b")["rows"] == 3
    assert (tmp_path / "a").read_text().replace("rows.tsv", "bare.tsv") == (tmp_path / "b").read_text()
    assert predict_file(model, tmp_path / "rows.jsonl", tmp_path / "c")["rows"] == 2
    assert evaluate_file(model, tmp_path / "rows.tsv")["rows"] == 2  # what training leaves out is not scored


def test_paths_that_are_wrong(classifier: Path, language: Path, tmp_path: Path):
    model = use(classifier)
    with pytest.raises(UserError, match="no such file: .*nowhere.tsv"):
        predict_file(model, tmp_path / "nowhere.tsv", "-")
    source = rows_file(tmp_path / "rows.jsonl", 2)
    with pytest.raises(UserError, match="output: this is a folder"):
        predict_file(model, source, tmp_path)
    with pytest.raises(UserError, match="output: cannot be written"):
        predict_file(model, source, source / "below.jsonl")
    for one in (model, use(language)):
        for data in ("nowhere.tsv", "10 %", "nothing*.txt"):
            with pytest.raises(UserError, match="^data: no "):
                evaluate_file(one, data)
    with pytest.raises(UserError, match="did you mean 'test'"):
        evaluate_file(model, source, split="tests")
    with pytest.raises(UserError, match="rows.jsonl: evaluating needs the label column 'label' .*are text"):
        evaluate_file(model, rows_file(tmp_path / "rows.jsonl", 2, labelled=False))
