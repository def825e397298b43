"""Moving weights from one stage to the next: every tensor is loaded, new, dropped or resized, or it is an
error."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch

from gradus.core.errors import UserError
from gradus.training.learner import Learner

TOKEN_TABLES = ("transformer.embedding.tokens.weight", "transformer.unembedding.weight")
"""The tensors whose rows are tokens: they alone may grow, when special tokens join the vocabulary."""


@dataclass(frozen=True)
class Moved:
    """What became of one tensor."""

    tensor: str
    what: Literal["loaded", "new", "dropped", "resized"]
    shape: tuple[int, ...]
    why: str = ""

    def plain(self) -> dict[str, Any]:
        return {"tensor": self.tensor, "what": self.what, "shape": list(self.shape), "why": self.why}


def transfer(
    learner: Learner, tensors: Mapping[str, torch.Tensor], heads: Mapping[str, str], source: str
) -> list[Moved]:
    """Loads `tensors` (our names) into `learner` and returns the table of all tensors on both sides.

    `heads` maps the learner's head names to those of `tensors` that hold the same objective and labels; any
    other head is new here and dropped there. Raises UserError for a transformer tensor that is missing or
    misshapen.
    """
    table: list[Moved] = []
    used: set[str] = set()
    own = dict(learner.state_dict())
    for name, tensor in own.items():
        origin = _origin(name, heads)
        if origin is None or origin not in tensors:
            if not name.startswith("heads."):
                raise UserError("the starting weights lack a tensor", file=source, text=name)
            table.append(
                Moved(name, "new", tuple(tensor.shape), "no head with this objective and these labels")
            )
            continue
        table.append(_load(name, tensor, tensors[origin], source))
        used.add(origin)
    for name in tensors.keys() - used:
        if not name.startswith("heads."):
            raise UserError(
                "the starting weights have a tensor that this model has no place for", file=source, text=name
            )
        table.append(Moved(name, "dropped", tuple(tensors[name].shape), "this stage has no such head"))
    return sorted(table, key=lambda moved: moved.tensor)


def _origin(name: str, heads: Mapping[str, str]) -> str | None:
    if not name.startswith("heads."):
        return name.removeprefix("transformer.")
    head, rest = name.removeprefix("heads.").split(".", 1)
    return f"heads.{heads[head]}.{rest}" if head in heads else None


def _load(name: str, target: torch.Tensor, value: torch.Tensor, source: str) -> Moved:
    shape = tuple(target.shape)
    with torch.no_grad():
        if value.shape == target.shape:
            target.copy_(value)
            return Moved(name, "loaded", shape)
        if name in TOKEN_TABLES and value.shape[1:] == target.shape[1:] and len(value) < len(target):
            target[: len(value)].copy_(value)
            return Moved(name, "resized", shape, f"{len(target) - len(value)} new tokens beside {len(value)}")
    raise UserError(
        f"the starting weights have the wrong shape for {name}",
        file=source,
        text=str(tuple(value.shape)),
        hint=f"{shape} is wanted",
    )
