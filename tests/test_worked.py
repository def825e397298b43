"""The pages on objectives and on tags: examples are what the code prints, and what each serves is said."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest

from gradus.objectives import AnyObjectiveConfig
from gradus.pipeline.worked.objectives import WORKED, columns, rewritten, table

PAGE = Path(__file__).parents[1] / "docs" / "objectives.md"
ARRANGEMENTS = ("decoder", "encoder", "encoder_decoder")
TEXT = PAGE.read_text(encoding="utf-8")
PAGES = [path.read_text(encoding="utf-8") for path in (PAGE, PAGE.with_name("sequence-labelling.md"))]


def test_the_examples_are_printed_by_the_code() -> None:
    assert [rewritten(page) for page in PAGES] == PAGES, "python -m gradus.pipeline.worked.objectives"
    assert sorted(re.findall(r"<!-- printed: (.+?) -->", "".join(PAGES))) == sorted(WORKED)


def test_a_stale_example_would_be_found() -> None:
    stale = TEXT.replace("<sentinel 0>", "<sentinel 1>", 1)
    assert stale != TEXT and rewritten(stale) == TEXT
    with pytest.raises(KeyError):
        rewritten("<!-- printed: nothing -->\n")


def test_the_table_says_what_each_objective_serves() -> None:
    shown = {}
    for line in re.findall(r"^\| (`.+`) \|(.*)\|(.*)\|(.*)\|.*\|$", TEXT, re.MULTILINE):
        for name in re.findall(r"`(\w+)`", line[0]):
            shown[name] = {a for a, cell in zip(ARRANGEMENTS, line[1:]) if cell.strip() == "yes"}
    union, _ = get_args(AnyObjectiveConfig)
    kinds = {config.model_fields["kind"].default: set(config.serves) for config in get_args(union)}
    assert shown == kinds


def test_columns_stand_under_each_other() -> None:
    assert columns("天a") == 3
    made = table(["a", "bb"], [["天", "x"] * 40, ["y", "zzz"] * 40])
    lines = made.splitlines()
    assert lines[0].startswith("a   天 x   天") and lines[1].startswith("bb  y  zzz y")
    assert max(map(columns, lines)) <= 100 and "" in lines
