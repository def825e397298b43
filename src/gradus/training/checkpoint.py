"""The exact state of training in a folder that is whole or not there.

    step-00000500/  model.safetensors  optimizer.safetensors  state.json  MANIFEST.json (digests of the
    others)

Written under a temporary name, synced, renamed. Safetensors and JSON only: nothing here is ever executed.
"""

from __future__ import annotations

import errno
import shutil
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from gradus.core.errors import UserError
from gradus.core.storage import free_bytes, is_whole, new_folder, read_json, write_json


def save(
    folder: Path,
    step: int,
    module: torch.nn.Module,
    optimizers: Sequence[torch.optim.Optimizer],
    state: dict[str, Any],
) -> Path:
    """Writes the checkpoint of `step` into `folder`. Raises UserError when the disk has too little room."""
    path = folder / f"step-{step:08d}"
    weights = weights_of(module)
    moments = _flat_state(optimizers)
    size = sum(tensor.nbytes for tensor in [*weights.values(), *moments.values()])
    require_room(folder, size)
    try:
        with new_folder(path) as temporary:
            save_file(weights, temporary / "model.safetensors")
            save_file(moments, temporary / "optimizer.safetensors")
            write_json(temporary / "state.json", state)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise UserError(
                "the disk is full", file=folder, hint=f"a checkpoint takes {size / 1e6:.0f} MB"
            ) from None
        raise
    return path


def require_room(folder: Path, size: int) -> None:
    """Raises UserError unless the disk of `folder` has `size` bytes free."""
    if (free := free_bytes(folder)) < size:
        raise UserError(
            "the disk has too little room",
            file=folder,
            text=f"{free / 1e6:.0f} MB free",
            hint=f"{size / 1e6:.0f} MB are needed",
        )


def latest(folder: Path) -> Path | None:
    """The newest checkpoint whose every digest holds; those that do not are passed over."""
    return next((path for path in sorted(folder.glob("step-*"), reverse=True) if is_whole(path)), None)


def load(path: Path, module: torch.nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, Any]:
    """Puts a checkpoint back, bit by bit, and returns its state."""
    load_weights(module, load_file(path / "model.safetensors"))
    states: list[dict[int, dict[str, torch.Tensor]]] = [{} for _ in optimizers]
    firsts = _firsts(optimizers)
    for name, tensor in load_file(path / "optimizer.safetensors").items():
        number, key = name.split(".", 1)
        owner = bisect_right(firsts, int(number)) - 1
        states[owner].setdefault(int(number) - firsts[owner], {})[key] = tensor
    for optimizer, state in zip(optimizers, states):
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return read_json(path / "state.json")


def prune(folder: Path, keep: int) -> None:
    """Removes all but the newest `keep` whole checkpoints."""
    paths = sorted(folder.glob("step-*"), reverse=True)
    for path in paths[keep:]:
        shutil.rmtree(path, ignore_errors=True)


def weights_of(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    """The parameters and buffers of a module on the host, each storage once."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in module.state_dict().items()}


def load_weights(module: torch.nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Copies `weights` in; every name must be there on both sides."""
    module.load_state_dict(weights, strict=True)


def _flat_state(optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, torch.Tensor]:
    """NUMBER.KEY: what is kept of each parameter, numbered through all optimizers."""
    return {
        f"{first + index}.{key}": tensor.detach().cpu().contiguous()
        for first, optimizer in zip(_firsts(optimizers), optimizers)
        for index, entries in optimizer.state_dict()["state"].items()
        for key, tensor in entries.items()
        if tensor is not None
    }


def _firsts(optimizers: Sequence[torch.optim.Optimizer]) -> list[int]:
    """The number of each optimizer's first parameter."""
    sizes = [sum(len(group["params"]) for group in optimizer.param_groups) for optimizer in optimizers]
    return [0, *accumulate(sizes)][:-1]
