"""What a language model can do before it is taught to: classes, acceptability and answers scored by the
probability of text alone (Radford et al. 2018, section 5, "Zero-shot behaviors"), with rows of train in the
prompt or without (Brown et al. 2020, section 2.4).

Every figure comes with its 95 % interval and with what chance and the most frequent class would get; "at
chance" is a valid result. Shapes: R rows, A answers of a row.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, StringConstraints, field_validator, model_validator

from gradus.core.config import Config, wrong
from gradus.data.formats import Format, MultipleChoice
from gradus.data.reader_options import Text
from gradus.data.rows import RowsData
from gradus.data.templates import names_in
from gradus.distributed.world import World
from gradus.evaluation.answering import nats_by, of_targets
from gradus.evaluation.prompts import Asked
from gradus.evaluation.shots import shots_said
from gradus.evaluation.statistics import matthews, matthews_interval, wilson_interval
from gradus.nn.transformer import Transformer

Measured = dict[str, float]
CELLS = ((True, True), (True, False), (False, True), (False, False))
"""(said, true) of true and false positives, false and true negatives."""


class _Scored(Config):
    """Which rows are scored."""

    data: RowsData
    """Labelled rows, as in a stage. Train gives shots, thresholds and the most frequent class."""
    split: Literal["train", "dev", "test"] = "dev"
    """The split that is scored."""
    limit: int | None = Field(None, ge=1)
    """Score so many rows of it, drawn once and for all; all unless given."""

    @model_validator(mode="after")
    def _there(self) -> _Scored:
        if self.data.format.label is None:
            problem = "zero-shot scoring needs the column with the right answer"
            raise wrong("data.format", problem, None, "add `label: COLUMN`")
        if self.data.multi_label:
            problem = "zero-shot answers name one class a row"
            raise wrong("data.multi_label", problem, None, "leave it out")
        if self.split != "train" and getattr(self.data, self.split) is None:
            raise wrong("data", f"the split to score, {self.split}, is not there", None, "files, or 10 %")
        return self


class _Asked(_Scored):
    """Rows that are asked with a prompt."""

    shots: int = Field(0, ge=0)
    """Rows of train, with their answers, before each row; drawn anew for each (Brown et al. 2020, section
    2.4)."""

    @model_validator(mode="after")
    def _shown(self) -> _Asked:
        if self.shots and self.split == "train":
            raise wrong(
                "shots", "shots are rows of train, and train is scored here", self.shots, "split: dev"
            )
        return self


def _sound(prompt: str) -> str:
    names_in(prompt)
    return prompt


def _require_no_label(prompt: str, form: Format) -> None:
    """Raises where the prompt names the column with the right answer, which the model would read."""
    own: dict[str, str] = {}
    if isinstance(form, MultipleChoice):
        own = {"context": form.context} | ({"question": form.question} if form.question else {})
    for name in names_in(prompt):
        if own.get(name, name) == form.label:
            hint = "the model would read the answer; name columns that hold texts alone"
            raise wrong("prompt", "the prompt names the column with the label", f"{{{name}}}", hint)


Prompt = Annotated[str, StringConstraints(min_length=1)]


class ZeroShotWords(_Asked):
    """The class whose text is likelier after the prompt: for SST-2 "very" is appended and " positive"
    compared with " negative" (Radford et al. 2018, section 5)."""

    kind: Literal["words"]
    prompt: Prompt
    """What stands before the answer; a column's name in braces is its text: "{text} very"."""
    answers: Annotated[dict[Text, Prompt], Field(min_length=2)]
    """Class -> the text that names it, with the space before it. Log-probabilities of its tokens are
    added."""

    _braces = field_validator("prompt")(_sound)

    @model_validator(mode="after")
    def _different(self) -> ZeroShotWords:
        _require_no_label(self.prompt, self.data.format)
        texts = list(self.answers.values())
        twice = next((text for text in texts if texts.count(text) > 1), None)
        if twice is not None:
            raise wrong("answers", "two classes have the same text", twice)
        return self


class ZeroShotThreshold(_Scored):
    """The likelier class where the mean log-probability of the row's tokens is above a threshold, chosen on
    train (CoLA in Radford et al. 2018, section 5)."""

    kind: Literal["threshold"]
    likely: Text | None = None
    """The class of likely texts; the last of the labels ("1" of 0 and 1) unless given."""

    @model_validator(mode="after")
    def _one_text(self) -> ZeroShotThreshold:
        if self.data.format.kind != "single":
            raise wrong(
                "data.format.kind", "a threshold is for one text a row", self.data.format.kind, "single"
            )
        return self


