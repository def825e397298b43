"""Law 3 from the user's side: a run killed at any moment and started again ends with the bits of one never
killed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradus.core.keyed import keyed_generator

RECIPE = """
seed: 3
tokenizer: {kind: bpe, vocab_size: 300}
model: {preset: gpt1-tiny, layers: 1, width: 16, heads: 2, context: 32, dropout: 0.2}
stages:
  pretrain:
    data: {kind: text, train: "builtin:tiny", dev: "builtin:tiny"}
    objectives: [{kind: causal_lm}]
    optimizer: {kind: adamw, lr: 3e-3}
    batch: 16 windows
    length: 24 steps
    save: {every: 3 steps}
  finetune:
    from: pretrain
    data:
      kind: rows
      train: "builtin:tiny"
      dev: "builtin:tiny"
      test: "builtin:tiny"
      format: {kind: single, text: text, label: label}
    objectives: [{kind: classification}, {kind: causal_lm, weight: 0.5}]
    optimizer: {kind: adamw, lr: 3e-3}
    batch: 16 rows
    length: 5 epochs
    evaluate: {every: 5 steps}
    stop: {metric: loss, patience: 3}
    save: {every: 4 steps}
variants:
  no pre-training: {stages.finetune.from: scratch}
"""
KILLS = 20
LIVES_EACH = 5
MEASURED = {"tokens_per_second", "seconds", "times", "started", "finished", "peak_memory"}


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
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, dict[str, int], float]:
    """A run that nobody disturbs: recipe, runs folder, events by kind, seconds."""
    folder = tmp_path_factory.mktemp("whole")
    recipe = folder / "kills.yaml"
    recipe.write_text(RECIPE)
    began = time.monotonic()
    assert killer(recipe, folder / "runs", [{}]) == [0]
    return (
        recipe,
        folder / "runs",
        json.loads((folder / "runs" / "events.json").read_text()),
        time.monotonic() - began,
    )


def bits(runs: Path) -> dict[str, Any]:
    """All that a run leaves, without what is measured: weights, predictions, metrics, tokens."""
    found: dict[str, Any] = {}
    for path in sorted(runs.rglob("*")):
        name = str(path.relative_to(runs))
        if path.is_dir() or path.suffix == ".lock" or name == "events.json":
            continue
        if path.suffix == ".jsonl":
            found[name] = [without_times(json.loads(line)) for line in path.read_text().splitlines()]
        elif path.name == "stage.json":
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


def test_the_whole_run_is_reproducible(
    whole: tuple[Path, Path, dict[str, int], float], tmp_path: Path
) -> None:
    recipe, runs, events, _ = whole
    assert all(events[kind] for kind in ("step", "evaluate", "tokenise", "sync", "rename", "prepare"))
    assert killer(recipe, tmp_path, [{}]) == [0]
    same(bits(runs), bits(tmp_path))


@pytest.mark.parametrize("chain", range(KILLS // LIVES_EACH))
def test_killed_at_random_moments(
    whole: tuple[Path, Path, dict[str, int], float], tmp_path: Path, chain: int
) -> None:
    """Chains of five deaths each: four before a random event of every kind in turn, one after a random
    time."""
    recipe, runs, events, seconds = whole
    random = keyed_generator("kills", chain)
    kinds = ["tokenise", "step", "evaluate", "sync", "rename", "prepare"]
    lives: list[dict[str, Any]] = []
    for number in range(LIVES_EACH - 1):
        kind = kinds[(chain + number) % len(kinds)]
        most = max(1, events[kind] // (1 if kind in ("tokenise", "prepare") else 3))
        lives.append({"event": [kind, int(random.integers(1, most + 1))]})
    lives.append({"after": float(random.uniform(0.05, seconds / 3))})
    statuses = killer(recipe, tmp_path, [*lives, {}])
    assert statuses[-1] == 0
    assert statuses.count(-9) >= 2, f"too few died: {statuses}"
    same(bits(runs), bits(tmp_path))


def test_a_polite_signal_saves_and_exits_with_3(
    whole: tuple[Path, Path, dict[str, int], float], tmp_path: Path
) -> None:
    recipe, runs, _, seconds = whole
    times = np.linspace(0.3, max(1.0, seconds / 4), 3).tolist()
    statuses = killer(recipe, tmp_path, [*({"after": after, "signal": 15} for after in times), {}])
    assert 3 in statuses and set(statuses) <= {0, 3} and statuses[-1] == 0
    same(bits(runs), bits(tmp_path))
