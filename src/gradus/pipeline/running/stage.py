"""One stage, from starting weights to a model folder; killed at any instant, it goes on to the same bits.

stage.json is written last: a stage is done if and only if it is there.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file

from gradus.core.duration import Clock
from gradus.core.storage import new_folder, read_json, sweep, sync, write_json
from gradus.data.feed import Feed
from gradus.data.sources import Source
from gradus.distributed.precision import DTYPES, resolve
from gradus.distributed.world import World
from gradus.evaluation.metrics import larger_is_better
from gradus.evaluation.zero_shot import line
from gradus.objectives import HeadConfig
from gradus.optim.penalties import Penalty
from gradus.optim.unfreezing import Unfreezing
from gradus.pipeline.planning.plan import Node
from gradus.pipeline.planning.prepared import Prepared
from gradus.pipeline.planning.probing import Probing
from gradus.pipeline.running.environment import Interrupted, Signals, environment, require_same
from gradus.pipeline.running.judging import Judged, judge
from gradus.pipeline.running.progress import Told
from gradus.pipeline.running.starting import starting_learner
from gradus.pipeline.running.teaching import taught
from gradus.training import checkpoint
from gradus.training.budget import budget_tokens
from gradus.training.frozen import StateCache
from gradus.training.learner import Learner
from gradus.training.scaling import LossScale
from gradus.training.stopping import Stopping
from gradus.training.trainer import Due, NotFinite, Report, Trainer
from gradus.training.transfer import Moved

REPORTS = 200
"""Reports of a stage, about; never fewer than one in MOST_STEPS steps."""
MOST_STEPS = 50
TIMED_STEPS = 12
"""Steps run, and thrown away, to turn a length in minutes into steps."""


@dataclass
class Context:
    """Where a run happens: the processes, the folder of its stages, who listens, and what was asked."""

    world: World
    stages: Path
    told: Told
    signals: Signals
    inexact: bool = False
    floors: dict[str, Any] = field(default_factory=dict)
    """What learns nothing, by data: the same for every variant and seed."""
    scored: tuple[str, ...] = ("dev", "test")
    """The splits scored at the end of a stage: while a loop has not chosen, dev alone."""
    watch: Callable[[StageRun], None] = lambda run: None
    """Called after every evaluation but the last; what it raises ends the stage."""

    def folder(self, node_id: str) -> Path:
        return self.stages / node_id

    def start(self, node: Node) -> Path | None:
        """The model folder that a stage begins with; None at scratch."""
        return self.folder(node.parent.id) / "model" if node.parent is not None else node.folder


class StageRun:
    """The training of one prepared stage."""

    def __init__(self, prepared: Prepared, context: Context):
        self.prepared, self.context = prepared, context
        self.node, self.world = prepared.node, context.world
        self.folder = context.folder(prepared.node.id)
        self.checkpoints = self.folder / "checkpoints"
        self.precision = resolve(self.node.stage.precision, self.world.device)
        self.budget = budget_tokens(prepared.model, self.precision, self.world.device)
        self.environment = environment(self.world, self.precision) | {"budget": self.budget}
        self.moved: list[Moved] = []
        metric = self.node.stage.metric
        stop = self.node.stage.stop
        self.stopping = Stopping(metric, larger_is_better(metric), stop.patience if stop else None)
        self.started = datetime.now(UTC).isoformat(timespec="seconds")
        self.seconds = {"evaluate": 0.0}
        self.prepare_seconds = 0.0
        self.digests: dict[str, str] = {}
        self.stopped = "length"
        self.probing = Probing(prepared.probes)
        self._last: tuple[int, Judged] | None = None

    def train(self) -> Learner:
        """Trains, or resumes and trains, and returns the learner with the weights that leave the stage.

        Raises NotFinite where the loss, a score or a weight is no number any more.
        """
        if self.world.first:
            self.checkpoints.mkdir(parents=True, exist_ok=True)
            sweep(self.folder)
            sweep(self.checkpoints)
        self.world.barrier()
        trainer = self.trainer = self._trainer(self._steps_of_minutes())
        self._resume(trainer)
        self.context.told.begin(self.node.id, trainer.feed.steps, trainer.clock.step)
        self.context.signals.trainer = trainer
        try:
            if self.stopped == "length":
                self._loop(trainer)
        finally:
            self.context.signals.trainer = None
            self.context.told.end()
        if self.node.stage.weights == "best" and self.stopping.best_step not in (None, trainer.clock.step):
            checkpoint.load_weights(
                trainer.learner, load_file(self.checkpoints / "best" / "model.safetensors")
            )
        return trainer.learner.plain

    def _loop(self, trainer: Trainer) -> None:
        timetable = self._timetable(trainer)
        saved = time.monotonic()
        for report in trainer.steps(timetable):
            if report.losses:
                self._note(_train_line(report, trainer.feed))
                left = trainer.seconds / report.clock.step * (trainer.feed.steps - report.clock.step)
                self.context.told.report(report, left)
            if "evaluate" in report.due:
                self._evaluate(trainer)
                # Known before anything is saved: a run that resumes there must not train on.
                self.stopped = "patience" if self.stopping.exhausted else "length"
                if self.stopped == "length" and "end" not in report.due:
                    self.context.watch(self)
            every = self.node.stage.save.every
            seconds = every.amount * (60 if every.unit == "minutes" else 1)
            by_clock = every.unit != "steps" and time.monotonic() - saved >= seconds
            over = self.stopped == "patience"
            if by_clock or over or report.due & {"save", "stop", "end"}:
                self._save(trainer)
                saved = time.monotonic()
            if "stop" in report.due and "end" not in report.due:
                raise Interrupted
            if over:
                return

    def _trainer(self, measured: int | None) -> Trainer:
        learner = taught(self.prepared, self._learner(), self.context.stages, DTYPES[self.precision])
        self.moved += [
            Moved(name, "new", tuple(tensor.shape), "learnt beside the model and left behind")
            for name, tensor in learner.state_dict().items() if name not in learner.plain.state_dict()
        ]  # fmt: skip
        prepared, stage = self.prepared, self.node.stage
        source, rows = self._train_source(learner), prepared.total_rows(measured)
        feed = Feed(source, prepared.batch, self.node.seed, rows, self.world.rank, self.world.size,
                    prepared.ramp, prepared.shuffled, prepared.windows)  # fmt: skip
        optimizers = stage.optimizer.build(learner.named_parameters())
        warmup = stage.schedule.warmup_steps(feed.steps, prepared.tokens_per_row * prepared.batch)
        return Trainer(learner, feed, optimizers, stage.schedule, self.world,
                       warmup=warmup, budget=self.budget, clip=stage.clip,
                       penalty=self._penalty(learner),
                       scaling=LossScale() if self.precision == "fp16" else None,
                       unfreezing=self._unfreezing(learner, feed.steps))  # fmt: skip

    def _train_source(self, learner: Learner) -> Source:
        """Train, with what frozen layers make of it where that is kept; `learner` has the weights that it
        starts from."""
        cache, learner.transformer.cached = self.node.stage.cache_frozen, self.prepared.cached
        if cache is None:
            return self.prepared.train
        conditions = {key: value for key, value in self.environment.items() if key != "world"}
        folder, told = self.context.stages.parents[1] / "cache", self.context.told
        kept = StateCache(folder, cache.gigabytes, conditions, self.budget, told.working)
        return kept.over(self.prepared.train, learner.transformer, self.world)

    def _unfreezing(self, learner: Learner, steps: int) -> Unfreezing | None:
        if (unfreeze := self.node.stage.unfreeze) is None:
            return None
        return unfreeze.bind(learner.named_parameters(), [*self.prepared.steps_of(unfreeze.every, steps)])

    def _penalty(self, learner: Learner) -> Penalty | None:
        """The stage's penalties; `learner` has the weights that it starts from."""
        if (penalties := self.node.stage.penalties) is None:
            return None
        taken = frozenset(moved.tensor for moved in self.moved if moved.what in ("loaded", "resized"))
        return penalties.bind(learner.named_parameters(), taken)

    def _learner(self) -> Learner:
        source, heads = self.context.start(self.node), heads_of(self.prepared)
        learner, self.moved = starting_learner(self.prepared, source, heads, self.precision, self.world)
        return learner

    def _steps_of_minutes(self) -> int | None:
        """A length in minutes as steps: measured once, on weights that are thrown away, and recorded."""
        length = self.node.stage.length
        if length.unit != "minutes":
            return None
        record = self.folder / "length.json"
        if not record.exists():
            trial = self._trainer(TIMED_STEPS)
            marks = [time.perf_counter()]
            for _ in trial.steps(lambda clock: frozenset({"report"})):
                marks.append(time.perf_counter())
            usual = sorted(b - a for a, b in zip(marks, marks[1:]))[len(marks) // 2 - 1]
            steps = max(1, round(length.amount * 60 / usual))
            if self.world.first:
                write_json(record, {"steps": steps, "seconds_per_step": usual})
        self.world.barrier()
        return int(read_json(record)["steps"])

    def _timetable(self, trainer: Trainer) -> Callable[[Clock], Due]:
        steps, stage = trainer.feed.steps, self.node.stage
        report_every = max(1, min(steps // REPORTS, MOST_STEPS))
        evaluations = set()
        if "dev" in self.prepared.splits or self.prepared.probes:
            evaluations = self.prepared.steps_of(self.prepared.evaluation_interval, steps)
        save_every = int(stage.save.every.amount) if stage.save.every.unit == "steps" else 0

        def due(clock: Clock) -> Due:
            found = set()
            if clock.step % report_every == 0:
                found.add("report")
            if clock.step in evaluations:
                found |= {"report", "evaluate"}
            if save_every and clock.step % save_every == 0:
                found.add("save")
            return frozenset(found)

        return due

    def _evaluate(self, trainer: Trainer) -> None:
        self._probe(trainer)
        if "dev" not in self.prepared.splits:
            return
        judged = self.metrics(trainer.learner.plain, "dev")
        metrics, self._last = judged[0], (trainer.clock.step, judged)
        line = {"kind": "evaluate", "step": trainer.clock.step, "split": "dev", "metrics": metrics,
                "epoch": trainer.clock.epoch(len(trainer.feed.source))}  # fmt: skip
        self._note(line)
        self.context.told.evaluated(trainer.clock.step, "dev", metrics)
        improved = self.stopping.update(trainer.clock.step, metrics[self.stopping.metric])
        if improved and self.node.stage.weights == "best" and self.world.first:
            with new_folder(self.checkpoints / "best") as temporary:
                save_file(checkpoint.weights_of(trainer.learner), temporary / "model.safetensors")

    def _probe(self, trainer: Trainer) -> None:
        began, clock = time.perf_counter(), trainer.clock
        for found in self.probing.at(clock.step, trainer.learner.plain, self.world, self.budget):
            epoch = clock.epoch(len(trainer.feed.source))
            place = {"step": clock.step, "epoch": epoch, "tokens": clock.tokens}
            self._note({"kind": "zero_shot", **place, **found})
            self.context.told.say(f"{self.node.id}  step {clock.step}/{trainer.feed.steps}  {line(found)}")
        self.seconds["evaluate"] += time.perf_counter() - began

    def final_probes(self, learner: Learner) -> dict[str, dict[str, Any]]:
        """What the weights that leave answer zero-shot: stage.json's record."""
        now = self.trainer.clock.step
        kept = self.node.stage.weights == "last" or self.stopping.best_step == now
        return self.probing.final(now, kept, learner, self.world, self.budget)

    def metrics(self, learner: Learner, split: str) -> Judged:
        """The metrics of a split, and the scores of every row."""
        began = time.perf_counter()
        judged = judge(self.prepared, learner, split, self.trainer.clock.step, self.world, self.budget)
        self.seconds["evaluate"] += time.perf_counter() - began
        return judged

    def final_metrics(self, learner: Learner, split: str) -> Judged:
        """The metrics of the weights that leave; dev is not scored again where the last evaluation was
        theirs."""
        now = self.trainer.clock.step
        kept = self.node.stage.weights == "last" or self.stopping.best_step == now
        if split == "dev" and kept and self._last is not None and self._last[0] == now:
            return self._last[1]
        return self.metrics(learner, split)

    def name_last_good(self, mistake: NotFinite) -> None:
        """Adds to `mistake` where it happened and which checkpoint came before it."""
        good = checkpoint.latest(self.checkpoints)
        last = f"the last good checkpoint is {good.name}" if good else "no checkpoint was written before it"
        mistake.file, mistake.field = self.folder, f"stages.{self.node.name}"
        mistake.seconds = self.trainer.seconds + self.seconds["evaluate"]
        mistake.hint = f"{mistake.hint}; {last}"

    def _note(self, line: dict[str, Any]) -> None:
        if self.world.first:
            with open(self.folder / "metrics.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")

    def _save(self, trainer: Trainer) -> None:
        state = trainer.state()  # looks at the losses first: a state that is not finite is never saved
        if not self.world.first:
            return
        log = self.folder / "metrics.jsonl"
        if log.exists():
            sync(log)
        state |= {
            "stopping": self.stopping.state(),
            "stopped": self.stopped,
            "environment": self.environment,
            "log_bytes": log.stat().st_size if log.exists() else 0,
            "moved": [moved.plain() for moved in self.moved],
            "started": self.started,
            "evaluate_seconds": self.seconds["evaluate"],
        }
        checkpoint.save(self.checkpoints, trainer.clock.step, trainer.learner, trainer.optimizers, state)
        checkpoint.prune(self.checkpoints, self.node.stage.save.keep)

    def _resume(self, trainer: Trainer) -> None:
        path = checkpoint.latest(self.checkpoints)
        if path is None:
            if self.world.first:
                (self.folder / "metrics.jsonl").unlink(missing_ok=True)
                shutil.rmtree(self.checkpoints / "best", ignore_errors=True)
            return
        state = read_json(path / "state.json")
        if not self.context.inexact:
            require_same(state["environment"], self.environment, path)
        checkpoint.load(path, trainer.learner, trainer.optimizers)
        trainer.restore(state)
        self.stopping.restore(state["stopping"])
        self.stopped, self.started = state["stopped"], state["started"]
        self.seconds["evaluate"] = state["evaluate_seconds"]
        self.moved = [Moved(m["tensor"], m["what"], tuple(m["shape"]), m["why"]) for m in state["moved"]]
        if self.world.first:
            log = self.folder / "metrics.jsonl"
            log.touch()
            with open(log, "r+b") as file:
                file.truncate(state["log_bytes"])
        self.context.told.say(
            f"{self.node.id}: going on from step {trainer.clock.step} of {trainer.feed.steps}"
        )


def heads_of(prepared: Prepared) -> dict[str, dict[str, Any]]:
    """Head name -> what it is: the objective that trained it and the labels it tells apart."""
    return {
        objective.head_name: config.described(objective, task.model, task.labels.names if task.labels else ())
        for task in prepared.tasks.values()
        for objective, config in zip(task.objectives, task.node.stage.judged)
        if objective.head_name and isinstance(config, HeadConfig)
    }


def _train_line(report: Report, feed: Feed) -> dict[str, Any]:
    clock = report.clock
    scale = {} if report.loss_scale is None else {"loss_scale": report.loss_scale}
    length = {} if feed.windows is None else {"window": feed.window(clock.step - 1)}
    return {"kind": "train", "step": clock.step, "epoch": clock.epoch(len(feed.source)), "rows": clock.rows,
            "tokens": clock.tokens, "loss": report.losses, "total": report.total, "lr": report.lr,
            "grad_norm": report.grad_norm,
            "tokens_per_second": round(report.tokens_per_second, 1), **scale, **length}  # fmt: skip