class ZeroShotChoices(_Asked):
    """The answer whose tokens are likeliest on average after the prompt (RACE in Radford et al. 2018, section
    5)."""

    kind: Literal["choices"]
    prompt: Prompt | None = None
    """What stands before the answer; `{context}` and `{question}` are those of the format, other names are
    columns. Unless given, context and question (where there is one), a line each."""

    @field_validator("prompt")
    @classmethod
    def _braces(cls, prompt: str | None) -> str | None:
        return prompt if prompt is None else _sound(prompt)

    @model_validator(mode="after")
    def _answers(self) -> ZeroShotChoices:
        kind = self.data.format.kind
        if kind != "multiple_choice":
            raise wrong("data.format.kind", "choices need rows with answers", kind, "multiple_choice")
        if self.prompt is not None:
            _require_no_label(self.prompt, self.data.format)
        return self


ZeroShotConfig = Annotated[ZeroShotWords | ZeroShotThreshold | ZeroShotChoices, Field(discriminator="kind")]


@dataclass(frozen=True)
class Probe:
    """Rows in tokens, and which answer of each is right: for a threshold 1 of (unlikely, likely)."""

    name: str
    config: ZeroShotWords | ZeroShotThreshold | ZeroShotChoices
    rows: Sequence[Asked]
    right: np.ndarray
    majority: float
    """The accuracy of always naming what is most frequent in train."""
    seed: int
    known: Sequence[Asked] = ()
    """Rows of train on which a threshold is chosen."""
    known_right: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def tokens(self) -> int:
        """Tokens that one evaluation reads."""
        return sum(asked.example.tokens for asked in (*self.rows, *self.known))

    @property
    def metric(self) -> Literal["accuracy", "matthews"]:
        """What speaks for the task: Matthews where there is a threshold, as published for CoLA."""
        return "matthews" if isinstance(self.config, ZeroShotThreshold) else "accuracy"

    def shots(self) -> dict[str, float]:
        """The shots asked for before each row, and how many the context had room for, on average."""
        asked = 0 if isinstance(self.config, ZeroShotThreshold) else self.config.shots
        return {"shots": asked, "shots_shown": sum(one.shots for one in self.rows) / len(self.rows)}

    def counts(self) -> dict[str, float]:
        """What was scored, and what the context made us cut; for a threshold also of the rows of train on
        which it is chosen."""
        found = _cut(self.rows) | self.shots()
        if isinstance(self.config, ZeroShotThreshold):
            found |= {f"train_{name}": count for name, count in _cut(self.known).items()}
        return found


def _cut(rows: Sequence[Asked]) -> dict[str, float]:
    """How many rows, how many of them lost tokens, and how many tokens that were."""
    tokens = [asked.example.truncated for asked in rows]
    return {"rows": len(rows), "cut_rows": sum(lost > 0 for lost in tokens), "cut_tokens": sum(tokens)}


def answer_nats(
    transformer: Transformer, rows: Sequence[Asked], world: World, budget: int
) -> list[np.ndarray]:
    """Summed nats [A] of each row's answers, float64, in the order of the rows; each rank scores its share.

    `budget` bounds the tokens of a forward. The transformer must be in evaluation mode.
    """
    asked = [(one.example, one.targets) for one in rows]
    found = of_targets(transformer, asked, world, budget, nats_by(transformer))
    return [np.bincount(one.answer, own, len(one.lengths)) for one, own in zip(rows, found)]


