"""What a row is for the model: named text fields become sequences of texts (GPT-1, section 3.3).

A format knows which columns it needs, what stands together and what gives way first when the context is too
short; `encoding.py` makes tokens of it. A new kind of row is one class here and its name in `Format`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Annotated, ClassVar, Literal, Self

from pydantic import AfterValidator, Field, StringConstraints, model_validator

from gradus.core.config import wrong
from gradus.core.errors import UserError, nearest
from gradus.data.labels import LabelledRow, field_text, integer, label_text, listed
from gradus.data.parts import Cut, Part, RowFormat, Sequence
from gradus.data.questions import Question
from gradus.data.reader_options import Text, first_double
from gradus.data.tagged import Entities, Words
from gradus.data.templates import filled, names_in


class Single(RowFormat):
    """One text: start text extract."""

    kind: Literal["single"] = "single"
    text: str
    """The column with the text; its head is kept where it is too long."""
    label: str | None = None
    """The column with the class or the number."""

    @property
    def fields(self) -> tuple[str, ...]:
        return (self.text,)

    @property
    def roles(self) -> tuple[str, ...]:
        return ("start", "extract")

    def sequences(self, row: LabelledRow) -> list[Sequence]:
        return [(Part(field_text(row, self.text), self.text),)]


class _TwoTexts(RowFormat):
    first: str
    """The column with the first text, a premise say; it is cut before the second."""
    second: str
    """The column with the second text, a hypothesis say."""
    label: str | None = None
    """The column with the class or the number."""
    cut: Cut = "priority"
    """priority: the first text gives way. half: each text is cut to half the context less two tokens, as
    OpenAI's release does."""

    @property
    def fields(self) -> tuple[str, ...]:
        return (self.first, self.second)

    @property
    def roles(self) -> tuple[str, ...]:
        return ("start", "delimiter", "extract")

    def _parts(self, row: LabelledRow) -> tuple[Part, Part]:
        first, second = field_text(row, self.first), field_text(row, self.second)
        return Part(first, self.first), Part(second, self.second, delimited=True)


class Pair(_TwoTexts):
    """Two texts in an order that means something: start first delimiter second extract."""

    kind: Literal["pair"] = "pair"

    def sequences(self, row: LabelledRow) -> list[Sequence]:
        return [self._parts(row)]


class Similarity(_TwoTexts):
    """Two texts in no order: both orders go through the model and their final states are added."""

    kind: Literal["similarity"] = "similarity"
    orders: Literal["both", "one"] = "both"
    """one: the reading of some retellings, which makes it a `pair`."""
    ordered: ClassVar[bool] = False

    def sequences(self, row: LabelledRow) -> list[Sequence]:
        first, second = self._parts(row)
        swapped = (Part(first.text, first.column, delimited=True), Part(second.text, second.column))
        return [(first, second), swapped[::-1]] if self.orders == "both" else [(first, second)]


class MultipleChoice(RowFormat):
    """A text, a question perhaps, and answers: start context question delimiter answer extract for each."""

    kind: Literal["multiple_choice"] = "multiple_choice"
    context: str
    """The column with the text that the answer rests on; its head is cut first."""
    question: str | None = None
    """The column with the question, which follows the context directly; it is cut after the context."""
    answers: str | list[str]
    """A column that holds a JSON list of answers, or the columns with one answer each; the last ones may be
    empty, so rows may have different numbers of answers."""
    label: str | None = None
    """The column that says which answer is right."""
    label_is: Literal["text", "index", "number", "letter"] = "text"
    """How: by the answer's own text, its index from 0, its number from 1, or its letter from A."""
    cut: Cut = "priority"
    """priority: the context gives way. half: context with question, and the answer, are each cut to half of
    what the model holds less two tokens, as OpenAI's release does."""

    @model_validator(mode="after")
    def _enough(self) -> MultipleChoice:
        if isinstance(self.answers, list) and len(self.answers) < 2:
            raise ValueError("`answers` names the one column with a list, or at least two columns")
        twice = first_double(self.answers) if isinstance(self.answers, list) else None
        if twice is not None:
            raise wrong("answers", "this column is named twice", twice, "each column holds one answer")
        return self

    @property
    def fields(self) -> tuple[str, ...]:
        columns = [self.answers] if isinstance(self.answers, str) else self.answers
        return (*self.changeable, *columns)

    @property
    def changeable(self) -> tuple[str, ...]:
        return (self.context, *([self.question] if self.question else []))

    @property
    def roles(self) -> tuple[str, ...]:
        return ("start", "delimiter", "extract")

    def sequences(self, row: LabelledRow) -> list[Sequence]:
        before = [Part(field_text(row, self.context), self.context, keeps="tail")]
        if self.question is not None:
            before.append(Part(field_text(row, self.question), self.question))
        column = self.answers if isinstance(self.answers, str) else ", ".join(self.answers)
        return [(*before, Part(text, column, delimited=True)) for text in self.choices(row)]

    def choices(self, row: LabelledRow) -> list[str]:
        """The answers of a row. Raises UserError for fewer than two and for one that is empty."""
        if isinstance(self.answers, str):
            found = listed(
                row, self.answers, "answers", 'such as ["yes", "no"], or name one column an answer'
            )
            columns = self.answers
        else:
            texts = [row.fields.get(name, "") for name in self.answers]
            last = max((place for place, text in enumerate(texts, 1) if text.strip()), default=0)
            found, columns = texts[:last], ", ".join(self.answers)
        if len(found) < 2:
            raise UserError(
                f"{len(found) or 'no'} answer{'s' if not found else ''}: a choice needs at least two",
                file=row.file, line=row.line, field=columns, text="; ".join(found) or None,
            )  # fmt: skip
        for text in found:
            if not text.strip():
                raise UserError("an answer is empty", file=row.file, line=row.line, field=columns,
                                text="; ".join(found))  # fmt: skip
        return found

    def right(self, row: LabelledRow) -> int:
        """The index of the right answer. Raises UserError where the label names none."""
        assert self.label is not None
        text, found = label_text(row, self.label), self.choices(row)
        if self.label_is == "text":
            stripped = [answer.strip() for answer in found]
            if stripped.count(text) > 1:
                hint = f"the answers are {'; '.join(stripped)}"
                raise UserError("the label names several of the row's answers", file=row.file, line=row.line,
                                field=self.label, text=text, hint=hint)  # fmt: skip
            if text in stripped:
                return stripped.index(text)
            hint = nearest(text, stripped)
        else:
            index = _place(text, self.label_is)
            if index is not None and 0 <= index < len(found):
                return index
            hint = f"the row has {len(found)} answers: {_legal(len(found), self.label_is)}"
        raise UserError("the label names none of the row's answers", file=row.file, line=row.line,
                        field=self.label, text=text, hint=hint)  # fmt: skip


