"""What a model says of a row, in words: for `predict`, for the predictions of a stage, and beside the floors.

Shapes: K classes, or answers of a row.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from gradus.data.encoding import RowEncoder
from gradus.data.formats import MultipleChoice
from gradus.data.labels import LabelledRow
from gradus.data.question_windows import QuestionEncoder
from gradus.data.word_pieces import WordEncoder
from gradus.objectives import Measure
from gradus.pipeline.models.label_sets import set_said
from gradus.pipeline.models.spans import span_said
from gradus.pipeline.models.tags import tags_said


class Answer(NamedTuple):
    """A row, its scores [K] (of its classes, of its answers, or one number; none where it is answered by a
    `text`), and how many of its tokens did not fit the context."""

    row: LabelledRow
    scores: np.ndarray
    truncated: int
    text: str | None = None


def told(
    measure: Measure, labels: tuple[str, ...], row: LabelledRow, scores: np.ndarray, encoder: RowEncoder
) -> dict[str, Any]:
    """{"label", "probabilities", "scores"} of a row's scores [K].

    Classes: the label's name, numbers by name. Choices: the answer's text and its "index", numbers in the
    order of the answers. A number: "label" alone. Labels, spans and tags: see
    `set_said`, `span_said` and `tags_said`.
    """
    if isinstance(encoder, QuestionEncoder):
        return span_said(encoder, row, scores)
    if isinstance(encoder, WordEncoder):
        return tags_said(encoder, labels, row, scores)
    if measure == "sets":
        return set_said(labels, scores)
    if measure == "number":
        return {"label": float(scores[0])}
    if measure == "choices":
        assert isinstance(encoder.format, MultipleChoice)
        answers = encoder.format.choices(row)
        own = scores[: len(answers)]
        best = int(own.argmax())
        return {"label": answers[best], "index": best, "probabilities": _odds(own).tolist(),
                "scores": own.tolist()}  # fmt: skip
    return {
        "label": labels[int(scores.argmax())],
        "probabilities": dict(zip(labels, _odds(scores).tolist())),
        "scores": dict(zip(labels, scores.tolist())),
    }


def _odds(scores: np.ndarray) -> np.ndarray:
    shifted = np.exp(scores - scores.max())
    return shifted / shifted.sum()
