"""How good predictions are, in the field's own numbers, and for each number whether more of it is better.

Shapes: R rows, K labels. Functions take plain class indices and sums, so that they know nothing of models.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gradus.core.errors import UserError, nearest

LARGER_IS_BETTER: dict[str, bool] = {
    "accuracy": True,
    "exact_match": True,
    "rouge_l": True,
    "rouge_1": True,
    "rouge_2": True,
    "bleu": True,
    "f1": True,
    "precision": True,
    "recall": True,
    "strict_f1": True,
    "micro_f1": True,
    "macro_f1": True,
    "matthews": True,
    "pearson": True,
    "spearman": True,
    "calibration_error": False,
    "loss": False,
    "perplexity": False,
    "bits_per_byte": False,
}
"""Every metric that a recipe may name, in the order in which tables show them."""

METRICS: dict[str, set[str]] = {
    "tokens": {"loss", "perplexity", "bits_per_byte"},
    "classes": {"accuracy", "macro_f1", "matthews", "calibration_error", "loss"},
    "sets": {"micro_f1", "macro_f1", "accuracy", "loss"},
    "number": {"pearson", "spearman", "loss"},
    "choices": {"accuracy", "loss"},
    "spans": {"exact_match", "f1", "loss"},
    "tags": {"accuracy", "precision", "recall", "f1", "strict_f1", "loss"},
}
"""What an objective's predictions are (`Objective.measure`) -> the metrics they have."""

MAIN_METRIC = {
    "tokens": "loss", "classes": "accuracy", "number": "pearson", "choices": "accuracy", "spans": "f1",
    "tags": "f1", "sets": "micro_f1",
}  # fmt: skip
"""The metric that speaks for a stage unless its `stop` names another."""

CALIBRATION_BINS = 15
"""As in Guo et al. 2017, section 2 and table 1."""


def larger_is_better(metric: str) -> bool:
    """Whether more of `metric` (or TASK.METRIC) is better. Raises UserError for a name that is no metric."""
    metric = metric.rpartition(".")[2]
    if metric not in LARGER_IS_BETTER:
        raise UserError("no such metric", text=metric, hint=nearest(metric, LARGER_IS_BETTER))
    return LARGER_IS_BETTER[metric]


def better(metric: str, a: float, b: float) -> bool:
    """Whether `a` is strictly better than `b`; not-a-number is worse than all. Raises UserError as above."""
    larger = larger_is_better(metric)
    if math.isnan(a) or math.isnan(b):
        return math.isnan(b) and not math.isnan(a)
    return a > b if larger else a < b


def classification_metrics(
    labels: Sequence[int] | np.ndarray,
    predicted: Sequence[int] | np.ndarray,
    probabilities: np.ndarray | None,
    names: Sequence[str],
) -> dict[str, float]:
    """Scores class indices `predicted` [R] against `labels` [R]; `names` [K] are the labels, in order.

    `accuracy`; `macro_f1`, the mean F1 of the labels that occur in either; `matthews`, the correlation of
    Matthews 1975 in the form for K labels of Gorodkin 2004 (0 where either side is constant); and, given
    `probabilities` [R, K], `calibration_error`. Raises UserError without rows.
    """
    from sklearn.metrics import f1_score, matthews_corrcoef

    truth, guess = _indices(labels, predicted, names)
    scores = {
        "accuracy": float((truth == guess).mean()),
        "macro_f1": float(
            f1_score(truth, guess, labels=np.union1d(truth, guess), average="macro", zero_division=0.0)
        ),
        "matthews": float(matthews_corrcoef(truth, guess)) if len(np.union1d(truth, guess)) > 1 else 0.0,
    }
    if probabilities is not None:
        scores["calibration_error"] = _calibration_error(
            truth == guess, np.asarray(probabilities)[np.arange(len(guess)), guess]
        )
    return scores


def number_metrics(
    truth: Sequence[float] | np.ndarray, predicted: Sequence[float] | np.ndarray
) -> dict[str, float]:
    """`pearson` and `spearman` correlation of R numbers and R predictions (0 where either is constant), and
    `loss`, the mean squared error. Raises UserError without rows."""
    from scipy.stats import rankdata

    a, b = np.asarray(truth, np.float64), np.asarray(predicted, np.float64)
    if not len(a):
        raise UserError("there are no rows to score")
    return {
        "pearson": correlation(a, b),
        "spearman": correlation(rankdata(a), rankdata(b)),
        "loss": float(((a - b) ** 2).mean()),
    }


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """Pearson's r of two rows of numbers; 0 where either is constant."""
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return float(a @ b) / scale if scale > 0 else 0.0


def per_class(
    labels: Sequence[int] | np.ndarray, predicted: Sequence[int] | np.ndarray, names: Sequence[str]
) -> dict[str, Any]:
    """Precision, recall, F1 and support of every label, and the confusion matrix [K, K].

    The matrix has rows for the true label and columns for the predicted one. What is undefined (a label
    never predicted, or never seen) counts 0. Raises UserError without rows.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    truth, guess = _indices(labels, predicted, names)
    every = np.arange(len(names))
    columns = precision_recall_fscore_support(truth, guess, labels=every, zero_division=0.0)
    classes = [
        {"label": name, "precision": float(p), "recall": float(r), "f1": float(f), "support": int(s)}
        for name, p, r, f, s in zip(names, *columns)
    ]
    return {"classes": classes, "confusion": confusion_matrix(truth, guess, labels=every).tolist()}


def language_metrics(nats: float, tokens: int, bytes: int) -> dict[str, float]:
    """From the summed loss in nats: `loss` a token, `perplexity` = e^loss, `bits_per_byte` of UTF-8 text.

    Bits per byte = nats / ln 2 / bytes compares models with different tokenizers. Raises UserError for empty
    text.
    """
    if tokens < 1 or bytes < 1:
        raise UserError("the text to score is empty", hint="at least one predicted token is needed")
    loss = nats / tokens
    perplexity = math.exp(loss) if loss < 700 else math.inf
    return {"loss": loss, "perplexity": perplexity, "bits_per_byte": nats / math.log(2) / bytes}


def _indices(
    labels: Sequence[int] | np.ndarray, predicted: Sequence[int] | np.ndarray, names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    truth, guess = np.asarray(labels, dtype=np.int64), np.asarray(predicted, dtype=np.int64)
    if truth.shape != guess.shape or truth.ndim != 1:
        raise ValueError(f"labels {truth.shape} and predictions {guess.shape} must be one index a row each")
    if not len(truth):
        raise UserError("there are no rows to score")
    if min(truth.min(), guess.min()) < 0 or max(truth.max(), guess.max()) >= len(names):
        raise ValueError(f"class indices must be below the number of labels, {len(names)}")
    return truth, guess


def _calibration_error(correct: np.ndarray, confidence: np.ndarray) -> float:
    """Guo et al. 2017, equation 3: |accuracy - confidence| of a bin, weighed by its rows."""
    bins = np.clip(np.ceil(confidence * CALIBRATION_BINS).astype(np.int64) - 1, 0, CALIBRATION_BINS - 1)
    gap = np.bincount(bins, weights=correct.astype(np.float64) - confidence, minlength=CALIBRATION_BINS)
    return float(np.abs(gap).sum() / len(correct))
