"""Iterate: strategies in order, each on top of those that were kept, each kept if dev gains more than chance.

A step is kept where the mean over seeds of its paired differences on dev is above their sample deviation;
with one seed, which has no deviation, above 0. Every decision follows from finished stages, so a run that was
killed decides again alike; iterate.json tells the story and is written whole after every step.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

from gradus.core.errors import UserError
from gradus.core.storage import write_json
from gradus.evaluation.statistics import deviation, mean
from gradus.pipeline.loops.attempts import Attempt, Attempts
from gradus.pipeline.planning.plan import Plan
from gradus.pipeline.recipes.loop import AS_WRITTEN, Goal, Iterate, Patch, merged
from gradus.training.trainer import NotFinite

FILE = "iterate.json"


class Iterating:
    """The steps in their run folder."""

    def __init__(self, iterate: Iterate, goal: Goal, written: Plan, attempts: Attempts, folder: Path):
        self.iterate, self.goal, self.attempts = iterate, goal, attempts
        self.file, self.path = written.file, folder / FILE
        self.context = attempts.runner.context
        self.steps: list[dict[str, Any]] = []

    def plain(self) -> dict[str, Any]:
        """What plan.json tells."""
        return {"file": FILE, "metric": str(self.goal), "until": self.iterate.until,
                "minutes": self.iterate.minutes, "try": self.iterate.order}  # fmt: skip

    def run(self, base: Patch) -> dict[str, Any]:
        """Tries the strategies on top of `base`; returns the patch of all that was kept."""
        kept = dict(base)
        standing = self._attempt(kept, AS_WRITTEN)
        self._note(AS_WRITTEN, kept, standing, [], True)
        for name in self.iterate.order:
            if self._over(standing):
                break
            patch = merged(kept, self.file.recipe.variants[name])
            try:
                attempt = self._attempt(patch, name)
            except NotFinite as mistake:
                self._note(name, patch, None, [], False, mistake.problem)
                continue
            except UserError as mistake:  # it can be by itself, and not on top of what was kept
                if mistake.file != self.file.path:
                    raise
                self._note(name, patch, None, [], False, str(mistake))
                continue
            gains = self._gains(attempt, standing)
            keep = mean(gains) > (deviation(gains) or 0.0)
            self._note(name, patch, attempt, gains, keep)
            if keep:
                kept, standing = patch, attempt
        if self.context.world.first:
            write_json(
                self.path, {"steps": self.steps, "over": self._over(standing) or "every step was tried"}
            )
        return kept

    def _attempt(self, patch: Patch, name: str) -> Attempt:
        source = f"variants.{name}" if name != AS_WRITTEN else "iterate"
        plan = self.attempts.plan(patch, name, source, self.file.recipe.seeds.count)
        self.attempts.prove(plan)
        return self.attempts.run(plan)

    def _gains(self, new: Attempt, old: Attempt) -> list[float]:
        """How much better each seed is; a side that has one folder for all seeds is held against each."""
        pairs = max(len(new.values), len(old.values))
        ours, theirs = (one.values * (pairs if len(one.values) == 1 else 1) for one in (new, old))
        return [self.goal.gain(a, b) for a, b in zip(ours, theirs)]

    def _over(self, standing: Attempt) -> str | None:
        spent = sum(step["seconds"] for step in self.steps[1:])
        return self.iterate.over(self.goal, mean(standing.values), spent)

    def _note(
        self, name: str, patch: Patch, attempt: Attempt | None, gains: list[float], kept: bool,
        problem: str | None = None,
    ) -> None:  # fmt: skip
        nothing = Attempt([], [], [], 0.0)
        told = {"variant": name, "patch": dict(patch), "kept": kept, "gains": gains, "problem": problem}
        self.steps.append(told | asdict(attempt or nothing))
        if self.context.world.first:
            write_json(self.path, {"steps": self.steps, "over": None})
        self.context.told.say(f"iterate: {name}: {self._said(attempt, gains, kept, problem)}")

    def _said(self, attempt: Attempt | None, gains: list[float], kept: bool, problem: str | None) -> str:
        if attempt is None:
            return f"dropped: {problem}"
        said = f"{self.goal.metric} {_spread(attempt.values)}"
        ended = "kept" if kept else "dropped"
        return f"{said}, gain {_spread(gains, '+')}: {ended} ({attempt.seconds:.0f} s)" if gains else said


def _spread(values: list[float], sign: str = "") -> str:
    spread = deviation(values)
    return f"{mean(values):{sign}.4f}" + (f" ± {spread:.4f}" if spread is not None else "")
