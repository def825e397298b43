"""Low-rank adapters (Hu et al. 2021): a projection that is frozen, and beside it a narrow way that learns.

Where several projections are one matrix (queries, keys and values), each has an adapter of its own.
Shapes: N tokens, I inputs, O outputs, R rank.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

import torch
from pydantic import Field
from torch import Tensor, nn

from gradus.core.config import Config
from gradus.core.errors import UserError, nearest
from gradus.core.keyed import keyed_hash
from gradus.core.model import ModelConfig
from gradus.nn.layers import Dropout, Linear

FUSED = {"query_key_value": ("query", "key", "value"), "key_value": ("key", "value")}
"""Parts of a matrix in the order of their rows; any other is one part, called as it is itself."""
HOLDERS = ("attention", "cross_attention", "feed_forward")
"""What holds the projections of a layer."""


@dataclass(frozen=True)
class Projection:
    """One that may have an adapter: rows `rows` of the matrix at `path`. `name` is what a recipe calls it."""

    path: str
    part: str
    rows: slice
    shape: tuple[int, int]

    @property
    def name(self) -> str:
        return f"{self.path.rpartition('.')[0]}.{self.part}"

    def called(self, word: str) -> bool:
        """Whether `word` is a pattern of its name or one of the words in it."""
        return fnmatchcase(self.name, word) or word in self.name.split(".")


class Adapters(Config):
    """`W x + alpha / rank * B A x` in place of `W x`; A and B learn (Hu et al. 2021, section 4.1)."""

    rank: int = Field(8, ge=1)
    """Rows of A (table 9: 8 for RoBERTa)."""
    alpha: float = Field(16.0, gt=0)
    """With it and not with the rank the size of what is added goes (table 9: 16 for RoBERTa large)."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """On what A reads."""
    projections: list[str] = Field(["query", "value"], min_length=1)
    """Those that have one, by a word of their names (query, key, value, output, feed_forward) or a
    pattern of the whole name (section 7.1: queries and values do best for their size)."""

    @property
    def scale(self) -> float:
        return self.alpha / self.rank

    def add_to(self, module: nn.Module, model: ModelConfig, seed: int) -> list[str]:
        """Gives projections of `module` their adapters, which change nothing yet; returns the names of the
        new parameters.

        A is drawn from the seed and its name, uniformly within 1 / sqrt(I), and B is 0 (the released code's
        `kaiming_uniform_(A, a=sqrt(5))`). Raises UserError for a name that no projection has and for a rank
        that is larger than its matrix.
        """
        chosen: dict[str, list[Projection]] = {}
        for one in self._chosen(list(projections_of(module, model))):
            chosen.setdefault(one.path, []).append(one)
        for path, parts in chosen.items():
            above, _, last = path.rpartition(".")
            setattr(module.get_submodule(above), last, Adapted(module.get_submodule(path), parts, self))
        added = []
        for name, parameter in module.named_parameters():
            if ".adapters." in name:
                added.append(name)
                start_of(name, parameter, seed)
        return added

    def _chosen(self, found: Sequence[Projection]) -> list[Projection]:
        for word in self.projections:
            if not any(one.called(word) for one in found):
                words = dict.fromkeys(part for one in found for part in one.name.split(".")[-2:])
                hint = nearest(word, words) + (f", or a pattern such as {found[0].name}" if found else "")
                raise UserError(
                    "the model has no such projection", field="adapters.projections", text=word, hint=hint
                )
        chosen = [one for one in found if any(one.called(word) for word in self.projections)]
        least = min(chosen, key=lambda one: min(one.shape))
        if self.rank > min(least.shape):
            hint = f"at most {min(least.shape)}: {least.name} is {least.shape[0]} x {least.shape[1]}"
            raise UserError("the matrix has no such rank", field="adapters.rank", text=self.rank, hint=hint)
        return chosen


class Adapter(nn.Module):
    """inputs [N, I] -> [N, O] through `narrow` (A, [R, I]) and `widen` (B, [O, R])."""

    def __init__(self, inputs: int, outputs: int, adapters: Adapters, dtype: torch.dtype):
        super().__init__()
        self.scale = adapters.scale
        self.narrow = Linear(inputs, adapters.rank, False, dtype)
        self.widen = Linear(adapters.rank, outputs, False, dtype)

    def forward(self, inputs: Tensor) -> Tensor:
        added: Tensor = self.widen(self.narrow(inputs) * self.scale)
        return added

    @property
    def change(self) -> Tensor:
        """What it adds to its rows of the matrix [O, I]."""
        return self.scale * (self.widen.weight @ self.narrow.weight)


class Adapted(Linear):
    """A linear layer, its own parameters under their own names, with adapters on parts of its rows."""

    def __init__(self, linear: nn.Module, parts: Sequence[Projection], adapters: Adapters):
        nn.Module.__init__(self)
        assert isinstance(linear, Linear)
        self.weight, self.bias = linear.weight, linear.bias
        self.rows = {one.part: one.rows for one in parts}
        self.dropout = Dropout(adapters.dropout)
        with linear.weight.device:
            self.adapters = nn.ModuleDict(
                {
                    one.part: Adapter(one.shape[1], one.shape[0], adapters, linear.weight.dtype)
                    for one in parts
                }
            )

    def forward(self, inputs: Tensor) -> Tensor:
        whole, read = super().forward(inputs), self.dropout(inputs)
        pieces, done = [], 0
        for part, adapter in self.adapters.items():
            rows = self.rows[part]
            pieces += [whole[..., done : rows.start], whole[..., rows] + adapter(read)]
            done = rows.stop
        pieces = [piece for piece in (*pieces, whole[..., done:]) if piece.shape[-1]]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces, -1)

    def merged(self) -> Tensor:
        """The matrix [O, I] that does alone what it does with its adapters."""
        weight = self.weight.detach().clone()
        for part, adapter in self.adapters.items():
            assert isinstance(adapter, Adapter)
            weight[self.rows[part]] += adapter.change.detach()
        return weight


def projections_of(module: nn.Module, model: ModelConfig) -> Iterator[Projection]:
    """All that can have an adapter, layer by layer."""
    for path, linear in module.named_modules():
        holder, last = path.split(".")[-2:] if "." in path else ("", path)
        if holder not in HOLDERS or not isinstance(linear, Linear):
            continue
        (count, inputs), parts, start = linear.weight.shape, FUSED.get(last, (last,)), 0
        for part, rows in zip(parts, model.rows_of_parts(len(parts), count)):
            yield Projection(path, part, slice(start, start + rows), (rows, inputs))
            start += rows


def start_of(name: str, parameter: nn.Parameter, seed: int) -> None:
    """Draws A or clears B in place."""
    with torch.no_grad():
        if name.endswith(".widen.weight"):
            parameter.zero_()
            return
        generator = torch.Generator().manual_seed(keyed_hash("initialisation", seed, name))
        bound = 1 / math.sqrt(parameter.shape[1])
        parameter.copy_(torch.empty(parameter.shape).uniform_(-bound, bound, generator=generator))


def merged(module: nn.Module) -> dict[str, Tensor]:
    """The state of a module without adapters that does what this one does with them."""
    tensors = {name: tensor for name, tensor in module.state_dict().items() if ".adapters." not in name}
    for path, part in module.named_modules():
        if isinstance(part, Adapted):
            tensors[f"{path}.weight"] = part.merged()
    return tensors
