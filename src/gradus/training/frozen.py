"""What frozen layers make of a row is computed once: training starts from their states, kept on disk.

The rounding of a product depends on what else is in it, so states computed anew in every batch and states
that are kept would not have the same bits. Kept states are therefore all there before the first step, made
in the order of the rows, by one process, as in evaluation: a function of the weights, the rows and the
conditions that a checkpoint, too, is exact under. A file is whole or not there, and one that is lost is made
again to the same bits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn

from gradus.core.config import Config
from gradus.core.example import Example, collate
from gradus.core.storage import digest_json, lock, new_file, sweep
from gradus.data.feed import cut
from gradus.data.sources import Around, Source
from gradus.distributed.world import World
from gradus.nn.transformer import Transformer
from gradus.optim.groups import BLOCK

STATES_FORMAT = 1
ABOVE = ("final_norm.", "pooler.", "output_transform.", "unembedding.", "output_bias")
"""What stands on the layers, by the beginnings of a transformer's names."""
MOST_BYTES = 4
"""Of a number of a state, in any precision."""


class CacheFrozen(Config):
    """States above the frozen layers are kept under runs/cache."""

    gigabytes: float = Field(4.0, gt=0)
    """All such files together; the oldest go. More than this is refused for one stage."""


def frozen_layers(transformer: nn.Module, layers: int) -> int:
    """How many of the `layers`, from the embedding up, neither learn nor see anything that does."""
    named = transformer.named_parameters()
    learning = [name for name, one in named if one.requires_grad and not name.startswith(ABOVE)]
    places = [BLOCK.match(name) for name in learning]
    return min((int(place[2]) if place and not place[1] else 0 for place in places), default=layers)


class WithStates(Around):
    """A source whose examples bring the states [T, D] that stand for their tokens."""

    def __init__(self, source: Source, states: Tensor, offsets: np.ndarray):
        super().__init__(source)
        self.states, self.offsets = states, offsets

    def example(self, index: int, epoch: int = 0) -> Example:
        below = self.states[self.offsets[index] : self.offsets[index + 1]]
        return replace(super().example(index, epoch), below=below)


@dataclass(frozen=True)
class StateCache:
    """Where states are kept, under which bound, and what their bits depend on beside weights and rows."""

    folder: Path
    gigabytes: float
    conditions: Mapping[str, Any]
    budget: int
    """Tokens of a forward."""
    working: Callable[[str, int, int], None] = lambda *_: None

    def over(self, source: Source, transformer: Transformer, world: World) -> WithStates:
        """`source` with the states above `transformer.cached` layers, found or made."""
        examples = [source.example(index) for index in range(len(source))]
        offsets = np.cumsum([0, *(example.tokens for example in examples)])
        key = self._key(transformer, examples)
        path = self.folder / f"states-{key[:16]}.bin"
        shape, dtype = (int(offsets[-1]), transformer.config.width), transformer.precision
        if world.first:
            with lock(self.folder / ".states.lock", wait=True):
                sweep(self.folder, "states-*")
                if not path.exists():
                    self._make_room(shape[0] * shape[1] * dtype.itemsize)
                    self._write(path, transformer, examples, shape[0])
                path.touch()
        world.barrier()
        states = torch.from_file(str(path), False, shape[0] * shape[1], dtype=dtype)
        return WithStates(source, states.view(shape), offsets)

    def _write(self, path: Path, transformer: Transformer, examples: list[Example], tokens: int) -> None:
        done, training = 0, transformer.training
        transformer.eval()
        with new_file(path) as file:
            for batch in (collate(part, []) for part in cut(examples, self.budget)):
                states = transformer.lowest(batch.source.to(next(transformer.parameters()).device))
                kept = states[: batch.tokens].contiguous().cpu()
                file.write(kept.view(torch.uint8).numpy().tobytes())
                done += batch.tokens
                self.working("states of frozen layers", done, tokens)
        transformer.train(training)

    def _make_room(self, size: int) -> None:
        """Removes the files that were not used for longest until `size` bytes more are within the bound."""
        files = sorted(self.folder.glob("states-*.bin"), key=lambda file: file.stat().st_mtime)
        held = sum(file.stat().st_size for file in files)
        for file in files:
            if held + size <= self.gigabytes * 1e9:
                return
            held -= file.stat().st_size
            file.unlink()

    def _key(self, transformer: Transformer, examples: list[Example]) -> str:
        state = hashlib.blake2b(digest_size=16)
        for part in _content(transformer, examples):
            state.update(part)
        shape = [transformer.cached, transformer.config.changes()]
        return digest_json([STATES_FORMAT, shape, dict(self.conditions), self.budget, state.hexdigest()])


def _content(transformer: Transformer, examples: list[Example]) -> Iterator[bytes]:
    """The weights below the states, and what they read."""
    for name, tensor in sorted(transformer.state_dict().items()):
        place = BLOCK.match(name)
        if not name.startswith(ABOVE) and (place is None or int(place[2]) < transformer.cached):
            yield name.encode()
            yield tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes()
    for example in examples:
        for sequence in (*example.sequences, *example.segments):
            yield np.int64(len(sequence)).tobytes() + sequence.astype(np.int64).tobytes()
