"""Gradus trains language models step by step: from raw text to a task model, in one recipe.

`Recipe.load(path)`, `check(recipe)`, `run(recipe)` and `load(folder)` are all of it in Python; `UserError` is
what they raise for a mistake that you can mend. They are imported when first asked for: `import gradus`
alone loads no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradus.core.errors import UserError
    from gradus.pipeline.check import check
    from gradus.pipeline.models.serving import load
    from gradus.pipeline.recipes.recipe import Recipe
    from gradus.pipeline.run import run

    __version__: str

__all__ = ["Recipe", "UserError", "__version__", "check", "load", "run"]

_HOMES = {
    "Recipe": "pipeline.recipes.recipe",
    "UserError": "core.errors",
    "check": "pipeline.check",
    "load": "pipeline.models.serving",
    "run": "pipeline.run",
}


def __getattr__(name: str) -> Any:
    """The public names, from the rooms they live in (PEP 562)."""
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("gradus-lm")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"gradus.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
