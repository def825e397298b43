"""On a CUDA device: the same loss as on the CPU to float tolerance, and a resume to the bit. Run with `-m
gpu`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import toy

from gradus.distributed.world import World
from gradus.training import checkpoint

pytestmark = pytest.mark.gpu


@pytest.fixture
def world() -> World:
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    return World(device=torch.device("cuda"))


def losses(world: World, dtype: torch.dtype, dropout: float = 0.0) -> list[float]:
    learner = toy.learner(dropout, dtype).to(world.device)
    trainer = toy.trainer(learner, toy.examples(8), world=world)
    return [report.total for report in trainer.steps(toy.always)]


def test_cuda_has_the_curve_of_the_cpu(world: World) -> None:
    assert losses(world, torch.float32) == pytest.approx(losses(World(), torch.float32), rel=1e-4)


def test_bf16_follows_fp32(world: World) -> None:
    assert losses(world, torch.bfloat16) == pytest.approx(losses(world, torch.float32), rel=3e-2)


def test_resume_is_exact(world: World, tmp_path: Path) -> None:
    def trainer():  # type: ignore[no-untyped-def]
        learner = toy.learner(0.1, torch.bfloat16).to(world.device)
        return toy.trainer(learner, toy.examples(8), budget=40, world=world)

    whole = trainer()
    list(whole.steps(toy.always))
    killed = trainer()
    next(killed.steps(toy.always))
    path = checkpoint.save(tmp_path, 1, killed.learner, killed.optimizer, killed.state())
    resumed = trainer()
    resumed.restore(checkpoint.load(path, resumed.learner, resumed.optimizer))
    list(resumed.steps(toy.always))
    for name, tensor in whole.learner.state_dict().items():
        assert np.array_equal(tensor.cpu().numpy(), resumed.learner.state_dict()[name].cpu().numpy()), name
