"""What a stage says of the rows of a split, beside their labels, and what learns nothing says of them."""

from __future__ import annotations

from typing import Any

from gradus.data.formats import MultipleChoice
from gradus.data.label_sets import LabelSets
from gradus.data.labels import LabelledRow, label_text, number_of
from gradus.data.question_windows import QuestionEncoder
from gradus.data.questions import Question
from gradus.data.rows import RowsData
from gradus.data.tagged import Tagged
from gradus.data.word_pieces import WordEncoder
from gradus.evaluation.evaluator import Scores
from gradus.evaluation.floors import choice_floors, classification_floors, number_floors
from gradus.pipeline.models.answers import told
from gradus.pipeline.models.label_sets import set_floor_metrics, set_judged
from gradus.pipeline.models.spans import span_floor_metrics, span_judged
from gradus.pipeline.models.tags import tag_floor_metrics, tags_judged
from gradus.pipeline.planning.prepared import Prepared
from gradus.pipeline.planning.splits import Split


def prediction_lines(prepared: Prepared, split: Split, scores: Scores) -> list[dict[str, Any]]:
    """What predictions-SPLIT.jsonl holds: every row with its label, what was predicted and how sure."""
    measure = prepared.objectives[prepared.main].measure
    encoder, names = prepared.encoder, prepared.labels.names if prepared.labels else ()
    lines = []
    for place, row in enumerate(split.rows):
        answer = told(measure, names, row, scores.values[place], encoder)
        line = {"row": row.index, "file": row.file, "line": row.line, "text": encoder.format.shown(row)}
        if isinstance(encoder, QuestionEncoder):
            lines.append(line | span_judged(encoder, row, answer))
            continue
        if isinstance(encoder, WordEncoder):
            lines.append(line | tags_judged(encoder, row, answer))
            continue
        truth = scores.labels[place]
        if measure == "sets":
            lines.append(line | set_judged(names, truth, answer))
            continue
        if measure == "number":
            line |= {"label": float(truth), "predicted": answer["label"],
                     "error": answer["label"] - float(truth)}  # fmt: skip
        else:
            right = int(truth)
            label = names[right] if measure == "classes" else _answers(prepared, row)[right]
            line |= {"label": label, "predicted": answer["label"],
                     "correct": int(scores.values[place].argmax()) == right,
                     "probabilities": answer["probabilities"]}  # fmt: skip
        lines.append(line)
    return lines


def row_floors(prepared: Prepared) -> dict[str, dict[str, dict[str, float]]]:
    """Split -> floor -> metrics, for a stage that is judged by the labels of rows."""
    data, train = prepared.node.stage.data, prepared.splits["train"]
    assert isinstance(data, RowsData) and data.format.label is not None
    form, field = data.format, data.format.label
    others = {name: split for name, split in prepared.splits.items() if name != "train"}
    measure = prepared.objectives[prepared.main].measure
    if measure == "number":
        known = ([_texts(form, row) for row in train.rows], [number_of(row, field) for row in train.rows])
        return {
            name: number_floors(*known, [_texts(form, row) for row in split.rows],
                                [number_of(row, field) for row in split.rows])
            for name, split in others.items()
        }  # fmt: skip
    if isinstance(form, Question):
        return {name: span_floor_metrics(form, split.rows) for name, split in others.items()}
    if isinstance(form, Tagged):
        return {name: tag_floor_metrics(form, train.rows, split.rows) for name, split in others.items()}
    if measure == "choices":
        assert isinstance(form, MultipleChoice)
        right = [form.right(row) for row in train.rows]
        return {
            name: choice_floors(right, [row.fields[form.context] for row in split.rows],
                                [form.choices(row) for row in split.rows],
                                [form.right(row) for row in split.rows])
            for name, split in others.items()
        }  # fmt: skip
    if isinstance(prepared.answers, LabelSets):
        answers = prepared.answers
        return {name: set_floor_metrics(answers, field, train.rows, one.rows) for name, one in others.items()}
    texts = ([form.shown(row) for row in train.rows], [label_text(row, field) for row in train.rows])
    return {
        name: classification_floors(*texts, [form.shown(row) for row in split.rows],
                                    [label_text(row, field) for row in split.rows])
        for name, split in others.items()
    }  # fmt: skip


def _answers(prepared: Prepared, row: LabelledRow) -> list[str]:
    form = prepared.encoder.format
    assert isinstance(form, MultipleChoice)
    return form.choices(row)


def _texts(form: Any, row: LabelledRow) -> list[str]:
    return [part.text for part in form.sequences(row)[0]]
