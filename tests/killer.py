"""Runs a recipe in child processes that die, or get a signal: at the n-th event of a kind, or after a time.

The heavy modules are imported once, in the parent, which never computes; every life is a fork. An event is a
step, an evaluated batch, an encoded text, a synced file, a renamed file or a stage made ready.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import scipy.stats  # noqa: F401  a life should not spend its time on imports
import sklearn.metrics  # noqa: F401
import torch
import torch._dynamo

import gradus.pipeline.running.runner as runner
from gradus.pipeline.run import run
from gradus.pipeline.running.environment import Interrupted
from gradus.tokenizers import Tokenizer
from gradus.training import budget
from gradus.training.learner import Learner
from gradus.training.trainer import Trainer

seen: Counter[str] = Counter()
deadly: tuple[str, int] = ("", 0)
blow: int = signal.SIGKILL


def watched(kind: str, function: Callable) -> Callable:
    """The function, dying before the n-th call where the life says so (or receiving its signal)."""

    def call(*args: object, **options: object) -> object:
        seen[kind] += 1
        if (kind, seen[kind]) == deadly:
            os.kill(os.getpid(), blow)
        return function(*args, **options)

    return call


def arm() -> None:
    """Puts the events in place. A micro-batch is made small, so that every step accumulates."""
    budget.MOST_TOKENS["cpu"] = 96
    Trainer._step = watched("step", Trainer._step)
    Learner.predict = watched("evaluate", Learner.predict)
    Tokenizer.encode = watched("tokenise", Tokenizer.encode)
    os.fsync = watched("sync", os.fsync)
    os.rename = watched("rename", os.rename)
    os.replace = watched("rename", os.replace)
    runner.prepare = watched("prepare", runner.prepare)


def live(recipe: str, runs: str, life: dict) -> int:
    """One life in a child: returns its exit status, or minus the signal that killed it."""
    child = os.fork()
    if child == 0:
        _live(recipe, runs, life)
    if "after" in life:
        time.sleep(life["after"])
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, life.get("signal", signal.SIGKILL))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _live(recipe: str, runs: str, life: dict) -> None:
    global deadly, blow
    status, began = 1, time.monotonic()
    try:
        torch.set_num_threads(1)
        deadly = tuple(life.get("event", ("", 0)))
        blow = life.get("signal", signal.SIGKILL)
        run(recipe, runs=runs, device="cpu")
        status = 0
        told = {"events": seen, "seconds": time.monotonic() - began}
        Path(runs, "events.json").write_text(json.dumps(told))
    except Interrupted:
        status = 3
    finally:
        os._exit(status)


if __name__ == "__main__":
    # arguments: recipe, runs, lives (JSON); prints the exit status of each life
    arm()
    sys.stderr = open(os.devnull, "w") if "--quiet" in sys.argv else sys.stderr
    print(json.dumps([live(sys.argv[1], sys.argv[2], life) for life in json.loads(sys.argv[3])]))
