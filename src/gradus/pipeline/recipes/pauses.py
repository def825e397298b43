"""Where a stage pauses: when dev is scored and for what, when it stops, when its state is written."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, field_validator

from gradus.core.config import Config, wrong
from gradus.core.duration import Interval, Quantity, SaveInterval
from gradus.evaluation.texts import NUMBERS, TextMetric


class Evaluate(Config):
    """When dev is scored. The last step always is."""

    every: Interval | None = None
    """Text: a tenth of the stage, rows: an epoch, unless given."""
    metrics: Annotated[list[TextMetric], Field(min_length=1)] | None = None
    """What is asked of the texts that a stage with `seq2seq` says; they are decoded for it at every
    evaluation."""


class Stop(Config):
    """Early stopping: after `patience` evaluations without a better value."""

    metric: str | None = None
    """A metric of dev: accuracy, macro_f1, matthews, rouge_l, bleu, loss ...; the task's own unless given."""
    patience: int | None = Field(None, ge=1)
    """Evaluations without a better value; without it the stage runs to its end and the best weights are
    kept."""


class Save(Config):
    """When the exact state is written, and how many of those folders stay until the stage is done."""

    every: SaveInterval = Quantity(2, "minutes")
    keep: int = Field(2, ge=1)

    @field_validator("every")
    @classmethod
    def _something(cls, every: Quantity) -> Quantity:
        if every.amount <= 0 or (every.unit == "steps" and every.amount % 1):
            raise wrong("", "the interval must be more than nothing, and steps a whole number", every)
        return every


def asked_of_texts(evaluate: Evaluate, stop: Stop | None) -> tuple[TextMetric, ...]:
    """The kinds of numbers wanted of texts that are said, each once; `stop` asks for its own."""
    stopping = [kind for kind, names in NUMBERS.items() if stop is not None and stop.metric in names]
    return tuple(dict.fromkeys([*(evaluate.metrics or ()), *stopping]))
