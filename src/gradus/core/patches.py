"""A patch as a reader is told of it: its paths by their last words, its values in few digits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any


def short_names(paths: Sequence[str]) -> dict[str, str]:
    """Each path's last word, or the whole of it where two end alike."""
    last = [path.rsplit(".", 1)[-1] for path in paths]
    return {path: name if last.count(name) == 1 else path for path, name in zip(paths, last)}


def short_value(value: Any) -> str:
    """A value in at most three digits, a list or dictionary as JSON."""
    if isinstance(value, list | dict):
        return json.dumps(value, ensure_ascii=False)
    return f"{value:.3g}" if isinstance(value, float) else str(value)
