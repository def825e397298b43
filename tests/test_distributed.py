"""Two processes are one: the same rows in the same order, the same gradient, the same curve."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as multiprocessing
import toy
from test_laws import farthest
from test_objectives import learner, windows
from tiny import tiny

from gradus.core.example import Example
from gradus.distributed.world import World
from gradus.training.learner import Learner

PATCH = {
    "model.dropout": 0,
    "stages.pretrain.batch": "15 windows",
    "stages.pretrain.length": "12 steps",
    "stages.pretrain.precision": "fp32",
    "stages.finetune.objectives": [
        {"kind": "classification", "dropout": 0},
        {"kind": "causal_lm", "weight": 0.5},
    ],
    "stages.finetune.adapters": {"rank": 4},
    "stages.finetune.batch": "15 rows",
    "stages.finetune.precision": "fp32",
}
"""Two ranks differ from one in rounding alone: nothing is drawn. 15 rows do not divide by two."""


def _gradients(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    torch.save({case: _one_step(case, World(rank, 2)) for case in STEPS}, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


STEPS: dict[str, Callable[[], tuple[Learner, list[Example]]]] = {
    "classes": lambda: (toy.learner(), toy.examples(8)),
    "chained": lambda: (learner("tags, chained"), windows("tags, chained")),
}
"""Rank 1 of 2 has few labelled rows."""


def _one_step(case: str, world: World) -> dict[str, torch.Tensor]:
    """The gradients of one step of 8 rows, as the optimizer would see them."""
    made, rows = STEPS[case]()
    trainer = toy.trainer(made, rows, budget=40, world=world)
    found: dict[str, torch.Tensor] = {}

    def step() -> None:
        found.update({name: parameter.grad.clone() for name, parameter in trainer.learner.named_parameters()})

    trainer.clip = None
    trainer.optimizers[0].step = step  # type: ignore[method-assign, assignment]
    next(trainer.steps(toy.always))
    return found


def test_law_1_two_ranks_have_the_gradient_of_one(tmp_path: Path) -> None:
    multiprocessing.spawn(_gradients, (str(tmp_path),), nprocs=2)
    shared = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    for case in STEPS:
        alone = _one_step(case, World())
        assert all(farthest(alone, one[case]) < 1e-12 for one in shared)


def launched(recipe: Path, runs: Path) -> None:
    """`gradus run` by two processes."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*launch, "-m", "gradus.cli", "run", str(recipe), "--runs", str(runs), "--device", "cpu"],
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(scope="module")
def curves(tmp_path_factory: pytest.TempPathFactory) -> dict[int, list[dict]]:
    """metrics.jsonl of both stages, by number of processes."""
    from gradus.pipeline.run import run  # here: the processes of the test above import this file too

    folder = tmp_path_factory.mktemp("worlds")
    recipe = tiny(folder / "two.yaml", PATCH)
    run(recipe, runs=folder / "1", device="cpu")
    launched(recipe, folder / "2")
    found = {}
    for size in (1, 2):
        stages = folder / str(size) / "two" / "stages"
        logs = sorted(stages.glob("*/metrics.jsonl"))
        found[size] = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
        assert len(list(stages.glob("*/stage.json"))) == 2
    return found


def test_torchrun_gives_the_same_curve(curves: dict[int, list[dict]]) -> None:
    assert len(curves[1]) == len(curves[2]) > 20
    for one, two in zip(curves[1], curves[2]):
        assert (one["step"], one["kind"]) == (two["step"], two["kind"])
        if one["kind"] == "train":
            assert (one["rows"], one["tokens"]) == (two["rows"], two["tokens"])
            assert two["total"] == pytest.approx(one["total"], rel=1e-4)
            assert two["grad_norm"] == pytest.approx(one["grad_norm"], rel=1e-3)
        else:
            assert two["metrics"]["loss"] == pytest.approx(one["metrics"]["loss"], rel=1e-4)


def test_torchrun_searches_and_iterates_alike(tmp_path: Path) -> None:
    """The same trials and the same steps kept; without dropout, whose numbers are a rank's own."""
    from gradus.pipeline.run import run

    recipe = tiny(tmp_path / "loops.yaml", {
        "stages.finetune.length": "4 steps", "stages.finetune.evaluate": {"every": "2 steps"},
        "model.dropout": 0, "stages.finetune.objectives": [{"kind": "classification", "dropout": 0}],
        "search": {"metric": "finetune.dev.loss", "trials": 3,
                   "space": {"stages.finetune.optimizer.lr": {"log": [1e-5, 1e-1]}}},
        "variants": {"更慢": {"stages.finetune.optimizer.lr": 1e-6},
                     "longer": {"stages.pretrain.length": "16 steps"}},
        "stages.pretrain.precision": "fp32", "stages.finetune.precision": "fp32",
        "iterate": {"try": ["更慢", "longer"], "metric": "finetune.dev.loss"},
    })  # fmt: skip
    run(recipe, runs=tmp_path / "1", device="cpu")
    launched(recipe, tmp_path / "2")
    trials, steps = [], []
    for size in "12":
        folder = tmp_path / size / "loops"
        (history,) = folder.glob("search-*.jsonl")
        trials.append([json.loads(line) for line in history.read_text(encoding="utf-8").splitlines()])
        steps.append(json.loads((folder / "iterate.json").read_text(encoding="utf-8"))["steps"])
    for one, two in zip(*trials, strict=True):
        assert (one["patch"], one["state"], one["stages"]) == (two["patch"], two["state"], two["stages"])
        assert two["reports"] == pytest.approx(one["reports"], rel=1e-4)
    for one, two in zip(*steps, strict=True):
        assert (one["variant"], one["patch"], one["kept"]) == (two["variant"], two["patch"], two["kept"])
        assert two["values"] == pytest.approx(one["values"], rel=1e-4)
