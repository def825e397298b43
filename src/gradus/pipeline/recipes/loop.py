"""What a recipe may say of the loop around its stages: a search over its keys, and strategies tried in order.

Both drive at one number of dev, never of test, and yield a patch as a variant is one: full path -> value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, field_validator, model_validator

from gradus.core.config import Config, wrong
from gradus.core.errors import nearest
from gradus.data.reader_options import first_double
from gradus.evaluation.metrics import LARGER_IS_BETTER

Patch = Mapping[str, Any]
AS_WRITTEN = "as written"
"""The recipe without any patch, among variants."""
BEST = "best found"
"""The variant that a loop found; it runs on all seeds beside the recipe as written."""


@dataclass(frozen=True)
class Goal:
    """The number of dev that a loop drives at: `metric` of `stage`."""

    stage: str
    metric: str

    def __str__(self) -> str:
        return f"{self.stage}.dev.{self.metric}"

    @classmethod
    def of(cls, text: str) -> Goal:
        """Reads STAGE.dev.METRIC; of one text of a mixture STAGE.dev.TEXT.METRIC."""
        stage, _, rest = text.partition(".")
        split, _, metric = rest.partition(".")
        if split == "test":
            raise wrong("", "what is chosen by test cannot be judged by it", text, f"{stage}.dev.{metric}")
        if split != "dev" or not metric:
            raise wrong("", "a metric is named STAGE.dev.METRIC", text, "such as finetune.dev.accuracy")
        if (own := metric.rsplit(".", 1)[-1]) not in LARGER_IS_BETTER:
            raise wrong("", "there is no such metric", own, nearest(own, LARGER_IS_BETTER))
        return cls(stage, metric)

    @property
    def larger(self) -> bool:
        """Whether more of it is better."""
        return LARGER_IS_BETTER[self.metric.rsplit(".", 1)[-1]]

    def gain(self, new: float, old: float) -> float:
        """How much better `new` is; negative where it is worse."""
        return new - old if self.larger else old - new


def _known(text: str) -> str:
    Goal.of(text)
    return text


GoalName = Annotated[str, AfterValidator(_known)]


class Loop(Config):
    """What search and iterate have in common: a goal, and when to stop."""

    metric: GoalName | None = None
    """STAGE.dev.METRIC: the number to drive at; of the result, what its stage is judged by, unless given."""
    until: float | None = None
    """The value of the metric that is enough."""
    minutes: float | None = Field(None, gt=0)
    """What the loop may take of training and evaluation, beyond the recipe as written; looked at between
    trials."""

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        above = self.until is not None and self.until > 1
        if above and self.metric is not None and Goal.of(self.metric).larger:
            raise wrong("until", f"{self.metric} is never above 1", self.until, "90 % is 0.9")
        return self

    def over(self, goal: Goal, value: float | None, seconds: float) -> str | None:
        """Why it ends at this value after so many seconds; None where it goes on."""
        if value is not None and self.until is not None and goal.gain(value, self.until) >= 0:
            return f"the target of {self.until:g} is met"
        if self.minutes is not None and seconds >= 60 * self.minutes:
            return f"{self.minutes:g} minutes are spent"
        return None


class Dimension(Config):
    """The values that a key may take: one of `log`, `uniform`, `integers` and `choices`."""

    log: tuple[float, float] | None = None
    """From, to; evenly in the logarithm."""
    uniform: tuple[float, float] | None = None
    """From, to."""
    integers: tuple[int, int] | None = None
    """From, to, both included."""
    choices: list[Any] | None = Field(None, min_length=2)

    @model_validator(mode="after")
    def _one(self) -> Self:
        given = [name for name, value in self if value is not None]
        if len(given) != 1:
            raise wrong(
                "", "one of log, uniform, integers and choices is wanted", None, "{log: [1e-5, 1e-3]}"
            )
        if given[0] != "choices" and not self.ends[0] < self.ends[-1]:
            raise wrong(given[0], "the first end is to be below the second", list(self.ends))
        if self.log is not None and self.log[0] <= 0:
            raise wrong("log", "a logarithm needs numbers above 0", self.log[0], "uniform")
        return self

    @property
    def ends(self) -> list[Any]:
        """Both ends, or all choices."""
        if self.choices is not None:
            return self.choices
        return list(self.log or self.uniform or self.integers or ())

    def __str__(self) -> str:
        ends = ", ".join(f"{end:g}" if isinstance(end, float) else str(end) for end in self.ends)
        return f"{next(name for name, value in self if value is not None)} [{ends}]"


class Search(Loop):
    """Tries values of keys of the recipe by Optuna's tree of Parzen estimators (Bergstra et al. 2011)."""

    metric: GoalName
    """STAGE.dev.METRIC: the number to drive at."""
    trials: int = Field(20, ge=1)
    """The recipe as written is the first."""
    space: dict[str, Dimension] = Field(min_length=1)
    """Full path -> the values to try."""
    prune: Literal["median", "never"] = "median"
    """A trial is given up where its best evaluation so far is worse than the median of what finished trials
    had at that time, once there are five (Optuna's rule; Golovin et al. 2017, section 3.2.2)."""

    @property
    def goal(self) -> Goal:
        return Goal.of(self.metric)


class Iterate(Loop):
    """Tries variants one after the other, each on top of those that were kept."""

    order: list[str] = Field(alias="try", min_length=1)
    """Names of variants, in the order in which they are tried; alone they are not run."""

    @field_validator("order")
    @classmethod
    def _once(cls, order: list[str]) -> list[str]:
        if twice := first_double(order):
            raise wrong("", "this variant stands there twice", twice)
        return order


def merged(kept: Patch, more: Patch) -> dict[str, Any]:
    """Both patches as one, `more` applied last."""
    return {path: value for path, value in kept.items() if path not in more} | dict(more)
