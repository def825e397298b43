"""Rows with a text to read and a text to say: for the two stacks of an encoder-decoder, or end to end for a
decoder."""

from __future__ import annotations

import json
from collections.abc import Sequence as Several
from dataclasses import dataclass, replace

import numpy as np

from gradus.core.errors import UserError
from gradus.core.example import Example
from gradus.core.model import ModelConfig
from gradus.data.encoding import Answers, Encoder, RowEncoder, shortened
from gradus.data.formats import Format, TextToText
from gradus.data.frame import Frame
from gradus.data.labels import LabelledRow
from gradus.data.parts import Long
from gradus.data.question_windows import QuestionEncoder
from gradus.data.questions import Question
from gradus.data.tagged import Tagged
from gradus.data.word_pieces import WordEncoder

ANSWER_SHARE = 4
"""A decoder keeps this part of its context for an answer that it has yet to say."""


def row_encoder(
    form: Format,
    tokenizer: Encoder,
    model: ModelConfig,
    answers: Answers | None,
    long: Long,
) -> RowEncoder:
    """What makes tokens of rows of this format, for this model."""
    if isinstance(form, TextToText):
        return TextToTextEncoder(form, tokenizer, model.context, answers, long, model=model)
    kind = RowEncoder
    if isinstance(form, Question | Tagged):
        kind = QuestionEncoder if isinstance(form, Question) else WordEncoder
    return kind(form, tokenizer, model.context, answers, long, Frame.of(model))


@dataclass(frozen=True)
class TextToTextEncoder(RowEncoder):
    """Where the context is too short, an encoder-decoder's source and target each lose their end; of a
    decoder's row the source does, to its last token, before the target. Special tokens are never cut."""

    model: ModelConfig = ModelConfig()

    @property
    def form(self) -> TextToText:
        assert isinstance(self.format, TextToText)
        return self.format

    def encode(self, rows: Several[LabelledRow], labelled: bool = True) -> list[Example]:
        """As `RowEncoder.encode`; a row that is not `labelled` has nothing to say. `Example.label` is the
        place of its class among the format's `answers`."""
        said = [self.form.said(row) if labelled else "" for row in rows]
        if labelled:
            for row in rows:
                self._require_texts(row)
        found = self._examples(rows, said)
        if not labelled or self.form.answers is None:
            return found
        return [replace(example, label=self.form.right(row)) for row, example in zip(rows, found)]

    def candidates(self, rows: Several[LabelledRow]) -> list[Example]:
        """Every row with every word of the format's `answers`: row r with word a is number r x A + a."""
        words = list((self.form.answers or {}).values())
        several = [row for row in rows for _ in words]
        found = self._examples(several, [word for _ in rows for word in words])
        return [replace(example, row=place) for place, example in enumerate(found)]

    def _examples(self, rows: Several[LabelledRow], said: Several[str]) -> list[Example]:
        sources = [self.form.sequences(row)[0][0].text for row in rows]
        texts = list(dict.fromkeys([*sources, *said]))
        tokens = dict(zip(texts, self.tokenizer.encode(texts)))
        make = self._pair if self.model.encodes_and_decodes else self._line
        return [make(row, tokens[read], tokens[answer]) for row, read, answer in zip(rows, sources, said)]

    def _pair(self, row: LabelledRow, read: np.ndarray, said: np.ndarray) -> Example:
        before, after = (self._ids(*names) for names in self.model.encoder_roles)
        opening, end = self._ids(*self.model.decoder_roles), self._ids("end")
        room = self._room(len(before) + len(after)), self._room(len(opening))
        kept = min(len(read), room[0]), min(len(said), room[1])
        cut = len(read) + len(said) - sum(kept)
        for name, tokens, most in zip(("source", "target"), (read, said), room):
            if len(tokens) > most:
                self._refuse(row, name, len(tokens), most)
        source = np.concatenate([before, read[: kept[0]], after]).astype(np.int64)
        decoded = np.concatenate([opening, said[: kept[1]], end]).astype(np.int64)
        return Example(row.index, (source,), decoded=(decoded,), truncated=cut)

    def _line(self, row: LabelledRow, read: np.ndarray, said: np.ndarray) -> Example:
        room = self._room(3)
        if not len(said):  # what is to be said is not known yet, and needs room
            room -= room // ANSWER_SHARE
        kept = shortened([len(read), len(said)], room)
        cut = len(read) + len(said) - sum(kept)
        if cut:
            self._refuse(row, "source and target", len(read) + len(said), room)
        end = self._ids("end") if len(said) else said
        parts = self._ids("start"), read[: kept[0]], self._ids("delimiter"), said[: kept[1]], end
        return Example(row.index, (np.concatenate(parts).astype(np.int64),), truncated=cut)

    def _ids(self, *names: str) -> np.ndarray:
        return np.array([self.tokenizer.role(name) for name in names], np.int64)

    def _room(self, special: int) -> int:
        if self.context - special < 2:
            problem = f"a context of {self.context} tokens holds little but the {special} special tokens"
            raise UserError(problem, field="model.context")
        return self.context - special

    def _refuse(self, row: LabelledRow, what: str, length: int, room: int) -> None:
        """Raises UserError where what is too long may not be cut."""
        if self.long == "error":
            columns = {"source": self.form.fields}.get(what, self.form.target_fields or self.form.fields)
            problem = f"the {what} has {length} tokens, the context holds {room}"
            raise UserError(problem, file=row.file, line=row.line, field=", ".join(columns),
                            hint="`long: truncate` cuts such rows and counts them")  # fmt: skip

    def _require_texts(self, row: LabelledRow) -> None:
        for column in (*self.form.fields, *self.form.target_fields):
            if not row.fields[column].strip():
                hint = f"`drop: {{{column}: {json.dumps(row.fields[column])}}}` leaves such rows out"
                raise UserError("the text is empty", file=row.file, line=row.line, field=column, hint=hint)
