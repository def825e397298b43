"""The processes of a run. A world of one is not special: its sums are what it holds.

Gradients are summed, never averaged: the loss was already divided by counts that all ranks agreed on.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
import torch.utils.deterministic
from torch import nn

from gradus.core.errors import UserError

BUCKET_BYTES = 64 << 20
"""Gradients travel in flat pieces of about this size."""


@dataclass(frozen=True)
class World:
    """This process among `size`: its `rank` and its `device`."""

    rank: int = 0
    size: int = 1
    device: torch.device = torch.device("cpu")

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes files and speaks to the user."""
        return self.rank == 0

    def sum_counts(self, counts: list[float]) -> list[float]:
        """Element-wise sums over ranks."""
        if self.size == 1:
            return counts
        tensor = torch.tensor(counts, dtype=torch.float64, device=self._wire)
        dist.all_reduce(tensor)
        return tensor.tolist()

    def sum_tensor(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over ranks, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Sums gradients over ranks; a parameter that this rank did not use counts as zero."""
        if self.size == 1:
            return
        bucket: list[torch.Tensor] = []
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            bucket.append(parameter.grad)
            if sum(gradient.nbytes for gradient in bucket) >= BUCKET_BYTES:
                _sum_flat(bucket)
                bucket = []
        if bucket:
            _sum_flat(bucket)

    def gather(self, value: Any) -> list[Any]:
        """The `value` of every rank, in the order of ranks, on all of them."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()

    @property
    def _wire(self) -> torch.device:
        return self.device if self.device.type == "cuda" else torch.device("cpu")


def _sum_flat(gradients: list[torch.Tensor]) -> None:
    flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
    dist.all_reduce(flat)
    for gradient, part in zip(gradients, flat.split([gradient.numel() for gradient in gradients])):
        gradient.copy_(part.view_as(gradient))


def open_world(device: str | None = None) -> World:
    """The world that `torchrun` set up (gloo on CPU, NCCL on CUDA), or a world of one.

    `device`: "cpu", "cuda", "cuda:1" or "mps"; the best one there is unless given. Raises UserError for one
    that is not there.
    """
    rank, size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    local = int(os.environ.get("LOCAL_RANK", 0))
    chosen = choose_device(device, local if size > 1 else None)
    if chosen.type == "cuda":
        require_deterministic_kernels()
    if size > 1 and not dist.is_initialized():
        if chosen.type == "cuda":
            torch.cuda.set_device(chosen)
        dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo", timeout=timedelta(hours=2))
    return World(rank, size, chosen)


def require_deterministic_kernels() -> None:
    """Has CUDA add numbers in one order, or a resume would give other bits: attention's backward and
    scattered sums take the order of their threads otherwise. Call it before CUDA's first matrix product.

    With that switch torch also fills each new tensor before anything is written to it, lest memory that was
    never written be read. Nothing here reads such memory, and the fills cost hundreds of launches a step.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def close_world() -> None:
    """Ends the process group, if there is one."""
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def choose_device(name: str | None, local_rank: int | None = None) -> torch.device:
    """The device of that name, or the best there is. Raises UserError naming those that are there."""
    there = devices()
    if name is None:
        name = there[0]
    if name == "cuda" and local_rank is not None:
        name = f"cuda:{local_rank}"
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in there or (device.index or 0) >= _count(device.type):
        raise UserError(
            "there is no such device", field="--device", text=name, hint="there is " + ", ".join(there)
        )
    return device


def devices() -> list[str]:
    """The kinds of device of this machine, best first."""
    found = ["cuda"] if torch.cuda.is_available() else []
    found += ["mps"] if torch.backends.mps.is_available() else []
    return [*found, "cpu"]


def _count(kind: str) -> int:
    return torch.cuda.device_count() if kind == "cuda" else 1
