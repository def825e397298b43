"""What the run found: variants against each other and against what learns nothing; in one sentence, too."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from gradus.evaluation.metrics import LARGER_IS_BETTER, better
from gradus.evaluation.statistics import PairedTest, deviation, mean, paired_bootstrap, verdict
from gradus.report.records import SPLITS, Run, Stage
from gradus.report.words import SHARES, floor_name, metric_name, number, plural, probability, with_deviation


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


@dataclass(frozen=True)
class Line:
    """One variant in a table. `test` compares it with the first variant row by row, where that can be."""

    variant: str
    seeds: list[int]
    planned: int
    cells: dict[str, Cell]
    test: PairedTest | None

    @property
    def verdict(self) -> str | None:
        return verdict(self.test) if self.test else None


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


def is_better(metric: str, a: float, b: float) -> bool:
    """As `better`; of a metric that this version does not know, more is better."""
    return better(metric, a, b) if metric in LARGER_IS_BETTER else a > b


def tables(run: Run, names: Iterable[str] | None = None) -> list[Table]:
    """One table for every result stage (or each of `names`) and split that any variant has finished."""
    wanted = run.result_names if names is None else names
    found = [_table(run, name, split) for name in wanted for split in SPLITS]
    return [table for table in found if table is not None]


def _table(run: Run, name: str, split: str) -> Table | None:
    folders = {variant: _measured(run, variant, name, split) for variant in run.variants}
    measured = [stage for stages in folders.values() for stage in stages]
    if not measured:
        return None
    known = [metric for stage in measured for metric in stage.results[split]]
    metrics = sorted(
        dict.fromkeys(known), key=lambda m: list(LARGER_IS_BETTER).index(m) if m in LARGER_IS_BETTER else 99
    )
    metric = measured[0].metric
    first = folders[run.variants[0]]
    lines = []
    for variant, stages in folders.items():
        planned = len(run.of(variant, name))
        if not planned:
            continue
        cells = {
            m: Cell.of(stage.results[split][m] for stage in stages if m in stage.results[split])
            for m in metrics
            if any(m in stage.results[split] for stage in stages)
        }
        test = _paired(run, variant, first, stages, name, split) if variant != run.variants[0] else None
        lines.append(Line(variant, [stage.seed for stage in stages], planned, cells, test))
    return Table(
        name, split, metric if metric in metrics else metrics[0], metrics, lines, _floors(folders, split)
    )


def _measured(run: Run, variant: str, name: str, split: str) -> list[Stage]:
    return [stage for stage in run.of(variant, name) if stage.results.get(split)]


def _floors(folders: dict[str, list[Stage]], split: str) -> list[Floor]:
    """Each floor once where all variants share it, else once a variant (their train rows may differ)."""
    of_variant: dict[str, dict[str, dict[str, float]]] = {}
    for variant, stages in folders.items():
        for stage in stages[:1]:
            of_variant[variant] = stage.floors.get(split, {})
    names = dict.fromkeys(name for floors in of_variant.values() for name in floors)
    found = []
    for name in names:
        having = {variant: floors[name] for variant, floors in of_variant.items() if name in floors}
        shared = all(values == next(iter(having.values())) for values in having.values())
        some = list(having.items())[:1] if shared else list(having.items())
        found += [Floor(name, None if shared else variant, values) for variant, values in some]
    return found


def _paired(
    run: Run, variant: str, first: list[Stage], stages: list[Stage], name: str, split: str
) -> PairedTest | None:
    ours, theirs = correct_rows(stages, split), correct_rows(first, split)
    if ours is None or theirs is None or ours[0] != theirs[0]:
        return None
    return paired_bootstrap(ours[1], theirs[1], key=(name, split, variant))


def correct_rows(stages: list[Stage], split: str) -> tuple[list[tuple], np.ndarray] | None:
    """The rows and, [S, R], whether each seed got them right; None unless all predicted the same rows."""
    predicted = [stage.predictions[split] for stage in stages if split in stage.predictions]
    rows = [[(item["row"], item.get("text"), item["label"]) for item in items] for items in predicted]
    if not rows or not rows[0] or any(other != rows[0] for other in rows):
        return None
    return rows[0], np.array([[bool(item["correct"]) for item in items] for items in predicted])


@dataclass(frozen=True)
class Headline:
    """What a hurried reader takes away: one sentence, and what stands beside it."""

    title: str
    details: list[str]


def headline(run: Run) -> Headline:
    """The verdict on the last result stage, on test where there is one, else dev."""
    compared = tables(run)
    done, planned = sum(stage.finished for stage in run.stages.values()), len(run.stages)
    progress = [] if done == planned else [f"Not finished: {done} of {plural(planned, 'stage')} done."]
    if not compared:
        return Headline("No results yet", progress or ["No stage of this run was evaluated."])
    table = compared[-1]
    base = next((line for line in table.lines if line.cells.get(table.metric)), None)
    assert base is not None, "a table has at least one measured variant"
    others = [line for line in table.lines if line is not base and line.cells.get(table.metric)]
    against = (
        _against(table, base, others[0])
        if base.variant == run.variants[0] and others
        else _alone(table, base)
    )
    floor = table.strongest_floor(base.variant)
    title = against + (f"; {floor.title} {number(floor.values[table.metric], table.metric)}" if floor else "")
    details = [
        f"{metric_name(table.metric).capitalize()} on {table.split} after {table.stage}, {_seeds(table)}."
    ]
    details += [_beside_floor(table, base, floor)] if floor else []
    if base.variant == run.variants[0]:
        details += [_against(table, base, line) + "." for line in others[1:]]
    return Headline(title[0].upper() + title[1:], details + progress)


def _seeds(table: Table) -> str:
    counts = [len(line.seeds) for line in table.lines if line.seeds]
    fewest, most = min(counts), max(counts)
    if most == 1:
        return "one seed only"
    return f"mean of {most} seeds" if fewest == most else f"mean of {fewest} to {most} seeds"


def _alone(table: Table, line: Line) -> str:
    cell = line.cells[table.metric]
    value = with_deviation(cell.mean, cell.deviation, table.metric)
    return f"{table.stage} reaches {value} {metric_name(table.metric)}"


def _against(table: Table, base: Line, other: Line) -> str:
    """ "pretraining helped: accuracy 81.2 against 75.6, p = 0.003"."""
    ours, theirs = base.cells[table.metric].mean, other.cells[table.metric].mean
    what = next(
        (other.variant[len(no) :] for no in ("no ", "without ") if other.variant.startswith(no)), None
    )
    said = {
        "worse": f"{what} helped" if what else f"“{base.variant}” beats “{other.variant}”",
        "better": f"{what} hurt" if what else f"“{other.variant}” beats “{base.variant}”",
        "cannot tell": f"cannot tell whether {what} helped"
        if what
        else f"cannot tell “{other.variant}” from “{base.variant}”",
        None: f"“{base.variant}” beside “{other.variant}”, untested",
    }[other.verdict]
    numbers = (
        f"{metric_name(table.metric)} {number(ours, table.metric)} against {number(theirs, table.metric)}"
    )
    return f"{said}: {numbers}" + (f", {probability(other.test['p'])}" if other.test else "")


def _beside_floor(table: Table, line: Line, floor: Floor) -> str:
    value, bottom = line.cells[table.metric].mean, floor.values[table.metric]
    gap = number(abs(value - bottom), table.metric) + (" points" if table.metric in SHARES else "")
    if math.isclose(value, bottom):
        return f"That is no better than {floor.title}, which learns nothing of language."
    word = "better" if is_better(table.metric, value, bottom) else "worse"
    return f"“{line.variant}” is {gap} {word} than {floor.title}, which learns nothing of language."
