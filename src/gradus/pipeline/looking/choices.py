"""Whether rows carry their own answers, in a column with a JSON list or in a column each, and how the right
one is told."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, get_args

from gradus.core.errors import UserError
from gradus.data.formats import MultipleChoice
from gradus.data.readers import Row
from gradus.pipeline.looking.columns import Column, listed, text_columns

_ANSWER = re.compile(r"(choice|option|opt|answer|ending|选项)[ _]?([0-9]|[A-Ha-h])")
_QUESTIONS = ("question", "问题")
_LABELS = ("label", "answer", "gold", "correct", "target", "答案", "标签")


def choice_format(
    columns: Sequence[Column], rows: Sequence[Row], wanted: str | None
) -> dict[str, Any] | None:
    """The format `multiple_choice` where it is plain to see that every row fits it; else None."""
    lists = [column for column in columns if _is_list(column)]
    each = [column for column in columns if _ANSWER.fullmatch(column.name)]
    if len(lists) != 1 and len(each) < 2:
        return None
    answers: str | list[str] = lists[0].name if len(lists) == 1 else [column.name for column in each]
    others = [column for column in columns if column not in (lists if len(lists) == 1 else each)]
    labels = [column for column in others if column.name == wanted or column.called(_LABELS) == 0]
    for label in [column for column in labels if wanted in (None, column.name)]:
        for label_is in get_args(MultipleChoice.model_fields["label_is"].annotation):
            form = _read(answers, label, [one for one in others if one is not label], label_is)
            if form and _fits(MultipleChoice(**form), rows) and (label_is != "index" or "0" in label.kinds):
                return {key: value for key, value in form.items() if (key, value) != ("label_is", "text")}
    return None


def _is_list(column: Column) -> bool:
    found = [listed(value) for value in column.values]
    return all(isinstance(one, list) and len(one) > 1 for one in found)


def _read(
    answers: str | list[str], label: Column, others: Sequence[Column], label_is: str
) -> dict[str, Any] | None:
    question = next((column for column in others if column.called(_QUESTIONS) == 0), None)
    rest = [column for column in others if column is not question]
    found = [*text_columns(rest)[:1], *([question.name] if question else [])]
    form = {"kind": "multiple_choice", **dict(zip(("context", "question"), found)), "answers": answers}
    return form | {"label": label.name, "label_is": label_is} if found else None


def _fits(form: MultipleChoice, rows: Sequence[Row]) -> bool:
    """Whether every row that has a label has it among its answers."""
    assert form.label is not None
    try:
        return [form.right(row) for row in rows if row.fields.get(form.label, "").strip()] != []
    except UserError:
        return False
