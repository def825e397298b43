"""Parquet files and data sets of the hub: values as text, classes by name, and what is told without them."""

from __future__ import annotations

import datetime
import io
import sys
from pathlib import Path
from typing import Any

import pytest

from gradus.core.errors import UserError
from gradus.data.hub import HubName
from gradus.data.reader_options import ReaderOptions
from gradus.data.readers import read_rows, read_stream
from gradus.data.rows import RowsData, row_splits
from gradus.data.text import TextData, text_splits
from gradus.pipeline.models.opening import Reading

FORM = {"kind": "single", "text": "text", "label": "label"}


def of_hub(name: str, **options: Any) -> RowsData:
    return RowsData.model_validate({"kind": "rows", "train": name, "format": FORM, **options})


def table(path: Path) -> Path:
    """A file with a column of every kind, as pyarrow writes it."""
    arrow = pytest.importorskip("pyarrow", reason="the extra `hub` is not installed")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {
        "text": arrow.array(["很好看", None, "bad"]),
        "label": arrow.array([1, 0, -1], arrow.int64()),
        "score": arrow.array([3.8, 5, None], arrow.float32()),
        "choices": arrow.array([["一", "b"], [], None]),
        "nested": arrow.array([{"title": "T", "n": 1}] * 3),
        "day": arrow.array([datetime.date(2018, 6, 11)] * 3),
        "ok": arrow.array([True, False, None]),
        "picture": arrow.array([b"\xff"] * 3),
    }
    parquet.write_table(arrow.table(columns), path)
    return path


def test_parquet_values_become_text(tmp_path: Path) -> None:
    file = table(tmp_path / "a.parquet")
    options = ReaderOptions.model_validate({"fields": {"title": "nested/title"}})
    found = list(read_rows(file, options))
    always = {"nested": '{"title": "T", "n": 1}', "day": "2018-06-11", "title": "T"}
    assert [row.fields for row in found] == [
        {"text": "很好看", "label": "1", "score": "3.8", "choices": '["一", "b"]', "ok": "true", **always},
        {"label": "0", "score": "5.0", "choices": "[]", "ok": "false", **always},
        {"text": "bad", "label": "-1", **always},
    ]
    assert [row.line for row in found] == [1, 2, 3]

    class Pipe(io.BytesIO):
        def seekable(self) -> bool:
            return False

    piped = read_stream(
        Pipe(file.read_bytes()), "standard input", options.model_copy(update={"reader": "parquet"})
    )
    assert [row.fields for row in piped] == [row.fields for row in found]
    assert (
        Reading(reader=ReaderOptions(columns=["a"], encoding="gb18030")).options("x.parquet", None).columns
        is None
    )


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"columns": ["a"]}, "a.parquet: columns: this option is not for parquet files"),
        ({"encoding": "gb18030"}, "encoding: this option is not for parquet files"),
        ({"rows": "data/*"}, "in a table a path begins with *"),
        (
            {"fields": {"a": "nested/titel"}},
            "a.parquet:1: fields.a: there is no such key: 'nested/titel' (did you mean",
        ),
        ({"fields": {"a": "picture"}}, "a.parquet:1: fields.a: there is no such key"),
    ],
)
def test_parquet_mistakes(tmp_path: Path, options: dict[str, Any], told: str) -> None:
    table(tmp_path / "a.parquet")
    with pytest.raises(UserError) as caught:
        list(read_rows(tmp_path / "a.parquet", ReaderOptions.model_validate(options)))
    assert told in str(caught.value)


def test_what_is_no_parquet(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow", reason="the extra `hub` is not installed")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(UserError, match="a.parquet: not Parquet that can be read"):
        list(read_rows(tmp_path / "a.parquet", ReaderOptions()))


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for library in ("pyarrow.parquet", "datasets"):
        monkeypatch.setitem(sys.modules, library, None)
    (tmp_path / "a.parquet").write_bytes(b"PAR1")
    with pytest.raises(
        UserError, match=r"the library pyarrow, .*a.parquet' \(pip install 'gradus-lm\[hub\]'\)"
    ):
        list(read_rows(tmp_path / "a.parquet", ReaderOptions()))
    with pytest.raises(UserError, match=r"dev: the library datasets, .* 'hub:a/b:validation' \(pip install"):
        row_splits(of_hub("hub:a/b:train", train=str(table_of_two(tmp_path)), dev="hub:a/b"), tmp_path)


def table_of_two(folder: Path) -> Path:
    (folder / "rows.tsv").write_text("text\tlabel\na\t0\nb\t1\n")
    return folder / "rows.tsv"


def test_names_of_data_sets() -> None:
    assert HubName.of("hub:nyu-mll/glue/sst2", "dev") == ("nyu-mll/glue", "sst2", "validation")
    assert HubName.of("hub:squad", "train") == ("squad", None, "train")
    assert str(HubName.of("hub:a/b/c:unlabelled[:10%]", "test")) == "hub:a/b/c:unlabelled[:10%]"
    for wrong in ("hub:", "hub:a//b", "hub:a/b/c/d"):
        with pytest.raises(UserError, match="no name of a data set"):
            HubName.of(wrong, "train")


def test_a_data_set_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets", reason="the extra `hub` is not installed")
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["坏", "好"]),
         "tags": datasets.Sequence(datasets.ClassLabel(names=["O", "B"]))}
    )  # fmt: skip

    def loaded(name: str, config: str | None, split: str) -> Any:
        assert (name, config) == ("owner/名", "zh")
        rows = {
            "text": [f"{split} 一", "二"],
            "label": [1, 0 if split == "train" else -1],
            "tags": [[0, 1], []],
        }
        return datasets.Dataset.from_dict(rows, features=features)

    monkeypatch.setattr(datasets, "load_dataset", loaded)
    data = of_hub("hub:owner/名/zh", dev="hub:owner/名/zh", drop={"label": "坏"})
    found = row_splits(data, tmp_path)
    assert found["train"].rows[0].fields == {"text": "train 一", "label": "好", "tags": '["O", "B"]'}
    assert (found["train"].rows[0].file, found["train"].dropped) == ("hub:owner/名/zh:train", 1)
    assert [row.fields.get("label") for row in found["dev"].rows] == ["好", None]
    for options, told in (
        ({"columns": ["a"]}, "columns"),
        ({"reader": "csv"}, "reader"),
        ({"pattern": "(?P<a>.)"}, "pattern"),
    ):
        with pytest.raises(UserError, match=f"{told}: this option is not for the hub's data sets"):
            row_splits(of_hub("hub:owner/名/zh", **options), tmp_path)


def test_what_the_hub_does_not_give(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("datasets", reason="the extra `hub` is not installed")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        UserError, match=r"train: it cannot be loaded: 'hub:no-one/nothing:train' .*offline only"
    ):
        row_splits(of_hub("hub:no-one/nothing"), tmp_path)
    (tmp_path / "no-one" / "nothing").mkdir(parents=True)
    with pytest.raises(UserError, match="this may not be the hub's data set"):
        row_splits(of_hub("hub:no-one/nothing"), tmp_path)
    with pytest.raises(UserError, match="stands alone, not in a list"):
        row_splits(of_hub("", train=["hub:a/b", "a.tsv"]), tmp_path)
    with pytest.raises(UserError, match="a data set of the hub is rows"):
        text_splits(TextData.model_validate({"kind": "text", "train": "hub:a/b"}), tmp_path)
