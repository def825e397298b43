"""Running text: found in order, decoded or refused with a hint, cut into documents, held out without
overlap."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from gradus.core.errors import UserError
from gradus.data.text import Document, TextData, text_splits

CHINESE = "道可道，非常道。\n名可名，非常名。\n"


def read(root: Path, split: str = "train", **options: Any) -> list[Document]:
    data = TextData.model_validate({"kind": "text", "train": "*.txt", **options})
    return list(text_splits(data, root)[split].documents())


def texts(root: Path, split: str = "train", **options: Any) -> list[str]:
    return [document.text for document in read(root, split, **options)]


def error(root: Path, **options: Any) -> str:
    with pytest.raises(UserError) as caught:
        read(root, **options)
    return str(caught.value)


def test_byte_order_mark_and_line_ends_are_normalised(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"\xef\xbb\xbf" + "一\r\n二\r三\u2028四\x85\n".encode())
    assert texts(tmp_path) == ["一\n二\n三\u2028四\x85\n"]


def test_files_come_in_bytewise_order_and_lists_in_theirs(tmp_path: Path) -> None:
    (tmp_path / "folder" / "deep").mkdir(parents=True)
    for name in ("b.txt", "B.txt", "三.txt", "10.txt", "9.txt"):
        (tmp_path / name).write_text(name)
    (tmp_path / "folder" / "z.txt").write_text("z")
    (tmp_path / "folder" / "deep" / "y.txt").write_text("y")
    (tmp_path / "folder" / ".hidden").write_text("no")
    assert texts(tmp_path) == ["10.txt", "9.txt", "B.txt", "b.txt", "三.txt"]
    assert texts(tmp_path, train="folder") == ["y", "z"]
    assert texts(tmp_path, train=["三.txt", "folder/**/*.txt", str(tmp_path / "9.txt")]) == [
        "三.txt",
        "y",
        "z",
        "9.txt",
    ]


def test_glob_letters_in_a_name_that_exists_are_letters(tmp_path: Path) -> None:
    (tmp_path / "a[1].txt").write_text("brackets")
    (tmp_path / "a1.txt").write_text("none")
    assert texts(tmp_path, train="a[1].txt") == ["brackets"]
    (tmp_path / "[root]").mkdir()
    (tmp_path / "[root]" / "b.txt").write_text("inside")
    assert texts(tmp_path / "[root]") == ["inside"]
    assert texts(tmp_path, train=str(tmp_path / "a[0-9].txt")) == ["none"]


def test_documents(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("一\n二\n\n \u3000\n三\n", encoding="utf-8")
    assert read(tmp_path, documents="blank line") == [
        Document("一\n二", str(tmp_path / "a.txt"), 1),
        Document("三", str(tmp_path / "a.txt"), 5),
    ]
    assert [(one.text, one.line) for one in read(tmp_path, documents="line")] == [
        ("一", 1),
        ("二", 2),
        ("三", 5),
    ]
    assert texts(tmp_path, limit=1, documents="line") == ["一"]
    (tmp_path / "a.txt").write_text("x\ny\n<end>\n第二\n<end>\n\n<end>z", encoding="utf-8")
    found = [(one.text, one.line) for one in read(tmp_path, documents={"separator": "<end>"})]
    assert found == [("x\ny", 1), ("第二", 4), ("z", 7)]


@pytest.mark.parametrize(
    ("written", "text", "named"),
    [
        ("gb18030", CHINESE, "gb18030"),
        ("utf-16", CHINESE, "utf-16"),
        ("latin-1", "Señor Peña está aquí, ¿qué más?\n", "latin-1"),
        ("cp1252", "He said “no” – café\n", "cp1252"),
    ],
)
def test_wrong_encoding_names_the_right_one(tmp_path: Path, written: str, text: str, named: str) -> None:
    (tmp_path / "a.txt").write_bytes(text.encode(written))
    assert f"encoding: {named}" in error(tmp_path)
    assert texts(tmp_path, encoding=named) == [text]


def test_undecodable_bytes_are_shown_with_their_place(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("好\n好".encode() + b"\xff\xfe more")
    message = error(tmp_path)
    assert message.startswith(f"{tmp_path / 'a.txt'}:2: bytes ff at byte 7 are not utf-8")


def test_wrong_paths(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").touch()
    (tmp_path / "full.txt").write_text("text")
    (tmp_path / "blank.txt").write_text(" \n\n")
    (tmp_path / "folder").mkdir()
    assert f"train: no such file: 'non.txt' (looked in {tmp_path}" in error(tmp_path, train="non.txt")
    assert "no file matches this pattern: '*.text'" in error(tmp_path, train="*.text")
    assert "empty.txt: train: the file is empty" in error(tmp_path)
    assert "blank.txt: the file holds no text" in error(tmp_path, train="blank.txt")
    assert "named twice" in error(tmp_path, train=["full.txt", "f*.txt"])
    assert "holds no file" in error(tmp_path, train="folder")
    assert "stands alone" in error(tmp_path, train=["full.txt", "builtin:tiny"])
    assert "did you mean 'tiny'" in error(tmp_path, train="builtin:tinny")


@pytest.mark.parametrize(
    "options",
    [
        {"dev": 0.1},
        {"dev": "0 %"},
        {"dev": "60 %", "test": "40 %"},
        {"train": "10 %"},
        {"dev": {"share": "10 %", "by": "author"}},
        {"encoding": "utf-9"},
        {"documents": "page"},
        {"limit": 0},
        {"trian": "a"},
        {"train": ""},
    ],
)
def test_wrong_options(options: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TextData.model_validate({"kind": "text", "train": "a.txt", **options})


def test_config_survives_json() -> None:
    data = TextData.model_validate(
        {"kind": "text", "train": ["a", "b"], "dev": "2.5 %", "documents": {"separator": "。"}}
    )
    assert TextData.model_validate_json(data.model_dump_json()) == data
    assert data.plain()["dev"] == {"share": "2.5 %", "by": None}


def test_one_document_gives_its_tail(tmp_path: Path) -> None:
    lines = [f"第{number}行 line {number}\n" for number in range(1000)]
    (tmp_path / "a.txt").write_text("".join(lines), encoding="utf-8")
    data = TextData.model_validate({"kind": "text", "train": "a.txt", "dev": "10 %", "test": "5 %"})
    parts = {split: list(source.documents()) for split, source in text_splits(data, tmp_path).items()}
    assert "".join(parts[split][0].text for split in ("train", "dev", "test")) == "".join(lines)
    total = len("".join(lines))
    for split, share in (("train", 0.85), ("dev", 0.1), ("test", 0.05)):
        (document,) = parts[split]
        assert document.text.endswith("\n")
        assert abs(len(document.text) - share * total) < 20
        assert lines[document.line - 1] == document.text.split("\n")[0] + "\n"
    (tmp_path / "a.txt").write_text("甲" * 200, encoding="utf-8")
    assert texts(tmp_path, "dev", dev="10 %") == ["甲" * 20]
    (tmp_path / "a.txt").write_text("甲", encoding="utf-8")
    assert "too short" in error(tmp_path, split="dev", dev="10 %")


def test_documents_are_held_out_by_what_they_say(tmp_path: Path) -> None:
    lines = [f"文 {number}" for number in range(1000)] + ["twice", "twice"]
    (tmp_path / "a.txt").write_text("\n".join(lines), encoding="utf-8")
    options = {"dev": "10 %", "test": "20 %", "documents": "line"}
    parts = {split: texts(tmp_path, split, **options) for split in ("train", "dev", "test")}
    assert sorted(sum(parts.values(), [])) == sorted(lines)
    assert 70 < len(parts["dev"]) < 130 and 160 < len(parts["test"]) < 240
    assert sum("twice" in part for part in parts.values()) == 1
    (tmp_path / "a.txt").write_text(
        "\n".join(f"neu {number}" for number in range(500)) + "\n" + "\n".join(lines)
    )
    again = {split: texts(tmp_path, split, **options) for split in parts}
    assert all(set(parts[split]) <= set(again[split]) for split in parts)
    assert len(texts(tmp_path, limit=5, **options)) == 5
    assert texts(tmp_path, "dev", limit=5, **options) == again["dev"]


def test_few_documents_leave_one_for_each_split(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.txt").write_text(f"book {name}")
    parts = [texts(tmp_path, split, dev="1 %", test="1 %") for split in ("train", "dev", "test")]
    assert [len(part) for part in parts] == [1, 1, 1] and len(set(sum(parts, []))) == 3
    (tmp_path / "c.txt").unlink()
    assert "cannot be shared out" in error(tmp_path, dev="1 %", test="1 %")


def test_digest_names_content_order_and_share(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("一\n二\n三\n四\n五\n", encoding="utf-8")
    (tmp_path / "b.txt").write_text("b")

    def digests(**options: Any) -> list[str]:
        data = TextData.model_validate(
            {"kind": "text", "train": ["a.txt", "b.txt"], "documents": "line", **options}
        )
        return [source.digest for source in text_splits(data, tmp_path).values()]

    first = digests(dev="20 %")
    assert first == digests(dev="20 %") and len(set(first)) == 2
    assert first != digests(dev="30 %")
    assert digests() != digests(train=["b.txt", "a.txt"])
    whole = digests()
    (tmp_path / "a.txt").rename(tmp_path / "c.txt")
    assert digests(train=["c.txt", "b.txt"]) == whole
    (tmp_path / "b.txt").write_text("B")
    assert digests(train=["c.txt", "b.txt"]) != whole


@pytest.mark.data
def test_published_text(data_root: Path) -> None:
    novels = TextData.model_validate(
        {"kind": "text", "train": "LM_en_novels/train/*.txt", "dev": "LM_en_novels/valid/*.txt"}
    )
    parts = text_splits(novels, data_root)
    assert len(parts["train"].files) == 24 and len(parts["dev"].files) == 2
    for document in parts["dev"].documents():
        assert "\r" not in document.text and "\ufeff" not in document.text
    assert len(texts(data_root, train="LM_zh_novels/*演义.txt", dev="10 %")) == 1
    modern = texts(data_root, train="LM_zh_CLUECorpusSmall/CLUE*.txt", documents="blank line")
    assert len(modern) > 100 and all("\n\n" not in text for text in modern)


@pytest.fixture
def data_root() -> Path:
    folder = os.environ.get("GRADUS_DATA")
    if not folder:
        pytest.skip("GRADUS_DATA names no folder of public data sets")
    return Path(folder)
