"""On a CUDA device: the same loss as on the CPU to float tolerance, and a resume to the bit. Run with `-m
gpu`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import toy

from gradus.core.example import Example
from gradus.core.model import ModelConfig
from gradus.distributed.world import World, require_deterministic_kernels
from gradus.nn.transformer import Transformer
from gradus.objectives import CausalLMConfig, ClassificationConfig, Task
from gradus.training import checkpoint
from gradus.training.learner import Learner

pytestmark = pytest.mark.gpu


@pytest.fixture
def world() -> World:
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    require_deterministic_kernels()
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
    path = checkpoint.save(tmp_path, 1, killed.learner, killed.optimizers, killed.state())
    resumed = trainer()
    resumed.restore(checkpoint.load(path, resumed.learner, resumed.optimizers))
    list(resumed.steps(toy.always))
    for name, tensor in whole.learner.state_dict().items():
        assert np.array_equal(tensor.cpu().numpy(), resumed.learner.state_dict()[name].cpu().numpy()), name


@pytest.mark.parametrize(
    "body", [{}, {"body": "lstm", "layers": 1, "units": 256}], ids=["transformer", "lstm"]
)
def test_two_runs_at_full_length_have_the_same_bits(world: World, body: dict[str, Any]) -> None:
    """Kernels whose sums take the order of their threads show it at this size."""
    config = ModelConfig(
        **{"layers": 2, "width": 256, "heads": 4, "context": 512, "vocab_size": 4096, **body}
    )
    lengths = [512, 500, 480, 300, 200, 100, 37, 12] * 2
    random = np.random.default_rng(0)
    examples = [
        Example(row, (random.integers(0, 4096, size),), label=row % 3) for row, size in enumerate(lengths)
    ]
    task = Task(config, "task", ("a", "b", "c"))
    found = []
    for _ in range(2):
        transformer = Transformer(config, torch.bfloat16, device=world.device)
        objectives = [ClassificationConfig().build(task), CausalLMConfig(weight=0.5).build(task)]
        learner = Learner(transformer, objectives).initialise(1).to(world.device)
        trainer = toy.trainer(learner, examples, world=world, budget=4096)
        list(trainer.steps(toy.always))
        found.append({name: tensor.cpu() for name, tensor in learner.state_dict().items()})
    for name, tensor in found[0].items():
        assert torch.equal(tensor, found[1][name]), name
