"""What the bits of a run depend on besides its recipe: threads, libraries, device, precision, world."""

from __future__ import annotations

import platform
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from types import FrameType
from typing import Any

import torch

from gradus.core.errors import UserError
from gradus.distributed.world import World
from gradus.training.trainer import Trainer


def environment(world: World, precision: str) -> dict[str, Any]:
    """Recorded with every checkpoint; an exact resume needs the same."""
    name = torch.cuda.get_device_name(world.device) if world.device.type == "cuda" else platform.machine()
    return {
        "threads": torch.get_num_threads(),
        "device": f"{world.device.type} {name}",
        "precision": precision,
        "world": world.size,
        "torch": torch.__version__,
        "gradus": version("gradus-lm"),
    }


def require_same(then: dict[str, Any], now: dict[str, Any], checkpoint: object) -> None:
    """Raises UserError where a resume would not give the same bits."""
    changed = [f"{key} {then.get(key)} -> {value}" for key, value in now.items() if then.get(key) != value]
    if changed:
        raise UserError(
            "this checkpoint was written under other conditions, so resuming would not be exact",
            file=str(checkpoint),
            text=", ".join(changed),
            hint="restore them, --resume-inexact goes on all the same, --fresh starts the stage again",
        )


class Interrupted(BaseException):
    """A signal asked the run to stop; the state is saved."""


class Signals:
    """SIGINT and SIGTERM: while a trainer works they ask it to save and stop, elsewhere they stop at once.

    Outside training there is nothing to save: caches and folders are whole or not there.
    """

    def __init__(self) -> None:
        self.trainer: Trainer | None = None
        self._asked = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.trainer is None or self._asked:
            raise Interrupted
        self._asked = self.trainer.stop_asked = True

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Handles both signals inside the block, if this is the main thread."""
        before: dict[signal.Signals, Any] = {}
        try:
            for number in (signal.SIGINT, signal.SIGTERM):
                before[number] = signal.signal(number, self._handle)
        except ValueError:
            pass  # not the main thread: the caller's own handlers stay
        try:
            yield
        finally:
            for watched, handler in before.items():
                signal.signal(watched, handler)
