"""Schemes of tags against seqeval: what is an entity in its default mode and in its strict one, and what the
metrics are."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradus.data.tags import LETTERS, Entity, all_written, as_wanted, entities, is_of, whole, written

seqeval = pytest.importorskip("seqeval.metrics.sequence_labeling")

TYPES = ["LOC", "PER", "creative-work", "地名"]


def tags_of(scheme: str) -> st.SearchStrategy[list[str]]:
    """Any tags of a scheme, in any order: most of them illegal."""
    some = [f"{letter}-{kind}" for letter in dict.fromkeys(LETTERS[scheme]) for kind in TYPES]
    return st.lists(st.sampled_from(["O", "O", *some[:6], *some]), min_size=1, max_size=12)


def as_iobes(tags: list[str]) -> list[str]:
    """BMES as seqeval reads it."""
    return [f"I{tag[1:]}" if tag.startswith("M") else tag for tag in tags]


def schemes() -> dict[str, Any]:
    from seqeval.scheme import IOB2, IOBES

    return {"bio": IOB2, "bmes": IOBES, "iobes": IOBES}


each = pytest.mark.parametrize("scheme", LETTERS)


@each
@given(data=st.data())
def test_entities_are_those_of_seqeval(scheme: str, data: st.DataObject) -> None:
    from seqeval.scheme import Entities

    tags = data.draw(tags_of(scheme))
    theirs = seqeval.get_entities(as_iobes(tags))
    assert [tuple(one) for one in entities(tags)] == theirs
    (strict,) = Entities([as_iobes(tags)], schemes()[scheme]).entities
    assert [(one.type, one.first, one.last + 1) for one in as_wanted(tags, scheme)] == [
        (one.tag, one.start, one.end) for one in strict
    ]


@each
@given(data=st.data())
def test_what_is_written_is_read_and_repair_keeps_the_entities(scheme: str, data: st.DataObject) -> None:
    tags = data.draw(tags_of(scheme))
    found = entities(tags)
    repaired = all_written(found, len(tags), scheme)
    assert entities(repaired) == as_wanted(repaired, scheme) == found
    assert all(is_of(tag, scheme) for tag in repaired)
    assert set(repaired) <= set(whole(tags, scheme))
    assert (repaired == tags) == (as_wanted(tags, scheme) == found)


def test_schemes_by_hand() -> None:
    assert written(Entity("地名", 2, 4), "bmes") == ["B-地名", "M-地名", "E-地名"]
    assert written(Entity("", 0, 0), "bmes") == ["S"] and written(Entity("A", 0, 1), "iobes") == [
        "B-A",
        "E-A",
    ]
    assert entities(["B", "M", "E", "S", "S"]) == [("", 0, 2), ("", 3, 3), ("", 4, 4)]
    assert entities(["I-A", "I-A", "I-B", "O", "I-A"]) == [("A", 0, 1), ("B", 2, 2), ("A", 4, 4)]
    assert whole(["B-PER", "O"], "bio") == ["O", "B-PER", "I-PER"]
    assert whole(["S", "B", "E"], "bmes") == ["B", "M", "E", "S"]
    assert whole(["NOUN", "ADJ"], "none") == ["ADJ", "NOUN"]
    assert (
        not is_of("E-A", "bio") and not is_of("B-", "bio") and not is_of("LOC", "bio") and is_of("O", "bmes")
    )
