"""What may be claimed: mean and deviation over seeds, and a paired test over rows.

Shapes: S seeds, R rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TypedDict

import numpy as np
from numpy.typing import ArrayLike

from gradus.core.keyed import keyed_generator

SIGNIFICANT = 0.05
NORMAL_95 = 1.959963984540054
"""Deviations from the mean within which a normal variable lies 95 % of the time."""


SAMPLES_AT_ONCE = 500
"""Bootstrap samples held in memory together."""


class PairedTest(TypedDict):
    """`difference` (a - b) of two shares of right rows or of two correlations, its 95 % interval `low` to
    `high`, and the two-sided `p`."""

    difference: float
    low: float
    high: float
    p: float


class SeedTest(TypedDict):
    """The mean `difference` (a - b) of a metric over `seeds`, its sample `deviation`, the two-sided `p`."""

    difference: float
    deviation: float
    p: float
    seeds: int


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

    It speaks of the seeds at hand: what other seeds would do is in the deviation over them, not in p.
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
    observed = float(differences.sum() / (rows * scale))
    return _test(observed, sums / (rows * scale), int((differences != 0).sum()))


def paired_correlation(
    truth: np.ndarray | Sequence[float],
    predicted_a: np.ndarray | Sequence[Sequence[float]],
    predicted_b: np.ndarray | Sequence[Sequence[float]],
    samples: int = 10_000,
    key: tuple[object, ...] = (),
) -> PairedTest:
    """Whether a's predictions [S, R] follow the numbers `truth` [R] more closely than b's [S', R] do.

    The difference of two correlations (Pearson's r, averaged over seeds). Its distribution comes from rows
    drawn with replacement, all seeds of a row together, as in `paired_bootstrap`: Efron and Tibshirani 1993,
    section 6.3 (the bootstrap of a correlation) and chapter 13 (its percentiles). A sample in which a side is
    constant counts 0, as in `evaluation.metrics`.
    """
    a, b = (
        np.atleast_2d(np.asarray(predicted_a, np.float64)),
        np.atleast_2d(np.asarray(predicted_b, np.float64)),
    )
    x = np.asarray(truth, np.float64)
    if not (a.shape[1] == b.shape[1] == len(x)) or not a.size or not b.size:
        raise ValueError(f"the same rows are wanted on all sides, not {x.shape}, {a.shape} and {b.shape}")
    generator = keyed_generator("paired correlation", *key)
    rows = len(x)
    both, side = np.concatenate([a, b]), len(a)
    drawn = []
    for start in range(0, samples, SAMPLES_AT_ONCE):
        size = min(SAMPLES_AT_ONCE, samples - start)
        places = generator.integers(rows, size=(size, rows)) + rows * np.arange(size)[:, None]
        weights = np.bincount(places.ravel(), minlength=size * rows).reshape(size, rows)
        found = _correlations(x, both, weights.astype(np.float64))
        drawn.append(found[:, :side].mean(1) - found[:, side:].mean(1))
    whole = _correlations(x, both, np.ones((1, rows)))[0]
    unequal = int((a.mean(0) != b.mean(0)).sum())
    return _test(float(whole[:side].mean() - whole[side:].mean()), np.concatenate(drawn), unequal)


def _correlations(truth: np.ndarray, predicted: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Pearson's r [N, S] of `truth` [R] with `predicted` [S, R], each row counted `weights` [N, R] times."""
    x, y = truth - truth.mean(), predicted - predicted.mean(1, keepdims=True)
    total = weights.sum(1, keepdims=True)
    mean_x, mean_y = (weights @ x)[:, None] / total, weights @ y.T / total
    var_x = (weights @ (x * x))[:, None] / total - mean_x**2
    var_y = weights @ (y * y).T / total - mean_y**2
    shared = weights @ (x * y).T / total - mean_x * mean_y
    # What rounding leaves of a constant is no variance.
    least_x, least_y = 1e-12 * (x * x).mean(), 1e-12 * (y * y).mean(1)
    varies = (var_x > least_x) & (var_y > least_y)
    return np.divide(
        shared, np.sqrt(np.where(varies, var_x * var_y, 1.0)), out=np.zeros_like(shared), where=varies
    )


def _test(difference: float, drawn: np.ndarray, unequal: int) -> PairedTest:
    """The interval and p of `difference` from bootstrapped ones; `unequal` rows differ between the sides."""
    tail = min(int((drawn <= 0).sum()), int((drawn >= 0).sum())) + 1
    low, high = np.percentile(drawn, [2.5, 97.5])
    return {
        "difference": difference,
        "low": float(low),
        "high": float(high),
        "p": min(1.0, max(2 * tail / (len(drawn) + 1), 2.0 ** (1 - unequal))),
    }


def paired_seeds(a: Sequence[float], b: Sequence[float]) -> SeedTest | None:
    """Whether a metric differs between a and b beyond what seeds do: values [S], a pair a seed.

    Student's t-test of the differences (Student 1908; Dror et al. 2018, section 3.2). None of fewer than two
    pairs. It speaks of new seeds on the rows at hand, where the tests over rows speak of new rows. Where all
    differences are equal, p is 0, or 1 where they are nothing.
    """
    from scipy.stats import t

    differences = [one - other for one, other in zip(a, b)]
    spread = deviation(differences)
    if spread is None:
        return None
    difference, seeds = mean(differences), len(differences)
    if spread == 0:
        p = 0.0 if difference else 1.0
    else:
        p = 2 * float(t.sf(abs(difference) / (spread / math.sqrt(seeds)), seeds - 1))
    return {"difference": difference, "deviation": spread, "p": p, "seeds": seeds}


def verdict(test: PairedTest) -> str:
    """What the test allows to say of a against b: "better", "worse" or "cannot tell" (p of 0.05 or more)."""
    if test["p"] >= SIGNIFICANT or test["difference"] == 0:
        return "cannot tell"
    return "better" if test["difference"] > 0 else "worse"


def wilson_interval(right: int, rows: int) -> tuple[float, float]:
    """The 95 % interval of a share of `right` rows among `rows` (Wilson 1927; holds for few rows, too)."""
    share, z = right / rows, NORMAL_95
    centre = (share + z * z / (2 * rows)) / (1 + z * z / rows)
    reach = z / (1 + z * z / rows) * math.sqrt(share * (1 - share) / rows + z * z / (4 * rows * rows))
    return max(0.0, centre - reach), min(1.0, centre + reach)


def matthews_interval(
    cells: Sequence[int], samples: int = 10_000, key: tuple[object, ...] = ()
) -> tuple[float, float]:
    """The 95 % interval of the Matthews correlation of two classes: percentiles of a bootstrap over rows.

    `cells` are the numbers of true and false positives, false and true negatives; rows of a cell are alike,
    so a sample is one multinomial draw. The same `key` draws the same samples.
    """
    counts = np.asarray(cells, np.float64)
    generator = keyed_generator("matthews interval", *key)
    drawn = generator.multinomial(int(counts.sum()), counts / counts.sum(), size=samples)
    low, high = np.percentile(matthews(*drawn.T), [2.5, 97.5])
    return float(low), float(high)


def matthews(tp: ArrayLike, fp: ArrayLike, fn: ArrayLike, tn: ArrayLike) -> np.ndarray:
    """The correlation of two classes (Matthews 1975) from counts of any shape; 0 where a side is constant."""
    a, b, c, d = (np.asarray(cell, np.float64) for cell in (tp, fp, fn, tn))
    scale = np.sqrt((a + b) * (a + c) * (d + b) * (d + c))
    return np.divide(a * d - b * c, scale, out=np.zeros_like(scale), where=scale > 0)
