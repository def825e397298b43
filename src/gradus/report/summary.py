"""Variants against each other and against what learns nothing: one table for a stage and a split."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import Any, cast

import numpy as np

from gradus.evaluation.metrics import LARGER_IS_BETTER, better
from gradus.evaluation.statistics import (
    PairedTest,
    SeedTest,
    deviation,
    mean,
    paired_bootstrap,
    paired_correlation,
    paired_seeds,
    verdict,
)
from gradus.report.records import SPLITS, Run, Stage
from gradus.report.words import floor_name, with_deviation

RIGHT, PEARSON, MATTHEWS = "rows right", "Pearson's r", "Matthews' correlation"
"""What variants are compared by."""


@dataclass(frozen=True)
class Cell:
    """One metric of one variant: a value a seed, their mean, their sample deviation (None for one seed)."""

    values: tuple[float, ...]
    mean: float
    deviation: float | None

    @classmethod
    def of(cls, values: Iterable[float]) -> Cell:
        values = tuple(values)
        return cls(values, mean(values), deviation(values))

    def shown(self, metric: str) -> str:
        """ "81.2 ± 0.4"."""
        return with_deviation(self.mean, self.deviation, metric)


@dataclass(frozen=True)
class Line:
    """One variant in a table. `test` compares it with the first variant row by row, where that can be."""

    variant: str
    seeds: list[int]
    planned: int
    cells: dict[str, Cell]
    test: PairedTest | None
    same: bool = False
    """Its stage folders are those of the first variant: what the variant changes is elsewhere."""

    @property
    def verdict(self) -> str | None:
        return "the same stage" if self.same else verdict(self.test) if self.test else None


@dataclass(frozen=True)
class Floor:
    """What learns nothing, on the same rows. `variant` is named only where variants have different floors."""

    name: str
    variant: str | None
    values: dict[str, float]

    @property
    def title(self) -> str:
        return floor_name(self.name) + (f" ({self.variant})" if self.variant else "")


@dataclass(frozen=True)
class Table:
    """Variants x metrics of one stage on one split. `metric` is the one that speaks for the stage."""

    stage: str
    split: str
    metric: str
    metrics: list[str]
    lines: list[Line]
    floors: list[Floor]
    compared: str = field(default=RIGHT, kw_only=True)
    """What the `test` of a line is a difference of."""

    def line(self, variant: str) -> Line | None:
        return next((line for line in self.lines if line.variant == variant), None)

    def over_seeds(self, line: Line) -> SeedTest | None:
        """A variant against the first, seed by seed, in the table's metric; None without two common seeds."""
        first = self.lines[0]
        if line is first or line.same:
            return None
        ours, theirs = (
            dict(zip(one.seeds, one.cells[self.metric].values)) if self.metric in one.cells else {}
            for one in (line, first)
        )
        both = [seed for seed in ours if seed in theirs]
        return paired_seeds([ours[seed] for seed in both], [theirs[seed] for seed in both])

    def floor(self, title: str) -> dict[str, float]:
        """The values of the floor with that title; empty where the split has none."""
        return next((floor.values for floor in self.floors if floor.title == title), {})

    def strongest_floor(self, variant: str | None = None) -> Floor | None:
        """The floor that is hardest to beat in the table's metric."""
        best = None
        for floor in self.floors:
            value = floor.values.get(self.metric)
            if value is None or (variant and floor.variant not in (None, variant)):
                continue
            if best is None or is_better(self.metric, value, best.values[self.metric]):
                best = floor
        return best

    def plain(self) -> dict[str, Any]:
        """The table as exported."""
        lines = [
            {"variant": line.variant, "seeds": line.seeds, "planned": line.planned,
             "metrics": {m: asdict(cell) for m, cell in line.cells.items()},
             "paired_test": {**line.test, "verdict": line.verdict} if line.test else None,
             "over_seeds": self.over_seeds(line),
             "same": line.same}
            for line in self.lines
        ]  # fmt: skip
        floors = [{"name": one.name, "variant": one.variant, "metrics": one.values} for one in self.floors]
        return {"stage": self.stage, "split": self.split, "metric": self.metric, "metrics": self.metrics,
                "compared": self.compared, "variants": lines, "floors": floors}  # fmt: skip

    @classmethod
    def read(cls, record: dict[str, Any]) -> Table:
        """An exported table. Raises KeyError and the like where it is none."""
        lines = []
        for item in record["variants"]:
            test, seeds = item["paired_test"], item["seeds"]
            kept = {key: test[key] for key in PairedTest.__annotations__} if test else None
            cells = {metric: Cell.of(cell["values"]) for metric, cell in item["metrics"].items()}
            own = item["variant"], seeds, item.get("planned", len(seeds)), cells
            lines.append(Line(*own, cast(PairedTest | None, kept), item.get("same", False)))
        floors = [Floor(item["name"], item["variant"], item["metrics"]) for item in record["floors"]]
        about = record["stage"], record["split"], record["metric"], record["metrics"]
        return cls(*about, lines, floors, compared=record.get("compared", RIGHT))


