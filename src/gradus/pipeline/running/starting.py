"""What a stage starts with: a learner, and for every tensor where it came from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from gradus.distributed.precision import DTYPES
from gradus.distributed.world import World
from gradus.families.folder import read_folder
from gradus.nn.transformer import Transformer
from gradus.pipeline.planning.prepared import Prepared
from gradus.training.learner import Learner
from gradus.training.transfer import Moved, fitting_heads, transfer


def starting_learner(
    prepared: Prepared, source: Path | None, heads: Mapping[str, Any], precision: str, world: World
) -> tuple[Learner, list[Moved]]:
    """The learner with the weights of the model folder `source`, or from scratch where it is None, and the
    table of all tensors; `heads` says of each of its heads what it is."""
    stage, seed = prepared.node.stage, prepared.node.seed
    transformer = Transformer(prepared.model, DTYPES[precision], device=world.device)
    learner = Learner(transformer, prepared.objectives).initialise(seed)
    if source is not None:
        start = read_folder(source)
        tensors: Mapping[str, torch.Tensor] = start.tensors
        copied: dict[str, Moved] = {}
        if stage.grow is not None:
            tensors, copied = stage.grow.tensors(tensors, start.config.layers)
        fitting = fitting_heads(heads, (start.card or {}).get("heads", {}))
        moved = transfer(learner, tensors, fitting, str(source), stage.transfer)
        moved = [copied.get(one.tensor, one) for one in moved]
    else:
        moved = [Moved(name, "new", tuple(tensor.shape), "from scratch")
                 for name, tensor in learner.state_dict().items()]  # fmt: skip
    added = learner.lighten(stage.adapters, stage.freeze or (), seed)
    shapes: dict[str, torch.Size] = {name: one.shape for name, one in learner.named_parameters()}
    moved += [Moved(name, "new", tuple(shapes[name]), "an adapter") for name in added]
    return learner.to(world.device), moved
