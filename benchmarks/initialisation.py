"""Why a transformer needs a warm-up: states and gradients at the start, and the loss with and without.

    python benchmarks/initialisation.py docs/initialisation.png      # about ten minutes on two cores

A decoder of 12 layers x 96 on the documentation that comes with Python, norm after or before. Above: root
mean squares of the states and of the gradient of each layer's `feed_forward.up` at the start, for four
initialisations. Below: training loss with Adam at two rates, with a warm-up of 100 steps and with none, and
the gradients that are left when those 300 steps are over.
"""

from __future__ import annotations

import argparse
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

LAYERS, WIDTH, CONTEXT, WINDOWS, STEPS, WARM_UP, EARLY = 12, 96, 64, 16, 300, 100, 20
RATES = 1e-3, 3e-3
KINDS, NORMS = ("normal", "residual", "xavier", "fan_in"), ("after", "before")


def model(tokenizer: Tokenizer, norm: str, kind: str = "normal") -> ModelConfig:
    return ModelConfig.model_validate(
        {"layers": LAYERS, "width": WIDTH, "heads": 4, "context": CONTEXT, "vocab_size": tokenizer.size,
         "dropout": 0.0, "norm": norm, "initialisation": kind}
    )  # fmt: skip


def scales(text: HeldTokens, transformer: Transformer) -> tuple[list[float], list[float], list[float]]:
    """Root mean squares: of the states that leave each layer, of each layer's gradient, and of what each of
    the layers' norms is given."""
    states: list[float] = []
    given: list[float] = []
    transformer.zero_grad()
    hooks: list = []
    for block in transformer.blocks:
        hooks.append(block.register_forward_hook(lambda _, __, found: states.append(rms(found.detach()))))
        hooks += [norm.register_forward_pre_hook(lambda _, read: given.append(rms(read[0].detach())))
                  for norm in (block.attention_norm, block.feed_forward_norm)]  # fmt: skip
    windows = [text.read(start, start + CONTEXT + 1) for start in range(0, 16 * CONTEXT, CONTEXT)]
    value = torch.from_numpy(np.concatenate([window[1:] for window in windows]))
    found = transformer(ragged([window[:-1] for window in windows]))
    (transformer.token_loss(found, value, torch.ones(len(value))) / len(value)).backward()
    for hook in hooks:
        hook.remove()
    gradients = [rms(block.feed_forward.up.weight.grad) for block in transformer.blocks]
    transformer.zero_grad()
    return states, gradients, given


def rms(tensor: torch.Tensor) -> float:
    """The root mean square."""
    return float(tensor.square().mean().sqrt())


def trained(
    text: HeldTokens, config: ModelConfig, rate: float, warmup: int
) -> tuple[list[float], list[float]]:
    """The loss of every step, in nats a token, and the gradient of each layer after the last. Prints what the
    layers look like after EARLY steps."""
    learner = Learner(Transformer(config), [CausalLMConfig().build(Task(config, "pretrain"))]).initialise(1)
    feed = Feed(Windows(text, CONTEXT), WINDOWS, 1, WINDOWS * STEPS)
    trainer = Trainer(learner, feed, Adam(lr=rate).build(learner.named_parameters()), Constant(), World(),
                      warmup=warmup, budget=1 << 20, clip=None)  # fmt: skip
    losses = []
    for report in trainer.steps(lambda clock: frozenset({"report"})):
        losses.append(report.total)
        if report.clock.step == EARLY:
            _, gradients, given = scales(text, learner.transformer)
            told = f"{min(given[1:]):.2f} to {max(given):.2f}, in a product {np.prod(given[1:]):.2g}"
            print(f"after {EARLY} steps: gradient {ends(gradients)}; norms are given states of {told}")
    return losses, scales(text, learner.transformer)[1]


def ends(gradients: list[float]) -> str:
    return f"{gradients[0]:.1e} in the first layer, {gradients[-1]:.1e} in the last"


def draw(found: dict, file: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, rows = pyplot.subplots(3, 2, figsize=(10, 10.5), layout="constrained")
    layers = range(1, LAYERS + 1)
    for place, kind in enumerate(KINDS):
        for norm, style in zip(NORMS, ("-", "--")):
            for axis, values in zip(rows[0], found["scales"][norm, kind]):
                axis.semilogy(layers, values, style, color=f"C{place}", label=f"{kind}, {norm}")
    rows[0, 0].set(title="states at the start", xlabel="layer", ylabel="root mean square")
    rows[0, 1].set(title="gradients at the start", xlabel="layer")
    rows[0, 0].legend(fontsize=7, ncols=2)
    for (column, norm), (place, rate), warmup in product(enumerate(NORMS), enumerate(RATES), (WARM_UP, 0)):
        losses, gradients = found["trained"][norm, rate, warmup]
        look = {
            "ls": "-" if warmup else ":",
            "color": f"C{place}",
            "label": f"rate {rate:g}, warm-up {warmup}",
        }
        rows[1, column].plot(range(10, STEPS + 1), np.convolve(losses, np.ones(10) / 10, "valid"), **look)
        rows[1, column].set(title=f"training loss, norm {norm}", xlabel="step", ylabel="nats a token")
        rows[2, column].semilogy(layers, gradients, **look)
        rows[2, column].set(title=f"gradients after {STEPS} steps, norm {norm}", xlabel="layer")
    rows[1, 0].legend(fontsize=8)
    figure.savefig(file, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("picture", type=Path)
    options = parser.parse_args()
    texts = [passage[0] for passage in builtin_text("python_docs", "train")]
    tokenizer = BytePairTokenizer(vocab_size=2048).build(texts)
    text = HeldTokens(np.concatenate(tokenizer.encode(texts)).astype(np.int64))
    shares = np.unique(text.ids, return_counts=True)[1] / text.total
    print(f"tokens without any context: {-(shares * np.log(shares)).sum():.3f} nats")
    found: dict = {"scales": {}, "trained": {}}
    for norm, kind in product(NORMS, KINDS):
        states, gradients, _ = scales(text, Transformer(model(tokenizer, norm, kind)).initialise(1))
        found["scales"][norm, kind] = states, gradients
        print(f"norm {norm}, {kind}: gradient {ends(gradients)}")
    for norm, rate, warmup in product(NORMS, RATES, (WARM_UP, 0)):
        losses, gradients = trained(text, model(tokenizer, norm), rate, warmup)
        found["trained"][norm, rate, warmup] = losses, gradients
        told = f"loss {np.mean(losses[-20:]):.3f} over the last 20 steps, gradient {ends(gradients)}"
        print(f"norm {norm}, rate {rate:g}, warm-up {warmup}: {told}", flush=True)
    draw(found, options.picture)


if __name__ == "__main__":
    main()
