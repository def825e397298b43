"""How a few-shot figure is named: by the shots that were asked for, and by those that the model saw.

A short context leaves whole shots out, so a figure "with 3 shots" may rest on none; whoever names it says so.
"""

from __future__ import annotations

from collections.abc import Mapping


def shots_said(measured: Mapping[str, float]) -> str:
    """`shots` and the mean `shots_shown` of a figure in words; empty where none were asked for.

    "3 shots" alone where all were shown, or where an earlier record does not tell. A mean between none and
    all is never rounded to either.
    """
    asked = measured.get("shots", 0)
    shown = measured.get("shots_shown", asked)
    if not asked:
        return ""
    if not shown:
        return f"zero-shot: none of {_counted(asked)} shown"
    if shown == asked:
        return _counted(asked)
    texts = (f"{shown:.{digits}f}" for digits in range(1, 16))
    text = next((text for text in texts if 0 < float(text) < asked), str(shown))
    return f"{_counted(asked)}, {text} shown"


def _counted(shots: float) -> str:
    return f"{shots:.0f} shot{'' if shots == 1 else 's'}"
