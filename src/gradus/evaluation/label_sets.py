"""How good sets of labels are: F1 over all labels, the mean F1 of a label, how many sets are wholly right.

Shapes: R rows, K labels. As scikit-learn scores indicator arrays (`f1_score` with its averages, and
`accuracy_score`, which asks for the whole set); what is undefined is 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from gradus.core.errors import UserError

THRESHOLD = 0.5
"""A label is said where its probability is above this."""


def label_odds(scores: np.ndarray) -> np.ndarray:
    """The probability of each label: the sigmoid of its score, float64."""
    return np.exp(-np.logaddexp(0.0, -np.asarray(scores, np.float64)))


def said(scores: np.ndarray) -> np.ndarray:
    """Which labels scores, of any shape, say."""
    return label_odds(scores) > THRESHOLD


def set_metrics(right: np.ndarray, scores: np.ndarray) -> dict[str, float]:
    """Scores the sets that `scores` [R, K] (logits) say against `right` [R, K], zeros and ones.

    `micro_f1`, `macro_f1`, `accuracy` of whole sets, and `loss`, the mean over rows and labels of the binary
    cross-entropy, which no weight changes. Raises UserError without rows.
    """
    nats = np.logaddexp(0.0, scores) - right * scores
    return {**set_scores(right, said(scores)), "loss": float(nats.mean())}


def set_scores(right: np.ndarray, told: np.ndarray) -> dict[str, float]:
    """The same, without a loss, of the sets `told` [R, K]."""
    if not len(right):
        raise UserError("there are no rows to score")
    right, told = np.asarray(right, bool), np.asarray(told, bool)
    both, either = (right & told).sum(0), right.sum(0) + told.sum(0)
    return {
        "micro_f1": float(2 * both.sum() / max(either.sum(), 1)),
        "macro_f1": float((2 * both / np.maximum(either, 1)).mean()),
        "accuracy": float((right == told).all(1).mean()),
    }


def per_label(right: np.ndarray, told: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """Precision, recall, F1 and support of every label, from which labels rows have and were told [R, K]."""
    right, told = np.asarray(right, bool), np.asarray(told, bool)
    both, wanted, found = (right & told).sum(0), right.sum(0), told.sum(0)
    return [
        {"label": name, "precision": float(hit / max(f, 1)), "recall": float(hit / max(w, 1)),
         "f1": float(2 * hit / max(f + w, 1)), "support": int(w)}
        for name, hit, w, f in zip(names, both, wanted, found)
    ]  # fmt: skip


def set_floors(train: np.ndarray, right: np.ndarray) -> dict[str, dict[str, float]]:
    """Metrics on `right` [R, K] of what `train` [N, K] says without a text: `majority`, its most frequent set
    (the first in order among equals), and `base_rate`, each label with the share of the rows that have it
    as its probability, add-one smoothed."""
    counts = Counter(map(tuple, np.asarray(train, int).tolist()))
    usual = max(sorted(counts), key=lambda labels: counts[labels])
    having = train.sum(0)
    scores = np.log(having + 1) - np.log(len(train) - having + 1)
    return {
        "majority": set_scores(right, np.tile(np.array(usual), (len(right), 1))),
        "base_rate": set_metrics(right, np.tile(scores, (len(right), 1))),
    }
