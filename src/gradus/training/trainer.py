"""The loop, once, for every stage of every kind.

    while there are steps left:
        the rows of this step, a function of (seed, step)                       data/feed.py
        corrupted, cut into micro-batches by a token budget, end to end         training/learner.py
        count the targets of each objective, over all micro-batches and ranks
        for each micro-batch: one forward to sums, backward(sum_k w_k * S_k / counts_k)
        sum gradients over ranks, unscale, add penalties, clip, set the rate, step
        yield a report where something is due

The caller evaluates, saves and stops in ordinary code between two reports; there are no callbacks. Everything
random is keyed by (seed, step, rank, micro-batch) or (seed, epoch, row), so no generator's state has to be
kept.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch

from gradus.core.duration import Clock
from gradus.core.errors import UserError
from gradus.core.example import Batch
from gradus.core.keyed import keyed_hash
from gradus.data.feed import Feed, cut
from gradus.distributed.world import World
from gradus.optim.penalties import Penalty
from gradus.optim.schedules import ScheduleConfig
from gradus.optim.unfreezing import Unfreezing
from gradus.training.learner import Learner
from gradus.training.scaling import LossScale

Due = frozenset[str]
Timetable = Callable[[Clock], Due]


class NotFinite(UserError):
    """Training left the numbers: the loss, its gradient or a weight is infinite or not a number."""

    HINT = "a lower lr, a longer warm-up or precision: fp32 may help"
    seconds = 0.0
    """What the stage had taken until then."""


@dataclass(frozen=True)
class Report:
    """What happened since the last one. `due` holds what the caller asked for: report, evaluate, save, stop,
    end."""

    clock: Clock
    due: Due
    losses: dict[str, float] = field(default_factory=dict)
    """Mean loss a target in nats, by objective; empty unless "report" is due."""
    total: float = math.nan
    lr: float = math.nan
    grad_norm: float = math.nan
    tokens_per_second: float = math.nan
    loss_scale: float | None = None
    """What the loss is multiplied by in fp16."""


class Trainer:
    """Moves `learner` along `feed`. `budget` is the most tokens of a micro-batch; `clip` bounds the
    gradient's norm."""

    def __init__(
        self,
        learner: Learner,
        feed: Feed,
        optimizers: Sequence[torch.optim.Optimizer],
        schedule: ScheduleConfig,
        world: World,
        *,
        warmup: int,
        budget: int,
        clip: float | None = 1.0,
        penalty: Penalty | None = None,
        scaling: LossScale | None = None,
        unfreezing: Unfreezing | None = None,
    ):
        self.learner, self.feed, self.schedule, self.world = learner, feed, schedule, world
        self.optimizers = optimizers
        self.warmup, self.budget, self.clip = warmup, budget, clip
        self.penalty, self.scaling, self.unfreezing = penalty, scaling, unfreezing
        self.clock = Clock()
        self.seconds = 0.0
        self.stop_asked = False
        """Set from outside (a signal): the loop yields a report with "stop" due at the next step, on all
        ranks."""
        self._weights = learner.weights
        self._rates = [group["lr"] for group in self._groups()]
        self._parameters = self._learning()
        self._counts: list[list[float]] = []
        self._sums: list[torch.Tensor] = []
        self._since: tuple[int, float] = (0, 0.0)

    def steps(self, timetable: Timetable) -> Iterator[Report]:
        """Trains to the end of the feed, pausing wherever the timetable says that something is due."""
        self.learner.train()
        began = time.perf_counter()
        while self.clock.step < self.feed.steps:
            stop = self._step()
            due = timetable(self.clock) | ({"stop"} if stop else set())
            if self.clock.step == self.feed.steps:
                due |= {"report", "end"}
            if not due:
                continue
            report = self._report(due)
            self.seconds += time.perf_counter() - began
            if report.losses:
                report = self._timed(report)
            yield report
            self.learner.train()
            began = time.perf_counter()

    def _step(self) -> bool:
        step = self.clock.step
        if self.unfreezing is not None and self.unfreezing.apply(step):
            self._parameters = self._learning()
        drawn = self.feed.examples(step)
        examples = [self.learner.corrupted(example, self.feed.seed, epoch) for epoch, example in drawn]
        batches = [self.learner.prepare(part) for part in cut(examples, self.budget)]
        kinds = len(self._weights)
        own = [float(sum(batch.targets[k].weight.sum() for batch in batches)) for k in range(kinds)]
        own += [sum(batch.tokens for batch in batches), float(self.stop_asked)]
        *counts, tokens, stop = self.world.sum_counts(own)
        sums = self._backward(batches, counts)
        self.world.sum_gradients(self._parameters)
        norm = self._move(step)
        for optimizer in self.optimizers:
            optimizer.zero_grad(set_to_none=True)
        self.clock = Clock(step + 1, self.feed.rows_after(step + 1), self.clock.tokens + int(tokens))
        self._counts.append(counts)
        self._sums.append(torch.cat([self.world.sum_tensor(sums), norm.reshape(1).to(sums)]))
        return stop > 0

    def _move(self, step: int) -> torch.Tensor:
        """Makes the step with the gradients that there are; their norm, 0 where a loss scale was too large
        and the step is skipped. Raises NotFinite where the scale has collapsed."""
        if self.scaling is not None and not self.scaling.unscale(self._parameters):
            if self.scaling.collapsed:
                problem = f"gradients overflow at step {step + 1} whatever the loss scale"
                raise NotFinite(problem, hint="a lower lr, a longer warm-up or precision: bf16 may help")
            return torch.zeros(())
        if self.penalty is not None:
            self.penalty.add()
        norm = self._clip()
        self._set_rates(step)
        for optimizer in self.optimizers:
            optimizer.step()
        return norm

    def _backward(self, batches: list[Batch], counts: list[float]) -> torch.Tensor:
        device = self.world.device
        scale = torch.tensor(
            [w / n if n else 0.0 for w, n in zip(self._weights.tolist(), counts)], device=device
        )
        scale *= self.scaling.value if self.scaling is not None else 1.0
        total = torch.zeros(
            len(counts), dtype=torch.float64 if device.type != "mps" else torch.float32, device=device
        )
        for number, batch in enumerate(batches):
            torch.manual_seed(keyed_hash("dropout", self.feed.seed, self.clock.step, self.world.rank, number))
            sums = self.learner(batch.to(device))
            (sums * scale.to(sums.dtype)).sum().backward()
            total += sums.detach()
        return total

    def _clip(self) -> torch.Tensor:
        limit = self.clip if self.clip is not None else math.inf
        return torch.nn.utils.clip_grad_norm_(self._parameters, limit)

    def _set_rates(self, step: int) -> None:
        factor = self.schedule.multiplier(step, self.feed.steps, self.warmup)
        for group, rate in zip(self._groups(), self._rates):
            group["lr"] = rate * factor

    def _learning(self) -> list[torch.nn.Parameter]:
        return [parameter for parameter in self.learner.parameters() if parameter.requires_grad]

    def _groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def _report(self, due: Due) -> Report:
        if not due & {"report", "evaluate"}:
            return Report(self.clock, due)
        lines = self._finite_lines()
        if due & {"evaluate", "end"}:
            self._require_finite_weights()
        counts = torch.tensor(self._counts, dtype=torch.float64).sum(0)
        means = (lines[:, :-1].sum(0) / counts.clamp(min=1e-300)).tolist()
        names = [objective.name for objective in self.learner.objectives]
        losses = {name: mean for name, mean, count in zip(names, means, counts.tolist()) if count}
        total = sum(float(w) * mean for w, mean in zip(self._weights, means))
        self._counts, self._sums = [], []
        rate = max(group["lr"] for group in self._groups())
        scale = self.scaling.value if self.scaling is not None else None
        return Report(self.clock, due, losses, total, rate, float(lines[-1, -1]), loss_scale=scale)

    def _timed(self, report: Report) -> Report:
        tokens, seconds = self.clock.tokens - self._since[0], self.seconds - self._since[1]
        self._since = (self.clock.tokens, self.seconds)
        return Report(**{**report.__dict__, "tokens_per_second": tokens / max(seconds, 1e-9)})

    def _finite_lines(self) -> torch.Tensor:
        """Sums and gradient norm of every step since the last report [steps, K + 1].

        Raises NotFinite that names the first step, and its rows, whose loss or gradient is not finite.
        """
        lines = torch.stack(self._sums).double().cpu()
        bad = (~torch.isfinite(lines)).any(1).nonzero()
        if len(bad):
            step = self.clock.step - len(lines) + int(bad[0])
            epochs, rows = self.feed.places(step)
            places = ", ".join(map(self.feed.source.where, rows[:8].tolist(), epochs[:8].tolist()))
            more = f" and {len(rows) - 8} more" if len(rows) > 8 else ""
            problem = (
                f"the loss or its gradient is not finite at step {step + 1}, whose rows are {places}{more}"
            )
            raise NotFinite(problem, hint=NotFinite.HINT)
        return lines

    def _require_finite_weights(self) -> None:
        """Raises NotFinite: the last update may have gone too far after a loss that was still finite."""
        named = list(self.learner.named_parameters())
        finite = torch.stack([parameter.detach().isfinite().all() for _, parameter in named])
        if not bool(finite.all()):
            first = named[int((~finite).nonzero()[0])][0]
            problem = f"the weights are not finite after step {self.clock.step}"
            raise NotFinite(problem, text=first, hint=NotFinite.HINT)

    def state(self) -> dict[str, Any]:
        """What a checkpoint has to keep besides weights and optimizer state, as JSON values.

        Raises NotFinite where it would keep what is no use.
        """
        self._require_finite_weights()
        sums = self._finite_lines().tolist() if self._sums else []
        return {"clock": asdict(self.clock), "seconds": self.seconds, "since": self._since,
                "counts": self._counts, "sums": sums,
                "scaling": self.scaling.state() if self.scaling is not None else None}  # fmt: skip

    def restore(self, state: dict[str, Any]) -> None:
        """Goes on where `state` was taken."""
        self.clock = Clock(**state["clock"])
        self.seconds = state["seconds"]
        self._since = tuple(state["since"])
        self._counts = state["counts"]
        if self.scaling is not None:
            self.scaling.restore(state["scaling"])
        self._sums = list(torch.tensor(state["sums"], dtype=torch.float64))
