"""Rows with any number of labels: as they are told, scored, and beside what learns nothing.

Shapes: K labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gradus.data.label_sets import LabelSets
from gradus.data.labels import LabelledRow
from gradus.evaluation.label_sets import label_odds, said, set_floors


def set_said(names: Sequence[str], scores: np.ndarray) -> dict[str, Any]:
    """{"labels", "probabilities", "scores"} of a row's scores [K]: those whose probability is above the
    threshold, in the order of the logits."""
    return {
        "labels": _chosen(names, said(scores)),
        "probabilities": dict(zip(names, label_odds(scores).tolist())),
        "scores": dict(zip(names, scores.tolist())),
    }


def set_judged(names: Sequence[str], right: np.ndarray, told: dict[str, Any]) -> dict[str, Any]:
    """What was said beside what is `right` [K], in a line each and as lists; `correct` where the whole set
    is."""
    labels = _chosen(names, right > 0)
    return {"label": _line(labels), "predicted": _line(told["labels"]), "correct": labels == told["labels"],
            "probabilities": told["probabilities"],
            "labels": labels, "predicted_labels": told["labels"]}  # fmt: skip


def set_floor_metrics(
    answers: LabelSets, field: str, train: Sequence[LabelledRow], rows: Sequence[LabelledRow]
) -> dict[str, dict[str, float]]:
    """The floors of a split."""
    known, right = (np.stack([answers.marks(row, field) for row in some]) for some in (train, rows))
    return set_floors(known, right)


def _chosen(names: Sequence[str], which: np.ndarray) -> list[str]:
    return [name for name, one in zip(names, which) if one]


def _line(labels: Sequence[str]) -> str:
    return ", ".join(labels) or "–"
