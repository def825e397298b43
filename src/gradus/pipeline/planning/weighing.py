"""What the labels of a stage weigh, by what its train rows hold."""

from __future__ import annotations

import numpy as np

from gradus.data.label_sets import LabelSets
from gradus.data.label_weights import balanced, balanced_positive, given_weights
from gradus.data.labels import Labels
from gradus.data.rows import RowsData
from gradus.data.sources import Rows
from gradus.data.tagged import Tags
from gradus.pipeline.planning.splits import Split


def label_weights(data: RowsData, labels: Labels, train: Split) -> dict[str, float] | None:
    """Label -> its weight, in the order of the logits; None where `weights` is not given.

    Tags are counted by the tokens that learn them. Raises UserError for a label that there is not, and for
    one whose weight cannot be balanced.
    """
    if data.weights is None:
        return None
    if not isinstance(data.weights, str):
        return given_weights(data.weights, labels.names)
    if isinstance(labels, LabelSets):
        return balanced_positive(train.counts["labels"], train.counts["rows"])
    if not isinstance(labels, Tags):
        return balanced(train.counts["labels"])
    assert isinstance(train.source, Rows)
    tagged = np.concatenate([row.tagged for row in train.source.examples if row.tagged is not None])
    found = np.bincount(tagged[tagged[:, 0] >= 0, 2], minlength=len(labels.names))
    return balanced(dict(zip(labels.names, found.tolist())))
