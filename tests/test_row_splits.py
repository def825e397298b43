"""Rows of a stage: shares held out by content, what is left out is counted, digests name what rows say."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gradus.core.errors import UserError
from gradus.data.reader_options import ReaderOptions
from gradus.data.readers import missing_column
from gradus.data.rows import RowsData, RowSource, row_splits

SINGLE = {"kind": "single", "text": "text", "label": "label"}
COLUMNS = ["text", "label", "group"]


def splits(root: Path, **options: Any) -> dict[str, RowSource]:
    return row_splits(RowsData.model_validate({"kind": "rows", "format": SINGLE, **options}), root)


def table(count: int, start: int = 0) -> str:
    return "".join(f"文 {number}\t{number % 2}\t{number // 10}\n" for number in range(start, start + count))


def test_held_out_rows_stay_where_they_are(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text(table(1000) + "twice\t1\t1\n" * 2, encoding="utf-8")
    options: dict[str, Any] = {"train": "*.tsv", "columns": COLUMNS, "dev": "10 %", "test": "20 %"}

    def contents(**more: Any) -> dict[str, set[str]]:
        found = splits(tmp_path, **options, **more)
        for source in found.values():
            assert [row.index for row in source.rows] == list(range(len(source.rows)))
            places = [(row.file, row.line) for row in source.rows]
            assert places == sorted(places)
        return {split: {row.fields["text"] for row in source.rows} for split, source in found.items()}

    first = contents()
    assert set(first) == {"train", "dev", "test"} and len(set().union(*first.values())) == 1001
    assert sum(map(len, first.values())) == 1001
    assert 70 < len(first["dev"]) < 130 and 160 < len(first["test"]) < 240
    assert contents(map={"label": {"0": "no"}}) == first
    assert contents(limit=7) | {"train": 0} == first | {"train": 0} and len(contents(limit=7)["train"]) == 7
    options["test"] = None
    assert contents()["dev"] == first["dev"]
    options["test"] = "20 %"
    (tmp_path / "0.tsv").write_text(table(500, 5000), encoding="utf-8")
    assert all(first[split] <= later for split, later in contents().items())


def test_held_out_by_a_field(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text(table(1000), encoding="utf-8")
    share = {"share": "20 %", "by": "group"}
    found = splits(tmp_path, train="a.tsv", columns=COLUMNS, dev=share, test=share)
    groups = [{row.fields["group"] for row in source.rows} for source in found.values()]
    assert len(groups) == 3 and sum(map(len, groups)) == len(set().union(*groups)) == 100
    with pytest.raises(UserError, match=r"a.tsv:1: grup: there is no such column \(did you mean 'group'"):
        splits(tmp_path, train="a.tsv", columns=COLUMNS, dev=share | {"by": "grup"})
    with pytest.raises(ValidationError, match="same field"):
        splits(tmp_path, train="a.tsv", columns=COLUMNS, dev=share, test="10 %")


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("text\tlabel\n一\t1\n二\t-\n三\n四\t1\n五\t2\n", encoding="utf-8")
    source = splits(tmp_path, train="a.tsv", bad_rows="skip up to 1", drop={"label": "-"}, limit=2)["train"]
    assert [row.fields["text"] for row in source.rows] == ["一", "四"]
    assert (source.dropped, source.beyond_limit, [bad.line for bad in source.skipped]) == (1, 1, [4])
    with pytest.raises(UserError, match="leaves none of the 4 rows"):
        splits(tmp_path, train="a.tsv", bad_rows="skip up to 1", drop={"label": ["-", 1, 2]})
    with pytest.raises(
        UserError, match="drop: no row of train has this field: 'lable' .did you mean 'label'"
    ):
        splits(tmp_path, train="a.tsv", bad_rows="skip up to 1", drop={"lable": "-"})


def test_missing_columns_name_those_there_are(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(
        '{"text": "好", "label": 1}\n{"text": "二", "label": null}\n', encoding="utf-8"
    )
    source = splits(tmp_path, train="a.jsonl")["train"]
    with pytest.raises(UserError, match=r"a.jsonl:2: label: there is no such column"):
        missing_column(source.rows[1], "label")
    with pytest.raises(UserError, match="text, label"):
        missing_column(source.rows[0], "sentence")


def test_digest_names_what_the_rows_say(tmp_path: Path) -> None:
    (tmp_path / "a.tsv").write_text("text\tlabel\n好\t1\n坏\t0\n", encoding="utf-8")
    (tmp_path / "b.csv").write_text("label,text\n1,好\n0,坏\n", encoding="utf-8")
    digest = splits(tmp_path, train="a.tsv")["train"].digest
    assert splits(tmp_path, train="b.csv")["train"].digest == digest
    assert splits(tmp_path, train="a.tsv", map={"label": {"1": "x"}})["train"].digest != digest
    assert splits(tmp_path, train="a.tsv", limit=1)["train"].digest != digest


def test_a_folder_is_no_file_of_rows(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="this is a folder"):
        splits(tmp_path, train=str(tmp_path))


def test_options_for_the_model_folder() -> None:
    data = RowsData.model_validate(
        {"kind": "rows", "format": SINGLE, "train": "a.tsv", "columns": ["text", 2], "labels": [0, 1]}
    )
    assert data.labels == ["0", "1"] and data.columns == ["text", "2"]
    assert ReaderOptions.model_validate(data.reader_options().plain()) == data.reader_options()
    assert RowsData.model_validate(data.plain()) == data


PUBLISHED: dict[str, tuple[dict[str, Any], dict[str, int]]] = {
    "SST2": (
        {"train": "train.tsv", "dev": "dev.tsv", "test": "test.tsv", "columns": ["text", "label"]},
        {"train": 6920, "dev": 872, "test": 1821},
    ),
    "book_review": (
        {"train": "train.tsv", "dev": "dev.tsv", "test": "test.tsv"},
        {"train": 20000, "dev": 8000, "test": 8000},
    ),
    "TREC": (
        {
            "train": "train.txt",
            "test": "test.txt",
            "encoding": "latin-1",
            "pattern": r"(?P<label>[A-Z]+):(?P<fine>\S+) (?P<text>.+)",
        },
        {"train": 5452, "test": 500},
    ),
    "STSB": (
        {
            "train": "sts-train.csv",
            "dev": "sts-dev.csv",
            "reader": "tsv",
            "columns": ["genre", "file", "year", "id", "score", "s1", "s2"],
        },
        {"train": 5749, "dev": 1500},
    ),
    "SNLI_devtest": (
        {
            "train": "dev.txt",
            "test": "test.txt",
            "reader": "tsv",
            "columns": ["premise", "hypothesis", "label"],
            "map": {"label": {0: "entailment"}},
        },
        {"train": 9842, "test": 9824},
    ),
    "OCNLI": (
        {"train": "train.10k.json", "dev": "dev.json", "reader": "jsonl", "drop": {"label": "-"}},
        {"train": 10000, "dev": 2950},
    ),
    "RTE": ({"train": "train.tsv", "dev": "dev.tsv"}, {"train": 2490, "dev": 277}),
    "CoLA": (
        {"train": "in_domain_train.tsv", "dev": "*_dev.tsv", "columns": ["source", "label", "mark", "text"]},
        {"train": 8551, "dev": 1043},
    ),
}


@pytest.mark.data
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_rows(name: str) -> None:
    if not os.environ.get("GRADUS_DATA"):
        pytest.skip("GRADUS_DATA names no folder of public data sets")
    options, wanted = PUBLISHED[name]
    found = splits(Path(os.environ["GRADUS_DATA"]) / name, **options)
    assert {split: len(source.rows) + source.dropped for split, source in found.items()} == wanted | (
        {"train": 10000, "dev": 3000} if name == "OCNLI" else {}
    )
    labels = {row.fields["score" if name == "STSB" else "label"] for row in found["train"].rows}
    assert 2 <= len(labels) <= (250 if name == "STSB" else 6)
