"""What a search tries next and what it gives up: Optuna's sampler and pruner, over a history that is ours.

The study lives in memory and is told anew from the history for every trial; the sampler draws from (seed,
number of the trial). So the history is the only state, and the same history goes on in the same way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gradus.core.keyed import keyed_hash
from gradus.core.libraries import versions
from gradus.pipeline.recipes.loop import Dimension, Search

LIBRARY = "optuna"
STATES = {"done": "COMPLETE", "pruned": "PRUNED", "failed": "FAIL"}
"""How a trial ended, here and in Optuna."""


def require_library() -> None:
    """Raises UserError where Optuna is missing."""
    versions([LIBRARY], "search", "search", field="search")


class Proposals:
    """The trials of one search. `written` holds the recipe's own values by path, those of the first trial."""

    def __init__(self, search: Search, seed: int, written: Mapping[str, Any]):
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna, self._search, self._seed, self._written = optuna, search, seed, written
        self._distributions = {path: self._distribution(one) for path, one in search.space.items()}

    def ask(self, history: Sequence[Mapping[str, Any]]) -> Proposal:
        """The next trial after those of `history`."""
        optuna = self._optuna
        seed = keyed_hash("search", self._seed, len(history)) % 2**32
        median = self._search.prune == "median"
        study = optuna.create_study(
            direction="maximize" if self._search.goal.larger else "minimize",
            sampler=optuna.samplers.TPESampler(seed=seed),
            pruner=optuna.pruners.MedianPruner() if median else optuna.pruners.NopPruner(),
        )
        for line in history:
            self._tell(study, line)
        trial = study.ask(self._distributions)
        patch = {path: self._value(path, number) for path, number in trial.params.items()}
        return Proposal(patch if history else {}, trial)

    def _tell(self, study: Any, line: Mapping[str, Any]) -> None:
        """A trial whose values lie in the space joins the study; the recipe as written may lie outside."""
        values = line["patch"] or self._written
        params = {path: self._number(path, values.get(path)) for path in self._search.space}
        if None in params.values():
            return
        state = self._optuna.trial.TrialState[STATES[line["state"]]]
        trial = self._optuna.trial.create_trial(
            state=state, params=params, distributions=self._distributions,
            value=line["value"] if line["state"] == "done" else None,
            intermediate_values=dict(enumerate(line["reports"])),
        )  # fmt: skip
        study.add_trial(trial)

    def _distribution(self, one: Dimension) -> Any:
        known = self._optuna.distributions
        if one.choices is not None:  # their places: a choice may be a list or a mapping
            return known.CategoricalDistribution(range(len(one.choices)))
        if one.integers is not None:
            return known.IntDistribution(*one.integers)
        return known.FloatDistribution(*one.ends, log=one.log is not None)

    def _value(self, path: str, number: Any) -> Any:
        choices = self._search.space[path].choices
        return number if choices is None else choices[number]

    def _number(self, path: str, value: Any) -> Any:
        """What Optuna calls a value; None where it is not in the space."""
        one = self._search.space[path]
        if one.choices is not None:
            return next((place for place, choice in enumerate(one.choices) if choice == value), None)
        known = isinstance(value, int | float) and one.ends[0] <= value <= one.ends[1]
        return value if known else None


class Proposal:
    """One trial: its patch, and whether what it has reported leaves hope."""

    def __init__(self, patch: dict[str, Any], trial: Any):
        self.patch, self._trial, self._told = patch, trial, 0

    def hopeless(self, reported: Sequence[float]) -> bool:
        """Whether the trial is to end; `reported` are its evaluations so far."""
        for step, value in list(enumerate(reported))[self._told :]:
            self._trial.report(value, step)
        self._told = len(reported)
        return bool(self._trial.should_prune())
