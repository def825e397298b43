"""What each optimizer keeps: bytes of its state for a model of 4 layers x 256, measured after a step.

python benchmarks/optimizers.py        # a few seconds; the table of docs/recipe.md
"""

from __future__ import annotations

import torch

from gradus.core.model import ModelConfig
from gradus.families import preset
from gradus.nn.transformer import Transformer
from gradus.optim.optimizers import SGD, AdaFactor, AdamW, Muon

KINDS = {
    "`sgd`": SGD(lr=1.0), "`sgd` with momentum": SGD(lr=1.0, momentum=0.9), "`adafactor`": AdaFactor(),
    "`muon`": Muon(lr=1e-3), "`adam`, `adamw`": AdamW(),
}  # fmt: skip


def main() -> None:
    model = Transformer(ModelConfig.model_validate(preset("gpt1-mini") | {"vocab_size": 8192}))
    weights = sum(parameter.nbytes for parameter in model.parameters())
    print(
        f"weights {weights / 1e6:.1f} MB, gradients as much\n\n"
        "| optimizer | MB | bytes a weight |\n|---|---:|---:|"
    )
    for name, config in KINDS.items():
        optimizers = config.build(model.named_parameters())
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter)
        for optimizer in optimizers:
            optimizer.step()
        states = [state for optimizer in optimizers for state in optimizer.state.values()]
        size = sum(tensor.nbytes for state in states for tensor in state.values() if tensor is not None)
        print(f"| {name} | {size / 1e6:.2f} | {4 * size / weights:.2f} |")


if __name__ == "__main__":
    main()
