"""What a stage will take, from counted quantities alone: shapes, tokens, threads, device and total memory."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch

from gradus.data.feed import step_bounds
from gradus.distributed.precision import DTYPES
from gradus.nn.transformer import count_parameters
from gradus.objectives import HeadConfig, MaskedLMConfig, ObjectiveConfig
from gradus.pipeline.planning.effort import effort, reach
from gradus.pipeline.planning.prepared import Prepared
from gradus.training.budget import activation_bytes, budget_tokens

BASE_BYTES = 900 << 20
"""A process with torch, the reading of data and what floors and metrics import, before any weight."""
EFFICIENCY = {"cpu": 0.35, "cuda": 0.35, "mps": 0.25}
"""The share of the measured matrix rate that training reaches (benchmarks/pretrain.py measures it)."""
NOMINAL_STEPS = 1000
"""What a length in minutes is thought of until it is measured, where shares of it matter."""
LOGIT_BYTES = {"cpu": 64 << 20, "cuda": 320 << 20, "mps": 320 << 20}
"""What a chunk of logits takes while its loss and gradients are computed (nn/losses.py)."""


def disk_bytes(prepared: Prepared) -> int:
    """What a stage writes at most: checkpoints of weights and optimizer, the model folder, token shards."""
    parameters, kept = _parameters(prepared), _kept(prepared)
    disk = 4 * (parameters + kept) * (prepared.node.stage.save.keep + 1) + 8 * parameters
    disk += prepared.states_bytes
    return disk + sum(store.total * 2 for part in prepared.splits.values() for store in part.stores)


def _parameters(prepared: Prepared) -> int:
    return sum(shape.numel() for shape in prepared.shapes.values())


def _kept(prepared: Prepared) -> int:
    """Numbers that the optimizer keeps."""
    optimizer = prepared.node.stage.optimizer
    return sum(optimizer.numbers(name, shape) for name, shape in prepared.learning.items())


@dataclass(frozen=True)
class Estimate:
    """One stage's needs: steps, tokens it will see, FLOPs, bytes of memory and disk, seconds."""

    steps: int
    tokens: int
    parameters: int
    flops: float
    memory: int
    disk: int
    seconds: float


def chain_bytes(prepared: Prepared, tokens: int) -> int:
    """What a CRF holds of a micro-batch: of each tag of each word sums, gradients and what they are made of,
    and of the pairs of tags at one word of every row three times their number. Of several tasks the most, as
    if all rows were its own."""
    if prepared.members:
        return max(chain_bytes(task, tokens) for task in prepared.members.values())
    if prepared.labels is None or not any(
        isinstance(one, HeadConfig) and one.chained for one in prepared.node.stage.judged
    ):
        return 0
    tags, rows = len(prepared.labels.names), tokens / prepared.tokens_per_row
    return int(4 * tags * (8 * tokens + 3 * rows * tags))


def _scored(objective: ObjectiveConfig) -> float:
    """The share of positions that an objective sends to the vocabulary."""
    if isinstance(objective, MaskedLMConfig):
        return objective.share
    return 1.0 if objective.measure == "tokens" else 0.0


def matrix_rate(device: torch.device, precision: str) -> float:
    """FLOP/s of a product of 1024-row matrices on this device, the best of several: what training can hope
    for."""
    dtype = DTYPES[precision]
    left, right = (torch.randn(1024, 1024, device=device, dtype=dtype) for _ in range(2))
    best = float("inf")
    for _ in range(12):
        began = time.perf_counter()
        left @ right
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - began)
    return 2 * 1024**3 / best


def estimate(prepared: Prepared, precision: str, device: torch.device, rate: float) -> Estimate:
    """What training `prepared` takes at a matrix rate of `rate` FLOP/s; a length in minutes is taken at its
    word."""
    model = prepared.model
    parameters = _parameters(prepared)
    scored = max(_scored(objective) for objective in prepared.node.stage.judged)
    seen = min(model.context, prepared.tokens_per_row)
    if (grows := prepared.node.stage.window_ramp) is not None:
        seen = grows.mean(seen)
    whole = model.flops_per_token(seen, scored)
    teaching = sum(one.flops_per_token(seen, scored) / 3 for one in prepared.teachers)
    beside = teaching if prepared.live else 0
    speed = rate * EFFICIENCY[device.type]
    length = prepared.node.stage.length
    if length.unit == "minutes":
        seconds = length.amount * 60
        per_token = whole * effort(prepared, seen, scored, NOMINAL_STEPS) + beside
        tokens = int(seconds * speed / per_token)
        steps = max(1, round(tokens / (prepared.tokens_per_row * prepared.batch)))
    else:
        rows = prepared.total_rows()
        tokens = round(rows * prepared.tokens_per_row)
        steps = -(-rows // prepared.batch)
        if prepared.ramp is not None:
            steps = len(step_bounds(rows, prepared.batch, prepared.ramp)) - 1
        per_token = whole * effort(prepared, seen, scored, steps) + beside
        seconds = tokens * per_token / speed
    once = prepared.train.tokens * model.flops_per_token(seen, 0) / 3 * prepared.cached / model.layers
    seconds += once / speed
    evaluated = sum(part.counts["tokens"] for name, part in prepared.splits.items() if name == "dev")
    evaluated += sum(probe.tokens for probe in prepared.probes)
    times = len(prepared.steps_of(prepared.evaluation_interval, steps)) + 1
    seconds += evaluated * times * whole / 3 / speed
    if prepared.node.kind == "rows":  # every row is told once
        seconds += prepared.train.tokens * teaching / speed
    copies = 2 * parameters if DTYPES[precision].itemsize == 2 else 0
    step_tokens = min(
        budget_tokens(model, precision, device), round(prepared.tokens_per_row * prepared.batch)
    )
    held = [task.splits for task in prepared.tasks.values() if not task.splits["train"].stores]
    rows_held = sum(part.counts["tokens"] * 24 for splits in held for part in splits.values())
    gradients = 4 * sum(shape.numel() for shape in prepared.learning.values())
    weights = 4 * parameters + gradients + 4 * _kept(prepared) + copies
    weights += sum(4 * count_parameters(one) for one in prepared.teachers)
    kept = reach(model, prepared.shapes, prepared.learning) / model.layers  # from forward to backward
    memory = BASE_BYTES + weights + int(step_tokens * activation_bytes(model, precision) * kept) + rows_held
    memory += chain_bytes(prepared, step_tokens)
    memory += LOGIT_BYTES[device.type] + 4 * (model.vocab_size or 0) * model.width
    disk = disk_bytes(prepared)
    return Estimate(steps, tokens, parameters, tokens * per_token + once, int(memory), disk, seconds)
