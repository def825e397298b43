"""The story of a run's loops: the trials of a search as a table, the steps of iterate as a tree."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from gradus.core.patches import short_names, short_value
from gradus.core.storage import read_json
from gradus.evaluation.metrics import LARGER_IS_BETTER
from gradus.evaluation.statistics import deviation, mean
from gradus.report.figures import cut, line, svg, text
from gradus.report.grids import Grid, Row
from gradus.report.records import Run
from gradus.report.summary import Table, is_better, tables
from gradus.report.words import duration, metric_name, number, plural, with_deviation

KEPT, DROPPED = "kept", "dropped"
ROW, TRUNK, BRANCH = 44.0, 14.0, 30.0
"""The tree: height of a step, where what was kept stands and where what was dropped, in pixels."""


@dataclass(frozen=True)
class Searched:
    """What plan.json says of a search, and its trials so far; as exported."""

    plan: dict[str, Any]
    trials: list[dict[str, Any]]

    @property
    def metric(self) -> str:
        return self.plan["metric"].split(".", 2)[2]

    def grid(self) -> Grid:
        """A line a trial: what was tried, what it was worth on dev, how it ended."""
        own = self.metric
        paths = list(self.plan["space"])
        header = [
            "trial",
            *short_names(paths).values(),
            f"{metric_name(own)}, dev",
            "best so far",
            "ended",
            "took",
        ]
        rows, best = [], None
        for one in self.trials:
            if one["state"] == "done" and (best is None or is_better(_base(own), one["value"], best)):
                best = one["value"]
            tried = [short_value(one["patch"].get(path, "as written")) for path in paths]
            value = number(one["value"], own) if one["state"] == "done" else "–"
            cells = [
                str(one["trial"]),
                *tried,
                value,
                number(best, own),
                _ended(one, own),
                duration(one["seconds"]),
            ]
            rows.append(Row("variant", cells))
        notes = [f"Judged by {self.plan['metric']}, one seed; test was not looked at."]
        if until := self.plan.get("until"):
            notes.append(f"Until {number(until, own)}, at most {plural(self.plan['trials'], 'trial')}.")
        return Grid("search", header, rows, frozenset({"ended"}), notes)


@dataclass(frozen=True)
class Iterated:
    """What plan.json says of iterate, and its steps so far; as exported."""

    plan: dict[str, Any]
    steps: list[dict[str, Any]]
    over: str | None

    @property
    def metric(self) -> str:
        return self.plan["metric"].split(".", 2)[2]

    def grid(self) -> Grid:
        """A line a step, below what it stands on."""
        own = self.metric
        rows, level = [], 0
        for step in self.steps:
            name = "   " * level + ("└ " if level else "") + step["variant"]
            cells = [name, self.ended(step), self.value(step), self.gain(step), duration(step["seconds"])]
            rows.append(Row("variant", cells))
            level += step["kept"]
        header = ["step", "ended", f"{metric_name(own)}, dev", "gain", "took"]
        seeds = max((len(step["values"]) for step in self.steps), default=0)
        rule = "is above their sample deviation" if seeds > 1 else "is above 0 (one seed has no deviation)"
        notes = [
            "Each step stands on those kept above it. It is kept where the mean of its paired differences "
            f"over {plural(seeds, 'seed')} in {self.plan['metric']} {rule}."
        ]
        return Grid("iterate", header, rows, frozenset({"step", "ended"}), notes + self.end())

    def end(self) -> list[str]:
        return [f"It ended since {self.over}."] if self.over else ["It is under way."]

    def ended(self, step: dict[str, Any]) -> str:
        if not step["gains"] and not step["problem"]:
            return "the root"
        return KEPT if step["kept"] else f"{DROPPED}: {step['problem']}" if step["problem"] else DROPPED

    def value(self, step: dict[str, Any]) -> str:
        """Dev, mean and deviation over seeds."""
        values = step["values"]
        return with_deviation(mean(values), deviation(values), self.metric) if values else "–"

    def gain(self, step: dict[str, Any]) -> str:
        """Mean and deviation of the paired differences; more is better whatever the metric."""
        gains, own = step["gains"], self.metric
        if not gains:
            return "–"
        spread = deviation(gains)
        return number(mean(gains), own, sign=True) + (
            f" ± {number(spread, own)}" if spread is not None else ""
        )

    def tree(self) -> str:
        """The figure: what was kept on the trunk, what was dropped beside it."""
        parts, trunk = [], 0
        for place, step in enumerate(self.steps):
            y = ROW * place + ROW / 2
            x = TRUNK if step["kept"] else BRANCH
            if place:
                parts.append(
                    line(TRUNK, ROW * trunk + ROW / 2, TRUNK, y if step["kept"] else y - 9, "arrow-plain")
                )
                if not step["kept"]:
                    parts.append(line(TRUNK, y - 9, BRANCH, y, "arrow-plain"))
            kind = "series-0" if step["kept"] else "series-rest"
            parts.append(f'<circle cx="{x}" cy="{y}" r="6" class="dot {kind}"/>')
            gain = "" if not step["gains"] else f"{self.gain(step)} · "
            parts.append(text(x + 16, y - 2, cut(step["variant"], 60), "row-name"))
            said = f"{self.ended(step)} · {gain}{duration(step['seconds'])}"
            parts.append(text(x + 16, y + 14, cut(said, 90), "tick"))
            parts.append(text(780, y + 4, self.value(step), "value", "end"))
            trunk = place if step["kept"] else trunk
        return svg(790, ROW * max(len(self.steps), 1), parts, "tree of steps")


def searched(run: Run) -> Searched | None:
    """The search of a run, if its recipe has one."""
    plan = run.loops.get("search")
    if plan is None:
        return None
    file = run.folder / plan["file"]
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return Searched(plan, [json.loads(one) for one in lines])


def iterated(run: Run) -> Iterated | None:
    """The steps of a run, if its recipe has some."""
    plan = run.loops.get("iterate")
    if plan is None:
        return None
    file = run.folder / plan["file"]
    told = read_json(file) if file.is_file() else {"steps": [], "over": None}
    return Iterated(plan, told["steps"], told["over"])


def loop_grids(run: Run) -> list[Grid]:
    """The tables of a run's loops, and what came of them on test, once."""
    found = [one.grid() for one in (searched(run), iterated(run)) if one is not None]
    if found:
        found[-1].notes.extend(at_last(run))
    return found


def at_last(run: Run) -> list[str]:
    """What the loops found beside the recipe as written, on the last split of each result."""
    if "found" not in run.loops:
        return []
    if not run.loops["found"]:
        return ["Nothing that was tried was better than the recipe as written."]
    last: dict[str, Table] = {table.stage: table for table in tables(run)}
    said = []
    for table in last.values():
        best = table.line("best found")
        ours, theirs = (one.cells.get(table.metric) if one else None for one in (best, table.lines[0]))
        if best and ours and theirs:
            score, before = ours.shown(table.metric), theirs.shown(table.metric)
            what = f"At last, {table.stage}, {table.split}: {metric_name(table.metric)} {score}"
            said.append(f"{what} against {before} as written{f': {best.verdict}' if best.verdict else ''}.")
    return said


def _base(metric: str) -> str:
    own = metric.rsplit(".", 1)[-1]
    return own if own in LARGER_IS_BETTER else metric


def _ended(one: dict[str, Any], metric: str) -> str:
    if one["state"] == "pruned":
        at = plural(len(one["reports"]), "evaluation")
        return f"pruned after {at} at {number(one['reports'][-1], metric)}"
    return f"failed: {one['problem']}" if one["state"] == "failed" else "done"
