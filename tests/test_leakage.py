"""Leakage: what counts as the same row, and what check and run make of it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from tiny import tiny

from gradus.core.errors import UserError
from gradus.data.leakage import leaked, row_keys, shared_rows
from gradus.data.readers import Row
from gradus.data.rows import RowsData, RowSource, row_splits
from gradus.pipeline import check as checking
from gradus.pipeline.check import Checks, check
from gradus.pipeline.planning import leaks
from gradus.pipeline.run import run

SINGLE = {"kind": "single", "text": "text", "label": "label"}
LONG = "the quick brown fox jumps over the lazy dog and then it runs far away"
HAN = "天地玄黄宇宙洪荒日月盈昃辰宿列张寒来暑往秋收冬藏闰余成岁"


def rows(*texts: str) -> list[Row]:
    return [Row(index, {"text": text, "label": "0"}, "a.tsv", index + 2) for index, text in enumerate(texts)]


ALIKE = [
    ("Hello, World!", "hello world"),
    ("ＡＢＣ，很好看！", "abc 很好看"),
    ("“A fine film” – he said …", "a fine film he said"),
    ("STRASSE ﬁn", "straße fin"),
    ("e\u0301te\u0301 la", "été—la"),
]
UNLIKE = [
    ("C++ is fun", "C is fun"),
    ("好看极了😀", "好看极了😡"),
    ("...", "!!!"),
    ("कि यह है", "का यह है"),
    ("a b", "a c"),
    ("text\0", "tex"),
]


@pytest.mark.parametrize(("one", "other"), ALIKE)
def test_rows_alike(one: str, other: str) -> None:
    first, second = row_keys(rows(one, other), ["text"])
    assert first.exact != second.exact and first.alike == second.alike


@pytest.mark.parametrize(("one", "other"), UNLIKE)
def test_rows_that_differ(one: str, other: str) -> None:
    first, second = row_keys(rows(one, other), ["text"])
    assert {first.exact, first.alike}.isdisjoint({second.exact, second.alike})


def test_short_rows_and_fields() -> None:
    texts = {"": True, "cool ?": True, "很好看": True, "很好看啊": True, "internationalisation": True,
             "不是很喜欢": False, "what 's next ?": False, "a好b": False}  # fmt: skip
    assert {text: key.short for text, key in zip(texts, row_keys(rows(*texts), ["text"]))} == texts
    pairs = [
        Row(0, {"a": "x y", "b": "z"}, "", 1),
        Row(1, {"a": "x", "b": "y z"}, "", 2),
        Row(2, {"a": "x y"}, "", 3),
    ]
    keys = row_keys(pairs, ["a", "b"])
    assert len({key.alike for key in keys}) == 3 and [key.short for key in keys] == [False, False, True]


def test_keys_do_not_depend_on_the_rows_around(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [text for pair in ALIKE + UNLIKE for text in pair] + ["", "\u0301", "好" * 999]
    together = row_keys(rows(*texts), ["text"])
    assert together == [row_keys(rows(text), ["text"])[0] for text in texts]
    monkeypatch.setattr("gradus.data.leakage._ROWS_AT_ONCE", 3)
    assert row_keys(rows(*texts), ["text"]) == together


def test_shared_rows_are_counted() -> None:
    seen = row_keys(rows("a b c", "A, b c", "cool", "其他的一句话"), ["text"])
    asked = row_keys(rows("new one here", "a b c", "A; b c", "Cool!", "其他的一句话。"), ["text"])
    found = shared_rows(seen, asked)
    assert (found.of, found.exact, found.alike, found.short, found.first) == (5, 1, 2, 1, (1, 0))
    assert leaked(seen, asked) == [True, True, False, True]
    assert shared_rows(seen, asked[:1]).first is None
    assert shared_rows(seen, [asked[3]]).first == (0, 2)


def test_drop_leaves_nothing_that_check_refuses() -> None:
    """Rows alike may differ in their words: the row of test says what is short, in both."""
    train = row_keys(rows("verygood movie", "very good, movie", "so cool", "真的 很 好看"), ["text"])
    test = row_keys(rows("very good movie", "so-cool", "真的很好看"), ["text"])
    assert [key.short for key in train[:2]] == [True, False] and shared_rows(train, test).serious == 2
    dropped = leaked(train, test)
    assert dropped == [True, True, False, True]
    left = shared_rows([key for key, out in zip(train, dropped) if not out], test)
    assert (left.serious, left.short) == (0, 1)
    assert leaked(test[:1], train[:1]) == [False] and not shared_rows(test[:1], train[:1]).serious


def test_a_pair_in_no_order_is_the_same_when_swapped(place: Path) -> None:
    texts = [
        ("一只猫在睡觉", "a cat sleeps here"),
        ("A cat sleeps, here!", "一只猫在睡觉。"),
        ("一只猫在睡觉", "一只猫在睡觉"),
    ]
    pairs = [Row(index, dict(zip("ab", pair)), "", index) for index, pair in enumerate(texts)]
    ordered, either = row_keys(pairs, ["a", "b"]), row_keys(pairs, ["a", "b"], ordered=False)
    assert len({key.alike for key in ordered}) == 3
    assert either[0].alike == either[1].alike != either[2].alike and either[0].exact != either[1].exact
    swapped = row_keys([Row(0, {"a": texts[0][1], "b": texts[0][0]}, "", 1)], ["a", "b"], ordered=False)
    assert swapped == either[:1]
    for name, one, other in (("train", *texts[0]), ("test", *texts[1])):
        more = "".join(f"{name} 的第 {number} 句\tsome words {number}\t{number % 2}\n" for number in range(4))
        (place / f"{name}.tsv").write_text(f"a\tb\tlabel\n{one}\t{other}\t1\n{more}", encoding="utf-8")
    form = {"first": "a", "second": "b", "label": "label"}
    for kind, out in (("similarity", 1), ("pair", 0)):
        data = {"kind": "rows", "train": "train.tsv", "test": "test.tsv", "format": {"kind": kind, **form},
                "leakage": "drop"}  # fmt: skip
        assert row_splits(RowsData.model_validate(data), place)["train"].leaked == out
    objectives = {"stages.finetune.objectives": [{"kind": "classification"}]}
    for kind in ("pair", "similarity"):  # in this order: what was found for the one is not kept for the other
        path = tiny(
            place / "recipe.yaml",
            objectives | {"stages.finetune.data": data | {"format": {"kind": kind, **form}}},
        )
        assert not any("rows of test that are in train" in note for note in checked(path).notes)
    data |= {"leakage": "stop", "format": {"kind": "pair", **form}}
    checked(tiny(place / "recipe.yaml", objectives | {"stages.finetune.data": data}))
    first = {"data": {**data}, "objectives": [{"kind": "classification"}], "length": "1 epoch"}
    data |= {"format": {"kind": "similarity", **form}}
    with pytest.raises(UserError, match="leakage: 1 of 5 rows of test are in train, too"):
        checked(tiny(place / "recipe.yaml", objectives | {"stages.finetune.data": data}))
    del first["data"]["test"]
    data |= {"leakage": "drop"}  # pairs that another stage has learned in an order
    with pytest.raises(UserError, match="1 of 5 rows of test are in train of first"):
        patch = {"stages.first": first, "stages.finetune.from": "first", "stages.finetune.data": data}
        checked(tiny(place / "recipe.yaml", objectives | patch))


def splits(folder: Path, **options: Any) -> dict[str, RowSource]:
    return row_splits(RowsData.model_validate({"kind": "rows", "format": SINGLE, **options}), folder)


def table(*texts: str) -> str:
    return "text\tlabel\n" + "".join(f"{text}\t{number % 2}\n" for number, text in enumerate(texts))


TEST = ["这部电影非常好看", "a film to forget", "cool"]
LEAKY = [
    "一本很无聊的书啊",
    "A film — to forget!",
    "cool",
    "这部电影非常好看",
    "quite another one",
    "one more of them",
]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(checking, "matrix_rate", lambda device, precision: 1e11)
    (tmp_path / "train.tsv").write_text(table(*LEAKY), encoding="utf-8")
    (tmp_path / "test.tsv").write_text(table(*TEST), encoding="utf-8")
    (tmp_path / "other.tsv").write_text(table("nothing of it here", "没有一句是相同的"), encoding="utf-8")
    (tmp_path / "book.txt").write_text(
        f"A book.\n{LONG}, they say.\n" + "No more of it. " * 99, encoding="utf-8"
    )
    return tmp_path


def test_drop_leaves_leaks_out_of_train_before_the_limit(place: Path) -> None:
    options: dict[str, Any] = {"train": "train.tsv", "dev": "test.tsv", "test": "test.tsv"}
    found = splits(place, **options, leakage="drop", limit=3)
    assert [row.fields["text"] for row in found["train"].rows] == [LEAKY[0], LEAKY[2], LEAKY[4]]
    assert (found["train"].leaked, found["train"].beyond_limit, found["dev"].leaked) == (2, 1, 0)
    assert len(found["dev"].rows) == len(found["test"].rows) == 3
    for leakage in ("stop", "allow"):
        assert len(splits(place, **options, leakage=leakage)["train"].rows) == 6
    with pytest.raises(UserError, match="train: `drop` and `leakage: drop` leave none of the 3 rows"):
        (place / "same.tsv").write_text(table("a b c", "c d e", "e f g"))
        splits(place, train="same.tsv", test="same.tsv", leakage="drop")


def recipe(place: Path, **data: Any) -> Path:
    reads = {"kind": "rows", "train": "train.tsv", "test": "test.tsv", "format": SINGLE, **data}
    return tiny(
        place / "recipe.yaml", {"stages.finetune.data": {k: v for k, v in reads.items() if v is not None}}
    )


def checked(path: Path, **options: Any) -> Checks:
    return check(path, runs=path.parent / "runs", data_dir=path.parent, device="cpu", **options)


def test_a_test_row_in_train_stops(place: Path) -> None:
    path = recipe(place)
    with pytest.raises(UserError) as caught:
        checked(path)
    for told in (
        f"{place}/test.tsv:2: stages.finetune.data.leakage: 2 of 3 rows of test are in train, too: '这部",
        f"it is {place}/train.tsv:5; `leakage: drop` leaves such rows out of train",
    ):
        assert told in str(caught.value)
    with pytest.raises(UserError, match="2 of 3 rows of test are in train, too"):
        run(path, runs=place / "runs", data_dir=place, device="cpu")
    assert not list((place / "runs").rglob("stage.json")) and not list((place / "runs").rglob("recipe.yaml"))
    line = next(note for note in checked(recipe(place, leakage="allow")).notes if "rows of test" in note)
    counts = "2 of 3 (1 but for case, space or punctuation) and 1 of fewer than 3 words"
    where = f"{place}/test.tsv:2, which is {place}/train.tsv:5"
    assert line == f"finetune: rows of test that are in train, too: {counts}, such as {where}"
    notes = checked(recipe(place, leakage="drop")).notes
    assert "finetune: train: 2 rows that test has, too, left out (leakage: drop)" in notes
    told = "finetune: rows of test that are in train, too: 0 of 3 and 1 of fewer than 3 words, such as"
    assert any(note.startswith(f"{told} {place}/test.tsv:4") for note in notes)


def test_dev_is_told_and_shares_held_out_are_whole(place: Path) -> None:
    notes = checked(recipe(place, test="other.tsv", dev="test.tsv")).notes
    assert any(note.startswith("finetune: rows of dev that are in train, too: 2 of 3") for note in notes)
    (place / "twice.tsv").write_text(
        "text\tlabel\n" + "".join(f"row number {n} of many\t{n % 2}\n" * 2 for n in range(90))
    )
    assert not any("rows of" in note for note in checked(recipe(place, train="twice.tsv", test="20 %")).notes)


def test_what_stages_before_learned_counts(place: Path) -> None:
    data = {"kind": "rows", "train": "train.tsv", "format": SINGLE}
    first = {"data": data, "objectives": [{"kind": "causal_lm"}], "length": "1 epoch"}
    patch = {"stages.first": first, "stages.finetune.from": "first"}
    own = {**data, "train": "other.tsv", "test": "test.tsv"}
    path = tiny(place / "recipe.yaml", {**patch, "stages.finetune.data": own})
    with pytest.raises(
        UserError, match=r"stages.first.data.leakage: 2 of 3 rows of test are in train of first, .*name this"
    ):
        checked(path)
    for repaired in ({"leakage": "allow"}, {"leakage": "drop", "test": "test.tsv"}):
        first["data"] = {**data, **repaired}
        checked(tiny(place / "recipe.yaml", {**patch, "stages.finetune.data": own}))
    first["data"], patch["stages.finetune.from"] = data, "pretrain"  # a stage that it does not start from
    checked(tiny(place / "recipe.yaml", {**patch, "stages.finetune.data": own}))


def test_text_that_was_read_before_is_told(place: Path) -> None:
    (place / "test.tsv").write_text(table(f"well, {LONG}", "quite a new row"), encoding="utf-8")
    (place / "new.txt").write_text(f"Another. {LONG.title()}", encoding="utf-8")
    path = recipe(place)
    text = {"kind": "text", "train": "book.txt", "dev": "new.txt"}
    notes = checked(path, settings={"stages.pretrain.data": text}).notes
    told = "rows of 8 words or more of test that share a run of 13 words with train of pretrain: 1 of 1"
    assert f"finetune: {told}, such as {place}/test.tsv:2 with {place}/book.txt:2" in notes
    assert any(
        note.startswith("pretrain: documents of dev that share a run of 13 words with train: 1 of 1 (")
        for note in notes
    )


def test_what_was_found_is_kept_and_allowing_changes_no_stage(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = recipe(place, leakage="allow")
    first = checked(path)
    monkeypatch.setattr(leaks, "_Search", None)
    again = checked(path, settings={"stages.finetune.optimizer.lr": 1e-4})
    assert again.notes == first.notes and [*again.plan.nodes] != [*first.plan.nodes]
    monkeypatch.undo()
    monkeypatch.setattr(checking, "matrix_rate", lambda device, precision: 1e11)
    (place / "test.tsv").write_text(table("a wholly new row", "还有一句新的话"), encoding="utf-8")
    plans = [checked(recipe(place, leakage=word)).plan for word in ("allow", "stop")]
    assert [*plans[0].nodes] == [*plans[1].nodes]


def test_built_in_data_has_no_leaks(place: Path) -> None:
    notes = checked(tiny(place / "recipe.yaml", {"stages.finetune.data.test": "builtin:tiny"})).notes
    assert not any("rows of test" in note for note in notes)
    modules = {"kind": "rows", **dict.fromkeys(("train", "dev", "test"), "builtin:python_modules"),
               "format": {**SINGLE, "label": "module"}}  # fmt: skip
    keys = {
        name: row_keys(source.rows, ["text"])
        for name, source in row_splits(RowsData.model_validate(modules), place).items()
    }
    assert not any(
        shared_rows(keys[one], keys[other]).first
        for one, other in (("train", "dev"), ("train", "test"), ("dev", "test"))
    )


@pytest.mark.data
@pytest.mark.parametrize(
    ("options", "exact"),
    [
        ({"train": "SST2/train.tsv", "test": "SST2/test.tsv", "columns": ["text", "label"]}, 2),
        ({"train": "TREC/train.txt", "test": "TREC/test.txt", "encoding": "latin-1",
          "pattern": r"(?P<label>[A-Z]+):(?P<fine>\w+) (?P<text>.*)"}, 10),
        ({"train": "book_review/train.tsv", "test": "book_review/test.tsv",
          "format": {**SINGLE, "text": "text_a"}}, 138),
        ({"train": "book_review/train.tsv", "test": "book_review/dev.tsv",
          "format": {**SINGLE, "text": "text_a"}}, 166),
    ],
)  # fmt: skip
def test_known_overlap_of_published_sets(options: dict[str, Any], exact: int) -> None:
    folder = os.environ.get("GRADUS_DATA")
    if not folder:
        pytest.skip("GRADUS_DATA names no folder of public data sets")
    found = splits(Path(folder), **options)
    field = options.get("format", SINGLE)["text"]
    keys = [row_keys(found[name].rows, [field]) for name in ("train", "test")]
    assert len({key.exact for key in keys[0]} & {key.exact for key in keys[1]}) == exact  # different rows
    shared = shared_rows(*keys)
    assert exact <= shared.serious + shared.short
    assert splits(Path(folder), **options, leakage="drop")["train"].leaked >= shared.exact
