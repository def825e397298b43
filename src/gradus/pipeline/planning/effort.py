"""The work of a training step where not all of a model learns, as a share of that where all does.

A whole step is three forwards: one, one back to the states, one to the weights (Kaplan et al. 2020, 2.1).
What is frozen gets no gradient, below the lowest that learns none goes back, and what is cached is not
computed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import torch

from gradus.core.model import ModelConfig
from gradus.optim.groups import BLOCK, depths
from gradus.pipeline.planning.prepared import Prepared

OUTPUTS = ("transformer.unembedding.weight", "transformer.embedding.tokens.weight")
"""The tables that score the vocabulary: of its own, or tied."""


def effort(prepared: Prepared, seen: float, scored: float, steps: int) -> float:
    """The share of `prepared`, over all of its steps; see `ModelConfig.flops_per_token` for the rest."""
    return sum(
        share * work(prepared.model, prepared.shapes, learning, seen, scored, prepared.cached)
        for share, learning in phases(prepared, steps)
    )


def phases(prepared: Prepared, steps: int) -> Iterator[tuple[float, Collection[str]]]:
    """What learns, for which share of the steps: all that ever does, or by gradual unfreezing."""
    if (unfreeze := prepared.node.stage.unfreeze) is None:
        yield 1.0, prepared.learning.keys()
        return
    depth_of = depths(list(prepared.learning))
    ends = sorted(prepared.steps_of(unfreeze.every, steps))
    for place, (start, end) in enumerate(zip([0, *ends], ends)):
        opened = (place + 1) * unfreeze.layers
        yield (end - start) / steps, [name for name, depth in depth_of.items() if depth < opened]


def reach(model: ModelConfig, names: Collection[str], learning: Collection[str]) -> int:
    """Through how many layers, from the top, gradients go back."""
    depth_of = depths(list(names))
    inner = [name for name in learning if BLOCK.match(name) or "embedding." in name]
    return max((min(depth_of[name] + 1, model.layers) for name in inner), default=0)


def work(
    model: ModelConfig,
    shapes: Mapping[str, torch.Size],
    learning: Collection[str],
    seen: float,
    scored: float,
    cached: int = 0,
) -> float:
    """The share of one step, of whose parameters (`shapes`) those named in `learning` learn and whose lowest
    `cached` layers are not computed."""
    layer = model.flops_per_token(seen, 0) / 3 / model.layers
    vocabulary = model.flops_per_token(seen, scored) / 3 - layer * model.layers
    sizes = {name: shape.numel() for name, shape in shapes.items() if BLOCK.match(name)}
    weights = sum(sizes[name] for name in learning if name in sizes) / sum(sizes.values())
    output = next(name for name in OUTPUTS if name in shapes)
    below = any(name.startswith("transformer.") and name != output for name in learning)
    back = reach(model, shapes, learning)
    done = layer * (model.layers * (1 + weights) - cached + back)
    done += vocabulary * (1 + below + (output in learning))
    return done / (3 * (layer * model.layers + vocabulary))
