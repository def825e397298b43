"""A row as a question to a language model: labelled rows to learn from, the row itself, and the answers among
which the model chooses by their probability alone.

The text up to and with an answer is tokenised whole, as the model met text in training; the answer's tokens
are those after the longest beginning that the prompt and the prompt with each answer have in common. So where
the last letters of the prompt and the first of an answer make one token, that token is scored, with every
answer alike. Special tokens are never cut: `opening`, the end of the document before (or the start token of
rows), stands before the text, and the first token is predicted from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gradus.core.errors import UserError
from gradus.core.example import Example, ExampleTargets
from gradus.data.encoding import Encoder

SEPARATOR = "\n\n"
"""Between the rows of a few-shot prompt: "1 or 2 newlines" in Brown et al. 2020, section 2.4."""


@dataclass(frozen=True)
class Question:
    """One row as it is asked; `shots` are rows with their answers, shown before it."""

    prompt: str
    answers: tuple[str, ...]
    right: int
    file: str
    line: int
    shots: tuple[str, ...] = ()


@dataclass(frozen=True)
class Asked:
    """A question in tokens: what the model reads, and which token of which answer is scored where.

    Answers whose tokens before the last begin another answer's share its sequence.
    """

    example: Example
    targets: ExampleTargets
    """`index` [J] counts from the example's first token, `value` [J] is the token scored there."""
    answer: np.ndarray
    """[J] The answer to which each token belongs."""
    lengths: np.ndarray
    """[A] The tokens of each answer."""
    shots: int = 0
    """Rows shown before it: as many as fit."""


@dataclass(frozen=True)
class Asker:
    """Turns questions into tokens for a model that reads `context` of them at most."""

    tokenizer: Encoder
    context: int
    opening: int

    def ask(self, questions: Sequence[Question]) -> list[Asked]:
        """One `Asked` a question, in order.

        Where the context is too short, whole shots give way, the first first, then the head of the prompt
        (counted in `Example.truncated`); never the answer. Raises UserError for an answer that is empty or
        longer than the context.
        """
        shown = self._shots(questions)
        prompts = [_with_shots(one, fits) for one, fits in zip(questions, shown)]
        whole = self._with_answers(questions, prompts)
        # Between two texts there may be more tokens than in each alone: then one shot more gives way.
        while over := [at for at, texts in enumerate(whole) if shown[at] and self._excess(texts)]:
            for at in over:
                shown[at] -= 1
                prompts[at] = _with_shots(questions[at], shown[at])
            again = self._with_answers([questions[at] for at in over], [prompts[at] for at in over])
            for at, texts in zip(over, again):
                whole[at] = texts
        heads = self.tokenizer.encode(prompts)
        return [self._asked(at, one, heads[at], whole[at], shown[at]) for at, one in enumerate(questions)]

    def read(self, questions: Sequence[Question]) -> list[Asked]:
        """Texts without a prompt, each the only answer: every token is scored, up to the context.

        What is beyond is cut and counted. Raises UserError for an empty text.
        """
        made = []
        for place, (one, (text,)) in enumerate(
            zip(questions, self._with_answers(questions, [""] * len(questions)))
        ):
            _require_some(one, text, 0)
            kept = text[: self.context]
            made.append(self._joined(place, [kept], 0, len(text) - len(kept), 0))
        return made

    def _with_answers(self, questions: Sequence[Question], prompts: Sequence[str]) -> list[list[np.ndarray]]:
        texts = [prompt + answer for one, prompt in zip(questions, prompts) for answer in one.answers]
        encoded = iter(self.tokenizer.encode(texts))
        return [[next(encoded) for _ in one.answers] for one in questions]

    def _shots(self, questions: Sequence[Question]) -> list[int]:
        """How many shots of each question fit, by the tokens that each text has alone."""
        texts = list(dict.fromkeys(shot for one in questions for shot in one.shots))
        if not texts:
            return [0] * len(questions)
        sizes = dict(zip(texts, map(len, self.tokenizer.encode(texts))))
        alone = self._with_answers(questions, [one.prompt for one in questions])
        fitting = []
        for one, answers in zip(questions, alone):
            room, fits = self.context - max(map(len, answers)), 0
            for shot in reversed(one.shots):
                room -= sizes[shot]
                if room < 0:
                    break
                fits += 1
            fitting.append(fits)
        return fitting

    def _excess(self, texts: Sequence[np.ndarray]) -> int:
        """The tokens of the longest text that the context does not hold; its last is never read."""
        return max(0, max(map(len, texts)) - self.context)

    def _asked(
        self, place: int, one: Question, head: np.ndarray, texts: list[np.ndarray], shots: int
    ) -> Asked:
        start = min(_in_common(head, text) for text in texts)
        for text in texts:
            _require_some(one, text, start)
        excess = self._excess(texts)
        if excess > start:
            longest = max(range(len(texts)), key=lambda at: len(texts[at]))
            raise UserError(
                f"an answer has {len(texts[longest]) - start} tokens, the context holds {self.context}",
                file=one.file,
                line=one.line,
                text=one.answers[longest],
            )
        return self._joined(place, [text[excess:] for text in texts], start - excess, excess, shots)

    def _joined(self, place: int, texts: list[np.ndarray], start: int, cut: int, shots: int) -> Asked:
        """Answers from token `start` on, each predicted from `opening` and all before it."""
        sequences: list[np.ndarray] = []
        home = [0] * len(texts)
        for at in sorted(range(len(texts)), key=lambda at: -len(texts[at])):
            read = np.concatenate([[self.opening], texts[at][:-1]]).astype(np.int64)
            shared = [np.array_equal(other[: len(read)], read) for other in sequences]
            home[at] = shared.index(True) if any(shared) else len(sequences)
            if home[at] == len(sequences):
                sequences.append(read)
        firsts = np.concatenate([[0], np.cumsum([len(sequence) for sequence in sequences])])
        lengths = np.array([len(text) - start for text in texts])
        places = [firsts[home[at]] + np.arange(start, len(text)) for at, text in enumerate(texts)]
        value = np.concatenate([text[start:] for text in texts]).astype(np.int64)
        targets = ExampleTargets(np.concatenate(places), value, np.ones(len(value)))
        example = Example(place, tuple(sequences), truncated=cut)
        return Asked(example, targets, np.repeat(np.arange(len(texts)), lengths), lengths, shots)


def _with_shots(one: Question, count: int) -> str:
    """The prompt behind the last `count` shots."""
    return "".join(one.shots[len(one.shots) - count :]) + one.prompt


def _in_common(a: np.ndarray, b: np.ndarray) -> int:
    """The tokens with which both begin."""
    size = min(len(a), len(b))
    different = np.flatnonzero(a[:size] != b[:size])
    return int(different[0]) if len(different) else size


def _require_some(one: Question, text: np.ndarray, start: int) -> None:
    if len(text) <= start:
        problem = "there is nothing to score: a text or an answer is empty"
        raise UserError(problem, file=one.file, line=one.line, text=one.answers[0])
