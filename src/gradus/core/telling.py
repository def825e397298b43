"""Who hears of long work."""

from __future__ import annotations

from typing import Protocol


class Told(Protocol):
    """Whoever wants to hear of long work: a line in a terminal, while a run goes on."""

    def working(self, what: str, done: int, total: int | None) -> None: ...

    def say(self, line: str) -> None: ...


class Silent:
    """Nobody listens."""

    def working(self, what: str, done: int, total: int | None) -> None:
        return None

    def say(self, line: str) -> None:
        return None
