"""Figures as SVG text: curves over steps, and variants as dots on one scale.

Colours come from the page's style sheet. A colour is a class (`series-0` ...), never a value, so that one
figure serves light, dark and paper.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from gradus.report.summary import Table
from gradus.report.words import MINUS, SHARES, metric_name, number, with_deviation

SERIES = 6
WIDE = 1030.0
"""Colours that can be told apart; what comes after shares one grey."""
MOST_POINTS = 160
FROM_ZERO = frozenset({"learning rate", "gradient norm", "tokens per second"})
"""What the optimizer did, of which only the size beside nothing tells."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Curve:
    """One line of a figure. `dots` marks each point, for what is measured seldom."""

    name: str
    colour: int
    points: Sequence[Point]
    dots: bool = False


def series_class(index: int) -> str:
    return f"series-{index}" if index < SERIES else "series-rest"


def width_of(text: str) -> float:
    """The width of `text` in letters: Chinese characters count two."""
    return sum(1.75 if unicodedata.east_asian_width(character) in "WF" else 1.0 for character in text)


def cut(text: str, width: float) -> str:
    """`text`, ending in an ellipsis where it is wider than `width` letters."""
    if width_of(text) <= width:
        return text
    while text and width_of(text) > width - 1:
        text = text[:-1]
    return text.rstrip() + "…"


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) that span low to high."""
    span = high - low or abs(high) or 1.0
    raw = span / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(step * power for step in (1, 2, 5, 10) if step * power >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    if first == last:  # one value, on a mark: an axis still needs two
        first, last = first - 1, last + 1
    return [round(index * step, 12) for index in range(first, last + 1)]


def thinned(points: Sequence[Point]) -> list[Point]:
    """At most MOST_POINTS points: neighbours are averaged, and what is not a number is left out."""
    points = [(x, y) for x, y in points if math.isfinite(y)]
    share = -(-len(points) // MOST_POINTS) or 1
    groups = [points[start : start + share] for start in range(0, len(points), share)]
    return [
        (sum(x for x, _ in group) / len(group), sum(y for _, y in group) / len(group)) for group in groups
    ]


def text(x: float, y: float, content: str, kind: str = "", anchor: str = "start") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(content)}</text>'


def line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" class="{kind}"/>'


def svg(width: float, height: float, parts: Sequence[str], label: str) -> str:
    head = f'<svg viewBox="0 0 {width:.0f} {height:.0f}" style="max-width:{width:.0f}px" role="img"'
    return f'{head} aria-label="{escape(label)}" xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'


def _axis_label(value: float, metric: str, step: float) -> str:
    shown, step = (100 * value, 100 * step) if metric in SHARES else (value, step)
    if not shown:
        return "0"
    if not 1e-3 <= abs(step) < 1e5:
        return f"{shown:.0e}".replace("e-0", "e-").replace("e+0", "e").replace("-", MINUS)
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return f"{shown:,.{digits}f}".replace("-", MINUS)


def curves(title: str, metric: str, drawn: Sequence[Curve], floors: Sequence[tuple[str, float]] = ()) -> str:
    """A figure of curves over optimizer steps, floors as dashed lines; empty where nothing can be drawn."""
    drawn = [Curve(c.name, c.colour, thinned(c.points), c.dots) for c in drawn]
    ys = [y for curve in drawn for _, y in curve.points]
    if not ys:
        return ""
    low, high = min(ys), max(ys)
    # A floor far outside would flatten the curves: then it is left to the table.
    near = [
        (name, value) for name, value in floors if low - 2 * (high - low) <= value <= high + 2 * (high - low)
    ]
    low = 0.0 if metric in FROM_ZERO else low
    marks = ticks(min([low, *(v for _, v in near)]), max([high, *(v for _, v in near)]))
    width, left, right, top, bottom = 356.0, 46.0, 336.0, 14.0, 168.0
    xs = ticks(0, max(x for curve in drawn for x, _ in curve.points))
    last = max(x for curve in drawn for x, _ in curve.points) or 1.0

    def place(point: Point) -> Point:
        across = left + (right - left) * point[0] / last
        return across, bottom - (bottom - top) * (point[1] - marks[0]) / (marks[-1] - marks[0])

    parts = []
    for mark in marks:
        y = place((0, mark))[1]
        parts += [
            line(left, y, right, y, "grid"),
            text(left - 7, y + 4, _axis_label(mark, metric, marks[1] - marks[0]), "tick", "end"),
        ]
    for mark in (mark for mark in xs if mark <= last):
        parts.append(
            text(
                place((mark, 0))[0], bottom + 17, _axis_label(mark, "steps", xs[1] - xs[0]), "tick", "middle"
            )
        )
    parts.append(text(right, bottom + 33, "steps", "tick", "end"))
    for name, value in near:
        y = place((0, value))[1]
        parts += [
            line(left, y, right, y, "floor"),
            text(left + 4, y - 4, f"{name} {number(value, metric)}", "floor-name"),
        ]
    for curve in drawn:
        parts += _drawn(curve, [place(point) for point in curve.points], metric)
    return svg(width, bottom + 38, parts, title)


def _drawn(curve: Curve, places: Sequence[Point], metric: str) -> list[str]:
    kind = series_class(curve.colour)
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    parts = [f'<path d="{path}" class="curve {kind}"><title>{escape(curve.name)}</title></path>']
    if curve.dots or len(places) == 1:
        for (x, y), (step, value) in zip(places, curve.points):
            said = escape(f"{curve.name}, step {step:,.0f}: {number(value, metric)}")
            parts.append(
                f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" class="dot {kind}"><title>{said}</title></circle>'
            )
    return parts


def dots(table: Table, colours: dict[str, int]) -> str:
    """The table's own metric as a figure: a ring a seed, a bar at the mean, a dashed line at each floor."""
    metric = table.metric
    lines = [entry for entry in table.lines if metric in entry.cells]
    floors = [floor for floor in table.floors if floor.variant is None and metric in floor.values]
    values = [v for entry in lines for v in entry.cells[metric].values] + [f.values[metric] for f in floors]
    span = max(values) - min(values) or abs(values[0]) or 1.0
    marks = ticks(min(values) - 0.04 * span, max(values) + 0.04 * span, 5)
    left, right, top, tall = 190.0, 910.0, 42.0, 36.0
    bottom = top + tall * len(lines)

    def place(value: float) -> float:
        return left + (right - left) * (value - marks[0]) / (marks[-1] - marks[0])

    parts = []
    for mark in marks:
        parts.append(line(place(mark), top, place(mark), bottom, "grid"))
        parts.append(
            text(place(mark), bottom + 18, _axis_label(mark, metric, marks[1] - marks[0]), "tick", "middle")
        )
    ends: list[float] = [-math.inf, -math.inf]
    for floor in sorted(floors, key=lambda floor: floor.values[metric]):
        x, said = place(floor.values[metric]), f"{floor.title} {number(floor.values[metric], metric)}"
        half = 3.2 * width_of(said)
        centre = min(max(x, left + half - 20), WIDE - half)
        row = 0 if centre - half > ends[0] else 1
        ends[row] = centre + half + 8
        parts += [
            line(x, top - 6, x, bottom, "floor"),
            text(centre, top - 12 - 15 * row, said, "floor-name", "middle"),
        ]
    for index, entry in enumerate(lines):
        y, cell, kind = (
            top + tall * (index + 0.5),
            entry.cells[metric],
            series_class(colours.get(entry.variant, SERIES)),
        )
        parts.append(text(left - 16, y + 4, cut(entry.variant, 26), "row-name", "end"))
        if cell.deviation is not None:
            spread = place(cell.mean - cell.deviation), place(cell.mean + cell.deviation)
            parts.append(line(spread[0], y, spread[1], y, f"spread {kind}"))
        for seed, value in zip(entry.seeds, cell.values):
            said = escape(f"seed {seed}: {number(value, metric)}")
            ring = f'<circle cx="{place(value):.1f}" cy="{y:.1f}" r="5" class="ring {kind}">'
            parts.append(f"{ring}<title>{said}</title></circle>")
        parts.append(line(place(cell.mean), y - 10, place(cell.mean), y + 10, f"mean {kind}"))
        parts.append(text(right + 18, y + 4, with_deviation(cell.mean, cell.deviation, metric), "value"))
    label = f"{metric_name(metric)} on {table.split} for every variant"
    return svg(WIDE, bottom + 26, parts, label)
