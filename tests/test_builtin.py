"""Data without download: the same on every call, every class in every split, no file and no text in two."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from gradus.core.errors import UserError
from gradus.data import builtin
from gradus.data.builtin import builtin_name, builtin_rows, builtin_text
from gradus.data.rows import RowsData, row_splits
from gradus.data.text import TextData, text_splits

SPLITS = ("train", "dev", "test")


def plain(text: str) -> str:
    return " ".join(text.split())


def test_every_class_is_in_every_split() -> None:
    counts = [
        Counter(row.fields["module"] for row in builtin_rows("python_modules", split)) for split in SPLITS
    ]
    assert set(counts[0]) == set(counts[1]) == set(counts[2]) and 2 <= len(counts[0]) <= 10
    assert max(counts[0].values()) <= 300 and min(counts[0].values()) >= 10
    assert all(min(count.values()) >= 3 for count in counts)
    assert sum(counts[0].values()) > 500


def test_no_file_and_no_text_is_in_two_splits() -> None:
    parts = {split: builtin_rows("python_modules", split) for split in SPLITS}
    for what in (lambda row: row.file, lambda row: row.fields["text"]):
        found = [{what(row) for row in rows} for rows in parts.values()]
        assert sum(map(len, found)) == len(set().union(*found))
    for rows in parts.values():
        assert all(
            row.fields["text"] == plain(row.fields["text"]) and len(row.fields["text"]) >= 40 for row in rows
        )
        assert all(row.file.split("/")[0] == row.fields["module"] for row in rows)


def test_pretraining_text_has_not_read_the_test_rows() -> None:
    documents = {split: builtin_text("python_docs", split) for split in SPLITS}
    files = [{document.file for document in part} for part in documents.values()]
    assert sum(map(len, files)) == len(set().union(*files))
    paragraphs = {plain(piece) for document in documents["train"] for piece in document.text.split("\n\n")}
    whole = "\n".join(plain(document.text) for document in documents["train"])
    for split in ("dev", "test"):
        for row in builtin_rows("python_modules", split):
            assert row.file not in files[0] and row.fields["text"] not in paragraphs
    assert any(row.fields["text"] in whole for row in builtin_rows("python_modules", "train"))
    size = sum(len(document.text.encode()) for document in documents["train"])
    assert 500_000 < size < 10_000_000


def test_tiny_is_the_same_everywhere_and_in_two_languages() -> None:
    parts = {split: builtin_rows("tiny", split) for split in SPLITS}
    seen = [{row.fields["text"] for row in rows} for rows in parts.values()]
    assert [len(part) for part in seen] == [160, 40, 40] and len(set().union(*seen)) == 240
    for rows in parts.values():
        assert len({(row.fields["label"], row.fields["text"].isascii()) for row in rows}) == 4
    words = {
        label: set(map(str, builtin.__dict__[f"_{label.upper()}"])) for label in ("positive", "negative")
    }
    for row in sum(parts.values(), []):
        assert [any(word in row.fields["text"] for word in words[label]) for label in words].count(True) == 1
        assert any(word in row.fields["text"] for word in words[row.fields["label"]])
    text = builtin_text("tiny", "train")
    assert 30_000 < sum(len(document.text.encode()) for document in text) < 50_000
    data = TextData.model_validate({"kind": "text", "train": "builtin:tiny"})
    assert text_splits(data, Path())["train"].digest == "1e6808609e67e6da2fd24b97110dc80c"
    labelled = RowsData.model_validate(
        {"kind": "rows", "train": "builtin:tiny", "format": {"kind": "single", "text": "text"}}
    )
    assert row_splits(labelled, Path())["train"].digest == "5f5abf0d216f890accb89c4f48cccdd2"


def test_splits_of_recipes_select_the_part() -> None:
    data = TextData.model_validate({"kind": "text", **dict.fromkeys(SPLITS, "builtin:tiny")})
    found = text_splits(data, Path())
    assert {split: len(list(source.documents())) for split, source in found.items()} == {
        "train": 40,
        "dev": 6,
        "test": 6,
    }
    assert len({source.digest for source in found.values()}) == 3 and found["train"].files == []
    shared = TextData.model_validate({"kind": "text", "train": "builtin:tiny", "dev": "10 %"})
    counts = {split: len(list(source.documents())) for split, source in text_splits(shared, Path()).items()}
    assert sum(counts.values()) == 40 and counts["dev"] >= 1
    rows = RowsData.model_validate(
        {
            "kind": "rows",
            **dict.fromkeys(SPLITS, "builtin:tiny"),
            "format": {"kind": "single", "text": "text"},
        }
    )
    assert {split: len(source.rows) for split, source in row_splits(rows, Path()).items()} == {
        "train": 160,
        "dev": 40,
        "test": 40,
    }


def test_another_process_gathers_the_same() -> None:
    program = (
        "from gradus.data.builtin import *; import sys; from gradus.core.storage import digest_json as d;"
        "sources = ((builtin_rows, 'python_modules'), (builtin_text, 'python_docs'), (builtin_rows, 'tiny'));"
        "print([d(f(n, s)) for f, n in sources for s in ('train', 'dev', 'test')], 'torch' in sys.modules)"
    )
    from gradus.core.storage import digest_json

    told = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "7"},
    ).stdout
    sources = ((builtin_rows, "python_modules"), (builtin_text, "python_docs"), (builtin_rows, "tiny"))
    here = [digest_json(gather(name, split)) for gather, name in sources for split in SPLITS]
    assert told.strip() == f"{here} False"


def test_a_python_without_sources_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    cached = [function for function in vars(builtin).values() if hasattr(function, "cache_clear")]
    monkeypatch.setattr("sysconfig.get_paths", lambda: {"stdlib": str(tmp_path)})
    monkeypatch.setitem(sys.modules, "pydoc_data.topics", None)
    for function in cached:
        function.cache_clear()
    try:
        with pytest.raises(UserError, match="no library sources"):
            builtin_rows("python_modules", "train")
        with pytest.raises(UserError, match="no documentation"):
            builtin_text("python_docs", "train")
    finally:
        for function in cached:
            function.cache_clear()


def test_names() -> None:
    assert (
        builtin_name("builtin:tiny") == "tiny"
        and builtin_name("tiny") is None
        and builtin_name(["builtin:x"]) is None
    )
    with pytest.raises(UserError, match="no built-in rows of this name: 'builtin:python_docs'"):
        builtin_rows("python_docs", "train")
