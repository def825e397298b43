"""Where a classifier errs: label by label, confused with what, and row by row, the surest errors first."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from gradus.evaluation.metrics import per_class
from gradus.evaluation.statistics import mean
from gradus.report.records import SPLITS, Stage

MOST_ROWS = 20
LONGEST_TEXT = 600
MOST_LABELS = 24
"""A confusion matrix beyond this is no longer read by anyone."""


@dataclass(frozen=True)
class ClassTable:
    """Per-class scores and confusion (rows true, columns predicted) on one split, all seeds pooled."""

    split: str
    seeds: int
    classes: list[dict[str, Any]]
    confusion: list[list[int]]

    @property
    def shares(self) -> list[list[float]]:
        """The confusion as shares of each true label: how dark a cell is."""
        return [[value / max(1, sum(row)) for value in row] for row in self.confusion]


@dataclass(frozen=True)
class WrongRow:
    """A row that most seeds got wrong; `confidence` is the mean probability of their wrong answers."""

    file: str
    line: int | None
    text: str
    label: str
    predicted: str
    confidence: float
    wrong: int
    seeds: int


def class_tables(stages: Sequence[Stage]) -> list[ClassTable]:
    """One table a split that was predicted."""
    found = []
    for split in SPLITS:
        predicted = [stage.predictions[split] for stage in stages if stage.predictions.get(split)]
        items = [item for rows in predicted for item in rows]
        if not items:
            continue
        declared: list[Any] = next(
            (stage.record["labels"] for stage in stages if stage.record.get("labels")), []
        )
        seen = {str(item[key]) for item in items for key in ("label", "predicted")}
        names = [*map(str, declared), *sorted(seen - set(map(str, declared)))]
        index = {name: number for number, name in enumerate(names)}
        truth, guess = ([index[str(item[key])] for item in items] for key in ("label", "predicted"))
        scores = per_class(truth, guess, names)
        found.append(ClassTable(split, len(predicted), scores["classes"], scores["confusion"]))
    return found


def wrong_rows(stages: Sequence[Stage]) -> tuple[str, int, list[WrongRow]] | None:
    """Split, number of rows that most seeds got wrong, and the MOST_ROWS surest of them.

    Dev before test: who mends a model after reading its errors has to keep test unread. None without
    predictions.
    """
    for split in SPLITS:
        predicted = [stage.predictions[split] for stage in stages if stage.predictions.get(split)]
        if predicted:
            by_row: dict[tuple, list[dict[str, Any]]] = {}
            for item in (item for rows in predicted for item in rows):
                by_row.setdefault((item["row"], item["label"], item.get("text")), []).append(item)
            wrong = [row for items in by_row.values() if (row := _wrong(items)) is not None]
            wrong.sort(key=lambda row: -row.confidence * row.wrong / row.seeds)
            return split, len(wrong), wrong[:MOST_ROWS]
    return None


def _wrong(items: Sequence[dict[str, Any]]) -> WrongRow | None:
    errors = [item for item in items if not item["correct"]]
    if 2 * len(errors) <= len(items):
        return None
    sure = mean([float((item.get("probabilities") or {}).get(item["predicted"], 0.0)) for item in errors])
    said = Counter(str(item["predicted"]) for item in errors).most_common(1)[0][0]
    first, text = items[0], str(items[0].get("text", ""))
    text = text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + "…"
    return WrongRow(
        str(first.get("file", "")),
        first.get("line"),
        text,
        str(first["label"]),
        said,
        sure,
        len(errors),
        len(items),
    )
