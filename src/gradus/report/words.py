"""Numbers and names as a reader wants them: percent, signs, durations, and the full names of metrics."""

from __future__ import annotations

import math

MINUS = "−"
METRIC_NAMES = {
    "f1": "F1", "strict_f1": "strict F1", "macro_f1": "macro F1", "micro_f1": "micro F1",
    "matthews": "Matthews", "pearson": "Pearson", "spearman": "Spearman",
    "rouge_l": "ROUGE-L", "rouge_1": "ROUGE-1", "rouge_2": "ROUGE-2", "bleu": "BLEU",
}  # fmt: skip
"""Metrics that are not called by their words alone."""
FLOOR_NAMES = {
    "majority": "majority label", "word_majority": "majority label of the word", "naive_bayes": "naive Bayes",
    "mean": "mean of train", "base_rate": "base rates of labels",
}  # fmt: skip
SHARES = frozenset(
    {"accuracy", "exact_match", "f1", "precision", "recall", "strict_f1", "macro_f1", "micro_f1", "matthews",
     "pearson", "spearman", "calibration_error", "rouge_l", "rouge_1", "rouge_2", "bleu"}
)  # fmt: skip
"""Metrics within [-1, 1], shown times 100 as the literature does."""
DECIMALS = {"loss": 3, "bits_per_byte": 3, "perplexity": 2}


def metric_name(metric: str) -> str:
    return METRIC_NAMES.get(metric, metric.replace("_", " ").replace(".", " "))


def floor_name(floor: str) -> str:
    return FLOOR_NAMES.get(floor, floor.replace("_", " "))


def number(value: float | None, metric: str, sign: bool = False) -> str:
    """`value` as shown: "81.2" for an accuracy of 0.812, "1.923" bits per byte; a dash for None."""
    if value is None or math.isnan(value):
        return "–"
    own = metric.rsplit(".", 1)[-1]  # of a text of a mixture, or of a second objective
    shown = 100 * value if own in SHARES else value
    digits = 1 if own in SHARES else DECIMALS.get(own, 3)
    text = f"{shown:{'+' if sign else ''}.{digits}f}".replace("-", MINUS)
    return text.replace(MINUS, "") if not sign and float(text.replace(MINUS, "-")) == 0 else text


def with_deviation(mean: float, deviation: float | None, metric: str) -> str:
    """ "81.2 ± 0.4", or the mean alone where one seed has run."""
    return number(mean, metric) + (f" ± {number(deviation, metric)}" if deviation is not None else "")


def probability(p: float) -> str:
    """ "p = 0.003", "p < 0.001"."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def duration(seconds: float | None) -> str:
    """ "4.2 s", "3 min 5 s", "2 h 10 min"."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def count(value: float | None) -> str:
    """ "12,345" up to a million, then "3.20 M"; a dash for None."""
    if value is None:
        return "–"
    for size, name in ((1e12, "T"), (1e9, "G"), (1e6, "M")):
        if abs(value) >= size:
            return f"{value / size:.2f} {name}"
    return f"{value:,.0f}"


def listed(words: list[str]) -> str:
    """ "a, b and c"."""
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " and " + words[-1] if words else ""
