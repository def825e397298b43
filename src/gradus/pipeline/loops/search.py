"""The search: trials one after the other, each a patch judged on dev, until the target or the budget is met.

    while target and budget are not met:
        the next patch, a function of (seed, the history of trials)             proposals.py
        run its stages as far as the goal; what other trials have is there      attempts.py
        give it up where its evaluations leave no hope
        write the history, whole

search-FINGERPRINT.jsonl, a line a trial, is the only state: a search that was killed goes on with the same
trials and the same bits, and the trial under way from its checkpoint.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from gradus.core.errors import UserError
from gradus.core.patches import short_names, short_value
from gradus.core.storage import digest_json, read_lines, write_lines
from gradus.pipeline.loops.attempts import Attempts, reports
from gradus.pipeline.loops.proposals import Proposal, Proposals
from gradus.pipeline.planning.plan import Plan
from gradus.pipeline.recipes.loop import Goal, Search
from gradus.pipeline.recipes.reading import RecipeFile
from gradus.pipeline.running.finish import is_done
from gradus.pipeline.running.stage import StageRun
from gradus.training.trainer import NotFinite


class Hopeless(Exception):
    """A trial is given up; `seconds` is what its last stage took."""

    def __init__(self, seconds: float):
        super().__init__()
        self.seconds = seconds


class Searching:
    """A search in its run folder."""

    def __init__(self, search: Search, goal: Goal, written: Plan, attempts: Attempts, folder: Path):
        self.search, self.goal, self.attempts = search, goal, attempts
        self.context = attempts.runner.context
        recipe = written.file.recipe
        base = written.nodes[written.outcomes[0]["stages"][goal.stage]].fingerprint
        space = {path: one.plain() for path, one in search.space.items()}
        self.path = folder / f"search-{digest_json([base, str(goal), space, search.prune])[:8]}.jsonl"
        self.names = short_names(list(search.space))
        self.proposals = Proposals(search, recipe.seed, _values(written.file, search))
        self.history: list[dict[str, Any]] = []

    def plain(self) -> dict[str, Any]:
        """What plan.json tells."""
        space = {path: str(one) for path, one in self.search.space.items()}
        return {"file": self.path.name, "metric": str(self.goal), "until": self.search.until, "space": space,
                "trials": self.search.trials, "minutes": self.search.minutes}  # fmt: skip

    def run(self) -> dict[str, Any]:
        """Tries until it is over; returns the best patch."""
        self.history = self.context.world.gather(self._read())[0]
        for line in self.history:
            self.attempts.paid.update(line["stages"].values())
            self._clear(line)
        while not (why := self.over()):
            line = self._try(self.proposals.ask(self.history))
            self.history.append(line)
            if self.context.world.first:
                write_lines(self.path, self.history)
                self._clear(line)
            self.context.world.barrier()
            self.context.told.say(self.told(line))
        best = self.best()
        self.context.told.say(f"search: {why}" + (f"; {self.told(best)}" if best else ""))
        return best["patch"] if best else {}

    def best(self) -> dict[str, Any] | None:
        """The trial with the best value, of equal ones the first."""
        best = None
        for line in self.history:
            if line["state"] == "done" and (best is None or self.goal.gain(line["value"], best["value"]) > 0):
                best = line
        return best

    def over(self) -> str | None:
        """Why nothing more is tried; None where something is."""
        best = self.best()
        spent = sum(line["seconds"] for line in self.history[1:])  # the first is the recipe as written
        why = self.search.over(self.goal, best["value"] if best else None, spent)
        tried = len(self.history)
        return why or (f"{tried} trials are done" if tried >= self.search.trials else None)

    def told(self, line: dict[str, Any]) -> str:
        """One trial and the best so far, in a line."""
        tried = ", ".join(f"{self.names[path]} {short_value(value)}" for path, value in line["patch"].items())
        ended = f"{self.goal.metric} {line['value']:.4f}" if line["state"] == "done" else line["state"]
        if line["state"] == "pruned":
            ended += f" after {len(line['reports'])} evaluations at {line['reports'][-1]:.4f}"
        best = self.best()
        beside = f"; best {best['value']:.4f} (trial {best['trial']})" if best and best is not line else ""
        ended += f": {line['problem']}" if line["problem"] else ""
        where = f"trial {line['trial']} of {self.search.trials}"
        return f"{where}: {tried or 'as written'}: {ended} in {line['seconds']:.0f} s{beside}"

    def _try(self, asked: Proposal) -> dict[str, Any]:
        number = len(self.history) + 1
        try:
            plan = self.attempts.plan(asked.patch, f"trial {number}", "search.space", seeds=1)
            self.attempts.prove(plan)
        except UserError as mistake:  # each end of the space is legal, and together they are not
            if not asked.patch or mistake.file != self.attempts.file.path:
                raise
            return {"trial": number, "patch": asked.patch, "state": "failed", "value": None, "reports": [],
                    "seconds": 0.0, "stages": {}, "problem": str(mistake)}  # fmt: skip
        (stages,) = (outcome["stages"] for outcome in plan.outcomes)
        needed = {node.name: node.id for node in self.attempts.nodes(plan)}
        goal = self.context.folder(stages[self.goal.stage])

        def watch(run: StageRun) -> None:
            if run.folder != goal or not asked.patch:  # the recipe as written is what others are judged by
                return
            hopeless = run.world.first and asked.hopeless(reports(goal, self.goal.metric))
            if run.world.gather(hopeless)[0]:
                raise Hopeless(run.trainer.seconds + run.seconds["evaluate"])

        state, value, problem, extra = "done", None, None, 0.0
        try:
            attempt = self.attempts.run(plan, watch=watch)
            value, extra = attempt.values[0], attempt.seconds
        except Hopeless as given_up:
            state, extra = "pruned", given_up.seconds + self.attempts.pay(needed.values())
        except NotFinite as mistake:
            state, problem = "failed", mistake.problem
            extra = mistake.seconds + self.attempts.pay(needed.values())
        found = reports(goal, self.goal.metric)
        return {"trial": number, "patch": asked.patch, "state": state, "value": value, "reports": found,
                "seconds": round(extra, 3), "stages": needed, "problem": problem}  # fmt: skip

    def _clear(self, line: dict[str, Any]) -> None:
        """A stage that was given up takes no room."""
        for id in line["stages"].values() if self.context.world.first else ():
            if not is_done(folder := self.context.folder(id)):
                shutil.rmtree(folder, ignore_errors=True)

    def _read(self) -> list[dict[str, Any]]:
        return [] if self.attempts.runner.fresh else read_lines(self.path)


def _values(file: RecipeFile, search: Search) -> dict[str, Any]:
    """What the recipe as written has at each path of the space; None where it says nothing, or no choice."""
    found, plain = {}, file.patched({}, "search.space")
    for path, dimension in search.space.items():
        value: Any = plain.model_dump(mode="json", by_alias=True)
        for key in path.split("."):
            value = value.get(key) if isinstance(value, dict) else None
        if dimension.choices is not None:  # compared with their defaults filled in
            same = (one for one in dimension.choices if file.patched({path: one}, "search.space") == plain)
            value = next(same, None)
        found[path] = value
    return found
