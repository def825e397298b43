"""Scoring every row of a split once: the result does not depend on batch size, order or world size beyond
rounding."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch

from gradus.core.example import Batch, Example
from gradus.data.feed import cut
from gradus.data.sources import Source
from gradus.distributed.world import World
from gradus.evaluation.label_sets import set_metrics
from gradus.evaluation.metrics import classification_metrics, language_metrics, number_metrics
from gradus.objectives import Objective, reads_row_label
from gradus.objectives.token_classification import SAID

PART_METRICS = frozenset({"loss", "bits_per_byte"})
"""What is told of one text of a mixture."""


class Predictor(Protocol):
    """What is scored: a learner, whatever room it comes from."""

    objectives: tuple[Objective, ...]

    def corrupted(self, example: Example, *key: object) -> Example: ...

    def prepare(self, examples: Sequence[Example]) -> Batch: ...

    def predict(self, batch: Batch) -> list[torch.Tensor]: ...

    def eval(self) -> Any: ...


@dataclass(frozen=True)
class Scores:
    """What one objective gave each of R rows, in the order of the rows.

    `values` is [R, 1] with summed nats for tokens or with numbers, [R, 2] with the tokens that are likeliest,
    too, where these are told, [R, K] with logits for classes, labels and choices (-inf beyond a row's own
    answers), for spans and tags as `of_rows` gives them; `counts` [R] are the targets summed, the answers or
    windows of the row, or the numbers that are said of its words; `labels` are [R], or [R, K] where a row has
    any number of them.
    """

    rows: np.ndarray
    values: np.ndarray
    counts: np.ndarray
    labels: np.ndarray

    def rows_between(self, start: int, stop: int) -> Scores:
        """Of the rows with these places alone."""
        return Scores(*(part[start:stop] for part in (self.rows, self.values, self.counts, self.labels)))

    @property
    def probabilities(self) -> np.ndarray:
        """Softmax of the logits [R, K], float64."""
        shifted = np.exp(self.values - self.values.max(1, keepdims=True))
        return shifted / shifted.sum(1, keepdims=True)

    @property
    def sound(self) -> np.ndarray:
        """Whether every score of a row is a number [R]; what stands beyond a row's answers does not count."""
        beyond = np.isneginf(self.values) & (np.arange(self.values.shape[1]) >= self.counts[:, None])
        return (np.isfinite(self.values) | beyond).all(1)


def score(predictor: Predictor, source: Source, world: World, budget: int, key: object = 0) -> list[Scores]:
    """The scores of every objective on every example of `source`, gathered from all ranks.

    Where one hides tokens from the others, what reads the label of a row is scored on the whole row, as
    `predict` reads it.
    """
    predictor.eval()
    found = _scores(predictor, as_scored(predictor, source, world, key), world, budget)
    whole = [reads_row_label(objective) for objective in predictor.objectives]
    if any(whole) and any(objective.corrupts for objective in predictor.objectives):
        mine = (source.example(index) for index in range(world.rank, len(source), world.size))
        read = _scores(predictor, mine, world, budget)
        found = [clean if label else spoilt for clean, spoilt, label in zip(read, found, whole)]
    return found


def _scores(predictor: Predictor, mine: Iterable[Example], world: World, budget: int) -> list[Scores]:
    """The scores of every objective on a rank's examples, gathered from all."""
    found: list[list[Scores]] = [[] for _ in predictor.objectives]
    for examples in cut(mine, budget):
        batch = predictor.prepare(examples)
        for place, (objective, outputs, targets) in enumerate(
            zip(predictor.objectives, predictor.predict(batch.to(world.device)), batch.targets)
        ):
            found[place].append(_by_row(objective, examples, outputs.double().numpy(), targets.index.numpy()))
    joined = [_join(parts) for parts in found]
    return [_join(list(parts)) for parts in zip(*world.gather(joined))]


def as_scored(predictor: Predictor, source: Source, world: World, key: object = 0) -> Iterator[Example]:
    """The examples of a rank as an evaluation reads them: corrupted in the same way each time."""
    for index in range(world.rank, len(source), world.size):
        yield predictor.corrupted(source.example(index), "evaluate", key)


