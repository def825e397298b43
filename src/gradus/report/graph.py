"""The graph of stages as the run went: one box for what differs only in its seed, columns from left to right.

A box says what the stage took (time, tokens, speed) and what it earned (its metric, its gain over what learns
nothing, and over the same stage begun from scratch).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from html import escape

from gradus.core.errors import counted
from gradus.evaluation.statistics import mean
from gradus.report import words
from gradus.report.figures import cut, line, series_class, svg, text
from gradus.report.records import Run, Stage
from gradus.report.summary import Cell, Table, tables

WIDE, TALL, GAP, LANE = 262.0, 128.0, 66.0, 24.0
LETTERS = 36
"""What fits on one line of a box."""
MOST_BOXES = 12
"""Where there are more, only the first variant's path is drawn."""


@dataclass(frozen=True)
class Group:
    """The folders of one stage under the same variants: only their seeds (or their parents') differ."""

    name: str
    variants: list[str]
    stages: list[Stage]
    tables: list[Table]
    colour: int
    """The place of its first variant among the run's."""

    def of_task(self, task: str, compared: list[Table]) -> Group:
        """The same of one of several tasks; without a name itself."""
        stages = [stage.task(task) for stage in self.stages]
        return replace(self, name=stages[0].name, stages=stages, tables=compared) if task else self

    @property
    def title(self) -> str:
        """Its variants, as many as have room."""
        first, *more = self.variants
        return words.listed(self.variants) if len(more) < 3 else f"{first} and {len(more)} more"

    @property
    def seeds(self) -> str:
        return f"seed {self.stages[0].seed}" if len(self.stages) == 1 else counted(len(self.stages), "seed")

    @property
    def done(self) -> list[Stage]:
        return [stage for stage in self.stages if stage.finished]

    @property
    def status(self) -> str:
        if len(self.done) == len(self.stages):
            return "done"
        if self.done:
            return f"{len(self.done)} of {len(self.stages)} done"
        begun = any(stage.status != "not started" for stage in self.stages)
        return "not finished" if begun else "not started"

    @property
    def from_scratch(self) -> bool:
        return all(stage.parent is None for stage in self.stages)

    def average(self, key: str) -> float | None:
        """The mean of a number of `training` over the folders that have it."""
        known = [value for s in self.stages if (value := s.part("training").get(key)) is not None]
        return mean(known) if known else None

    def earned(self) -> tuple[Table, Cell] | None:
        """The metric on test, or else dev, and its table; None before anything was evaluated."""
        for table in reversed(self.tables):
            line = table.line(self.variants[0])
            if line and table.metric in line.cells:
                return table, line.cells[table.metric]
        return None


def groups(run: Run) -> list[Group]:
    """In the order of the stages, then of the plan."""
    found: dict[tuple[str, tuple[str, ...]], list[Stage]] = {}
    order = {name: index for index, name in enumerate(run.stage_names)}
    for stage in run.stages.values():
        found.setdefault((stage.name, tuple(run.users(stage))), []).append(stage)
    made = [
        Group(name, [*users], stages, tables(run, [name]), run.variants.index(users[0]))
        for (name, users), stages in found.items() if users
    ]  # fmt: skip
    return sorted(made, key=lambda group: order[group.name])


def gains(group: Group, every: Sequence[Group]) -> list[str]:
    """What the group earned above its hardest floor, and beside the same stage from scratch."""
    earned = group.earned()
    if earned is None:
        return []
    (table, cell), said = earned, []
    floor = table.strongest_floor(group.variants[0])
    if floor:
        gain = words.number(cell.mean - floor.values[table.metric], table.metric, sign=True)
        said.append(f"{gain} against {words.floor_name(floor.name)}")
    twin = next((g for g in every if g.name == group.name and g is not group and g.from_scratch), None)
    beside = twin.earned() if twin and not group.from_scratch else None
    if beside and beside[0] is table:
        said.append(f"{words.number(cell.mean - beside[1].mean, table.metric, sign=True)} against scratch")
    return said


