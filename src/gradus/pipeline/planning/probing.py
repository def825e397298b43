"""What a stage does with its key `zero_shot`: reads the rows, asks them with or without shots, scores them at
every evaluation and once more with the weights that leave.

Scoring draws nothing from the generators of training, so training gives the same bits with and without it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np

from gradus.core.errors import UserError, nearest
from gradus.core.keyed import permuted
from gradus.data.formats import MultipleChoice
from gradus.data.labels import Labels, field_text, label_text
from gradus.data.readers import Row
from gradus.data.split import TRAIN
from gradus.data.templates import filled, names_in
from gradus.distributed.world import World
from gradus.evaluation.prompts import SEPARATOR, Asker, Question
from gradus.evaluation.zero_shot import (
    Probe,
    ZeroShotChoices,
    ZeroShotConfig,
    ZeroShotThreshold,
    ZeroShotWords,
    measure,
    result,
)
from gradus.pipeline.planning.material import Material
from gradus.pipeline.recipes.stages import Stage
from gradus.tokenizers import Tokenizer
from gradus.training.learner import Learner
from gradus.training.trainer import NotFinite

DRAWN = "zero-shot rows"
SHOTS = "shots"


def probe_digests(name: str, stage: Stage, material: Material) -> dict[str, dict[str, str]]:
    """The content digests of all that `stage`, called `name`, scores: part of its fingerprint."""
    found = {}
    for probe, config in stage.zero_shot.items():
        with _placed(name, probe):
            found[probe] = material.digests(config.data)
    return found


def make_probes(
    name: str, stage: Stage, seed: int, tokenizer: Tokenizer, context: int, material: Material
) -> list[Probe]:
    """The rows of every probe, in tokens. Raises UserError for the first thing that is wrong with them.

    The text stands where the model expects one to begin: after `end` where it learns running text, whose
    documents end so, after `start` where it learns rows.
    """
    opening = tokenizer.role("end" if stage.reads == "text" else "start")
    asker = Asker(tokenizer, context, opening)
    found = []
    for probe, config in stage.zero_shot.items():
        with _placed(name, probe):
            found.append(_probe(probe, config, f"stages.{name}.zero_shot.{probe}", seed, asker, material))
    return found


def _probe(
    name: str, config: ZeroShotConfig, field: str, seed: int, asker: Asker, material: Material
) -> Probe:
    splits = material.rows(config.data)
    train, rows = splits[TRAIN].rows, splits[config.split].rows
    answers = _answers(config, field, [*train, *rows])
    known = [answers.question(row) for row in train]
    here = [answers.question(row) for row in rows] if config.split != TRAIN else known
    if config.limit is not None and config.limit < len(rows):
        chosen = permuted(np.arange(config.limit), len(rows), DRAWN)
        here = [here[int(place)] for place in np.sort(chosen)]
    right = np.array([one.right for one in here])
    most = Counter(one.right for one in known)
    usual = max(sorted(most), key=lambda answer: most[answer])
    majority = float((right == usual).mean())
    if isinstance(config, ZeroShotThreshold):
        truth = np.array([one.right for one in known])
        return Probe(name, config, asker.read(here), right, majority, seed, asker.read(known), truth)
    if config.shots:
        here = _with_shots(here, known, config.shots, field, seed)
    return Probe(name, config, asker.ask(here), right, majority, seed)


class _Answers:
    """Rows to questions, for one kind of probe."""

    def __init__(self, config: ZeroShotConfig, field: str, rows: Sequence[Row]):
        self.field = field
        self.form, self.label = config.data.format, config.data.format.label

    def question(self, row: Row) -> Question:
        raise NotImplementedError

    def right(self, row: Row, classes: Sequence[str]) -> int:
        """The place of the row's label among the classes."""
        assert self.label is not None
        text = label_text(row, self.label)
        if text not in classes:
            hint = f"the label of {row.file}:{row.line}; add it, or `drop` such rows"
            problem = "`answers` has no text for this class"
            raise UserError(problem, field=f"{self.field}.answers", text=text, hint=hint)
        return list(classes).index(text)

    def require_names(self, prompt: str, rows: Sequence[Row], own: Sequence[str] = ()) -> None:
        """Raises UserError for a name in the prompt that no row has."""
        there = dict.fromkeys([*own, *(name for row in rows for name in row.fields)])
        for name in names_in(prompt):
            if name not in there:
                raise UserError("no row has this column", field=f"{self.field}.prompt", text=name,
                                hint=nearest(name, there))  # fmt: skip


class _Words(_Answers):
    def __init__(self, config: ZeroShotWords, field: str, rows: Sequence[Row]):
        super().__init__(config, field, rows)
        self.prompt, self.texts = config.prompt, dict(config.answers)
        self.require_names(config.prompt, rows)
        assert self.label is not None
        seen = {label_text(row, self.label) for row in rows}
        for name in self.texts:
            if name not in seen:
                raise UserError("no row has this class", field=f"{field}.answers", text=name,
                                hint=nearest(name, sorted(seen)))  # fmt: skip

    def question(self, row: Row) -> Question:
        prompt = filled(self.prompt, _Columns(row))
        right = self.right(row, list(self.texts))
        return Question(prompt, tuple(self.texts.values()), right, row.file, row.line)


