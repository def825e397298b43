"""Pre-training speed on a CUDA device, beside the rate of its matrix products.

    python benchmarks/gpu.py                         # a minute
    python benchmarks/gpu.py --profile               # where the time of a small step goes

Two shapes: the 4 x 256 of the other benchmarks, 16 windows of 256 tokens a step, where launching kernels is
what takes time; and GPT-1 as published, 64 windows of 512 tokens and 40,478 tokens of vocabulary, where
products do. bf16, dropout 0.1, AdamW, gradients clipped. Each with kernels that add in one order, as `gradus
run` has them (a resume to the bit needs it), and with those that do not, in turn; medians of three turns.
"""

from __future__ import annotations

import argparse
import statistics
import time

import numpy as np
import torch

from gradus.core.model import ModelConfig
from gradus.data.feed import Feed
from gradus.data.sources import Windows
from gradus.distributed.world import World, require_deterministic_kernels
from gradus.nn.transformer import Transformer
from gradus.objectives import CausalLMConfig, Task
from gradus.optim.optimizers import AdamW
from gradus.optim.schedules import Cosine
from gradus.training.learner import Learner
from gradus.training.trainer import Trainer

DEVICE = torch.device("cuda")
SHAPES = {
    "4 x 256": (ModelConfig(layers=4, width=256, heads=4, context=256, vocab_size=8192), 16),
    "gpt1": (ModelConfig(vocab_size=40_478), 64),
}
WARM_UP, STEPS, TURNS = 6, 20, 3


class Text:
    """Made-up running text of one document."""

    def __init__(self, total: int, vocabulary: int):
        self.total, self.documents = total, np.array([0, total])
        self.ids = np.random.default_rng(0).integers(0, vocabulary, total)

    def read(self, start: int, stop: int) -> np.ndarray:
        return self.ids[start:stop]


def made(model: ModelConfig, windows: int, steps: int) -> Trainer:
    assert model.vocab_size is not None
    text = Text(windows * model.context * steps + 1, model.vocab_size)
    transformer = Transformer(model, torch.bfloat16, device=DEVICE)
    learner = Learner(transformer, [CausalLMConfig().build(Task(model, "pretrain"))]).initialise(1).to(DEVICE)
    feed = Feed(Windows(text, model.context), windows, 1, windows * steps)
    optimizer = AdamW().build(learner.named_parameters())
    return Trainer(learner, feed, optimizer, Cosine(), World(device=DEVICE), warmup=2, budget=65_536)


def seconds(model: ModelConfig, windows: int) -> float:
    """Of a step, over STEPS of them."""
    trainer = made(model, windows, WARM_UP + STEPS)
    for report in trainer.steps(lambda clock: frozenset({"tick"} if clock.step == WARM_UP else ())):
        torch.cuda.synchronize()
        if report.clock.step == WARM_UP:
            began = time.perf_counter()
    return (time.perf_counter() - began) / STEPS


def matrix_rate() -> float:
    """FLOP/s of a product of 8192-row matrices of random numbers."""
    left, right = torch.randn(2, 8192, 8192, device=DEVICE, dtype=torch.bfloat16)
    for _ in range(3):
        left @ right
    torch.cuda.synchronize()
    began = time.perf_counter()
    for _ in range(20):
        left @ right
    torch.cuda.synchronize()
    return 20 * 2 * 8192**3 / (time.perf_counter() - began)


def profile() -> None:
    model, windows = SHAPES["4 x 256"]
    trainer = made(model, windows, WARM_UP + 10)
    steps = trainer.steps(lambda clock: frozenset({"tick"}))
    for _ in range(WARM_UP):
        next(steps)
    kinds = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=kinds) as found:
        for _ in steps:
            pass
        torch.cuda.synchronize()
    print(found.key_averages().table(sort_by="self_cpu_time_total", row_limit=30, max_name_column_width=50))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--profile", action="store_true", help="show where the time of a small step goes")
    options = parser.parse_args()
    require_deterministic_kernels()
    if options.profile:
        profile()
        return
    rate = matrix_rate()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, matrix rate {rate / 1e12:.0f} TFLOP/s")
    for name, (model, windows) in SHAPES.items():
        tokens, times = windows * model.context, {True: [], False: []}
        for _ in range(TURNS):
            for ordered, measured in times.items():
                torch.use_deterministic_algorithms(ordered)
                measured.append(seconds(model, windows))
        for ordered, measured in times.items():
            speed = tokens / statistics.median(measured)
            spread = f"{tokens / max(measured):,.0f} to {tokens / min(measured):,.0f}"
            used = speed * model.flops_per_token(model.context) / rate
            kind = "in one order" if ordered else "in any order"
            print(f"{name:8} sums {kind}  {speed:9,.0f} tokens/s ({spread})  {used:4.0%} of the matrix rate")


if __name__ == "__main__":
    main()