def graph(run: Run) -> str:
    """The figure: a column a stage name, in it one box below the other by the variants that use it.

    Of more than MOST_BOXES boxes those of the first variant are drawn.
    """
    all_groups = every = groups(run)
    if len(every) > MOST_BOXES:
        every = [group for group in every if run.variants[0] in group.variants]
    column: dict[str, int] = {}
    for stage in run.stages.values():
        column[stage.name] = max(column.get(stage.name, 0), run.depth(stage))
    places, lanes = {}, Counter[int]()
    for group in sorted(every, key=lambda group: group.colour):
        place = column[group.name]
        places[id(group)] = place * (WIDE + GAP) + GAP, lanes[place] * (TALL + LANE) + 2
        lanes[place] += 1
    home = {stage.id: group for group in every for stage in group.stages}
    parts, drawn = [ARROW], set()
    for group in every:
        parents = [home[s.parent] for s in group.stages if s.parent in home] if not group.from_scratch else []
        for parent in parents:
            if (id(parent), id(group)) not in drawn:
                drawn.add((id(parent), id(group)))
                parts.append(_arrow(places[id(parent)], places[id(group)]))
        if not parents:
            x, y = places[id(group)]
            given = "scratch" if group.from_scratch else "given"
            parts.append(line(x - 26, y + TALL / 2, x - 5, y + TALL / 2, "arrow"))
            parts.append(text(x - 30, y + TALL / 2 - 8, given, "tick", "middle"))
    parts += [_box(group, all_groups, places[id(group)], len(run.variants)) for group in every]
    width = max(x for x, _ in places.values()) + WIDE + 4
    height = max(y for _, y in places.values()) + TALL + 4
    return svg(width, height, parts, "graph of stages")


HEAD = 'id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"'
ARROW = f'<defs><marker {HEAD}><path d="M0 0.6L7.4 4L0 7.4z" class="arrow-head"/></marker></defs>'


def _arrow(start: tuple[float, float], end: tuple[float, float]) -> str:
    x1, y1, x2, y2 = start[0] + WIDE, start[1] + TALL / 2, end[0] - 4, end[1] + TALL / 2
    bend = (x1 + x2) / 2
    path = f"M{x1:.1f} {y1:.1f}C{bend:.1f} {y1:.1f} {bend:.1f} {y2:.1f} {x2:.1f} {y2:.1f}"
    return f'<path d="{path}" class="arrow"/>'


def _box(group: Group, every: Sequence[Group], place: tuple[float, float], variants: int) -> str:
    x, y = place
    who = "all variants" if len(group.variants) == variants > 1 else group.title
    seconds, tokens, speed = (group.average(key) for key in ("seconds", "tokens", "tokens_per_second"))
    took = f"{words.duration(seconds)} · {words.count(tokens)} tokens · {words.count(speed)}/s"
    took = group.status if seconds is None else took
    begun, kind = "box" if group.done else "box unfinished", series_class(group.colour)
    parts = [
        f'<a href="#stage-{escape(group.name)}"><title>{escape(words.listed(group.variants))}</title>',
        f'<rect x="{x}" y="{y}" width="{WIDE}" height="{TALL}" rx="7" class="{begun}"/>',
        f'<rect x="{x}" y="{y + 10}" width="4" height="{TALL - 20}" rx="2" class="bar {kind}"/>',
        text(x + 18, y + 25, cut(group.name, 20), "box-name"),
        text(x + WIDE - 14, y + 25, group.seeds if group.status == "done" else group.status, "tick", "end"),
        text(x + 18, y + 43, cut(who, LETTERS), "box-small"),
        text(x + 18, y + 62, cut(took, LETTERS + 4), "box-small"),
    ]
    earned = group.earned()
    if earned:
        table, cell = earned
        said = f"{words.metric_name(table.metric)} {cell.shown(table.metric)}"
        parts.append(text(x + 18, y + 83, said, "box-value"))
        parts.append(text(x + WIDE - 14, y + 83, table.split, "tick", "end"))
        for index, gain in enumerate(gains(group, every)):
            parts.append(text(x + 18, y + 101 + 16 * index, cut(gain, LETTERS), "box-small"))
    return "".join(parts) + "</a>"
