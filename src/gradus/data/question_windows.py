"""Questions to examples: a window for each piece of the context, with the whole question before it.

As in BERT's released run_squad.py (Devlin et al. 2019, section 4.2): an answer that a window does not hold
whole is no answer there. What is answered is cut out of the context by its characters, never put together
from tokens. Shapes: S windows of a row, T tokens of its context.
"""

from __future__ import annotations

from collections.abc import Sequence as Several
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from gradus.core.errors import UserError
from gradus.core.example import Example
from gradus.data.encoding import RowEncoder, require_text
from gradus.data.labels import LabelledRow
from gradus.data.questions import Question

MOST_QUESTION = 64
"""Tokens of a question that are kept (`max_query_length` of run_squad.py); half of the room in a context that
has less than twice as many."""
MOST_SHARED = 128
"""Tokens that windows share unless the format says so, as in transformers' pipeline. The `doc_stride` of
run_squad.py, which is as large, is the step from one window to the next."""


@dataclass(frozen=True)
class QuestionEncoder(RowEncoder):
    """Rows to examples with a sequence for each window, and `Example.spans` that say what is where."""

    @property
    def form(self) -> Question:
        assert isinstance(self.format, Question)
        return self.format

    @cached_property
    def most(self) -> int:
        """Tokens of a question that are kept. Raises UserError where the context has no room."""
        room = self.context - self.frame.size(2)
        if room < 2:
            problem = (
                f"a context of {self.context} tokens holds little but the {self.frame.size(2)} special ones"
            )
            raise UserError(problem, field="model.context")
        return min(MOST_QUESTION, room // 2)

    @cached_property
    def stride(self) -> int:
        """Tokens that neighbouring windows share. Raises UserError where they could share all of them."""
        room = self.context - self.frame.size(2)
        if self.form.stride is None:
            return min(MOST_SHARED, room // 4)
        if self.form.stride >= room - self.most:
            problem = (
                f"beside a question of {self.most} tokens a window has {room - self.most} of the context"
            )
            raise UserError(problem, field="format.stride", text=self.form.stride, hint="fewer than that")
        return self.form.stride

    def encode(self, rows: Several[LabelledRow], labelled: bool = True) -> list[Example]:
        """As `RowEncoder.encode`. `Example.spans` have -1 for an answer where there is none.

        Raises UserError for an answer that is not in its context, see `Question.place`.
        """
        parts = [self.form.sequences(row)[0] for row in rows]
        if labelled:
            for row, both in zip(rows, parts):
                require_text(row, [both])
        texts = list(dict.fromkeys(part.text for both in parts for part in both))
        placed = dict(zip(texts, self.tokenizer.places(texts)))
        roles = {name: np.array([self.tokenizer.role(name)]) for name in self.frame.roles(pair=True)}
        return [
            self._example(row, placed[question.text][0], *placed[context.text], roles, labelled)
            for row, (question, context) in zip(rows, parts)
        ]

    def _example(
        self,
        row: LabelledRow,
        question: np.ndarray,
        context: np.ndarray,
        places: np.ndarray,
        roles: dict[str, np.ndarray],
        labelled: bool,
    ) -> Example:
        kept = question[: self.most]
        begins, room = self._windows(len(kept), len(context))
        cut = len(question) - len(kept) + max(0, len(context) - int(begins[-1]) - room)
        if cut and self.long == "error":
            problem = f"question and context have {len(question)} and {len(context)} tokens"
            hint = f"{self.most} and {room} fit; `long: window` reads such rows in several windows"
            raise UserError(
                problem, file=row.file, line=row.line, field=", ".join(self.form.fields), hint=hint
            )
        laid = [self.frame.laid([kept, context[begin : begin + room]], roles) for begin in begins]
        read = tuple(ids for ids, _ in laid)
        answer = self._answer(row, places) if labelled and self.answers is not None else None
        return Example(
            row.index, read, truncated=cut, spans=self._spans(answer, begins, room, len(context), len(kept)),
            segments=tuple(belongs for _, belongs in laid) if self.frame.segments else (),
            decoded=self.frame.decoded(read, roles),
        )  # fmt: skip

    def _windows(self, question: int, context: int) -> tuple[np.ndarray, int]:
        """The token of the context at which each window begins [S], and how many a window has room for."""
        room = self.context - self.frame.size(2) - question
        step = room - self.stride
        more = -(-max(0, context - room) // step) if self.long == "window" else 0
        return step * np.arange(1 + more), room

    def _head(self, question: int) -> int:
        """The place of the context's first token in a window."""
        return len(self.frame.before) + question + len(self.frame.between)

    def _answer(self, row: LabelledRow, places: np.ndarray) -> tuple[int, int] | None:
        """The first and the last token of the context that the answer touches."""
        place = self.form.place(row)
        if place is None:
            return None
        first = int(np.searchsorted(places[:, 1], place[0], "right"))
        last = int(np.searchsorted(places[:, 0], place[1], "left")) - 1
        if first > last:
            raise UserError("the tokenizer leaves nothing of the answer", file=row.file, line=row.line,
                            field=self.form.answers, text=self.form.right(row)[0])  # fmt: skip
        return first, last

    def _spans(
        self, answer: tuple[int, int] | None, begins: np.ndarray, room: int, context: int, question: int
    ) -> np.ndarray:
        """What `Example.spans` says of every window [S, 4]."""
        head, length = self._head(question), np.minimum(room, context - begins)
        found = np.full((len(begins), 4), -1)
        found[:, 2], found[:, 3] = head, head + length - 1
        if answer is not None:
            own = np.array(answer) - begins[:, None]
            whole = (own[:, 0] >= 0) & (own[:, 1] < length)
            found[whole, :2] = head + own[whole]
        return found

    def cut_out(self, row: LabelledRow, window: int, first: int, last: int) -> tuple[int, int]:
        """The characters of the context, [begin, end), from place `first` to place `last` of a window, but
        for white space around them; nothing of a context without tokens."""
        question, context = (part.text for part in self.form.sequences(row)[0])
        (ids, _), (_, places) = self.tokenizer.places([question, context])
        kept = min(len(ids), self.most)
        shift = int(self._windows(kept, len(places))[0][window]) - self._head(kept)
        if not 0 <= first + shift <= last + shift < len(places):
            return 0, 0
        begin, end = int(places[first + shift, 0]), int(places[last + shift, 1])
        text = context[begin:end]
        begin += len(text) - len(text.lstrip())
        return begin, begin + len(text.strip())
