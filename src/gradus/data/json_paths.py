"""Paths into nested values: `data/*/paragraphs/*/qas/*` names rows, `data/*/title` a field of theirs.

A step is a key of an object, the index of a list element (from 0), or `*` for every element. A path of rows
binds its stars, one index a star; the stars of a field's path take those indices in order, and what is left
of them gathers a list.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from gradus.core.errors import nearest, quote

EVERY = "*"
Path = tuple[str, ...]
_SPACE = re.compile(r"[ \t\r\n]*")
_DECODER = json.JSONDecoder()


class PathError(Exception):
    """A path that does not fit a value: `taken` of its steps are fine, the next is not."""

    def __init__(self, problem: str, taken: int, hint: str):
        super().__init__(problem)
        self.problem, self.taken, self.hint = problem, taken, hint


def steps(path: str) -> Path:
    """The steps of a path as written. Raises ValueError for one without a name."""
    parts = tuple(path.split("/"))
    if not all(parts):
        raise ValueError(
            f"a path is keys, numbers and * with / between them, such as */1/title, not {path!r}"
        )
    return parts


def walk(
    value: Any, path: Path, at: int = 0, bound: tuple[int, ...] = ()
) -> Iterator[tuple[tuple[int, ...], Any]]:
    """(index of every star, value) of all that `path` names in `value`, whose first `at` steps were taken."""
    if at == len(path):
        yield bound, value
    elif path[at] == EVERY:
        for index, item in enumerate(_elements(value, at)):
            yield from walk(item, path, at + 1, (*bound, index))
    else:
        yield from walk(_entered(value, path[at], at), path, at + 1, bound)


def pick(value: Any, path: Path, at: int = 0, bound: tuple[int, ...] = ()) -> Any:
    """The one value that `path` names where its stars are `bound`; stars beyond those gather a list."""
    if at == len(path):
        return value
    if path[at] != EVERY:
        return pick(_entered(value, path[at], at), path, at + 1, bound)
    items = _elements(value, at)
    if not bound:
        return [pick(item, path, at + 1) for item in items]
    if bound[0] >= len(items):
        problem = f"the list is too short: the row is number {bound[0]} (from 0) of its own"
        raise PathError(problem, at, _kind(items))
    return pick(items[bound[0]], path, at + 1, bound[1:])


def _elements(value: Any, at: int) -> list[Any]:
    if not isinstance(value, list):
        raise PathError("* stands for the elements of a list, and this is none", at, _kind(value))
    return value


def _entered(value: Any, step: str, at: int) -> Any:
    if isinstance(value, dict):
        if step not in value:
            raise PathError("there is no such key", at, nearest(step, value) if value else _kind(value))
        return value[step]
    if isinstance(value, list) and re.fullmatch("[0-9]{1,18}", step):
        if int(step) >= len(value):
            raise PathError("there is no such element", at, f"{_kind(value)}, counted from 0")
        return value[int(step)]
    go_on = "a number or * goes on from here: " if isinstance(value, list) else "no path goes on from here: "
    raise PathError("this key leads nowhere", at, go_on + _kind(value))


def _kind(value: Any) -> str:
    """What stands there."""
    if isinstance(value, list):
        return f"a list of {len(value)}"
    if isinstance(value, dict):
        return f"an object with the keys {', '.join(value)}" if value else "an object without keys"
    return quote(value) if isinstance(value, str) else json.dumps(value)


def places(text: str, place: int, path: Path, at: int = 0) -> Iterator[int]:
    """Where in the JSON `text` each value begins that `walk` finds in the value that begins at `place`."""
    if at == len(path):
        yield place
        return
    found = [child for key, child in _children(text, place) if path[at] in (EVERY, str(key))]
    if path[at] != EVERY:
        found = found[-1:]  # of a key that stands twice the last one counts
    for child in found:
        yield from places(text, child, path, at + 1)


def _children(text: str, place: int) -> Iterator[tuple[str | int, int]]:
    """(key or index, beginning) of what an object or list holds that is known to be JSON."""
    end = "]" if text[place] == "[" else "}"
    key: str | int = -1
    place = skip_space(text, place + 1)
    while text[place] != end:
        if end == "}":
            key, place = _DECODER.raw_decode(text, place)
            place = skip_space(text, skip_space(text, place) + 1)
        else:
            key = int(key) + 1
        yield key, place
        place = skip_space(text, _DECODER.raw_decode(text, place)[1])
        if text[place] == ",":
            place = skip_space(text, place + 1)


def skip_space(text: str, place: int) -> int:
    """The next place with anything but JSON's white space."""
    match = _SPACE.match(text, place)
    return match.end() if match else place
