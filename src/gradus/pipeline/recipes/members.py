"""Several tasks in one stage: each data set of the mixture, with the objectives on it, is a stage of its own
to all that asks for one task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic_core import PydanticCustomError

from gradus.core.config import wrong
from gradus.core.errors import UserError, nearest
from gradus.data.labels import Labels
from gradus.data.mixture import Mixture
from gradus.data.rows import RowsData
from gradus.objectives import HeadConfig, ObjectiveConfig

if TYPE_CHECKING:
    from gradus.pipeline.recipes.stages import Stage

PLACE = "data.mix.mix"
"""Where data sets stand below a stage, for `wrong`: the tag of a union is part of pydantic's path."""


def reads_rows(data: Any) -> bool:
    """Whether rows are among the data, as a recipe has them or read."""
    if isinstance(data, dict):
        parts = data.get("mix")
        return any(map(reads_rows, parts.values())) if isinstance(parts, dict) else data.get("kind") == "rows"
    return isinstance(data, RowsData) or (isinstance(data, Mixture) and data.has_rows)


def members_of(stage: Stage) -> dict[str, Stage]:
    """Name -> the stage as that data set alone would have it; none for a stage with one task, which a mixture
    of texts is unless an objective says `on`."""
    data = stage.data
    if not isinstance(data, Mixture) or not (data.has_rows or any(one.on for one in stage.objectives)):
        return {}
    return {name: _alone(stage, name, part) for name, part in data.mix.items()}


def _alone(stage: Stage, name: str, data: Any) -> Stage:
    own = [one for one in stage.objectives if name in (one.members or (name,))]
    alone = stage.model_copy(update={"data": data, "objectives": own, "zero_shot": {}, "stop": None})
    changes: dict[str, Any] = {}
    if reads_rows(stage.data) and not isinstance(data, RowsData):
        changes["augment"] = None
    if stage.stop is not None and stage.stop.metric is not None:
        member, _, metric = stage.stop.metric.rpartition(".")
        changes["stop"] = stage.stop.model_copy(update={"metric": metric}) if member in ("", name) else None
    if not alone.says_answers or alone.told_answers is not None:
        changes["evaluate"] = stage.evaluate.model_copy(update={"metrics": None})
    return alone.model_copy(update=changes)


def speaking(members: Mapping[str, Stage]) -> list[str]:
    """The tasks that speak for all: those with labels or answers where there are any."""
    return [name for name, one in members.items() if one.answers_rows] or list(members)


def members_metric(members: dict[str, Stage]) -> str:
    """What the tasks together are judged by: the mean of what all that speak are judged by, or the first
    one's own; those without dev say nothing."""
    judged = {name: one for name, one in members.items() if one.data.dev is not None} or members
    metrics = {name: members[name].metric for name in speaking(judged)}
    if len(set(metrics.values())) == 1:
        return next(iter(metrics.values()))
    return ".".join(next(iter(metrics.items())))


def require_members(stage: Stage) -> None:
    """Raises for an objective that names no data set of the mixture, and for a data set nobody scores."""
    data, members = stage.data, members_of(stage)
    for place, one in enumerate(stage.objectives):
        if one.on is not None and not isinstance(data, Mixture):
            hint = "leave it out, or name several data sets in `data.mix`"
            raise wrong(f"objectives.{place}.on", "the stage has one data set alone", one.on, hint)
        for name in one.members:
            if name not in members:
                raise wrong(
                    f"objectives.{place}.on", "there is no such data set", name, nearest(name, members)
                )
        if len(set(one.members)) < len(one.members):
            raise wrong(f"objectives.{place}.on", "a data set stands there twice", ", ".join(one.members))
        if members and isinstance(one, HeadConfig) and not one.on:
            hint = f"such as `on: {next(iter(members))}`; `on: [a, b]` is one head for both"
            raise wrong(
                f"objectives.{place}", "the objective does not say which data set it is on", one.kind, hint
            )
    for name, alone in members.items():
        if not alone.objectives:
            hint = f"an objective `on: {name}`, or leave it out of `mix`"
            raise wrong(f"{PLACE}.{name}", "no objective scores this data set", name, hint)
    asked = stage.weights == "best" if stage.stop is None else stage.stop.metric is None
    if members and asked and "." in members_metric(members):
        hint = f"`metric: {members_metric(members)}`, or what all of them report: loss"
        raise wrong("stop", "the data sets are judged by different metrics: name one", None, hint)


def of_member(mistake: PydanticCustomError, name: str) -> PydanticCustomError:
    """The mistake of a data set's own stage with its place in the whole."""
    context = mistake.context or {}
    key, (head, _, rest) = context["key"], context["key"].partition(".")
    if head == "data":
        key = ".".join([PLACE, name, *([rest] if rest else [])])
    return wrong(key, f"{name}: {context['problem']}", context["text"], context["hint"])


def require_equal_labels(
    labels: Mapping[str, Labels | None], objectives: Sequence[ObjectiveConfig], field: str
) -> None:
    """Raises UserError for data sets whose labels differ and that are to share a head."""
    for place, one in enumerate(objectives):
        for name in one.members if isinstance(one, HeadConfig) else ():
            first = one.members[0]
            if labels[name] != labels[first]:
                told = "; ".join(f"{other}: {', '.join(labels[other].names)}" for other in (first, name))  # type: ignore[union-attr]
                hint = "an objective on each, or `map` and `labels` that make them equal"
                problem = "one head for several data sets tells the same labels apart, and theirs differ"
                raise UserError(problem, field=f"{field}.objectives.{place}.on", text=told, hint=hint)
