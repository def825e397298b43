"""Which data a split reads, and which rows or documents of train are held out for dev and test.

Who is held out is a function of the content alone: a keyed hash in [0, 1) falls into dev's range, test's
range (which follows it) or neither. So duplicates stay together, new rows do not move old ones, and neither
do seeds.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Protocol

from pydantic import BeforeValidator, StringConstraints

from gradus.core.config import Config
from gradus.core.duration import Share
from gradus.core.errors import UserError
from gradus.core.keyed import keyed_fraction

TRAIN, DEV, TEST = SPLITS = ("train", "dev", "test")
_KEY = "held out"
_PERCENT = re.compile(r"\s*[0-9.]+\s*%\s*")


class HeldOut(Config):
    """A share of train that is kept for dev or test."""

    share: Share
    """How much of train, by number of rows or documents on average: "10 %"."""
    by: str | None = None
    """Rows that agree in this field stay on one side (all questions about one text, say)."""


def _short_forms(value: Any) -> Any:
    if isinstance(value, str) and _PERCENT.fullmatch(value):
        return {"share": value}
    if isinstance(value, int | float):
        raise ValueError(
            f"a file, a glob, a list of them, builtin:NAME or a share such as '10 %' is wanted, not {value}"
        )
    return _some_files(value)


def _no_share(value: Any) -> Any:
    if isinstance(value, dict) or (isinstance(value, str) and _PERCENT.fullmatch(value)):
        raise ValueError("train names data: a share can only be held out for dev or test")
    return _some_files(value)


def _some_files(value: Any) -> Any:
    if value == []:
        raise ValueError("the list names no file; leave the key out where there is none")
    return value


_Name = Annotated[str, StringConstraints(min_length=1)]
Choice = str | list[str]
TrainChoice = Annotated[_Name | list[_Name], BeforeValidator(_no_share)]
"""A path, a glob, a list of those, or builtin:NAME."""
EvaluationChoice = Annotated[HeldOut | _Name | list[_Name] | None, BeforeValidator(_short_forms)]
"""What train may be, or a share of it: "10 %" or {share: 10 %, by: FIELD}."""


class Splits(Protocol):
    """Data that names train and maybe dev and test."""

    @property
    def train(self) -> Choice: ...
    @property
    def dev(self) -> HeldOut | Choice | None: ...
    @property
    def test(self) -> HeldOut | Choice | None: ...


def named(data: Splits) -> dict[str, Choice]:
    """The splits that have data of their own."""
    choices = {TRAIN: data.train, DEV: data.dev, TEST: data.test}
    return {split: choice for split, choice in choices.items() if choice and not isinstance(choice, HeldOut)}


def held_out(data: Splits) -> dict[str, HeldOut]:
    """The splits among dev and test that are shares of train. Raises ValueError where they cannot both be
    had."""
    shares = {
        split: choice for split, choice in ((DEV, data.dev), (TEST, data.test)) if isinstance(choice, HeldOut)
    }
    total = sum(choice.share.amount for choice in shares.values())
    if any(choice.share.amount == 0 for choice in shares.values()) or total >= 100:
        raise ValueError(
            f"shares held out must be above 0 % and leave something to train on, not {total:g} % in all"
        )
    if len({choice.by for choice in shares.values()}) > 1:
        raise ValueError(
            "dev and test must be held out by the same field, or what shares it would be torn apart"
        )
    return shares


def fraction(content: Sequence[str]) -> float:
    """Where this content falls in [0, 1): the same for equal content, whatever the seed."""
    return keyed_fraction(_KEY, *content)


def assign(fractions: Sequence[float], shares: Mapping[str, HeldOut], what: str) -> list[str]:
    """For each row or document the split it belongs to.

    A split whose range nobody falls into (few documents, small share) takes the lowest fraction of train,
    with all that have the same. Raises UserError where nothing would be left to train on; `what` names the
    items, as "rows".
    """
    chosen = [TRAIN] * len(fractions)
    low = 0.0
    for split, choice in shares.items():
        high = low + choice.share.amount / 100
        for place, value in enumerate(fractions):
            if low <= value < high:
                chosen[place] = split
        low = high
    for split in shares:
        if split not in chosen:
            left = [value for value, owner in zip(fractions, chosen) if owner == TRAIN]
            nearest = min(left, default=-1.0)
            chosen = [
                split if value == nearest and owner == TRAIN else owner
                for value, owner in zip(fractions, chosen)
            ]
    missing = [split for split in (TRAIN, *shares) if split not in chosen]
    if missing:
        hint = f"name files for {' and '.join(shares)}, or hold out by something finer"
        problem = f"{len(fractions)} {what} ({len(set(fractions))} different) cannot be shared out: none left"
        raise UserError(problem, field=missing[0], hint=hint)
    return chosen
