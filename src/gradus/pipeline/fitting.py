"""What of a stage fits what else of it, beyond what a single key can say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import get_args

from gradus.core.config import wrong
from gradus.core.example import PairKind
from gradus.data.text import WindowKind
from gradus.objectives import ObjectiveConfig

PAIRS = get_args(PairKind)


def require_windows(objectives: Sequence[ObjectiveConfig], windows: WindowKind | None) -> None:
    """Raises for an objective that reads the label of windows which this stage has not (rows have none), and
    for windows whose label nobody reads: half of them join texts that do not belong together."""
    for one in objectives:
        wanted = one.windows
        if wanted is None or wanted == windows:
            continue
        if windows is None:
            hint = f"`data: {{kind: text, windows: {wanted}}}`"
            raise wrong("objectives", f"{one.kind} reads the label of windows of text", None, hint)
        hint = f"write `windows: {wanted}`"
        raise wrong("data.windows", f"{one.kind} reads the label of another kind", windows, hint)
    if windows in PAIRS and all(one.windows != windows for one in objectives):
        reader = {"sentence_pairs": "next_sentence", "sentence_order": "sentence_order"}[str(windows)]
        problem, hint = "no objective reads the label of these windows", f"add {{kind: {reader}}}"
        raise wrong("data.windows", problem, windows, f"{hint}, or `windows: contiguous`")
