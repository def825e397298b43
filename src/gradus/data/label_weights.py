"""What labels weigh in the loss, so that rare ones are learnt, too: given numbers, or balanced over train.

Where a row has one label its weight is that label's, and the loss is divided by the sum of weights. Where it
may have several, a label that it has counts its weight, one that it has not counts 1, and the loss is divided
by the number of rows. Both are torch's means: `cross_entropy(weight=...)` and
`binary_cross_entropy_with_logits(pos_weight=...)`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import Field

from gradus.core.errors import UserError, nearest

Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def given_weights(given: Mapping[str, float], names: tuple[str, ...]) -> dict[str, float]:
    """Label -> its weight, 1 unless given. Raises UserError for a label that there is not."""
    for name in given:
        if name not in names:
            raise UserError("there is no such label", field="weights", text=name, hint=nearest(name, names))
    return {name: float(given.get(name, 1.0)) for name in names}


def balanced(counts: Mapping[str, int]) -> dict[str, float]:
    """Label -> n / (K n_k), of n rows n_k with this one of K labels: scikit-learn's `compute_class_weight`
    (King and Zeng 2001), under which every label weighs the same in sum. Raises UserError for a label that no
    row has."""
    _require_rows(counts)
    total = sum(counts.values())
    return {name: total / (len(counts) * count) for name, count in counts.items()}


def balanced_positive(counts: Mapping[str, int], rows: int) -> dict[str, float]:
    """Label -> (n - n_k) / n_k, of `rows` = n rows n_k with the label: the weight of having it over that of
    not having it, by the formula of `balanced` for these two classes. Raises UserError for a label that no
    row or every row has."""
    _require_rows(counts)
    if everywhere := next((name for name, count in counts.items() if count == rows), None):
        hint = "give numbers, or leave the label out"
        raise UserError("every row of train has this label", field="weights", text=everywhere, hint=hint)
    return {name: (rows - count) / count for name, count in counts.items()}


def _require_rows(counts: Mapping[str, int]) -> None:
    if missing := next((name for name, count in counts.items() if not count), None):
        problem, hint = "nothing in train has this label, so its weight cannot be balanced", "give numbers"
        raise UserError(problem, field="weights", text=missing, hint=hint)