def is_better(metric: str, a: float, b: float) -> bool:
    """As `better`; of a metric that this version does not know, more is better."""
    return better(metric, a, b) if metric.rpartition(".")[2] in LARGER_IS_BETTER else a > b


def tables(run: Run, names: Iterable[str] | None = None) -> list[Table]:
    """One table for every result stage, or each of its several tasks (or each of `names`), and split that any
    variant has finished."""
    wanted = [task for name in run.result_names for task in run.tasks_of(name)] if names is None else names
    found = [_table(run, name, split) for name in wanted for split in SPLITS]
    return [table for table in found if table is not None]


@lru_cache(maxsize=64)
def _table(run: Run, name: str, split: str) -> Table | None:
    folders = {variant: _measured(run, variant, name, split) for variant in run.variants}
    measured = [stage for stages in folders.values() for stage in stages]
    if not measured:
        return None
    known = [metric for stage in measured for metric in stage.results[split]]
    metrics = sorted(dict.fromkeys(known), key=lambda m: [*LARGER_IS_BETTER, m].index(m))
    metric = measured[0].metric if measured[0].metric in metrics else metrics[0]
    compared = _compared_by(measured, split, metric)
    first, lines = run.variants[0], []
    for variant, stages in folders.items():
        planned = len(run.of(variant, name))
        if not planned:
            continue
        found = {m: [s.results[split][m] for s in stages if m in s.results[split]] for m in metrics}
        cells = {metric: Cell.of(values) for metric, values in found.items() if values}
        same = variant != first and run.of(variant, name) == run.of(first, name)
        other, key = not same and variant != first, (name, split, variant)
        test = _paired(stages, folders[first], split, key, compared) if other else None
        lines.append(Line(variant, [stage.seed for stage in stages], planned, cells, test, same))
    return Table(name, split, metric, metrics, lines, _floors(folders, split), compared=compared)


def _compared_by(stages: list[Stage], split: str, metric: str) -> str:
    """Rows right, unless rows have numbers or two classes are judged by a correlation: then by that."""
    predicted = next((stage.predictions[split] for stage in stages if split in stage.predictions), [])
    if predicted and "correct" not in predicted[0]:
        return PEARSON
    two = len({item["label"] for item in predicted}) == 2
    return MATTHEWS if metric == "matthews" and two else RIGHT


def _measured(run: Run, variant: str, name: str, split: str) -> list[Stage]:
    return [stage for stage in run.of(variant, name) if stage.results.get(split)]


def _floors(folders: dict[str, list[Stage]], split: str) -> list[Floor]:
    """Each floor once where all variants share it, else once a variant (their train rows may differ)."""
    of_variant = {variant: stages[0].floors.get(split, {}) for variant, stages in folders.items() if stages}
    found = []
    for name in dict.fromkeys(name for floors in of_variant.values() for name in floors):
        having = [Floor(name, v, floors[name]) for v, floors in of_variant.items() if name in floors]
        shared = all(floor.values == having[0].values for floor in having)
        found += [replace(having[0], variant=None)] if shared else having
    return found


def _paired(
    stages: list[Stage], first: list[Stage], split: str, key: tuple[str, ...], compared: str
) -> PairedTest | None:
    """The variant against the first by what they are `compared` by; None where their rows differ."""
    ours, theirs = _answers(stages, split, compared), _answers(first, split, compared)
    if ours is None or theirs is None or ours[0] != theirs[0]:
        return None
    rows, values = ours
    if compared == RIGHT:
        return paired_bootstrap(values, theirs[1], key=key)
    labels = [label for _, _, label in rows]
    # Of two classes Matthews' correlation is Pearson's of the numbers 0 and 1.
    truth = [float(label == max(labels)) for label in labels] if compared == MATTHEWS else labels
    return paired_correlation(truth, values, theirs[1], key=key)


def _answers(stages: list[Stage], split: str, compared: str) -> tuple[list[tuple], np.ndarray] | None:
    """The rows, and [S, R] each seed's answers: whether they are right, or numbers.

    None unless all seeds predicted the same rows.
    """
    predicted = [stage.predictions[split] for stage in stages if split in stage.predictions]
    rows = [[(item["row"], item.get("text"), item["label"]) for item in items] for items in predicted]
    if not rows or not rows[0] or any(other != rows[0] for other in rows):
        return None
    if compared == RIGHT:
        return rows[0], np.array([[bool(item["correct"]) for item in items] for items in predicted])
    if compared == PEARSON:
        return rows[0], np.array([[float(item["predicted"]) for item in items] for items in predicted])
    second = max(label for _, _, label in rows[0])
    return rows[0], np.array([[float(item["predicted"] == second) for item in items] for items in predicted])
