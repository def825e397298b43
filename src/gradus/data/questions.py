"""Rows with a question and a context that holds its answer: which answers are right, and where they stand.

Rajpurkar et al. 2016 (SQuAD) and 2018 (SQuAD 2.0, with questions that have no answer), Cui et al. 2019 (CMRC
2018).
"""

from __future__ import annotations

import json
from typing import Literal

from pydantic import Field

from gradus.core.errors import UserError
from gradus.data.labels import LabelledRow, field_text
from gradus.data.parts import Part, RowFormat, Sequence

SHOWN = 40
"""Characters of a context that a message quotes."""


class Question(RowFormat):
    """A question and its context: start question delimiter context extract (Devlin et al. 2019, section 4.2).

    Of several right answers the first that stands in the context is learnt; all of them count for scores.
    """

    kind: Literal["question"] = "question"
    question: str
    """The column with the question."""
    context: str
    """The column with the text that holds the answer."""
    answers: str
    """The column with the answer, or with a JSON list of all that are right."""
    starts: str | None = None
    """The column that says how many characters of the context stand before the answer: a number, or a JSON
    list with one an answer, -1 for one that is not there. Unless given, the first occurrence counts."""
    unanswerable: bool = False
    """Whether an empty answer, or an empty list, means that the context has none (SQuAD 2.0); else it is a
    mistake."""
    stride: int | None = Field(None, ge=0)
    """Tokens that neighbouring windows of a context share, with `long: window`. Unless given 128, or a
    quarter of the room beside the special tokens where that is less."""

    @property
    def fields(self) -> tuple[str, ...]:
        return (self.question, self.context)

    @property
    def changeable(self) -> tuple[str, ...]:
        return (self.question,)

    @property
    def label(self) -> str:
        """What is known of train and not when predicting."""
        return self.answers

    @property
    def target_fields(self) -> tuple[str, ...]:
        """Further columns of that kind."""
        return () if self.starts is None else (self.starts,)

    @property
    def roles(self) -> tuple[str, ...]:
        return ("start", "delimiter", "extract")

    def sequences(self, row: LabelledRow) -> list[Sequence]:
        question, context = field_text(row, self.question), field_text(row, self.context)
        return [(Part(question, self.question), Part(context, self.context, delimited=True))]

    def right(self, row: LabelledRow) -> list[str]:
        """The right answers, none where the question has none. Raises UserError where that is a mistake."""
        found = [text for text in _texts(field_text(row, self.answers)) if text.strip()]
        if not found and not self.unanswerable:
            hint = "`unanswerable: true` in the format says that such questions have none"
            raise UserError("the question has no answer", file=row.file, line=row.line, field=self.answers,
                            text=field_text(row, self.question), hint=hint)  # fmt: skip
        return found

    def place(self, row: LabelledRow) -> tuple[int, int] | None:
        """Where the answer that is learnt begins and ends, in characters of the context; None where there is
        none.

        Raises UserError for an answer that is not where `starts` says, for starts that are no numbers or not
        as many as the answers, and for a question none of whose answers stands in its context.
        """
        context, answers = field_text(row, self.context), self.right(row)
        if not answers:
            return None
        texts = _texts(field_text(row, self.answers))
        begins = [context.find(text) for text in texts] if self.starts is None else self._starts(row, texts)
        for text, begin in zip(texts, begins):
            if begin >= 0 and context[begin : begin + len(text)] != text:
                raise self._misplaced(row, text, context, begin)
        found = [
            (begin, begin + len(text)) for text, begin in zip(texts, begins) if text.strip() and begin >= 0
        ]
        if not found:
            hint = f"{self.context} begins {context[:SHOWN]!r}"
            raise UserError("the answer is not in its context", file=row.file, line=row.line,
                            field=self.answers, text=answers[0], hint=hint)  # fmt: skip
        return found[0]

    def _starts(self, row: LabelledRow, texts: list[str]) -> list[int]:
        assert self.starts is not None
        said = field_text(row, self.starts)
        try:
            found = json.loads(said)
        except (ValueError, RecursionError):
            found = None
        found = found if isinstance(found, list) else [found]
        if not all(isinstance(one, int) and not isinstance(one, bool) for one in found):
            raise UserError("a whole number of characters is wanted, or a JSON list of them", file=row.file,
                            line=row.line, field=self.starts, text=said)  # fmt: skip
        if len(found) != len(texts):
            problem = f"{len(found)} starts for {len(texts)} answers"
            raise UserError(problem, file=row.file, line=row.line, field=self.starts, text=said,
                            hint=f"{self.answers} is {field_text(row, self.answers)}")  # fmt: skip
        return found

    def _misplaced(self, row: LabelledRow, text: str, context: str, begin: int) -> UserError:
        first = context.find(text)
        hint = f"{context[begin : begin + len(text)]!r} stands at {begin}; "
        hint += "the answer stands nowhere" if first < 0 else f"the answer stands at {first}"
        return UserError("the answer is not where it is said to start", file=row.file, line=row.line,
                         field=self.answers, text=text, hint=hint)  # fmt: skip


def _texts(said: str) -> list[str]:
    """The texts of a JSON list of them; whatever else it is, is one text."""
    try:
        found = json.loads(said)
    except (ValueError, RecursionError):
        return [said]
    several = isinstance(found, list) and all(isinstance(text, str) for text in found)
    return found if several else [said]
