"""Early stopping and the memory of the best weights: plain numbers, kept in every checkpoint."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass
class Stopping:
    """Watches one metric; `patience` counts evaluations without a better value (None: never stops)."""

    metric: str
    larger: bool
    patience: int | None = None
    best: float | None = None
    best_step: int | None = None
    waited: int = 0

    def update(self, step: int, value: float) -> bool:
        """Notes an evaluation; True where it is the best so far. A tie is not better."""
        improved = self.best is None or (value > self.best if self.larger else value < self.best)
        if improved:
            self.best, self.best_step, self.waited = value, step, 0
        else:
            self.waited += 1
        return improved

    @property
    def exhausted(self) -> bool:
        return self.patience is not None and self.waited >= self.patience

    def state(self) -> dict[str, Any]:
        return {"best": self.best, "best_step": self.best_step, "waited": self.waited}

    def restore(self, state: dict[str, Any]) -> None:
        self.best, self.best_step, self.waited = state["best"], state["best_step"], state["waited"]
