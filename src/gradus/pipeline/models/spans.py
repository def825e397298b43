"""Answers out of a context: as they are said, scored, and beside what learns nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gradus.data.labels import LabelledRow
from gradus.data.question_windows import QuestionEncoder
from gradus.data.questions import Question
from gradus.evaluation.floors import span_floors
from gradus.evaluation.spans import span_metrics, span_scores


def span_said(encoder: QuestionEncoder, row: LabelledRow, scores: np.ndarray) -> dict[str, Any]:
    """{"text", "start", "end", "score", "probability"} of an answer, from what `QuestionAnswering.of_rows`
    says of the row: its characters in the context, the sum of its two logits, and how likely its window finds
    it.

    Where questions may have no answer, "no_answer_score" is that of none; if it is larger, the text is empty
    and stands nowhere. So it is in a context without tokens, where nothing has a score either.
    """
    score, first, last, probability, nothing, _, window = scores.tolist()
    begin, end = encoder.cut_out(row, int(window), int(first), int(last))
    there = begin < end
    none = not there or (encoder.form.unanswerable and nothing > score)
    said = {"text": row.fields[encoder.form.context][begin:end], "start": begin, "end": end}
    said |= {"text": "", "start": None, "end": None} if none else {}
    said |= {"no_answer_score": nothing} if encoder.form.unanswerable else {}
    return said | {"score": score if there else None, "probability": probability}


def span_judged(encoder: QuestionEncoder, row: LabelledRow, answer: dict[str, Any]) -> dict[str, Any]:
    """What was said beside the first right answer; `correct` is an exact match with any."""
    right = encoder.form.right(row)
    exact, f1 = span_scores(answer["text"], right, row.fields[encoder.form.context])
    return {"label": next(iter(right), ""), "predicted": answer["text"], "correct": exact == 1, "f1": f1,
            "probabilities": [answer["probability"]]}  # fmt: skip


def span_answer_metrics(
    encoder: QuestionEncoder, rows: Sequence[LabelledRow], scores: np.ndarray
) -> dict[str, float]:
    """`exact_match` and `f1` of the answers to rows; `scores` are of each what `span_said` reads."""
    said = [span_said(encoder, row, own)["text"] for row, own in zip(rows, scores)]
    contexts = [row.fields[encoder.form.context] for row in rows]
    return span_metrics(said, [encoder.form.right(row) for row in rows], contexts)


def span_floor_metrics(form: Question, rows: Sequence[LabelledRow]) -> dict[str, dict[str, float]]:
    """The floors of a split."""
    questions, contexts = ([row.fields[name] for row in rows] for name in form.fields)
    return span_floors(questions, contexts, [form.right(row) for row in rows])
