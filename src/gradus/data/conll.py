"""Sentences in columns, as the tasks of CoNLL have them: a word a line, a blank line between two.

A row is a sentence; each of its fields is a column, as a JSON list.
"""

from __future__ import annotations

import json
from itertools import chain

from gradus.core.errors import UserError, counted
from gradus.data.input import Input, Parsed

DOCUMENT = "-DOCSTART-"
"""What begins a document in CoNLL-2003: such a line is no word."""


def read_conll(source: Input) -> Parsed:
    """The sentences of a file whose columns are parted by tabs, or by white space where its first line has no
    tab. Columns beyond those that are named are ignored. Raises UserError where `columns` names none."""
    names = source.options.columns
    if names is None:
        hint = "such as columns: [word, tag]"
        raise source.error("sentences in columns need names for them", None, field="columns", hint=hint)
    separator: str | None = None
    width, start = 0, 0
    lines: list[list[str]] = []
    bad: UserError | None = None
    for number, line in chain(source.lines(), [(0, "")]):
        if line.strip() and not line.startswith(DOCUMENT):
            if not width:
                separator = "\t" if "\t" in line else None
                width = len(line.split(separator))
                there = [name for name in names if name not in source.absent]
                names = there if len(there) == width else names
            cells = line.split(separator)
            start = start or number
            bad = bad or source.undecoded(number) or _misfit(source, cells, width, names, number)
            lines.append(cells)
        elif lines:
            yield (
                start,
                bad
                or {name: json.dumps(column, ensure_ascii=False) for name, column in zip(names, zip(*lines))},
            )
            lines, bad, start = [], None, 0


def _misfit(source: Input, cells: list[str], width: int, names: list[str], line: int) -> UserError | None:
    """The error for a line with other columns than the first, or too few."""
    if len(cells) == width >= len(names):
        return None
    wanted = f"where the first line has {width}" if len(cells) != width else f"for {', '.join(names)}"
    hint = "one word a line, the same columns in each, a blank line between sentences"
    problem = f"{counted(len(cells), 'column')} {wanted}"
    return source.error(problem, line, text=" ".join(cells), hint=hint)
