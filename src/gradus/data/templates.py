"""Texts with the names of columns in braces: prompts, sources and targets."""

from __future__ import annotations

import re
from collections.abc import Mapping

_NAME = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


def names_in(prompt: str) -> list[str]:
    """The names in braces, each once; `{{` and `}}` are braces. Raises ValueError for one without a
    partner."""
    names = []
    for found in _NAME.finditer(prompt):
        if found[0] in ("{", "}") or (found[1] is not None and not found[1].strip()):
            raise ValueError("a column's name in braces is wanted; a brace itself is written twice")
        if found[1] is not None:
            names.append(found[1])
    return list(dict.fromkeys(names))


def filled(prompt: str, values: Mapping[str, str]) -> str:
    """`prompt` with the values of the names in braces. Raises KeyError for a name without one."""
    return _NAME.sub(lambda found: found[0][0] if found[1] is None else values[found[1]], prompt)
