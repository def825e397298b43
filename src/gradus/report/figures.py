"""Figures as SVG text: curves over steps, numbers against predictions, and variants as dots on one scale.

Colours come from the page's style sheet. A colour is a class (`series-0` ...), never a value, so that one
figure serves light, dark and paper.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from gradus.report.summary import Line, Table
from gradus.report.words import MINUS, SHARES, metric_name, number

SERIES = 6
WIDE = 1030.0
"""Colours that can be told apart; what comes after shares one grey."""
MOST_POINTS = 160
FROM_ZERO = frozenset({"learning rate", "gradient norm", "tokens per second"})
"""What the optimizer did, of which only the size beside nothing tells."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Curve:
    """One line of a figure. `dots` marks each point, for what is measured seldom.

    A point is (x, y), or (x, y, low, high) where an interval is known: a band, or a bar where there are dots.
    """

    name: str
    colour: int
    points: Sequence[tuple[float, ...]]
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


def thinned(points: Sequence[tuple[float, ...]]) -> list[tuple[float, ...]]:
    """At most MOST_POINTS points: neighbours are averaged, and what is not a number is left out."""
    points = [point for point in points if all(map(math.isfinite, point))]
    share = -(-len(points) // MOST_POINTS) or 1
    groups = [points[start : start + share] for start in range(0, len(points), share)]
    return [tuple(sum(values) / len(group) for values in zip(*group)) for group in groups]


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


@dataclass(frozen=True)
class _Frame:
    """The scales of a figure, and where on it they are drawn; x runs from `begin` to `end`."""

    xs: Sequence[float]
    ys: Sequence[float]
    begin: float
    end: float
    metric: str
    across: str
    bottom: float = 168.0
    left: float = 46.0
    right: float = 336.0
    top: float = 14.0

    def x(self, value: float) -> float:
        return self.left + (self.right - self.left) * (value - self.begin) / (self.end - self.begin)

    def place(self, x: float, y: float) -> Point:
        share = (y - self.ys[0]) / (self.ys[-1] - self.ys[0])
        return self.x(x), self.bottom - (self.bottom - self.top) * share

    def axes(self) -> list[str]:
        parts = [text(self.right, self.bottom + 33, self.across, "tick", "end")]
        for mark in self.ys:
            y, said = self.place(0, mark)[1], _axis_label(mark, self.metric, self.ys[1] - self.ys[0])
            parts.append(line(self.left, y, self.right, y, "grid"))
            parts.append(text(self.left - 7, y + 4, said, "tick", "end"))
        for mark in (mark for mark in self.xs if mark <= self.end):
            said = _axis_label(mark, self.across, self.xs[1] - self.xs[0])
            parts.append(text(self.x(mark), self.bottom + 17, said, "tick", "middle"))
        return parts

    def svg(self, parts: Sequence[str], title: str) -> str:
        return svg(356, self.bottom + 38, [*self.axes(), *parts], title)


def curves(title: str, metric: str, drawn: Sequence[Curve], floors: Sequence[tuple[str, float]] = (),
           across: str = "steps") -> str:  # fmt: skip
    """A figure of curves, floors as dashed lines; empty where nothing can be drawn."""
    drawn = [Curve(c.name, c.colour, thinned(c.points), c.dots) for c in drawn]
    values = [y for curve in drawn for point in curve.points for y in point[1:]]
    if not values:
        return ""
    low, high = min(values), max(values)
    # A floor far outside would flatten the curves: then it is left to the table. Not so beside intervals.
    reach = math.inf if any(len(point) > 2 for curve in drawn for point in curve.points) else 2 * (high - low)
    near = [(name, value) for name, value in floors if low - reach <= value <= high + reach]
    shown = [low, high, *(value for _, value in near), *([0.0] if metric in FROM_ZERO else [])]
    last = max(point[0] for curve in drawn for point in curve.points)
    xs = ticks(0, last)
    whole = [mark for mark in xs if mark == round(mark)]
    xs = whole if len(whole) > 1 else xs  # steps and layers are whole
    frame = _Frame(xs, ticks(min(shown), max(shown)), 0.0, last or 1.0, metric, across)
    parts = []
    for name, value in near:
        y = frame.place(0, value)[1]
        parts.append(line(frame.left, y, frame.right, y, "floor"))
        parts.append(text(frame.left + 4, y - 4, f"{name} {number(value, metric)}", "floor-name"))
    for curve in drawn:
        parts += _drawn(frame, curve) if curve.points else []
    return frame.svg(parts, title)


def _drawn(frame: _Frame, curve: Curve) -> list[str]:
    kind = series_class(curve.colour)
    dotted = curve.dots or len(curve.points) == 1
    places = [frame.place(*point[:2]) for point in curve.points]
    path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    parts = _reach(frame, curve.points, dotted, kind)
    parts.append(f'<path d="{path}" class="curve {kind}"><title>{escape(curve.name)}</title></path>')
    for (x, y), point in zip(places if dotted else [], curve.points):
        said = escape(f"{curve.name}, {point[0]:,.6g} {frame.across}: {number(point[1], frame.metric)}")
        dot = f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.6" class="dot {kind}">'
        parts.append(f"{dot}<title>{said}</title></circle>")
    return parts


def _reach(frame: _Frame, points: Sequence[tuple[float, ...]], bars: bool, kind: str) -> list[str]:
    """The intervals of the points that have one: a bar each, or one band."""
    known = [point for point in points if len(point) > 2]
    ends = [(frame.place(x, low), frame.place(x, high)) for x, _, low, high in known]
    if bars:
        return [line(*low, *high, f"error-bar {kind}") for low, high in ends]
    border = [low for low, _ in ends] + [high for _, high in reversed(ends)]
    around = "L".join(f"{x:.1f} {y:.1f}" for x, y in border)
    return [f'<path d="M{around}Z" class="band {kind}"/>'] if ends else []


def scatter(title: str, points: Sequence[Point], colour: int) -> str:
    """Predicted numbers against true ones, a dot a row and a dashed line where both are equal."""
    points = [point for point in points if all(map(math.isfinite, point))]
    if not points:
        return ""
    marks = ticks(min(map(min, points)), max(map(max, points)))
    frame = _Frame(marks, marks, marks[0], marks[-1], "number", "true", bottom=304.0)
    dots = "".join(f"M{x:.1f} {y:.1f}h0" for x, y in (frame.place(*point) for point in points))
    (x1, y1), (x2, y2) = frame.place(marks[0], marks[0]), frame.place(marks[-1], marks[-1])
    parts = [line(x1, y1, x2, y2, "floor"), text(frame.left, frame.top - 3, "predicted", "tick")]
    return frame.svg([*parts, f'<path d="{dots}" class="cloud {series_class(colour)}"/>'], title)


def dots(table: Table, colours: dict[str, int]) -> str:
    """The table's own metric as a figure: a ring a seed, a bar at the mean, a dashed line at each floor.

    Empty where no variant has a finite value.
    """
    metric, tall = table.metric, 36.0
    lines = [line for line in table.lines if metric in line.cells and math.isfinite(line.cells[metric].mean)]
    known = [(floor.title, floor.values.get(metric, math.nan)) for floor in table.floors if not floor.variant]
    floors = [(name, value) for name, value in known if math.isfinite(value)]
    if not lines:
        return ""
    values = [v for entry in lines for v in entry.cells[metric].values] + [value for _, value in floors]
    margin = 0.04 * (max(values) - min(values) or abs(values[0]) or 1.0)
    marks, top = ticks(min(values) - margin, max(values) + margin, 5), 42.0
    bottom = top + tall * len(lines)
    scale = _Frame(marks, (0, 1), marks[0], marks[-1], metric, "", bottom, left=190.0, right=910.0, top=top)
    parts = []
    for mark in marks:
        x, said = scale.x(mark), _axis_label(mark, metric, marks[1] - marks[0])
        parts.append(line(x, scale.top, x, scale.bottom, "grid"))
        parts.append(text(x, scale.bottom + 18, said, "tick", "middle"))
    parts += _floor_lines(scale, floors, metric)
    for index, entry in enumerate(lines):
        kind = series_class(colours.get(entry.variant, SERIES))
        parts += _row(scale, scale.top + tall * (index + 0.5), entry, metric, kind)
    return svg(WIDE, scale.bottom + 26, parts, f"{metric_name(metric)} on {table.split} for every variant")


def _floor_lines(scale: _Frame, floors: Sequence[tuple[str, float]], metric: str) -> list[str]:
    """Dashed lines, their names above them on two rows, so that neighbours do not overlap."""
    parts: list[str] = []
    ends = [-math.inf, -math.inf]
    for name, value in sorted(floors, key=lambda floor: floor[1]):
        x, said = scale.x(value), f"{name} {number(value, metric)}"
        half = 3.2 * width_of(said)
        centre = min(max(x, scale.left + half - 20), WIDE - half)
        row = 0 if centre - half > ends[0] else 1
        ends[row] = centre + half + 8
        parts.append(line(x, scale.top - 6, x, scale.bottom, "floor"))
        parts.append(text(centre, scale.top - 12 - 15 * row, said, "floor-name", "middle"))
    return parts


def _row(scale: _Frame, y: float, entry: Line, metric: str, kind: str) -> list[str]:
    cell = entry.cells[metric]
    parts = [text(scale.left - 16, y + 4, cut(entry.variant, 26), "row-name", "end")]
    if cell.deviation is not None:
        ends = scale.x(cell.mean - cell.deviation), scale.x(cell.mean + cell.deviation)
        parts.append(line(ends[0], y, ends[1], y, f"spread {kind}"))
    for seed, value in zip(entry.seeds, cell.values):
        said = escape(f"seed {seed}: {number(value, metric)}")
        ring = f'<circle cx="{scale.x(value):.1f}" cy="{y:.1f}" r="5" class="ring {kind}">'
        parts.append(f"{ring}<title>{said}</title></circle>")
    x = scale.x(cell.mean)
    parts.append(line(x, y - 10, x, y + 10, f"mean {kind}"))
    return [*parts, text(scale.right + 18, y + 4, cell.shown(metric), "value")]
