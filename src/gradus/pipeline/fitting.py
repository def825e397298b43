"""What of a stage fits what else of it, beyond what a single key can say."""

from __future__ import annotations

from collections.abc import Sequence

from gradus.core.config import wrong
from gradus.data.text import WindowKind
from gradus.objectives import ObjectiveConfig


def require_windows(objectives: Sequence[ObjectiveConfig], windows: WindowKind | None) -> None:
    """Raises for an objective that reads the label of windows which this stage has not; rows have none."""
    for one in objectives:
        wanted = one.windows
        if wanted is None or wanted == windows:
            continue
        if windows is None:
            hint = f"`data: {{kind: text, windows: {wanted}}}`"
            raise wrong("objectives", f"{one.kind} reads the label of windows of text", None, hint)
        hint = f"write `windows: {wanted}`"
        raise wrong("data.windows", f"{one.kind} reads the label of another kind", windows, hint)
