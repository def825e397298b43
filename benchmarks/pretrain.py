"""Pre-training speed beside Hugging Face's Trainer: same shape, same batch, same dropout, same machine, in
turn.

    python benchmarks/pretrain.py                     # about five minutes on two cores
    python benchmarks/pretrain.py --rounds 5 --export benchmarks/results/pretrain.json

4 layers x 256, 4 heads, context 256, vocabulary 8192, 16 windows of 256 tokens a step, dropout 0.1 of all
three kinds, AdamW, gradients clipped at 1.0. Every side runs in a process of its own, sides take turns, and
what is told is the median over rounds of 4096 tokens over the median step. The peer is GPT2LMHeadModel
(Hugging Face's GPT-1 has the slower attention) under `Trainer`, in the fastest of its settings on this
machine: bf16 or fp32, SDPA or eager attention, tried first. It is shown with the allocator its users have
and with the settings that Gradus' command makes. Matrix rates are measured in the same turns.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from typing import Any

import common
from common import HEADS, LAYERS, VOCABULARY, WIDTH

CONTEXT, WINDOWS = 256, 16
TOKENS = WINDOWS * CONTEXT
WARM_UP = 4
"""Steps that are not timed: kernels are built and memory is found."""

OURS = {"gradus bf16": ["gradus", "bf16"], "gradus fp32": ["gradus", "fp32"]}
PEERS = {f"peer {precision} {attention}": ["peer", precision, attention]
         for precision in ("bf16", "fp32") for attention in ("sdpa", "eager")}  # fmt: skip


def gradus(precision: str, steps: int) -> list[float]:
    """Seconds of each timed step of our own Trainer."""
    import numpy as np
    import torch

    from gradus.core.allocator import keep_memory
    from gradus.core.model import ModelConfig
    from gradus.data.feed import Feed
    from gradus.data.sources import Windows
    from gradus.distributed.world import World
    from gradus.nn.transformer import Transformer
    from gradus.objectives import CausalLMConfig, Task
    from gradus.optim.optimizers import AdamW
    from gradus.optim.schedules import Cosine
    from gradus.training.learner import Learner
    from gradus.training.trainer import Trainer

    class Text:
        """Made-up running text of one document."""

        total = TOKENS * (steps + WARM_UP) + 1
        documents = np.array([0, total])
        ids = np.random.default_rng(0).integers(0, VOCABULARY, total)

        def read(self, start: int, stop: int) -> np.ndarray:
            return self.ids[start:stop]

    keep_memory()
    model = ModelConfig(layers=LAYERS, width=WIDTH, heads=HEADS, context=CONTEXT, vocab_size=VOCABULARY)
    transformer = Transformer(model, {"bf16": torch.bfloat16, "fp32": torch.float32}[precision])
    learner = Learner(transformer, [CausalLMConfig().build(Task(model, "pretrain"))]).initialise(1)
    feed = Feed(Windows(Text(), CONTEXT), WINDOWS, 1, WINDOWS * (steps + WARM_UP))
    optimizer = AdamW().build(learner.named_parameters())
    trainer = Trainer(learner, feed, optimizer, Cosine(), World(), warmup=2, budget=4 * TOKENS)
    marks = [time.perf_counter() for _ in trainer.steps(lambda clock: frozenset({"tick"}))]
    return [after - before for before, after in zip(marks[WARM_UP - 1 :], marks[WARM_UP:])]


def peer(precision: str, attention: str, steps: int, keeps: bool) -> list[float]:
    """Seconds of each timed step of Hugging Face's Trainer; `keeps` gives it our allocator settings."""
    import torch
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer

    if keeps:
        from gradus.core.allocator import keep_memory

        keep_memory()
    marks, watch = common.step_marks()

    config = GPT2Config(
        n_layer=LAYERS, n_embd=WIDTH, n_head=HEADS, n_positions=CONTEXT, vocab_size=VOCABULARY,
        bos_token_id=0, eos_token_id=0,
    )  # fmt: skip
    model = GPT2LMHeadModel._from_config(config, attn_implementation=attention)
    windows = torch.randint(0, VOCABULARY, (WINDOWS * (steps + WARM_UP), CONTEXT))
    rows = [{"input_ids": window, "labels": window} for window in windows]
    with tempfile.TemporaryDirectory() as folder:
        arguments = common.peer_arguments(folder, WINDOWS, steps + WARM_UP, precision)
        Trainer(model, arguments, train_dataset=rows, callbacks=[watch]).train()
    return [after - before for before, after in zip(marks[WARM_UP - 1 :], marks[WARM_UP:])]


def run_side(arguments: list[str], steps: int) -> list[float]:
    what, precision, *rest = arguments
    if what == "gradus":
        return gradus(precision, steps)
    if what == "rate":
        return common.matrix_rate(precision)
    return peer(precision, rest[0], steps, "keep" in rest)


def compare(rounds: int, steps: int) -> dict[str, Any]:
    """All sides in turn, `rounds` times."""
    tried = common.tried(__file__, PEERS, TOKENS, steps)
    best = max(tried, key=lambda name: tried[name])
    sides = {**OURS, best: PEERS[best], f"{best}, our allocator": [*PEERS[best], "keep"]}
    found = common.turns(__file__, sides, TOKENS, rounds, steps)
    return {**found, "peer_settings_tried": tried, "peer": best}


def table(found: dict[str, Any]) -> list[str]:
    """The result as lines: tokens a second, the ratio to the peer, the share of the matrix rate."""
    from gradus.core.model import ModelConfig

    model = ModelConfig(layers=LAYERS, width=WIDTH, heads=HEADS, context=CONTEXT, vocab_size=VOCABULARY)
    rates = {key: statistics.median(values) for key, values in found["matrix_rate"].items()}
    base = statistics.median(found["tokens_per_second"][found["peer"]])
    lines = [common.heading(found, rates)]
    for name, values in found["tokens_per_second"].items():
        middle = statistics.median(values)
        used = middle * model.flops_per_token(CONTEXT) / rates["bf16" if "bf16" in name else "fp32"]
        spread = f"{min(values):.0f} to {max(values):.0f}"
        lines.append(f"{name:36} {middle:7.0f} tokens/s  ({spread})  {middle / base:4.2f} x peer  "
                     f"{used:4.0%} of the matrix rate")  # fmt: skip
    return lines


if __name__ == "__main__":
    common.main(__doc__, run_side, compare, table, steps=15)
