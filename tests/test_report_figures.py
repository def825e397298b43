"""Numbers and curves as the report draws them: rounded for people, and never broken by odd values."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest

from gradus.report import load_run, tables
from gradus.report.figures import Curve, curves, cut, dots, ticks
from gradus.report.summary import Cell, Line
from gradus.report.words import duration, number, probability


def test_numbers_as_shown() -> None:
    assert (
        number(0.8123, "next_sentence.accuracy") == number(0.8123, "accuracy") == "81.2"
        and number(-0.0001, "matthews") == "0.0"
    )
    assert number(-0.05, "accuracy", sign=True) == "−5.0" and number(0.05, "accuracy", sign=True) == "+5.0"
    assert (
        number(None, "loss") == "–"
        and number(math.nan, "loss") == "–"
        and number(1.9234, "bits_per_byte") == "1.923"
    )
    assert (
        probability(0.0002) == "p < 0.001"
        and probability(0.0031) == "p = 0.003"
        and probability(0.42) == "p = 0.42"
    )
    assert [duration(s) for s in (4.21, 42, 185, 120, 7800)] == [
        "4.2 s",
        "42 s",
        "3 min 5 s",
        "2 min",
        "2 h 10 min",
    ]
    assert cut("这本书的结尾让人失望", 8) == "这本书的…" and cut("short", 8) == "short"


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.0), (0.512, 0.857), (2.1, 2.1), (0.0, 3000.0), (-0.4, 0.1), (0.0, 2.5e-4)]
)
def test_ticks_span_the_values(low: float, high: float) -> None:
    marks = ticks(low, high)
    assert marks[0] <= low + 1e-12 and marks[-1] >= high - 1e-12 and 1 <= len(marks) <= 8
    assert len({round(b - a, 12) for a, b in zip(marks, marks[1:])}) <= 1


def test_figures_of_odd_curves(finished_run: Path) -> None:
    assert curves("loss", "loss", []) == ""
    assert curves("loss", "loss", [Curve("a", 0, [(1.0, math.nan)])]) == ""
    for points in ([(0.0, 1.0)], [(5.0, 0.0), (9.0, 0.0)], [(float(s), 1.0 / (s + 1)) for s in range(5000)]):
        drawn = curves("loss <&>", "loss", [Curve("一", 9, points)], [("floor", 0.5)])
        assert drawn.startswith("<svg") and "nan" not in drawn and len(drawn) < 20_000
    table = tables(load_run(finished_run))[0]
    assert dots(table, {}).count('class="ring') == 6
    lost = Line("diverged", [1], 1, {table.metric: Cell.of([math.nan])}, None)
    assert dots(replace(table, lines=[lost]), {}) == ""
    assert Cell.of([0.5]).deviation is None
