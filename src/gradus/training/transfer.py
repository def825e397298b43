"""Moving weights from one stage to the next: every tensor is loaded, new, dropped or resized, or it is an
error."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Any, Literal

import torch
from pydantic import Field

from gradus.core.config import Config
from gradus.core.errors import UserError
from gradus.training.learner import Learner

TOKEN_TABLES = ("transformer.embedding.tokens.weight", "transformer.unembedding.weight")
"""The tensors whose rows are tokens: they alone may grow, when special tokens join the vocabulary."""

NOT_TRANSFERRED = "not transferred"


class FirstLayers(Config):
    """`{layers: N}`: the embeddings of tokens and positions and the first N layers (GPT-1, section 5 and
    figure 2 left; 0 is the embeddings alone)."""

    layers: int = Field(ge=0)


class ChosenLayers(Config):
    """`{layers: [0, 2]}`: all but the other layers; the model then has these, in this order (DistilBERT, Sanh
    et al. 2019, section 3: "taking one layer out of two")."""

    layers: list[Annotated[int, Field(ge=0)]] = Field(min_length=1)


Transferred = Literal["all", "word vectors"] | FirstLayers | ChosenLayers
"""What a stage takes of the weights that it starts from. `word vectors` are the token embedding and so, where
it is tied, the output. Heads, a final norm and an output embedding of its own come with `all` and with chosen
layers only."""
BLOCK = re.compile(r"\bblocks\.(\d+)\.")


def takes(transferred: Transferred, name: str) -> bool:
    """Whether the tensor of this name (a learner's) is among what is transferred."""
    if transferred == "all" or isinstance(transferred, ChosenLayers):
        return True
    if name == TOKEN_TABLES[0]:
        return True
    if isinstance(transferred, FirstLayers):
        part = name.removeprefix("transformer.").split(".")
        if part[0] == "blocks":
            return int(part[1]) < transferred.layers
        return name.startswith("transformer.embedding.")
    return False


@dataclass(frozen=True)
class Moved:
    """What became of one tensor."""

    tensor: str
    what: Literal["loaded", "new", "dropped", "resized"]
    shape: tuple[int, ...]
    why: str = ""

    def plain(self) -> dict[str, Any]:
        return {"tensor": self.tensor, "what": self.what, "shape": list(self.shape), "why": self.why}


def fitting_heads(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, str]:
    """Our head -> theirs that is equal in all that is said of it, each once: the one of the same name, else
    the first that is left."""
    found = {name: name for name, kind in ours.items() if theirs.get(name) == kind}
    for name, kind in ours.items():
        left = [other for other, own in theirs.items() if own == kind and other not in found.values()]
        if name not in found and left:
            found[name] = left[0]
    return found


def transfer(
    learner: Learner,
    tensors: Mapping[str, torch.Tensor],
    heads: Mapping[str, str],
    source: str,
    transferred: Transferred = "all",
) -> list[Moved]:
    """Loads `tensors` (our names) into `learner` and returns the table of all tensors on both sides.

    `heads` maps the learner's head names to those of `tensors` that hold the same objective and labels; any
    other head is new here and dropped there. So is what `transferred` leaves out: a tensor that is on both
    sides then stands in the table twice. Raises UserError for a transformer tensor that is missing or
    misshapen.
    """
    table: list[Moved] = []
    left = dict(tensors)
    own = dict(learner.state_dict())
    for name, tensor in own.items():
        origin, shape = _origin(name, heads, transferred), tuple(tensor.shape)
        if origin is None or origin not in tensors:
            if not name.startswith("heads."):
                raise UserError("the starting weights lack a tensor", file=source, text=name)
            table.append(
                Moved(name, "new", shape, "no head of this shape with this objective and these labels")
            )
        elif takes(transferred, name):
            left.pop(origin, None)  # a layer may be chosen twice
            moved = _load(name, tensor, tensors[origin], source)
            renamed = name.removeprefix("transformer.") != origin
            table.append(replace(moved, why=f"there {origin}") if renamed else moved)
        else:
            table.append(Moved(name, "new", shape, NOT_TRANSFERRED))
    for origin, value in left.items():
        name, why = (origin, "this stage has no such head")
        if not origin.startswith("heads."):
            name, why = f"transformer.{origin}", NOT_TRANSFERRED
            if name not in own and not (isinstance(transferred, ChosenLayers) and BLOCK.search(origin)):
                problem = "the starting weights have a tensor that this model has no place for"
                raise UserError(problem, file=source, text=origin)
        elif origin.split(".")[1] in heads.values():
            why = NOT_TRANSFERRED
        table.append(Moved(name, "dropped", tuple(value.shape), why))
    return sorted(table, key=lambda moved: (moved.tensor, moved.what))


def _origin(name: str, heads: Mapping[str, str], transferred: Transferred) -> str | None:
    if not name.startswith("heads."):
        name = name.removeprefix("transformer.")
        if isinstance(transferred, ChosenLayers):
            return BLOCK.sub(lambda block: f"blocks.{transferred.layers[int(block[1])]}.", name)
        return name
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
