"""What the run found in one sentence, and what has to stand beside it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gradus.core.errors import counted
from gradus.report.records import Run
from gradus.report.summary import Floor, Line, Table, is_better, tables
from gradus.report.tasks import AVERAGE, Tasks, task_tables
from gradus.report.words import SHARES, metric_name, number, probability


@dataclass(frozen=True)
class Headline:
    """What a hurried reader takes away: one sentence, and what stands beside it."""

    title: str
    details: list[str]


def headline(run: Run) -> Headline:
    """The verdict on all tasks, or on the last result stage, on test where there is one, else dev."""
    compared, progress = tables(run), unfinished(run)
    if not compared:
        return Headline("No results yet", progress or ["No stage of this run was evaluated."])
    many = task_tables(compared)
    title, details = _of_tasks(many[-1]) if many else _of_stage(run, compared[-1])
    return Headline(title[0].upper() + title[1:], details + progress)


def unfinished(run: Run) -> list[str]:
    """A line that says how far a run has come; none of one that is through."""
    done, planned = sum(stage.finished for stage in run.stages.values()), len(run.stages)
    return [] if done == planned else [f"Not finished: {done} of {counted(planned, 'stage')} done."]


def _of_tasks(table: Tasks) -> tuple[str, list[str]]:
    base, *others = table.lines
    tested = [(other, found) for other in others if (found := _tested(table.verdicts[other.variant]))]
    most = max([len(found) for _, found in tested], default=0)
    said = [_over_tasks(base, other, found) for other, found in tested if len(found) == most]
    scores = ", ".join(f"{task} ({metric_name(table.tasks[task])})" for task in table.averaged)
    details = [f"On {table.split}: {scores}; {_seeds(table.lines)}.", *(f"{one}." for one in said[1:])]
    if not said:
        average = base.cells.get(AVERAGE)
        reached = f"reaches {number(average.mean, 'accuracy')} on average" if average else "is not done"
        said = [f"“{base.variant}” {reached}"]
    return said[0], [detail[0].upper() + detail[1:] for detail in details]


def _tested(verdicts: dict[str, str | None]) -> list[str]:
    """What was found of the tasks that a variant changes."""
    return [found for found in verdicts.values() if found in ("better", "worse", "cannot tell")]


def _over_tasks(base: Line, other: Line, verdicts: list[str]) -> str:
    """ "pretraining helped on 3 of 4 tasks, hurt on 1: average 71.3 against 60.2"."""
    worse, better, tasks = verdicts.count("worse"), verdicts.count("better"), counted(len(verdicts), "task")
    what = _left_out(other.variant)
    unsure = f"whether {what} helped" if what else f"“{other.variant}” from “{base.variant}”"
    said = f"{what} helped" if what else f"“{base.variant}” beats “{other.variant}”"
    said += f" on {worse or 'none'} of {tasks}"
    said = said if worse or better else f"cannot tell {unsure} on any of {tasks}"
    said += f", {'hurt' if what else 'loses'} on {better}" if better else ""
    known = [line.cells[AVERAGE] for line in (base, other) if AVERAGE in line.cells]
    averages = [number(cell.mean, "accuracy") for cell in known]
    return f"{said}: average {averages[0]} against {averages[1]}" if len(averages) == 2 else said


def _left_out(variant: str) -> str | None:
    """ "pretraining" of the variant "no pretraining"."""
    return next((variant[len(no) :] for no in ("no ", "without ") if variant.startswith(no)), None)


def _of_stage(run: Run, table: Table) -> tuple[str, list[str]]:
    base = next((line for line in table.lines if line.cells.get(table.metric)), None)
    assert base is not None, "a table has at least one measured variant"
    measured = [line for line in table.lines if line is not base and line.cells.get(table.metric)]
    others = [line for line in measured if base.variant == run.variants[0] and not line.same]
    said = [_against(table, base, line) for line in others] or [_alone(table, base)]
    floor = table.strongest_floor(base.variant)
    title = said[0] + (f"; {floor.title} {number(floor.values[table.metric], table.metric)}" if floor else "")
    what = f"{metric_name(table.metric)} on {table.split} after {table.stage}"
    details = [f"{what[0].upper()}{what[1:]}, {_seeds(table.lines)}."]
    details += [_beside_floor(table, base, floor)] if floor else []
    return title, details + [f"{one[0].upper()}{one[1:]}." for one in said[1:]]


def _seeds(lines: list[Line]) -> str:
    counts = [len(line.seeds) for line in lines if line.seeds]
    fewest, most = min(counts), max(counts)
    if most == 1:
        return "one seed only"
    return f"mean of {most} seeds" if fewest == most else f"mean of {fewest} to {most} seeds"


def _alone(table: Table, line: Line) -> str:
    value = line.cells[table.metric].shown(table.metric)
    return f"{table.stage} reaches {value} {metric_name(table.metric)}"


def _against(table: Table, base: Line, other: Line) -> str:
    """ "pretraining helped: accuracy 81.2 against 75.6, p = 0.003"."""
    ours, theirs = base.cells[table.metric].mean, other.cells[table.metric].mean
    what = _left_out(other.variant)
    a, b = f"“{base.variant}”", f"“{other.variant}”"
    said = {"worse": f"{a} beats {b}", "better": f"{b} beats {a}", "cannot tell": f"cannot tell {b} from {a}"}
    if what:
        said = {"worse": f"{what} helped", "better": f"{what} hurt",
                "cannot tell": f"cannot tell whether {what} helped"}  # fmt: skip
    found = said.get(other.verdict or "", f"{a} beside {b}, untested")
    other_first = not what and other.verdict in ("better", "cannot tell")
    first, second = (theirs, ours) if other_first else (ours, theirs)
    numbers = f"{number(first, table.metric)} against {number(second, table.metric)}"
    p = f", {probability(other.test['p'])}" if other.test else ""
    return f"{found}: {metric_name(table.metric)} {numbers}{p}"


def _beside_floor(table: Table, line: Line, floor: Floor) -> str:
    value, bottom = line.cells[table.metric].mean, floor.values[table.metric]
    gap = number(abs(value - bottom), table.metric) + (" points" if table.metric in SHARES else "")
    if math.isclose(value, bottom):
        return f"That is no better than {floor.title}, which learns nothing of language."
    word = "better" if is_better(table.metric, value, bottom) else "worse"
    return f"“{line.variant}” is {gap} {word} than {floor.title}, which learns nothing of language."
