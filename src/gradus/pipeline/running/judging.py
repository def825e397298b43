"""How good weights are on a split: each task of a stage by itself, and of several tasks also the mean."""

from __future__ import annotations

from collections.abc import Mapping

from gradus.data.sources import Source
from gradus.distributed.world import World
from gradus.evaluation.evaluator import Scores, score, summarise_all, summarise_part
from gradus.pipeline.models.saying import answer_metrics
from gradus.pipeline.planning.prepared import Prepared
from gradus.pipeline.recipes.members import speaking
from gradus.training.learner import Learner
from gradus.training.trainer import NotFinite

Judged = tuple[dict[str, float], dict[str, Scores]]
"""The metrics, and by task ("" where there is one) what its main objective gave each row."""


def judge(prepared: Prepared, learner: Learner, split: str, step: int, world: World, budget: int) -> Judged:
    """The metrics of a split at `step`, and the scores of every row.

    The main objective's metrics have their own names; of the others the loss is told. Of several tasks each
    has its metrics as TASK.METRIC, and what all of them report that have labels or answers (all, where none
    has) is told as the mean over them. Raises NotFinite where a score is no number.
    """
    found, scores = {}, {}
    for name, task in prepared.tasks.items():
        if split in task.splits:
            asked = learner.asked(task.objectives) if name else learner
            found[name], scores[name] = _judge_task(task, asked, split, step, world, budget)
    if not prepared.members:
        return found[""], scores
    own = {f"{name}.{metric}": value for name, metrics in found.items() for metric, value in metrics.items()}
    return _means(prepared, found) | own, scores


def _means(prepared: Prepared, found: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    told = [found[name] for name in speaking({name: prepared.members[name].node.stage for name in found})]
    shared = [key for key in told[0] if "." not in key and all(key in other for other in told)]
    return {key: sum(metrics[key] for metrics in told) / len(told) for key in shared}


def _judge_task(
    task: Prepared, learner: Learner, split: str, step: int, world: World, budget: int
) -> tuple[dict[str, float], Scores]:
    part = task.splits[split]
    scores = score(learner, part.source, world, budget)
    for found in scores:
        _require_finite(found, f"{split} at step {step}", part.source)
    names = task.labels.names if task.labels else ()
    judged, main = scores[task.main], task.objectives[task.main]
    metrics = summarise_all(task.objectives, scores, main, names, part.counts["bytes"])
    start = 0
    for name, text in part.parts.items():
        own = judged.rows_between(start, start := start + len(text.source))
        metrics |= summarise_part(main, own, name, text.counts["bytes"])
    if task.node.kind == "rows":
        asked = task.node.stage.text_metrics
        metrics |= answer_metrics(task.encoder, part.rows, judged, learner, world, budget, asked)
    return metrics, judged


def _require_finite(found: Scores, what: str, source: Source) -> None:
    """Raises NotFinite, naming rows, where a score is no number: finite weights can be too large to use."""
    bad = found.rows[~found.sound]
    if len(bad):
        more = f" and {len(bad) - 3} more" if len(bad) > 3 else ""
        places = ", ".join(source.where(int(row)) for row in bad[:3]) + more
        raise NotFinite(f"the scores of {what} are not finite: {places}", hint=NotFinite.HINT)
