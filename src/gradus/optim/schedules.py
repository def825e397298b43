"""Learning-rate schedules: pure functions of progress that return a multiplier of the optimizer's rate."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from gradus.core.config import Config
from gradus.core.duration import Quantity, Warmup

DEFAULT_WARMUP_SHARE, DEFAULT_WARMUP_STEPS = 0.1, 2000


class _Schedule(Config):
    warmup: Warmup | None = None
    """Linear from 0, in steps, tokens or percent of the stage; unless given 10 % of it, at most 2000
    steps."""

    def warmup_steps(self, steps: int, tokens_per_step: float) -> int:
        """Warm-up in optimizer steps, for a stage of `steps` steps of `tokens_per_step` tokens."""
        if self.warmup is None:
            return min(round(DEFAULT_WARMUP_SHARE * steps), DEFAULT_WARMUP_STEPS)
        amount = self.warmup.amount
        by_unit = {"steps": amount, "tokens": amount / tokens_per_step, "%": amount / 100 * steps}
        return min(round(by_unit[self.warmup.unit]), steps)

    def multiplier(self, step: int, steps: int, warmup: int) -> float:
        """The factor for step `step` (0-based) of `steps`: (step + 1) / warmup, then the decay."""
        if step < warmup:
            return (step + 1) / warmup
        return self._decay((step - warmup) / max(1, steps - warmup))

    def _decay(self, progress: float) -> float:
        raise NotImplementedError


class Constant(_Schedule):
    """The full rate after the warm-up."""

    kind: Literal["constant"] = "constant"

    def _decay(self, progress: float) -> float:
        return 1.0


class Linear(_Schedule):
    """A straight line to `final` (GPT-1 fine-tuning, section 4.1: warm-up over 0.2 % of training, then to
    0)."""

    kind: Literal["linear"] = "linear"
    final: float = Field(0.0, ge=0, le=1)
    """The multiplier at the end."""

    def _decay(self, progress: float) -> float:
        return 1 - (1 - self.final) * progress


class Cosine(_Schedule):
    """Half a cosine to `final` (GPT-1 pre-training, section 4.1: 2000 updates of warm-up, then to 0)."""

    kind: Literal["cosine"] = "cosine"
    final: float = Field(0.0, ge=0, le=1)
    """The multiplier at the end (GPT-3: 0.1)."""

    def _decay(self, progress: float) -> float:
        return self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * progress))


ScheduleConfig = Annotated[Constant | Linear | Cosine, Field(discriminator="kind")]

FINE_TUNING = Linear(warmup=Quantity(0.2, "%"))
"""GPT-1's fine-tuning schedule (section 4.1)."""
