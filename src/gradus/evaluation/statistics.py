"""What may be claimed: mean and deviation over seeds, and a paired test over rows.

Shapes: S seeds, R rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from gradus.core.keyed import keyed_generator

SIGNIFICANT = 0.05


class PairedTest(TypedDict):
    """`difference` of two shares of right rows (a - b), its 95 % interval `low` to `high`, two-sided `p`."""

    difference: float
    low: float
    high: float
    p: float


def mean(values: Sequence[float]) -> float:
    """The arithmetic mean of at least one number."""
    return math.fsum(values) / len(values)


def deviation(values: Sequence[float]) -> float | None:
    """The sample standard deviation (divided by n - 1); None for fewer than two numbers."""
    if len(values) < 2:
        return None
    centre = mean(values)
    return math.sqrt(math.fsum((value - centre) ** 2 for value in values) / (len(values) - 1))


def paired_bootstrap(
    correct_a: np.ndarray | Sequence[Sequence[bool]],
    correct_b: np.ndarray | Sequence[Sequence[bool]],
    samples: int = 10_000,
    key: tuple[object, ...] = (),
) -> PairedTest:
    """Whether a is right more often than b on the same rows: `correct_a` [S, R], `correct_b` [S', R], 0 or 1.

    Rows are drawn with replacement, all seeds of a row together (Efron and Tibshirani 1993, chapter 13; Koehn
    2004 for the paired form); p is twice the smaller tail. The interval is of percentiles, so it leaves 0 out
    where p < 0.05. A bootstrap of few rows is too sure of itself, so p is never below that of a sign test in
    which every row that differs points the same way. The same `key` draws the same rows.
    """
    a, b = np.atleast_2d(np.asarray(correct_a, np.int64)), np.atleast_2d(np.asarray(correct_b, np.int64))
    if a.shape[1] != b.shape[1] or not a.size or not b.size:
        raise ValueError(f"the same rows are wanted on both sides, not {a.shape} and {b.shape}")
    rows, scale = a.shape[1], len(a) * len(b)
    differences = a.sum(0) * len(b) - b.sum(0) * len(a)
    # Rows with the same difference are alike: how many of each a sample has is one multinomial draw.
    values, counts = np.unique(differences, return_counts=True)
    generator = keyed_generator("paired bootstrap", *key)
    sums = generator.multinomial(rows, counts / rows, size=samples) @ values
    tail = min(int((sums <= 0).sum()), int((sums >= 0).sum())) + 1
    unequal = int((differences != 0).sum())
    low, high = np.percentile(sums, [2.5, 97.5]) / (rows * scale)
    return {
        "difference": float(differences.sum() / (rows * scale)),
        "low": float(low),
        "high": float(high),
        "p": min(1.0, max(2 * tail / (samples + 1), 2.0 ** (1 - unequal))),
    }


def verdict(test: PairedTest) -> str:
    """What the test allows to say of a against b: "better", "worse" or "cannot tell" (p of 0.05 or more)."""
    if test["p"] >= SIGNIFICANT or test["difference"] == 0:
        return "cannot tell"
    return "better" if test["difference"] > 0 else "worse"
