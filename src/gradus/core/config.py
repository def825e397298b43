"""The base of every config: frozen, and a key it does not know is refused.

A part's config stands in the part's file and builds it. The registry of a kind of part is a discriminated
union on `kind`: dictionary, schema and validator in one.
"""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict
from pydantic_core import PydanticCustomError


class Config(BaseModel):
    """Immutable settings; unknown keys are errors, defaults are documented where they stand."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), use_attribute_docstrings=True
    )

    def plain(self) -> dict[str, Any]:
        """The settings as JSON values, defaults included: what fingerprints are made of."""
        return self.model_dump(mode="json")


def wrong(key: str, problem: str, text: object = None, hint: str | None = None) -> PydanticCustomError:
    """What a validator raises where the fault lies with `key`, a dotted path below what it validates.

    `text` is what stands there, `hint` what would be right; see `errors.UserError`.
    """
    return PydanticCustomError(
        "wrong", "{problem}", {"key": key, "problem": problem, "text": text, "hint": hint}
    )
