"""Learning-rate schedules: pure functions of progress that return a multiplier of the optimizer's rate."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field

from gradus.core.config import Config
from gradus.core.duration import Quantity, Share, Warmup

DEFAULT_WARMUP_SHARE, DEFAULT_WARMUP_STEPS = 0.1, 2000


class _Schedule(Config):
    warmup: Warmup | None = None
    """Linear from 0, in steps, tokens or percent of the stage; unless given 10 % of it, at most 2000
    steps."""

    def warmup_steps(self, steps: int, tokens_per_step: float) -> int:
        """Warm-up in optimizer steps, for a stage of `steps` steps of `tokens_per_step` tokens."""
        if self.warmup is None:
            return self._usual(steps)
        amount = self.warmup.amount
        by_unit = {"steps": amount, "tokens": amount / tokens_per_step, "%": amount / 100 * steps}
        return min(round(by_unit[self.warmup.unit]), steps)

    def _usual(self, steps: int) -> int:
        return min(round(DEFAULT_WARMUP_SHARE * steps), DEFAULT_WARMUP_STEPS)

    def multiplier(self, step: int, steps: int, warmup: int) -> float:
        """The factor for step `step` (0-based) of `steps`: a rise over the warm-up, then the decay."""
        if step < warmup:
            return self._rise((step + 1) / warmup)
        return self._fall(step - warmup, steps - warmup, warmup)

    def _rise(self, progress: float) -> float:
        return progress

    def _fall(self, step: int, steps: int, warmup: int) -> float:
        return self._decay(step / max(1, steps))

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


class Polynomial(_Schedule):
    """To `final` by the power of what is left (as BERT's released code has it, with power 1)."""

    kind: Literal["polynomial"] = "polynomial"
    power: float = Field(1.0, gt=0)
    final: float = Field(0.0, ge=0, le=1)
    """The multiplier at the end."""

    def _decay(self, progress: float) -> float:
        return self.final + (1 - self.final) * (1 - progress) ** self.power


class InverseSquareRoot(_Schedule):
    """sqrt(warm-up / step): as in Vaswani et al. 2017, equation 3, with the largest rate named."""

    kind: Literal["inverse_sqrt"] = "inverse_sqrt"

    def _fall(self, step: int, steps: int, warmup: int) -> float:
        return math.sqrt(max(1, warmup) / (max(1, warmup) + step))


class WarmupStableDecay(_Schedule):
    """The full rate until the last `decay` of the stage, then a straight line to `final` (Hu et al. 2024,
    section 4.2, decay over a tenth; the line as in Haegele et al. 2024)."""

    kind: Literal["warmup_stable_decay"] = "warmup_stable_decay"
    decay: Share = Quantity(10.0, "%")
    """Of the stage."""
    final: float = Field(0.0, ge=0, le=1)
    """The multiplier at the end."""

    def _fall(self, step: int, steps: int, warmup: int) -> float:
        falls = min(steps, max(1.0, self.decay.amount / 100 * (steps + warmup)))
        return 1 - (1 - self.final) * max(0.0, step - (steps - falls)) / falls


class SlantedTriangular(_Schedule):
    """ULMFiT's (Howard and Ruder 2018, equation 3): from `final` up to the full rate over a tenth, and back
    in a straight line."""

    kind: Literal["slanted_triangular"] = "slanted_triangular"
    final: float = Field(1 / 32, gt=0, le=1)
    """The multiplier at the start and the end (their ratio of 32)."""

    def _usual(self, steps: int) -> int:
        return round(DEFAULT_WARMUP_SHARE * steps)

    def _rise(self, progress: float) -> float:
        return self.final + (1 - self.final) * progress

    def _decay(self, progress: float) -> float:
        return self._rise(1 - progress)


class OneCycle(_Schedule):
    """Up from 1/25 over 30 % of the stage and down to 1/250,000, both by half a cosine (Smith and Topin 2018,
    in the form of torch's OneCycleLR; momentum stays)."""

    kind: Literal["one_cycle"] = "one_cycle"
    start: float = Field(1 / 25, gt=0, le=1)
    final: float = Field(1 / 250_000, ge=0, le=1)

    def _usual(self, steps: int) -> int:
        return round(0.3 * steps)

    def _rise(self, progress: float) -> float:
        return self.start + (1 - self.start) * _half_cosine(progress)

    def _decay(self, progress: float) -> float:
        return self.final + (1 - self.final) * _half_cosine(1 - progress)


def _half_cosine(progress: float) -> float:
    return 0.5 * (1 - math.cos(math.pi * progress))


ScheduleConfig = Annotated[
    Constant
    | Linear
    | Cosine
    | Polynomial
    | InverseSquareRoot
    | WarmupStableDecay
    | SlantedTriangular
    | OneCycle,
    Field(discriminator="kind"),
]

FINE_TUNING = Linear(warmup=Quantity(0.2, "%"))
"""GPT-1's fine-tuning schedule (section 4.1)."""
