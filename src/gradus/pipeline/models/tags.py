"""Words with the tags that a model says: as they are told, scored, and beside what learns nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gradus.data.labels import LabelledRow
from gradus.data.parts import RowFormat
from gradus.data.tagged import Laid, Tagged
from gradus.data.tags import OUTSIDE, entities, may_follow
from gradus.data.word_pieces import WordEncoder
from gradus.evaluation.tags import tag_floors, tag_metrics
from gradus.objectives.token_classification import SAID


def follows_of(form: RowFormat | None, names: Sequence[str]) -> np.ndarray | None:
    """Which tags may follow which, for rows that have any; see `may_follow`."""
    return may_follow(names, form.scheme) if isinstance(form, Tagged) else None


def tags_said(
    encoder: WordEncoder, names: Sequence[str], row: LabelledRow, scores: np.ndarray
) -> dict[str, Any]:
    """{"words", "tags", "probabilities", "entities"} of a row, from what `TokenClassification.of_rows` says.

    A word that the context has cut off, or of which the tokenizer leaves nothing, has no tag: null.
    "entities" are what the tags mark, where they do: see `Tagged.told`.
    """
    laid = encoder.form.laid(row)
    tags, odds = _of_words(names, len(laid.places), scores)
    said: dict[str, Any] = {"words": laid.words, "tags": tags, "probabilities": odds}
    return said | {"entities": _told(encoder.form, laid, tags)} if encoder.form.scheme != "none" else said


def tags_judged(encoder: WordEncoder, row: LabelledRow, said: dict[str, Any]) -> dict[str, Any]:
    """What was said beside what is right, in a line each; `correct` where every tag is."""
    form, right = encoder.form, encoder.form.tags_of(row)
    label, predicted = (_line(form, form.laid(row), tags) for tags in (right, said["tags"]))
    known = [one for one in said["probabilities"] if one is not None]
    return {"label": label, "predicted": predicted, "correct": right == said["tags"],
            "probabilities": [float(np.mean(known or [0.0]))],
            "words": said["words"], "tags": right, "predicted_tags": said["tags"]}  # fmt: skip


def tag_answer_metrics(
    encoder: WordEncoder, names: Sequence[str], rows: Sequence[LabelledRow], scores: np.ndarray
) -> dict[str, float]:
    """The metrics of the tags of rows' words; `scores` are of each what `tags_said` reads."""
    right = [encoder.form.tags_of(row) for row in rows]
    said = [_of_words(names, len(tags), own)[0] for tags, own in zip(right, scores)]
    return tag_metrics(right, said, encoder.form.scheme)


def tag_floor_metrics(
    form: Tagged, train: Sequence[LabelledRow], rows: Sequence[LabelledRow]
) -> dict[str, dict[str, float]]:
    """The floors of a split."""
    known = [(form.laid(row).words, form.tags_of(row)) for row in train]
    words, right = [form.laid(row).words for row in rows], [form.tags_of(row) for row in rows]
    return tag_floors(known, words, right, form.scheme)


def _of_words(
    names: Sequence[str], words: int, scores: np.ndarray
) -> tuple[list[str | None], list[float | None]]:
    """The tag of each word and its probability: what its first token says."""
    lines = scores[np.isfinite(scores)].reshape(-1, SAID)
    number, first = np.unique(lines[:, 0].astype(int), return_index=True)
    tags: list[str | None] = [None] * words
    odds: list[float | None] = [None] * words
    for word, line in zip(number.tolist(), lines[first]):
        tags[word], odds[word] = names[int(line[1])], float(line[2])
    return tags, odds


def _told(form: Tagged, laid: Laid, tags: Sequence[str | None]) -> list[dict[str, Any]]:
    return [form.told(laid, one) for one in entities(tag or OUTSIDE for tag in tags)]


def _line(form: Tagged, laid: Laid, tags: Sequence[str | None]) -> str:
    """Entities, or tags that mark none, for a person to read."""
    if form.scheme == "none":
        return " ".join(tag or "–" for tag in tags)
    return ", ".join(f"{one['type']} {one['text']}".strip() for one in _told(form, laid, tags))
