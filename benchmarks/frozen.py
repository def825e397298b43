"""What a frozen body saves: seconds and memory of a step in full, with frozen layers, and with their states
kept.

    python benchmarks/frozen.py          # about a minute a core

4 layers x 256, 4 heads, vocabulary 8192, 32 rows of 64 tokens a step, classification, dropout 0.1, AdamW. The
frozen sides learn the head and the last layer alone. Sides take turns, each in a process of its own; seconds
are medians over the steps of the second epoch on and over rounds, memory is the peak of the process above
what it held before the model was made. Making the states is told beside, in seconds.
"""

from __future__ import annotations

import resource
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import common
from common import HEADS, LAYERS, VOCABULARY, WIDTH

ROWS, BATCH, TOKENS = 256, 32, 64
BODY = ["transformer.embedding.*", *(f"transformer.blocks.{layer}.*" for layer in range(LAYERS - 1))]
SIDES = {"all learns": "full", "body frozen": "frozen", "body frozen, states kept": "cached"}


def run_side(arguments: list[str], steps: int) -> list[float]:
    """Seconds of each step after the first epoch, then peak megabytes, then seconds that making states
    took."""
    import numpy as np
    import torch

    from gradus.core.example import Example
    from gradus.core.keyed import keyed_generator
    from gradus.core.model import ModelConfig
    from gradus.data.feed import Feed
    from gradus.data.sources import Rows, Source
    from gradus.distributed.precision import DTYPES, resolve
    from gradus.distributed.world import World
    from gradus.nn.transformer import Transformer
    from gradus.objectives import ClassificationConfig, Task
    from gradus.optim.optimizers import AdamW
    from gradus.optim.schedules import Cosine
    from gradus.training.frozen import StateCache, frozen_layers
    from gradus.training.learner import Learner
    from gradus.training.trainer import Trainer

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    world, kind = World(), arguments[0]
    draw = keyed_generator("frozen")
    rows = [Example(row, (draw.integers(0, VOCABULARY, TOKENS),), label=row % 2) for row in range(ROWS)]
    source: Source = Rows(rows, [str(row) for row in range(ROWS)])
    shape = ModelConfig(layers=LAYERS, width=WIDTH, heads=HEADS, context=TOKENS, vocab_size=VOCABULARY)
    objective = ClassificationConfig().build(Task(shape, "task", ("a", "b")))
    precision = resolve("auto", torch.device("cpu"))
    learner = Learner(Transformer(shape, DTYPES[precision]), [objective]).initialise(1)
    learner.lighten(None, [] if kind == "full" else BODY, 1)
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        if kind == "cached":
            learner.transformer.cached = frozen_layers(learner.transformer, LAYERS)
            source = StateCache(Path(folder), 1.0, {}, 8192).over(source, learner.transformer, world)
        made = time.perf_counter() - began
        epoch = ROWS // BATCH
        feed = Feed(source, BATCH, 1, (steps + epoch) * BATCH)
        optimizers = AdamW().build(learner.named_parameters())
        trainer = Trainer(learner, feed, optimizers, Cosine(), world, warmup=1, budget=8192)
        marks = [time.perf_counter() for _ in trainer.steps(lambda clock: frozenset({"report"}))]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return [*np.diff(marks)[epoch - 1 :].tolist(), peak * 1024 / 1e6, made]


def compare(rounds: int, steps: int) -> common.Found:
    """All sides in turn."""
    found: dict[str, list[Any]] = {name: [] for name in SIDES}
    for number in range(rounds):
        for name, kind in SIDES.items():
            *seconds, peak, made = common.side(__file__, [kind], steps)
            found[name].append([statistics.median(seconds), peak, made])
            print(f"round {number + 1}  {name:26} {1e3 * found[name][-1][0]:7.1f} ms a step", flush=True)
    return {"machine": common.machine(), "sides": found}


def table(found: common.Found) -> list[str]:
    """Medians over the rounds, beside the side in which all learns."""
    medians = {name: [statistics.median(column) for column in zip(*rounds)]
               for name, rounds in found["sides"].items()}  # fmt: skip
    whole = next(iter(medians.values()))[0]
    cpu = found["machine"]
    lines = [f"{cpu['cpu']}, {cpu['threads']} threads, torch {cpu['torch']}", "",
             "| side | ms a step | beside all | MB at most | s to make states |",
             "|---|---:|---:|---:|---:|"]  # fmt: skip
    return lines + [
        f"| {name} | {1e3 * seconds:.1f} | {seconds / whole:.2f} | {peak:.0f} | {made:.2f} |"
        for name, (seconds, peak, made) in medians.items()
    ]


if __name__ == "__main__":
    common.main(__doc__, run_side, compare, table, steps=24)