class _Likely(_Answers):
    """Two classes, the likely one second."""

    def __init__(self, config: ZeroShotThreshold, field: str, rows: Sequence[Row]):
        super().__init__(config, field, rows)
        assert self.label is not None
        names = Labels.of(rows, self.label, config.data.labels).names
        if len(names) != 2:
            hint = "`map` or `drop` can make them two"
            problem = f"a threshold parts two classes, not {len(names)}"
            raise UserError(problem, field=f"{field}.data.format.label", text=", ".join(names), hint=hint)
        likely = names[-1] if config.likely is None else config.likely
        if likely not in names:
            raise UserError("no row has this class", field=f"{field}.likely", text=likely,
                            hint=nearest(likely, names))  # fmt: skip
        self.classes = [*(name for name in names if name != likely), likely]

    def question(self, row: Row) -> Question:
        (column,) = self.form.fields
        text = _some_text(row, column)
        return Question("", (text,), self.right(row, self.classes), row.file, row.line)


class _Choices(_Answers):
    def __init__(self, config: ZeroShotChoices, field: str, rows: Sequence[Row]):
        super().__init__(config, field, rows)
        assert isinstance(self.form, MultipleChoice)
        self.own = {"context": self.form.context}
        if self.form.question is not None:
            self.own["question"] = self.form.question
        self.prompt = config.prompt or "".join(f"{{{name}}}\n" for name in self.own)
        self.require_names(self.prompt, rows, list(self.own))

    def question(self, row: Row) -> Question:
        assert isinstance(self.form, MultipleChoice)
        values = _Columns(row, self.own)
        answers = tuple(self.form.choices(row))
        return Question(filled(self.prompt, values), answers, self.form.right(row), row.file, row.line)


def _answers(config: ZeroShotConfig, field: str, rows: Sequence[Row]) -> _Answers:
    if isinstance(config, ZeroShotWords):
        return _Words(config, field, rows)
    if isinstance(config, ZeroShotThreshold):
        return _Likely(config, field, rows)
    return _Choices(config, field, rows)


class _Columns(Mapping[str, str]):
    """A row's columns by name, some of them by another name as well. None may be missing or empty."""

    def __init__(self, row: Row, other: Mapping[str, str] | None = None):
        self.row, self.other = row, other or {}

    def __getitem__(self, name: str) -> str:
        return _some_text(self.row, self.other.get(name, name))

    def __iter__(self) -> Iterator[str]:
        return iter([*self.other, *self.row.fields])

    def __len__(self) -> int:
        return len(self.other) + len(self.row.fields)


def _some_text(row: Row, column: str) -> str:
    text = field_text(row, column)
    if not text.strip():
        hint = f'`drop: {{{column}: ""}}` leaves such rows out'
        raise UserError("the text is empty", file=row.file, line=row.line, field=column, hint=hint)
    return text


def _with_shots(
    here: Sequence[Question], known: Sequence[Question], count: int, field: str, seed: int
) -> list[Question]:
    """Each question behind `count` rows of train with their answers, drawn for it alone and never its own
    text."""
    shown = [one.prompt + one.answers[one.right] + SEPARATOR for one in known]
    return [
        replace(one, shots=tuple(shown[at] for at in _drawn(one, place, known, count, field, seed)))
        for place, one in enumerate(here)
    ]


def _drawn(
    one: Question, place: int, known: Sequence[Question], count: int, field: str, seed: int
) -> list[int]:
    """The first `count` rows of train, in an order keyed by the seed and the question, with another text."""
    size = len(known)
    reach = min(size, count + 4)
    while True:
        order = permuted(np.arange(reach), size, SHOTS, seed, place).tolist()
        found = [at for at in order if known[at].prompt != one.prompt][:count]
        if len(found) == count:
            return found
        if reach == size:
            raise UserError(f"train has {len(found)} rows that may be shown before {one.file}:{one.line}",
                            field=f"{field}.shots", text=count, hint="ask for fewer")  # fmt: skip
        reach = min(size, 2 * reach)


@contextmanager
def _placed(stage: str, probe: str) -> Iterator[None]:
    """A mistake in a probe's data that names a key gets the whole path of that key."""
    try:
        yield
    except UserError as mistake:
        if mistake.file is None and not str(mistake.field or "").startswith("stages."):
            place = f"stages.{stage}.zero_shot.{probe}.data"
            mistake.field = f"{place}.{mistake.field}" if mistake.field else place
        raise


class Probing:
    """The probes of a stage and what they last found."""

    def __init__(self, probes: Sequence[Probe]):
        self.probes = probes
        self._last: tuple[int, list[dict[str, Any]]] | None = None

    def at(self, step: int, learner: Learner, world: World, budget: int) -> list[dict[str, Any]]:
        """The results with these weights. Raises NotFinite where a score is no number."""
        learner.eval()
        found = []
        for probe in self.probes:
            measured = measure(probe, learner.transformer, world, budget)
            if not math.isfinite(measured[probe.metric]):
                what = f"the scores of zero-shot {probe.name} at step {step} are not finite"
                raise NotFinite(what, hint=NotFinite.HINT)
            found.append(result(probe, measured))
        self._last = (step, found)
        return found

    def final(
        self, step: int, kept: bool, learner: Learner, world: World, budget: int
    ) -> dict[str, dict[str, Any]]:
        """stage.json's record: name -> result and counts. Nothing is scored again where the weights of the
        last evaluation, at `step`, are those that are `kept`."""
        if kept and self._last is not None and self._last[0] == step:
            found = self._last[1]
        else:
            found = self.at(step, learner, world, budget)
        return {one["name"]: {**one, "counts": probe.counts()} for one, probe in zip(found, self.probes)}
