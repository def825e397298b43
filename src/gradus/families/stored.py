"""Where each tensor of ours stands in a folder's files: found by a family's table, checked, then read."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gradus.core.errors import UserError
from gradus.core.model import ModelConfig
from gradus.families.files import Piece, opened
from gradus.families.heads import Task
from gradus.families.table import TOKENS, Place, Table
from gradus.nn.transformer import Transformer


@dataclass(frozen=True)
class Stored:
    """The pieces of a file that one tensor of ours is, end to end along its rows, and whether their matrices
    are transposed."""

    pieces: tuple[Piece, ...]
    transposed: bool = False

    @property
    def file(self) -> Path:
        return self.pieces[0].file

    @property
    def name(self) -> str:
        return self.pieces[0].name

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Of the pieces, as ours are laid out."""
        return [piece.shape[::-1] if self.transposed else piece.shape for piece in self.pieces]

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the tensor that they make."""
        first, *others = self.shapes
        return (first[0] + sum(shape[0] for shape in others), *first[1:]) if others else first


def read(stored: Mapping[str, Stored]) -> dict[str, Tensor]:
    """Our name -> fp32 tensor."""
    tensors = {}
    with ExitStack() as stack:
        files = {piece.file for place in stored.values() for piece in place.pieces}
        contents = {file: stack.enter_context(opened(file)) for file in sorted(files)}
        for name, place in stored.items():
            parts = [contents[piece.file].get_tensor(piece.name).to(torch.float32) for piece in place.pieces]
            parts = [part.t().contiguous() for part in parts] if place.transposed else parts
            tensors[name] = parts[0] if len(parts) == 1 else torch.cat(parts)
    return tensors


def shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The name and shape of every tensor of the transformer."""
    with torch.device("meta"):
        built = Transformer(config, device="meta")
    return {name: tuple(parameter.shape) for name, parameter in built.named_parameters()}


def locate(
    table: Table, present: Mapping[str, Piece], config: ModelConfig, task: Task | None, head: str, path: Path
) -> tuple[dict[str, Stored], tuple[str, ...]]:
    """Our name -> where it stands among the tensors of a folder of the family, and the names of those that
    are no weights of the model. `head` is what the head is called here.

    Raises UserError for tensors that are missing, unknown or too many, and for copies that are none.
    """
    loose: dict[str, Piece] = {}
    for name, piece in present.items():
        if loose.setdefault(table.loose(name), piece) is not piece:
            raise UserError("a tensor is there with and without a prefix", file=piece.file, text=name)
    copies, stored = table.copied(config), {}
    of_head = table.head_tensors(task, config.dense_head)
    for ours in (*shapes(config), *(f"heads.{head}.{name}" for name in of_head)):
        place = _present(table.place(ours, task, config.gated), copies.get(ours, ()), loose)
        missing = [name for name in place.names if name not in loose]
        if missing:
            text, hint = table.full(missing[0], task), f"{ours} here"
            raise UserError("the weights lack a tensor", file=path, text=text, hint=hint)
        stored[ours] = Stored(tuple(loose.pop(name) for name in place.names), place.transposed)
    dropped = []
    for ours, names in copies.items():
        for name in names:
            if ours in stored and name in loose:
                output = ours == TOKENS and name not in table.copies.get(ours, ())
                _check_copy(loose[name], stored[ours], output, path)
                dropped.append(loose.pop(name).name)
    for name, piece in loose.items():
        if name in table.zeros:
            _check_zeros(piece)
        elif not table.says_nothing(name):
            problem = "the model has no place for a tensor"
            problem = problem if table.knows(name) else "the family has no such tensor"
            raise UserError(problem, file=piece.file, text=piece.name)
        dropped.append(piece.name)
    return stored, tuple(dropped)


def _present(place: Place | None, copies: tuple[str, ...], loose: Mapping[str, Piece]) -> Place:
    """The place, or the first copy that the file has in its stead."""
    assert place is not None, "a family builds only what its table has a place for"
    if place.names[0] in loose:
        return place
    return next((Place((name,), place.transposed) for name in copies if name in loose), place)


def _check_copy(copy: Piece, original: Stored, output: bool, path: Path) -> None:
    """A second copy of tied weights may go only where it is one; `output`: it is that of a tied output."""
    with opened(copy.file) as first, opened(original.file) as second:
        if torch.equal(first.get_tensor(copy.name), second.get_tensor(original.name)):
            return
    hint = f"set tie_word_embeddings to false in {path / 'config.json'}" if output else None
    problem = f"this tensor is said to be tied but differs from {original.name}"
    raise UserError(problem, file=copy.file, text=copy.name, hint=hint)


def _check_zeros(piece: Piece) -> None:
    with opened(piece.file) as content:
        if content.get_tensor(piece.name).any():
            problem = "the model has no place for a tensor that is not all zeros"
            raise UserError(problem, file=piece.file, text=piece.name)


def check_shape(ours: str, place: Stored, shape: tuple[int, ...], config: ModelConfig) -> None:
    """Raises UserError for a piece that is not the part of our tensor of this shape that it should be."""
    for piece, found, count in zip(
        place.pieces, place.shapes, config.rows_of_parts(len(place.pieces), shape[0]), strict=True
    ):
        wanted = (count, *shape[1:])
        if found != wanted:
            raise UserError(
                f"a tensor has shape {by(found)}, not {by(wanted)}", file=piece.file, text=piece.name,
                hint="config.json and weights do not belong together",
            )  # fmt: skip


def by(shape: tuple[int, ...]) -> str:
    """`3 x 32`."""
    return " x ".join(map(str, shape))
