"""Schemes of tags against seqeval: what is an entity in its default mode and in its strict one, and what the
metrics are."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradus.data.tags import LETTERS, Entity, all_written, as_wanted, entities, is_of, whole, written
from gradus.evaluation.tags import tag_floors, tag_metrics

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


@each
@given(data=st.data())
def test_metrics_are_those_of_seqeval(scheme: str, data: st.DataObject) -> None:
    from seqeval.metrics.v1 import precision_recall_fscore_support as strict

    right = data.draw(st.lists(tags_of(scheme), min_size=1, max_size=4))
    right = [all_written(entities(tags), len(tags), scheme) for tags in right]
    kept = st.sampled_from([True, True, False])
    said = [
        [tag if data.draw(kept) else other for tag, other in zip(tags, data.draw(tags_of(scheme)) * 12)]
        for tags in right
    ]
    found = tag_metrics(right, said, scheme)
    theirs = [[as_iobes(tags) for tags in rows] for rows in (right, said)]
    wanted = seqeval.precision_recall_fscore_support(*theirs, average="micro", zero_division=0)[:3]
    assert [found[name] for name in ("precision", "recall", "f1")] == pytest.approx(wanted)
    assert found["accuracy"] == pytest.approx(seqeval.accuracy_score(right, said))
    if any(any(tag != "O" for tag in tags) for tags in right + said):
        made = strict(*theirs, average="micro", scheme=schemes()[scheme], zero_division=0)
        assert found["strict_f1"] == pytest.approx(made[2])


def test_words_that_were_not_read_are_wrong_and_mark_nothing() -> None:
    found = tag_metrics([["O", "B-地名", "I-地名", "O"]], [["O", "B-地名", "I-地名", None]], "bio")
    assert found == {"accuracy": 0.75, "precision": 1.0, "recall": 1.0, "f1": 1.0, "strict_f1": 1.0}
    found = tag_metrics([["B-地名", "I-地名"]], [["B-地名", None]], "bio")
    assert found["f1"] == 0 and found["accuracy"] == 0.5
    assert tag_metrics([["NOUN"]], [["NOUN"]], "none") == {"accuracy": 1.0}
    loose = tag_metrics([["B-A", "I-A"]], [["I-A", "I-A"]], "bio")
    assert loose["f1"] == 1.0 and loose["strict_f1"] == 0.0


def test_floors_are_the_most_frequent_tag_of_all_and_of_the_word() -> None:
    known = [(["赤", "壁", "在", "在"], ["B-A", "I-A", "O", "O"]), (["壁", "壁"], ["O", "I-A"])]
    floors = tag_floors(known, [["赤", "壁", "曹"]], [["B-A", "I-A", "O"]], "bio")
    assert floors["majority"] == {"accuracy": 1 / 3, "precision": 0, "recall": 0, "f1": 0, "strict_f1": 0}
    assert set(floors["word_majority"].values()) == {1.0}
