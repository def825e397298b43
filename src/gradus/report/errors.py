"""Where a model errs: label by label, confused with what; number by number; and row by row, the surest or the
largest errors first."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradus.evaluation.label_sets import per_label
from gradus.evaluation.metrics import per_class
from gradus.evaluation.statistics import mean
from gradus.report.records import SPLITS, Stage

MOST_ROWS = 20
LONGEST_TEXT = 600


@dataclass(frozen=True)
class ClassTable:
    """Per-class scores and confusion (rows true, columns predicted) on one split, all seeds pooled.

    Where a row has any number of labels, nothing is confused with anything: the matrix is empty."""

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
    """A row that most seeds got wrong; `confidence` is the mean probability of their wrong answers.

    Of a number it is the mean distance of the seeds, and `predicted` their mean.
    """

    file: str
    line: int | None
    text: str
    label: str
    predicted: str
    confidence: float
    wrong: int
    seeds: int


def class_tables(stages: Sequence[Stage]) -> list[ClassTable]:
    """One table a split on which classes were predicted: neither numbers nor a row's own answers."""
    found = []
    for split in SPLITS:
        predicted = [stage.predictions[split] for stage in stages if stage.predictions.get(split)]
        items = [item for rows in predicted for item in rows]
        if not items or not isinstance(items[0].get("probabilities", {}), dict) or "error" in items[0]:
            continue
        declared: list[Any] = next(
            (stage.record["labels"] for stage in stages if stage.record.get("labels")), []
        )
        if "predicted_labels" in items[0]:
            names = list(map(str, declared))
            right, told = (_marks(items, key, names) for key in ("labels", "predicted_labels"))
            found.append(ClassTable(split, len(predicted), per_label(right, told, names), []))
            continue
        seen = {str(item[key]) for item in items for key in ("label", "predicted")}
        names = [*map(str, declared), *sorted(seen - set(map(str, declared)))]
        index = {name: number for number, name in enumerate(names)}
        truth, guess = ([index[str(item[key])] for item in items] for key in ("label", "predicted"))
        scores = per_class(truth, guess, names)
        found.append(ClassTable(split, len(predicted), scores["classes"], scores["confusion"]))
    return found


def _marks(items: Sequence[dict[str, Any]], key: str, names: Sequence[str]) -> np.ndarray:
    """Which of the labels items have [R, K]."""
    return np.array([[name in item[key] for name in names] for item in items])


def number_points(stages: Sequence[Stage]) -> tuple[str, list[tuple[float, float]]]:
    """Split, and (true, mean prediction of the seeds) of each row; dev before test. Empty without numbers."""
    for split, rows in _by_row(stages):
        if "error" in rows[0][0]:
            return split, [(row[0]["label"], mean([item["predicted"] for item in row])) for row in rows]
    return "", []


def wrong_rows(stages: Sequence[Stage]) -> tuple[str, int, list[WrongRow]] | None:
    """Split, number of rows that most seeds got wrong, and the MOST_ROWS surest of them.

    Of numbers, where no row is quite right, those furthest off. Dev before test: who mends a model after
    reading its errors has to keep test unread. None without predictions.
    """
    for split, rows in _by_row(stages):
        wrong = [row for items in rows if (row := _wrong(items)) is not None]
        wrong.sort(key=lambda row: -row.confidence * row.wrong / row.seeds)
        return split, len(wrong), wrong[:MOST_ROWS]
    return None


def _by_row(stages: Sequence[Stage]) -> Iterator[tuple[str, list[list[dict[str, Any]]]]]:
    """Every split that was predicted: its rows, each with the predictions of all seeds."""
    for split in SPLITS:
        by_row: dict[tuple, list[dict[str, Any]]] = {}
        for item in (item for stage in stages for item in stage.predictions.get(split, [])):
            by_row.setdefault((item["row"], item["label"], item.get("text")), []).append(item)
        if by_row:
            yield split, list(by_row.values())


def _wrong(items: Sequence[dict[str, Any]]) -> WrongRow | None:
    numbers = "error" in items[0]
    errors = [item for item in items if numbers or not item["correct"]]
    if 2 * len(errors) <= len(items):
        return None
    first, text = items[0], str(items[0].get("text", ""))
    text = text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + "…"
    if numbers:
        label, said = f"{first['label']:.2f}", f"{mean([item['predicted'] for item in errors]):.2f}"
        sure = mean([abs(item["error"]) for item in errors])
    else:
        label, sure = str(first["label"]), mean([_sure(item) for item in errors])
        said = Counter(str(item["predicted"]) for item in errors).most_common(1)[0][0]
    place = str(first.get("file", "")), first.get("line")
    return WrongRow(*place, text, label, said, sure, len(errors), len(items))


def _sure(item: dict[str, Any]) -> float:
    """The probability of what was predicted: by name for classes, the largest for a row's own answers; of a
    set of labels that of having these and no others, each by itself."""
    given = item.get("probabilities") or {}
    if "predicted_labels" in item:
        told = item["predicted_labels"]
        return math.prod(odds if name in told else 1 - odds for name, odds in given.items())
    return float(given.get(item["predicted"], 0.0) if isinstance(given, dict) else max(given))
