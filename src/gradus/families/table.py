"""A family's table: under which names and in which layout Hugging Face keeps each part of ours, both ways.

A key is a part of ours (`blocks.*.feed_forward.up`: its weight and its bias, or its weight alone) or one
tensor of ours, whole (`output_bias`); `*` is the number of a layer. Its value is their name of the same
thing, alone or as a `Place`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from gradus.core.model import ModelConfig
from gradus.families.heads import Task

if TYPE_CHECKING:
    from torch import Tensor

TOKENS, UNEMBEDDING = "embedding.tokens.weight", "unembedding.weight"
_NUMBERED, _HEAD = re.compile(r"(?<=\bblocks\.)\d+"), re.compile(r"heads\.[^.]+\.(.+)")


@dataclass(frozen=True)
class Place:
    """Their tensors that one of ours is, end to end along its rows, and whether their matrices are [in, out]
    where ours are [out, in]."""

    names: tuple[str, ...]
    transposed: bool = False


def transposed(name: str) -> Place:
    """A `Conv1D` of theirs: its weight is stored [in, out]."""
    return Place((name,), True)


def joined(*names: str) -> Place:
    """Projections that they keep apart: ours has their rows end to end, in this order."""
    return Place(names)


@dataclass(frozen=True)
class Table:
    """All that a family's files may hold. Their names stand without `prefix`."""

    title: str
    """What the family is called in a message: its GPT-2 has this and that."""
    body: Mapping[str, str | Place]
    """Parts that stand under `prefix`."""
    outside: Mapping[str, str | Place] = field(default_factory=dict)
    """Parts that do not: what is between the states and the vocabulary."""
    gated: Mapping[str, str | Place] = field(default_factory=dict)
    """Parts that are called otherwise where the feed-forward is gated; they stand under `prefix`."""
    heads: Mapping[Task, Mapping[str, str | Place]] = field(default_factory=dict)
    """For each task the parts of its head: `score`, `dense`, or `score.weight` where theirs has no bias. They
    stand without the prefix."""
    prefix: str = ""
    """What their classes with a head write before the names of the body; read with or without."""
    prefixes: Mapping[Task | None, str] = field(default_factory=dict)
    """Tasks whose class writes something else there, or nothing; None is the language model."""
    copies: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Tensor of ours -> further names of theirs for it: read where the first is missing, else checked to be
    equal and left out. A tied unembedding's name is always one of the tokens'."""
    no_weights: tuple[str, ...] = ()
    """Patterns of whole names for what files may hold that is no weight, such as old causal masks."""
    zeros: tuple[str, ...] = ()
    """Tensors that must be all zeros, since we have no place for them."""
    endings: Mapping[str, str] = field(default_factory=dict)
    """How names end in older files -> how they end since."""

    def place(self, ours: str, task: Task | None = None, gated: bool = False) -> Place | None:
        """Where a tensor of ours stands, without the prefix; None where the family has no place for it."""
        head, number = _HEAD.fullmatch(ours), _NUMBERED.search(ours)
        parts = {**self.body, **self.outside, **(self.gated if gated else {})}
        if head and task:
            parts = {**self.heads.get(task, {})}
        key = head[1] if head else _NUMBERED.sub("*", ours)
        part, _, kind = key.rpartition(".")
        found, ending = parts.get(key), ""
        if found is None and kind in ("weight", "bias"):
            found, ending = parts.get(part), f".{kind}"
        if found is None:
            return None
        entry = _as_place(found)
        layer = number[0] if number else "*"
        names = tuple(name.replace("*", layer) + ending for name in entry.names)
        return Place(names, entry.transposed and kind != "bias")

    def loose(self, name: str) -> str:
        """A file's name of a tensor without the prefix, and as newer files have it."""
        for prefix in (self.prefix, *self.prefixes.values()):
            name = name.removeprefix(prefix)
        for old, new in self.endings.items():
            if name.endswith(old):
                return name.removesuffix(old) + new
        return name

    def full(self, name: str, task: Task | None) -> str:
        """A name without prefix as a file of the task's class has it."""
        return self.prefixes.get(task, self.prefix) + name if self._inside.fullmatch(name) else name

    def head_tensors(self, task: Task | None, dense: bool = True) -> list[str]:
        """What a head for the task has: `score.weight`, `score.bias` where theirs has a bias, and with
        `dense` those of its own layer before, where theirs has one."""
        tensors = []
        for part in self.heads.get(task, {}) if task else ():
            if part == "dense" and not dense:
                continue
            whole = part.endswith((".weight", ".bias"))
            tensors += [part] if whole else [f"{part}.weight", f"{part}.bias"]
        return tensors

    def obstacle(self, task: Task, bias: bool, chained: bool = False) -> str | None:
        """Why their classes cannot hold a head for this task, with or without a bias, or with a CRF on it;
        None where they can."""
        if task not in self.heads:
            return f"its {self.title} has no head for {task}"
        if chained:
            return f"its {self.title} has no CRF"
        if bias == ("score.bias" in self.head_tensors(task)):
            return None
        return f"its {self.title} has a linear layer {'without' if bias else 'with'} bias there"

    def written(
        self, tensors: Mapping[str, Tensor], config: ModelConfig, task: Task | None = None
    ) -> dict[str, Tensor]:
        """Our tensors under their names and in their layout. Raises KeyError for one without a place."""
        named = {}
        for ours, tensor in tensors.items():
            place = self.place(ours, task, config.gated)
            if place is None:
                raise KeyError(ours)
            for name, piece in zip(
                place.names, tensor.split(config.rows_of_parts(len(place.names), len(tensor)))
            ):
                named[self.full(name, task)] = piece.t() if place.transposed else piece
        return named

    def knows(self, name: str) -> bool:
        """Whether some model of the family has a tensor of this name, which stands without the prefix."""
        return bool(self._inside.fullmatch(name) or self._beside.fullmatch(name))

    def says_nothing(self, name: str) -> bool:
        """Whether a name, without the prefix, is that of no weight."""
        return any(re.fullmatch(pattern, name) for pattern in self.no_weights)

    def copied(self, config: ModelConfig) -> dict[str, tuple[str, ...]]:
        """`copies`, with the output that a tied model shares with its tokens."""
        output = self.place(UNEMBEDDING)
        if not config.tie_embeddings or output is None:
            return dict(self.copies)
        return {**self.copies, TOKENS: (*self.copies.get(TOKENS, ()), *output.names)}

    @cached_property
    def _inside(self) -> re.Pattern[str]:
        return _pattern({**self.body, **{f"gated.{part}": name for part, name in self.gated.items()}})

    @cached_property
    def _beside(self) -> re.Pattern[str]:
        heads = {f"{task}.{part}": name for task, parts in self.heads.items() for part, name in parts.items()}
        return _pattern({**self.outside, **heads})


def _as_place(entry: str | Place) -> Place:
    return Place((entry,)) if isinstance(entry, str) else entry


def _pattern(parts: Mapping[str, str | Place]) -> re.Pattern[str]:
    """What the names of these parts' tensors look like."""
    names = [name for entry in parts.values() for name in _as_place(entry).names]
    layers = [re.escape(name).replace(r"\*", r"\d+") for name in names]
    return re.compile("|".join(rf"{name}(\.weight|\.bias)?" for name in layers) or r"(?!)")
