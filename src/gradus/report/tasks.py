"""Many tasks in one run, as in GPT-1's table 5: variants down, tasks across, the paper's own numbers beside
(Radford et al. 2018, "Improving Language Understanding by Generative Pre-Training")."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from gradus.evaluation.statistics import mean
from gradus.report.records import SPLITS
from gradus.report.summary import Cell, Floor, Line, Table
from gradus.report.words import SHARES

AVERAGE = "average"
PAPER_TASKS = ("cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte")
"""Tasks of the paper's table 5, in its order: Matthews, accuracy, F1, Pearson, F1, then accuracies."""
PAPER_ROWS = {
    "Transformer w/ aux LM (full)": (45.4, 91.3, 82.3, 82.0, 70.3, 81.8, 88.1, 56.0),
    "Transformer w/o pre-training": (18.9, 84.0, 79.4, 30.9, 65.5, 75.7, 71.2, 53.8),
    "Transformer w/o aux LM": (47.9, 92.0, 84.9, 83.2, 69.8, 81.1, 86.9, 54.4),
    "LSTM w/ aux LM": (30.3, 90.5, 83.2, 71.8, 68.1, 73.7, 81.1, 54.6),
}
"""The paper's table 5, row by row. Its averages: 74.7, 59.9, 75.0, 69.1."""
PAPER_NAMES = (r"^(no|without) pre-?training\b", r"^(no|without) aux", r"\blstm\b")
"""Names of variants that are the paper's second row, third and fourth."""


@dataclass(frozen=True)
class Tasks(Table):
    """A table whose columns are tasks, and last the average over `averaged` where a line has all of those."""

    tasks: dict[str, str]
    """Task -> its own metric, times 100 as all are."""
    averaged: list[str]
    """The tasks that every variant goes through, if those are two or more; else all."""
    verdicts: dict[str, dict[str, str | None]]
    """Variant -> task -> what the paired test against the first variant says there."""
    paper: list[Floor]
    """The paper's rows for our variants, of the tasks that are the paper's, too."""


def task_tables(compared: Sequence[Table]) -> list[Tasks]:
    """One for each split on which two stages or more are judged by a share (and not by a loss)."""
    found = []
    for split in SPLITS:
        columns = [table for table in compared if table.split == split and table.metric in SHARES]
        variants = list(dict.fromkeys(line.variant for table in columns for line in table.lines))
        if len(columns) > 1:
            tasks = {table.stage: table.metric for table in columns}
            own = {v: {table.stage: table.line(v) for table in columns} for v in variants}
            verdicts = {v: {task: line.verdict for task, line in own[v].items() if line} for v in variants}
            common = [table.stage for table in columns if all(table.line(variant) for variant in variants)]
            averaged = common if len(common) > 1 else list(tasks)
            lines = [_line(columns, variant, averaged) for variant in variants]
            floors, paper = _floors(columns, variants[0], averaged), _paper(tasks, variants, averaged)
            about = "all tasks", split, AVERAGE, [*tasks, AVERAGE], lines, floors
            found.append(Tasks(*about, tasks, averaged, verdicts, paper))
    return found


def _line(columns: Sequence[Table], variant: str, averaged: Sequence[str]) -> Line:
    lines = {table.stage: line for table in columns if (line := table.line(variant))}
    cells = {table.stage: lines[table.stage].cells[table.metric] for table in columns
             if table.stage in lines and table.metric in lines[table.stage].cells}  # fmt: skip
    if set(averaged) <= set(cells):
        alike = all(lines[task].seeds == lines[averaged[0]].seeds for task in averaged)
        values = zip(*(cells[task].values if alike else (cells[task].mean,) for task in averaged))
        cells[AVERAGE] = Cell.of(mean(own) for own in values)
    seeds = max((line.seeds for line in lines.values()), key=len)
    return Line(variant, seeds, max(line.planned for line in lines.values()), cells, None)


def _floors(columns: Sequence[Table], first: str, averaged: Sequence[str]) -> list[Floor]:
    """The floors of the first variant, by name."""
    having: dict[str, dict[str, float]] = {}
    for table in columns:
        for floor in table.floors:
            if floor.variant in (None, first) and table.metric in floor.values:
                having.setdefault(floor.name, {})[table.stage] = floor.values[table.metric]
    return [_averaged(name, values, averaged) for name, values in having.items()]


def _paper(tasks: Iterable[str], variants: Sequence[str], averaged: Sequence[str]) -> list[Floor]:
    names = {task: re.sub("[^a-z0-9]", "", task.lower()) for task in tasks}  # "sst_2" is its "sst2"
    own = {task: PAPER_TASKS.index(name) for task, name in names.items() if name in PAPER_TASKS}
    wanted = [True, *(any(re.search(name, v.lower()) for v in variants) for name in PAPER_NAMES)]
    rows = [row for row, there in zip(PAPER_ROWS.items(), wanted) if own and there]
    return [
        _averaged(f"paper: {name}", {task: row[place] / 100 for task, place in own.items()}, averaged)
        for name, row in rows
    ]


def _averaged(name: str, values: dict[str, float], tasks: Sequence[str]) -> Floor:
    average = {AVERAGE: mean([values[task] for task in tasks])} if set(tasks) <= set(values) else {}
    return Floor(name, None, values | average)
