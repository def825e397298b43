"""Amounts with units: "3 epochs", "1000 steps", "2e9 tokens", "30 minutes", "64 windows", "10 %".

`Duration`, `Interval`, `SaveInterval`, `BatchSize`, `TextLength`, `Share`, `Part` and `Warmup` are the same
class with different legal units. `Clock` is how far a stage has come, in every unit at once.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import core_schema

from gradus.core.config import wrong

UNITS = {
    "epoch": "epochs", "step": "steps", "token": "tokens", "minute": "minutes", "second": "seconds",
    "window": "windows", "row": "rows", "%": "%",
}  # fmt: skip
_PATTERN = re.compile(r"\s*([0-9][0-9_]*\.?[0-9]*(?:[eE][+-]?[0-9]+)?)\s*(%|[a-z]+)\s*")


@dataclass(frozen=True, slots=True)
class Quantity:
    """An amount and its unit, written "3 epochs" in a recipe."""

    amount: float
    unit: str

    @classmethod
    def parse(cls, text: object) -> Quantity:
        """Reads "3 epochs". Raises ValueError for anything else, a negative amount included."""
        if isinstance(text, Quantity):
            return text
        match = _PATTERN.fullmatch(text) if isinstance(text, str) else None
        word, amount = (match[2], float(match[1].replace("_", ""))) if match else ("", math.inf)
        unit = word if word in UNITS.values() else UNITS.get(word)
        if unit is None or math.isinf(amount):
            raise ValueError(f"an amount with a unit is wanted, like '3 epochs' or '10 %', not {text!r}")
        return cls(amount, unit)

    def __str__(self) -> str:
        amount = int(self.amount) if self.amount == int(self.amount) and self.amount < 1e15 else self.amount
        return f"{amount} {self.unit}"

    @classmethod
    def __get_pydantic_core_schema__(
        cls, source: Any, handler: GetCoreSchemaHandler
    ) -> core_schema.CoreSchema:
        return core_schema.no_info_plain_validator_function(
            cls.parse, serialization=core_schema.plain_serializer_function_ser_schema(str)
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {"type": "string", "examples": ["3 epochs", "1000 steps", "10 %"]}


def _units(*legal: str) -> AfterValidator:
    def check(quantity: Quantity) -> Quantity:
        if quantity.unit not in legal:
            raise ValueError(f"the unit must be one of {', '.join(legal)}, not {quantity.unit!r}")
        if quantity.amount < 0:
            raise ValueError("the amount must not be negative")
        return quantity

    return AfterValidator(check)


def _part(share: Quantity) -> Quantity:
    if not 0 < share.amount <= 100:
        raise ValueError("a share of more than 0 % and at most 100 % is wanted")
    return share


def _something(interval: Quantity) -> Quantity:
    if interval.amount <= 0:
        raise wrong("", "the interval must be more than nothing", interval)
    return interval


Duration = Annotated[Quantity, _units("epochs", "steps", "tokens", "minutes")]
Interval = Annotated[Quantity, _units("epochs", "steps", "%"), AfterValidator(_something)]
SaveInterval = Annotated[Quantity, _units("steps", "minutes", "seconds")]
BatchSize = Annotated[Quantity, _units("windows", "tokens", "rows")]
TextLength = Annotated[Quantity, _units("tokens")]
Share = Annotated[Quantity, _units("%")]
Part = Annotated[Share, AfterValidator(_part)]
Warmup = Annotated[Quantity, _units("steps", "tokens", "%")]


@dataclass(frozen=True, slots=True)
class Clock:
    """How far a stage has come: optimizer steps, rows (or windows) seen, real tokens seen."""

    step: int = 0
    rows: int = 0
    tokens: int = 0

    def epoch(self, rows_per_epoch: int) -> float:
        return self.rows / rows_per_epoch
