"""The start of every tensor: a function of the seed and the tensor's name, and of nothing else.

So a new head moves no other tensor, and two models that share a name and a shape share that start. How wide
the numbers of a matrix are drawn is `ModelConfig.initialisation`:

    normal      N(0, initial_deviation) (GPT-1, section 4.1; BERT)
    residual    the same, and what writes into the residual sum divided by the root of the number of its
                branches, 2 a layer (GPT-2, section 2.3: "1/sqrt(N) where N is the number of residual layers")
    depth       the same with the number of layers, as some retellings read that sentence
    xavier      sqrt(2 / (inputs + outputs)) (Glorot and Bengio 2010, equation 16, as a normal)
    kaiming     sqrt(2 / inputs), which keeps the scale through ReLU (He et al. 2015, equation 10)
    fan_in      1 / sqrt(inputs) (LeCun et al. 1998, section 4.6)
    t5          a scale for each matrix, as released: queries 1/sqrt(width x head width), other matrices
                1/sqrt(inputs), token embedding 1

All but t5 draw embeddings and heads with `initial_deviation`. Linear biases begin at 0, gains at 1. Where
`tuned_width` is given, the layers' matrices of normal, residual and depth shrink as 1/sqrt(inputs).
"""

from __future__ import annotations

import math
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from gradus.core.keyed import keyed_hash
from gradus.core.model import ModelConfig

Scale = float | Tensor
"""A standard deviation, or one for each row [rows, 1]."""

INTO_RESIDUAL = (".attention.output.weight", ".cross_attention.output.weight", ".feed_forward.down.weight")


@runtime_checkable
class StartsItself(Protocol):
    """A module that changes its parameters once they are drawn."""

    def start(self) -> None: ...


def initialise(module: nn.Module, seed: int, config: ModelConfig, prefix: str = "") -> None:
    """Fills `module` in place: matrices as `config.initialisation` says, biases 0, gains 1.

    A part may have a `deviation` of its own, and a method `start` that is called at the end. `prefix` stands
    before the module's own names ("heads.sst." for a head). Numbers are drawn on the CPU in fp32 whatever
    the device and precision.
    """
    with torch.no_grad():
        for path, part in module.named_modules(prefix=prefix.removesuffix(".")):
            own = getattr(part, "deviation", None)
            for name, parameter in part.named_parameters(prefix=path, recurse=False):
                if parameter.dim() > 1:
                    generator = torch.Generator().manual_seed(keyed_hash("initialisation", seed, name))
                    drawn = torch.empty(parameter.shape).normal_(generator=generator)
                    parameter.copy_(drawn.mul_(own or scale(name, parameter.shape, config)))
                else:
                    parameter.fill_(0.0 if name.endswith("bias") else 1.0)
        for part in module.modules():
            if isinstance(part, StartsItself):
                part.start()


def scale(name: str, shape: torch.Size, config: ModelConfig) -> Scale:
    """The standard deviation of a matrix [outputs, inputs] of this name at its start."""
    inner = "blocks." in name
    kind = config.initialisation
    usual = config.initial_deviation / (math.sqrt(config.widening) if inner else 1)
    if kind == "t5":
        return _t5(name, shape, config)
    if kind in ("residual", "depth"):
        branches = {"residual": 3 if config.encodes_and_decodes and "encoder." not in name else 2, "depth": 1}
        return usual / math.sqrt(branches[kind] * config.layers) if name.endswith(INTO_RESIDUAL) else usual
    if kind == "normal" or not inner:
        return usual
    outputs, inputs = _one_matrix(name, shape, config)
    return {
        "xavier": math.sqrt(2 / (inputs + outputs)),
        "kaiming": math.sqrt(2 / inputs),
        "fan_in": 1 / math.sqrt(inputs),
    }[kind]


def _one_matrix(name: str, shape: torch.Size, config: ModelConfig) -> tuple[int, int]:
    """(outputs, inputs) of the matrix; of the queries' where several are fused."""
    fused = name.endswith(("query_key_value.weight", "key_value.weight"))
    return (config.heads * config.channels if fused else shape[0]), shape[1]


def _t5(name: str, shape: torch.Size, config: ModelConfig) -> Scale:
    """The scales of Mesh TensorFlow's T5 (Raffel et al. 2020, section 3.1.1, as released): they stand for the
    missing 1/sqrt(head width) of the scores. An output of its own is one of the other matrices, as in the
    released code; transformers gives it 1, with which the first loss is width / 2 nats."""
    width = config.width**-0.5
    if name.endswith("embedding.tokens.weight"):
        return 1.0
    if name.endswith("cross_attention.query.weight"):
        return width * config.channels**-0.5
    if name.endswith("attention.query_key_value.weight"):
        rows = torch.full((shape[0], 1), width)
        rows[: config.heads * config.channels] *= config.channels**-0.5
        return rows
    if name.endswith("relative.weight"):
        return width
    return shape[1] ** -0.5
