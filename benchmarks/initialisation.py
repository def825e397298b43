"""Why a transformer needs a warm-up: states and gradients at the start, and the loss with and without.

    python benchmarks/initialisation.py docs/initialisation.png      # about ten minutes on two cores

A decoder of 12 layers x 96 on the documentation that comes with Python, norm after or before. Above: root
mean squares of the states and of the gradient of each layer's `feed_forward.up` at the start, for four
initialisations. Below: training loss with Adam at two rates, with a warm-up of 100 steps and with none.
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path

import numpy as np
import torch

from gradus.core.example import ragged
from gradus.core.model import ModelConfig
from gradus.data.builtin import builtin_text
from gradus.data.feed import Feed
from gradus.data.sources import HeldTokens, Windows
from gradus.distributed.world import World
from gradus.nn.transformer import Transformer
from gradus.objectives import CausalLMConfig, Task
from gradus.optim.optimizers import Adam
from gradus.optim.schedules import Constant
from gradus.tokenizers import BytePairTokenizer, Tokenizer
from gradus.training.learner import Learner
from gradus.training.trainer import Trainer

LAYERS, WIDTH, CONTEXT, WINDOWS, STEPS, WARM_UP = 12, 96, 64, 16, 300, 100
RATES = 1e-3, 3e-3
KINDS, NORMS = ("normal", "residual", "xavier", "fan_in"), ("after", "before")


def model(tokenizer: Tokenizer, norm: str, kind: str = "normal") -> ModelConfig:
    return ModelConfig.model_validate(
        {"layers": LAYERS, "width": WIDTH, "heads": 4, "context": CONTEXT, "vocab_size": tokenizer.size,
         "dropout": 0.0, "norm": norm, "initialisation": kind}
    )  # fmt: skip


def scales(text: HeldTokens, config: ModelConfig) -> tuple[list[float], list[float]]:
    """Root mean squares at the start: of the states that leave each layer, and of each layer's gradient."""
    transformer, states = Transformer(config).initialise(1), []
    for block in transformer.blocks:
        block.register_forward_hook(
            lambda _, __, found: states.append(float(found.detach().square().mean().sqrt()))
        )
    windows = [text.read(start, start + CONTEXT + 1) for start in range(0, 16 * CONTEXT, CONTEXT)]
    value = torch.from_numpy(np.concatenate([window[1:] for window in windows]))
    found = transformer(ragged([window[:-1] for window in windows]))
    (transformer.token_loss(found, value, torch.ones(len(value))) / len(value)).backward()
    return states, [rms(block.feed_forward.up.weight.grad) for block in transformer.blocks]


def rms(tensor: torch.Tensor) -> float:
    """The root mean square."""
    return float(tensor.square().mean().sqrt())


def losses(text: HeldTokens, config: ModelConfig, rate: float, warmup: int) -> list[float]:
    """The loss of every step, in nats a token; cut where it is no number any more."""
    learner = Learner(Transformer(config), [CausalLMConfig().build(Task(config, "pretrain"))]).initialise(1)
    feed = Feed(Windows(text, CONTEXT), WINDOWS, 1, WINDOWS * STEPS)
    trainer = Trainer(learner, feed, Adam(lr=rate).build(learner.named_parameters()), Constant(), World(),
                      warmup=warmup, budget=1 << 20, clip=None)  # fmt: skip
    return [report.total for report in trainer.steps(lambda clock: frozenset({"report"}))]


def draw(found: dict, file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, ((left, right), below) = pyplot.subplots(2, 2, figsize=(10, 7.2), layout="constrained")
    for place, kind in enumerate(KINDS):
        for norm, style in zip(NORMS, ("-", "--")):
            states, gradients = found["scales"][f"{norm} {kind}"]
            for axis, values in ((left, states), (right, gradients)):
                axis.semilogy(range(1, LAYERS + 1), values, style, color=f"C{place}", label=f"{kind}, {norm}")
    left.set(title="states at the start", xlabel="layer", ylabel="root mean square")
    right.set(title="gradients at the start", xlabel="layer")
    left.legend(fontsize=7, ncols=2)
    for norm, axis in zip(NORMS, below):
        for (place, rate), warmup in product(enumerate(RATES), (WARM_UP, 0)):
            curve = np.convolve(found["losses"][norm, rate, warmup], np.ones(10) / 10, "valid")
            label, style = f"rate {rate:g}, warm-up {warmup}", "-" if warmup else ":"
            axis.plot(range(10, len(curve) + 10), curve, style, color=f"C{place}", label=label)
        axis.set(title=f"training loss, norm {norm}", xlabel="step", ylabel="nats a token")
        axis.legend(fontsize=8)
    figure.savefig(file, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("picture", type=Path)
    options = parser.parse_args()
    texts = [passage[0] for passage in builtin_text("python_docs", "train")]
    tokenizer = BytePairTokenizer(vocab_size=2048).build(texts)
    text = HeldTokens(np.concatenate(tokenizer.encode(texts)).astype(np.int64))
    found: dict = {"scales": {}, "losses": {}}
    for norm, kind in product(NORMS, KINDS):
        found["scales"][f"{norm} {kind}"] = scales(text, model(tokenizer, norm, kind))
    for norm, rate, warmup in product(NORMS, RATES, (WARM_UP, 0)):
        curve = found["losses"][norm, rate, warmup] = losses(text, model(tokenizer, norm), rate, warmup)
        last = np.mean(curve[-20:])
        print(f"norm {norm}, rate {rate:g}, warm-up {warmup}: loss {last:.3f} over the last 20", flush=True)
    print(
        json.dumps(
            {name: [f"{values[0]:.2e}", f"{values[-1]:.2e}"] for name, (_, values) in found["scales"].items()}
        )
    )
    draw(found, options.picture)


if __name__ == "__main__":
    main()
