"""Libraries that only some recipes need: which versions are there, and what to install where one is not."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from gradus.core.errors import UserError


def versions(
    libraries: Iterable[str], user: str, extra: str, instead: str = "", **where: Any
) -> dict[str, str]:
    """The version of each library, by its name. Raises UserError (`where` names its place) for the first that
    is not installed: `user` needs it, the `extra` of this package brings it, `instead` does without."""
    found = {}
    for name in libraries:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            problem, hint = (
                f"{user} needs {name}, which is not installed",
                f'pip install "gradus-lm[{extra}]"',
            )
            raise UserError(problem, **where, hint=hint + (f", or {instead}" if instead else "")) from None
    return found
