"""What a person sees while a run goes on: a live line in a terminal, plain lines elsewhere (rich)."""

from __future__ import annotations

import time

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

from gradus.training.trainer import Report

PLAIN_SECONDS = 10.0
"""At most one plain line in this many seconds; evaluations are always told."""


class Told:
    """Speaks for one run. A rank that is not the first is silent."""

    def __init__(self, console: Console | None = None, silent: bool = False):
        self.console = console or Console(stderr=True, highlight=False, soft_wrap=True)
        self.silent = silent
        self._live: Progress | None = None
        self._task: TaskID | None = None
        self._name, self._steps, self._last = "", 0, 0.0

    def say(self, line: str) -> None:
        """One line that stays."""
        if not self.silent:
            self.console.print(line, markup=False)

    def working(self, what: str, done: int, total: int | None) -> None:
        """Long work outside training; told now and then. `done` counts bytes or characters."""
        if self.silent or time.monotonic() - self._last < (
            0.5 if self.console.is_terminal else PLAIN_SECONDS
        ):
            return
        self._last = time.monotonic()
        share = f"{done / total:.0%}" if total else f"{done / 1e6:.1f} MB" if done else "..."
        end = "\r" if self.console.is_terminal else "\n"
        self.console.print(f"{what} {share}", end=end, markup=False)

    def begin(self, name: str, steps: int, done: int) -> None:
        """A stage begins to train, `done` of its steps behind it."""
        self._name, self._steps, self._last = name, steps, 0.0
        if self.silent or not self.console.is_terminal:
            return
        self._live = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[told]}"), TimeRemainingColumn(), console=self.console, transient=True,
        )  # fmt: skip
        self._live.start()
        self._task = self._live.add_task(name, total=steps, completed=done, told="")

    def report(self, report: Report, seconds_left: float) -> None:
        """Where training stands."""
        if self.silent:
            return
        losses = "  ".join(f"{name} {value:.4f}" for name, value in report.losses.items())
        told = f"{losses}  lr {report.lr:.2e}  {report.tokens_per_second:,.0f} tokens/s"
        if self._live is not None and self._task is not None:
            self._live.update(self._task, completed=report.clock.step, told=told)
        elif time.monotonic() - self._last >= PLAIN_SECONDS or "end" in report.due:
            self._last = time.monotonic()
            left = time.strftime("%H:%M:%S", time.gmtime(seconds_left))
            self.say(f"{self._name}  step {report.clock.step}/{self._steps}  {told}  left {left}")

    def evaluated(self, step: int, split: str, metrics: dict[str, float]) -> None:
        """What an evaluation found."""
        shown = "  ".join(f"{name} {value:.4f}" for name, value in metrics.items() if "." not in name)
        self.say(f"{self._name}  step {step}/{self._steps}  {split}: {shown}")

    def end(self) -> None:
        """The stage has trained."""
        if self._live is not None:
            self._live.stop()
        self._live = self._task = None