def _place(text: str, label_is: str) -> int | None:
    """The index from 0 that the label writes."""
    if label_is == "letter":
        return ord(text.upper()) - ord("A") if len(text) == 1 and text.isascii() and text.isalpha() else None
    number = integer(text)
    return number if number is None or label_is == "index" else number - 1


def _legal(count: int, label_is: str) -> str:
    first = {"index": "0", "number": "1", "letter": "A"}[label_is]
    last = {"index": str(count - 1), "number": str(count), "letter": chr(ord("A") + count - 1)}[label_is]
    return f"{first} to {last}"


class _Columns(Mapping[str, str]):
    """A row's columns. Raises UserError, and not KeyError, for one that is not there."""

    def __init__(self, row: LabelledRow):
        self.row = row

    def __getitem__(self, name: str) -> str:
        return field_text(self.row, name)

    def __iter__(self) -> Iterator[str]:
        return iter(self.row.fields)

    def __len__(self) -> int:
        return len(self.row.fields)


def _names_a_column(template: str) -> str:
    if not names_in(template):
        raise wrong("", "this names no column, so all rows would be alike", template, "such as {text}")
    return template


Template = Annotated[str, StringConstraints(min_length=1), AfterValidator(_names_a_column)]
Word = Annotated[str, StringConstraints(min_length=1, strip_whitespace=True)]


class TextToText(RowFormat):
    """A text to read and a text to say (Raffel et al. 2020, section 2.4). In an encoder-decoder one is the
    source, the other the target; a decoder reads start source delimiter target end."""

    kind: Literal["text_to_text"] = "text_to_text"
    source: Template
    """What is read; a column's name in braces is its text: "summarize: {article}"."""
    target: Template | None = None
    """What is said, in the same way: "{summary}"."""
    label: str | None = None
    """In place of `target`: the column with the class."""
    answers: Annotated[dict[Text, Word], Field(min_length=2)] | None = None
    """Class -> the word that says it."""

    @model_validator(mode="after")
    def _one_answer(self) -> Self:
        if (self.label is None) != (self.answers is None):
            key, other = ("answers", "label") if self.label is None else ("label", "answers")
            raise wrong(key, f"`{key}` goes with `{other}`", None, "label: COLUMN, answers: {class: word}")
        if (self.target is None) == (self.label is None):
            hint = "`target`, or `label` and `answers`"
            raise wrong("target", "a row has one text to say", self.target, hint)
        twice = first_double(list((self.answers or {}).values()))
        if twice is not None:
            raise wrong("answers", "two classes have the same word", twice, "each needs its own")
        return self

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(names_in(self.source))

    @property
    def changeable(self) -> tuple[str, ...]:
        return tuple(name for name in self.fields if name not in self.target_fields)

    @property
    def target_fields(self) -> tuple[str, ...]:
        """The columns of `target`."""
        return tuple(names_in(self.target)) if self.target is not None else ()

    @property
    def roles(self) -> tuple[str, ...]:
        return ("start", "delimiter", "end")

    def sequences(self, row: LabelledRow) -> list[Sequence]:
        return [(Part(filled(self.source, _Columns(row)), ", ".join(self.fields)),)]

    def said(self, row: LabelledRow) -> str:
        """The text to say. Raises UserError for a column that is not there, and a class without a word."""
        if self.target is not None:
            return filled(self.target, _Columns(row))
        assert self.answers is not None
        return list(self.answers.values())[self.right(row)]

    def right(self, row: LabelledRow) -> int:
        """The place of the row's class in `answers`. Raises UserError where it is not there."""
        assert self.label is not None and self.answers is not None
        text = label_text(row, self.label)
        if text not in self.answers:
            raise UserError("`answers` has no word for this class", file=row.file, line=row.line,
                            field=self.label, text=text, hint=nearest(text, self.answers))  # fmt: skip
        return list(self.answers).index(text)

    def corpus(self, row: LabelledRow) -> list[str]:
        return [self.sequences(row)[0][0].text, self.said(row)]


Format = Annotated[
    Single | Pair | Similarity | MultipleChoice | TextToText | Question | Words | Entities,
    Field(discriminator="kind"),
]
