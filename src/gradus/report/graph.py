"""The graph of stages as the run went: one box for what differs only in its seed, columns from left to right.

A box says what the stage took (time, tokens, speed) and what it earned (its metric, its gain over what learns
nothing, and over the same stage begun from scratch).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from gradus.evaluation.statistics import mean
from gradus.report.figures import cut, line, series_class, svg, text
from gradus.report.records import SPLITS, Run, Stage
from gradus.report.summary import Cell, is_better
from gradus.report.words import (
    count,
    duration,
    floor_name,
    listed,
    metric_name,
    number,
    plural,
    with_deviation,
)

WIDE, TALL, GAP, LANE = 262.0, 128.0, 66.0, 24.0
LETTERS = 36
"""What fits on one line of a box."""


@dataclass(frozen=True)
class Group:
    """The folders of one stage under the same variants: only their seeds (or their parents') differ."""

    name: str
    variants: list[str]
    stages: list[Stage]

    @property
    def seeds(self) -> str:
        return f"seed {self.stages[0].seed}" if len(self.stages) == 1 else plural(len(self.stages), "seed")

    @property
    def done(self) -> list[Stage]:
        return [stage for stage in self.stages if stage.finished]

    @property
    def status(self) -> str:
        if len(self.done) == len(self.stages):
            return "done"
        begun = any(stage.status != "not started" for stage in self.stages)
        return (
            f"{len(self.done)} of {len(self.stages)} done"
            if self.done
            else "not finished"
            if begun
            else "not started"
        )

    @property
    def from_scratch(self) -> bool:
        return all(stage.parent is None for stage in self.stages)

    def average(self, key: str) -> float | None:
        """The mean of a number of `training` over the folders that have it."""
        known = [
            stage.part("training")[key]
            for stage in self.stages
            if stage.part("training").get(key) is not None
        ]
        return mean(known) if known else None

    def earned(self) -> tuple[str, str, Cell] | None:
        """Split (test before dev), metric and value; None before anything was evaluated."""
        for split in reversed(SPLITS):
            scored = [stage for stage in self.stages if stage.results.get(split)]
            if scored:
                metric = scored[0].metric
                values = [stage.results[split][metric] for stage in scored if metric in stage.results[split]]
                if values:
                    return split, metric, Cell.of(values)
        return None


def groups(run: Run) -> list[Group]:
    """In the order of the stages, then of the plan."""
    found: dict[tuple[str, tuple[str, ...]], list[Stage]] = {}
    order = {name: index for index, name in enumerate(run.stage_names)}
    for stage in run.stages.values():
        found.setdefault((stage.name, tuple(run.users(stage))), []).append(stage)
    made = [Group(name, list(variants), stages) for (name, variants), stages in found.items()]
    return sorted(made, key=lambda group: order[group.name])


def gains(group: Group, every: Sequence[Group]) -> list[str]:
    """What the group earned above its hardest floor, and beside the same stage from scratch."""
    earned = group.earned()
    if earned is None:
        return []
    split, metric, cell = earned
    floors = {
        name: values[metric]
        for name, values in group.stages[0].floors.get(split, {}).items()
        if metric in values
    }
    for stage in group.stages:
        floors = floors or {n: v[metric] for n, v in stage.floors.get(split, {}).items() if metric in v}
    said = []
    if floors:
        hardest = next(iter(floors))
        for name in floors:
            hardest = name if is_better(metric, floors[name], floors[hardest]) else hardest
        said.append(f"{number(cell.mean - floors[hardest], metric, sign=True)} against {floor_name(hardest)}")
    twin = next((g for g in every if g.name == group.name and g is not group and g.from_scratch), None)
    beside = twin.earned() if twin and not group.from_scratch else None
    if beside and beside[:2] == (split, metric):
        said.append(f"{number(cell.mean - beside[2].mean, metric, sign=True)} against scratch")
    return said


def graph(run: Run, colours: dict[str, int]) -> str:
    """The figure: a column a stage name, a lane for the first variant that goes through it."""
    every = groups(run)
    column: dict[str, int] = {}
    for stage in run.stages.values():
        column[stage.name] = max(column.get(stage.name, 0), run.depth(stage))
    lanes = _lanes(every, column, run.variants)
    places = {id(g): (column[g.name] * (WIDE + GAP) + GAP, lanes[id(g)] * (TALL + LANE) + 2) for g in every}
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
            parts += [
                line(x - 26, y + TALL / 2, x - 5, y + TALL / 2, "arrow"),
                text(x - 30, y + TALL / 2 - 8, given, "tick", "middle"),
            ]
    for group in every:
        colour = min((colours[v] for v in group.variants), default=0)
        parts.append(_box(group, every, places[id(group)], colour, len(run.variants)))
    width = max(x for x, _ in places.values()) + WIDE + 4
    height = max(y for _, y in places.values()) + TALL + 4
    return svg(width, height, parts, "graph of stages")


ARROW = (
    '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" '
    'markerWidth="7" markerHeight="7" orient="auto">'
    '<path d="M0 0.6L7.4 4L0 7.4z" class="arrow-head"/></marker></defs>'
)


def _lanes(every: Sequence[Group], column: dict[str, int], variants: Sequence[str]) -> dict[int, int]:
    """The lane of the first variant that uses a group; the next free one where a column has it taken."""
    taken: set[tuple[int, int]] = set()
    lanes: dict[int, int] = {}
    for group in sorted(every, key=lambda group: min((variants.index(v) for v in group.variants), default=0)):
        lane = min((variants.index(v) for v in group.variants), default=0)
        while (column[group.name], lane) in taken:
            lane += 1
        taken.add((column[group.name], lane))
        lanes[id(group)] = lane
    used = sorted(set(lanes.values()))
    return {key: used.index(lane) for key, lane in lanes.items()}


def _arrow(start: tuple[float, float], end: tuple[float, float]) -> str:
    x1, y1, x2, y2 = start[0] + WIDE, start[1] + TALL / 2, end[0] - 4, end[1] + TALL / 2
    bend = (x1 + x2) / 2
    path = f"M{x1:.1f} {y1:.1f}C{bend:.1f} {y1:.1f} {bend:.1f} {y2:.1f} {x2:.1f} {y2:.1f}"
    return f'<path d="{path}" class="arrow"/>'


def _box(group: Group, every: Sequence[Group], place: tuple[float, float], colour: int, variants: int) -> str:
    x, y = place
    who = "all variants" if len(group.variants) == variants > 1 else listed(group.variants)
    seconds, tokens, speed = (group.average(key) for key in ("seconds", "tokens", "tokens_per_second"))
    took = (
        f"{duration(seconds)} · {count(tokens)} tokens · {count(speed)}/s"
        if seconds is not None
        else group.status
    )
    begun, kind = "box" if group.done else "box unfinished", series_class(colour)
    parts = [
        f'<a href="#stage-{escape(group.name)}"><title>{escape(listed(group.variants))}</title>',
        f'<rect x="{x}" y="{y}" width="{WIDE}" height="{TALL}" rx="7" class="{begun}"/>',
        f'<rect x="{x}" y="{y + 10}" width="4" height="{TALL - 20}" rx="2" class="bar {kind}"/>',
        text(x + 18, y + 25, cut(group.name, 20), "box-name"),
        text(x + WIDE - 14, y + 25, group.seeds if group.status == "done" else group.status, "tick", "end"),
        text(x + 18, y + 43, cut(who, LETTERS), "box-small"),
        text(x + 18, y + 62, cut(took, LETTERS + 4), "box-small"),
    ]
    earned = group.earned()
    if earned:
        split, metric, cell = earned
        said = f"{metric_name(metric)} {with_deviation(cell.mean, cell.deviation, metric)}"
        parts.append(text(x + 18, y + 83, said, "box-value"))
        parts.append(text(x + WIDE - 14, y + 83, split, "tick", "end"))
        for index, gain in enumerate(gains(group, every)):
            parts.append(text(x + 18, y + 101 + 16 * index, cut(gain, LETTERS), "box-small"))
    return "".join(parts) + "</a>"
