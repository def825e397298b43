"""Law 3 from the user's side: a run killed at any moment and started again ends with the bits of one never
killed."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from tiny import tiny

import gradus
from gradus.core.keyed import keyed_generator
from gradus.core.storage import is_whole, new_folder, sweep
from gradus.training import checkpoint

CHANGES = {
    "model.dropout": 0.2,
    "stages.pretrain.length": "24 steps",
    "stages.pretrain.save": {"every": "3 steps"},
    "stages.finetune.data.test": "builtin:tiny",
    "stages.finetune.length": "3 epochs",
    "stages.finetune.evaluate": {"every": "5 steps"},
    "stages.finetune.stop": {"metric": "loss", "patience": 3},
    "stages.finetune.save": {"every": "4 steps"},
    "variants": {"no pre-training": {"stages.finetune.from": "scratch"}},
}
"""Dropout, accumulation, early stopping and a variant: all that a resume has to get right."""
EVENTS = ("tokenise", "step", "evaluate", "sync", "rename", "prepare")
DEATHS_EACH = 3
MEASURED = {"tokens_per_second", "seconds", "times", "started", "finished", "peak_memory"}


class Whole(NamedTuple):
    """A run that nobody disturbs, its events by kind, and how long its life took."""

    recipe: Path
    runs: Path
    events: dict[str, int]
    seconds: float


def killer(recipe: Path, runs: Path, lives: list[dict[str, Any]]) -> list[int]:
    """The exit status of each life."""
    command = [
        sys.executable,
        str(Path(__file__).with_name("killer.py")),
        str(recipe),
        str(runs),
        json.dumps(lives),
        "--quiet",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("whole")
    recipe = tiny(folder / "kills.yaml", CHANGES)
    assert killer(recipe, folder / "runs", [{}]) == [0]
    seen = json.loads((folder / "runs" / "events.json").read_text())
    return Whole(recipe, folder / "runs", seen["events"], seen["seconds"])


def bits(runs: Path) -> dict[str, Any]:
    """All that a run leaves, without what is measured: weights, predictions, metrics, tokens."""
    found: dict[str, Any] = {}
    for path in sorted(runs.rglob("*")):
        name = str(path.relative_to(runs))
        if path.is_dir() or path.suffix == ".lock" or name == "events.json":
            continue
        if path.suffix == ".jsonl":
            found[name] = [without_times(json.loads(line)) for line in path.read_text().splitlines()]
        elif path.name in ("stage.json", "iterate.json"):
            found[name] = without_times(json.loads(path.read_text()))
        else:
            found[name] = path.read_bytes()
    return found


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_times(inner) for key, inner in value.items() if key not in MEASURED}
    return [without_times(inner) for inner in value] if isinstance(value, list) else value


def same(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert sorted(a) == sorted(b)
    assert [name for name in a if a[name] != b[name]] == []


def test_death_while_an_old_folder_goes_leaves_the_new_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with new_folder(tmp_path / "模型") as folder:
        (folder / "weights").write_text("old")
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt), new_folder(tmp_path / "模型") as folder:
            (folder / "weights").write_text("new")
    assert is_whole(tmp_path / "模型") and (tmp_path / "模型" / "weights").read_text() == "new"
    sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["模型"]


def test_the_whole_run_is_reproducible(whole: Whole, tmp_path: Path) -> None:
    assert killer(whole.recipe, tmp_path, [{}]) == [0]
    same(bits(whole.runs), bits(tmp_path))


@pytest.mark.parametrize("kind", EVENTS)
def test_killed_at_random_moments(whole: Whole, tmp_path: Path, kind: str) -> None:
    """Three deaths, each before a random event of the kind.

    What the undisturbed run does from its n-th event on is still to do after a death before it, so the next
    life surely comes to as many events: each of the lives dies.
    """
    events = whole.events[kind]
    random = keyed_generator("kills", kind)
    moments = 1 + np.sort(random.choice(events, DEATHS_EACH, replace=False))
    lives: list[dict[str, Any]] = [{"event": [kind, int(number)]} for number in np.diff(moments, prepend=0)]
    assert killer(whole.recipe, tmp_path, [*lives, {}]) == [-9] * DEATHS_EACH + [0]
    same(bits(whole.runs), bits(tmp_path))


def test_killed_by_the_clock(whole: Whole, tmp_path: Path) -> None:
    """Two more deaths, after a random time: twenty in all."""
    random = keyed_generator("kills", "clock")
    lives: list[dict[str, Any]] = [
        {"after": whole.seconds * float(random.uniform(0.02, 0.15))} for _ in range(2)
    ]
    assert killer(whole.recipe, tmp_path, [*lives, {}]) == [-9, -9, 0]
    same(bits(whole.runs), bits(tmp_path))


def test_patience_that_ends_at_a_checkpoint_ends_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed right after the save of the step that exhausted patience, a run must not train on."""
    recipe = tiny(tmp_path / "patience.yaml", CHANGES)
    patch = {
        "stages.pretrain.evaluate.every": "2 steps",
        "stages.pretrain.save.every": "2 steps",
        "stages.pretrain.stop": {"metric": "loss", "patience": 1},
        "stages.pretrain.optimizer.lr": 0.3,
        "stages.pretrain.schedule": {"kind": "constant", "warmup": "0 steps"},
    }
    save = checkpoint.save

    def save_and_die(folder: Path, step: int, learner: Any, optimizer: Any, state: dict[str, Any]) -> None:
        save(folder, step, learner, optimizer, state)
        if state["stopping"]["waited"]:
            raise RuntimeError(f"died at step {step}")

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save", save_and_die)
        with pytest.raises(RuntimeError, match="died at step") as death:
            gradus.run(recipe, runs=tmp_path, until="pretrain", settings=patch, device="cpu")
    gradus.run(recipe, runs=tmp_path, until="pretrain", settings=patch, device="cpu")
    (record,) = (
        json.loads(path.read_text()) for path in tmp_path.glob("patience/stages/pretrain-*/stage.json")
    )
    assert record["training"]["stopped"] == "patience"
    assert str(death.value) == f"died at step {record['training']['steps']}"


def test_a_polite_signal_saves_and_exits_with_3(whole: Whole, tmp_path: Path) -> None:
    moments = [("tokenise", 2), ("step", 5), ("evaluate", 200), ("sync", 30)]
    lives: list[dict[str, Any]] = [{"event": moment, "signal": signal.SIGTERM} for moment in moments]
    assert killer(whole.recipe, tmp_path, [*lives, {}]) == [3] * len(lives) + [0]
    same(bits(whole.runs), bits(tmp_path))