def measure(probe: Probe, transformer: Transformer, world: World, budget: int) -> Measured:
    """The task's metric with its interval `low` to `high`, `chance`, `majority`, `rows`, `shots` and the mean
    of those that had room, `shots_shown`.

    `most_named` is the share of rows that get the answer (the class, or the place) named most: at 1 the
    prompt decides and not the row. The metric is not-a-number where a score is none.
    """
    nats = answer_nats(transformer, probe.rows, world, budget)
    if isinstance(probe.config, ZeroShotThreshold):
        known = answer_nats(transformer, probe.known, world, budget)
        return _by_threshold(probe, _means(probe.rows, nats), _means(probe.known, known))
    average = isinstance(probe.config, ZeroShotChoices)
    scores = [-sums / (asked.lengths if average else 1) for asked, sums in zip(probe.rows, nats)]
    if not all(np.isfinite(score).all() for score in scores):
        return {"accuracy": float("nan")}
    named = np.array([int(score.argmax()) for score in scores])
    right = int((named == probe.right).sum())
    low, high = wilson_interval(right, len(named))
    return {
        "accuracy": right / len(scores), "low": low, "high": high,
        "chance": float(np.mean([1 / len(score) for score in scores])), "majority": probe.majority,
        "most_named": float(np.bincount(named).max() / len(named)),
        "rows": len(named), **probe.shots(),
    }  # fmt: skip


def _means(rows: Sequence[Asked], nats: Sequence[np.ndarray]) -> np.ndarray:
    """Mean log-probability [R] of the tokens of rows with one answer each."""
    return np.array([-float(sums[0]) / float(asked.lengths[0]) for asked, sums in zip(rows, nats)])


def _by_threshold(probe: Probe, scores: np.ndarray, known: np.ndarray) -> Measured:
    if not (np.isfinite(scores).all() and np.isfinite(known).all()):
        return {"matthews": float("nan")}
    threshold = best_threshold(known, probe.known_right == 1)
    likely, right = scores > threshold, probe.right == 1
    cells = [int(((likely == said) & (right == truth)).sum()) for said, truth in CELLS]
    low, high = matthews_interval(cells, key=(probe.seed, probe.name))
    return {
        "matthews": float(matthews(*cells)), "low": low, "high": high, "chance": 0.0,
        "accuracy": float((likely == right).mean()), "majority": probe.majority,
        "most_named": float(max(likely.mean(), 1 - likely.mean())),
        "rows": len(scores), **probe.shots(), "threshold": threshold,
    }  # fmt: skip


def best_threshold(scores: np.ndarray, likely: np.ndarray) -> float:
    """The score [R] above which calling rows likely gives the best Matthews correlation with `likely` [R].

    Half-way between two neighbouring scores; the lowest among equals. Matthews and not accuracy, which would
    call nearly every row acceptable where most are. Where all of those do worse than naming one class for
    every row, which is 0, it lies at an end, so that all rows get the class that most of them have.
    """
    order = np.argsort(scores, kind="stable")
    ranked, truth = scores[order], likely[order]
    borders = np.flatnonzero(np.diff(ranked) > 0) + 1
    fn = np.cumsum(truth)[borders - 1]
    tn = borders - fn
    found = matthews(truth.sum() - fn, (~truth).sum() - tn, fn, tn)
    if not len(found) or found.max() < 0:
        return float(np.nextafter(ranked[0], -np.inf) if 2 * truth.sum() > len(truth) else ranked[-1])
    best = int(borders[int(found.argmax())])
    return float((ranked[best - 1] + ranked[best]) / 2)


def verdict(metric: str, measured: Measured) -> str:
    """What the interval allows to say: above or below chance, or at it; and of a figure above chance, whether
    it beats the most frequent class, too."""
    if measured["high"] < measured["chance"]:
        return "below chance"
    if measured["low"] <= measured["chance"]:
        return "at chance"
    if metric == "accuracy" and measured["low"] <= measured["majority"]:
        return "above chance, not above the majority"
    return "above chance"


def result(probe: Probe, measured: Measured) -> dict[str, Any]:
    """A result as records keep it."""
    return {
        "name": probe.name, "task": probe.config.kind, "split": probe.config.split,
        "metric": probe.metric, "metrics": measured, "verdict": verdict(probe.metric, measured),
    }  # fmt: skip


def line(found: Mapping[str, Any]) -> str:
    """A result as a person reads it."""
    measured, metric = found["metrics"], found["metric"]
    shots = f", {said}" if (said := shots_said(measured)) else ""
    majority = f", majority {measured['majority']:.4f}" if metric == "accuracy" else ""
    return (
        f"zero-shot {found['name']} ({found['split']}{shots}): {metric} {measured[metric]:.4f} "
        f"[{measured['low']:.4f}, {measured['high']:.4f}], chance {measured['chance']:.4f}{majority}: "
        f"{found['verdict']}{', the same answer for every row' if measured['most_named'] == 1 else ''}"
    )