def summarise(
    objective: Objective, scores: Scores, names: Sequence[str], size: int | None
) -> dict[str, float]:
    """The metrics of one objective; `names` are the classes, `size` the UTF-8 bytes of the text scored."""
    if objective.measure == "tokens":
        nats, count = float(scores.values[:, 0].sum()), int(scores.counts.sum())
        metrics = language_metrics(nats, count, size or 1)
        if objective.names_tokens:
            metrics["accuracy"] = float(scores.values[:, 1].sum()) / count
        if size is None or not objective.every_token:
            del metrics["bits_per_byte"]
        return metrics
    if objective.measure == "spans":
        return {"loss": float(scores.values[:, 5].sum() / scores.counts.sum())}
    if objective.measure == "tags":
        losses = scores.values[:, SAID - 1 :: SAID]
        return {"loss": float(losses[np.isfinite(losses)].mean())}
    if objective.measure == "sets":
        return set_metrics(scores.labels, scores.values)
    if objective.measure == "number":
        return number_metrics(scores.labels, scores.values[:, 0])
    probabilities, labels = scores.probabilities, scores.labels.astype(np.int64)
    names = objective.labels or names
    chosen = probabilities[np.arange(len(labels)), labels]
    loss = float(-np.log(np.maximum(chosen, 1e-300)).mean())
    guessed = scores.values.argmax(1)
    if objective.measure == "choices":
        return {"accuracy": float((guessed == labels).mean()), "loss": loss}
    return {**classification_metrics(labels, guessed, probabilities, names), "loss": loss}


def summarise_all(
    objectives: Sequence[Objective],
    scores: Sequence[Scores],
    main: Objective,
    names: Sequence[str],
    size: int | None,
) -> dict[str, float]:
    """The metrics of `main` by their own names, and of every other objective NAME.loss and, where it tells
    classes of windows apart or names tokens, NAME.accuracy."""
    metrics: dict[str, float] = {}
    for objective, found in zip(objectives, scores):
        named = summarise(objective, found, names, size)
        told = ("loss", "accuracy") if objective.labels or objective.names_tokens else ("loss",)
        metrics |= named if objective is main else {f"{objective.name}.{key}": named[key] for key in told}
    return metrics


def summarise_part(main: Objective, scores: Scores, name: str, size: int | None) -> dict[str, float]:
    """NAME.loss of one text of a mixture, and NAME.bits_per_byte where every token is predicted once."""
    named = summarise(main, scores, (), size)
    return {f"{name}.{key}": named[key] for key in named if key in PART_METRICS}


def _by_row(objective: Objective, examples: list[Example], outputs: np.ndarray, index: np.ndarray) -> Scores:
    rows = np.array([example.row for example in examples])
    labels = np.array([-1 if example.label is None else example.label for example in examples], np.float64)
    if objective.measure != "tokens":
        outputs = objective.of_rows(outputs, examples)
        counts = np.array([said_of_row(objective, *row) for row in zip(examples, outputs)])
        return Scores(rows, outputs, counts, labels)
    ends = np.cumsum([example.states for example in examples])
    owner = np.searchsorted(ends, index, side="right")
    columns = outputs.T if outputs.ndim == 2 else outputs[None]
    sums = np.stack([np.bincount(owner, weights=column, minlength=len(rows)) for column in columns], 1)
    # Of nothing at all, the sums are integers.
    return Scores(rows, sums.astype(np.float64), np.bincount(owner, minlength=len(rows)), labels)


def said_of_row(objective: Objective, example: Example, scores: np.ndarray) -> int:
    """How many of a row's scores mean something; of spans, how many windows it has."""
    if objective.measure == "tags":
        return SAID * len(objective.targets(example).index)
    return len(example.sequences) if objective.measure in ("choices", "spans") else len(scores)


def _join(parts: list[Scores]) -> Scores:
    filled = [part for part in parts if len(part.rows)] or parts[:1]
    if not filled:
        return Scores(np.zeros(0), np.zeros((0, 1)), np.zeros(0), np.zeros(0))
    rows = np.concatenate([part.rows for part in filled])
    order = np.argsort(rows, kind="stable")
    widest = max(part.values.shape[1] for part in filled)
    values = np.concatenate([_widened(part.values, widest) for part in filled])[order]
    counts = np.concatenate([part.counts for part in filled])[order]
    labels = np.concatenate([part.labels for part in filled])[order]
    return Scores(rows[order], values, counts, labels)


def _widened(values: np.ndarray, width: int) -> np.ndarray:
    return np.pad(values, ((0, 0), (0, width - values.shape[1])), constant_values=-np.inf)
