"""A recipe of two stages that runs in about a second: the built-in text and rows, one block 16 wide."""

from __future__ import annotations

import json
import shutil
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml

RECIPE = """
seed: 5
tokenizer: {kind: bpe, vocab_size: 300}
model: {preset: gpt1-tiny, layers: 1, width: 16, heads: 2, context: 32}
stages:
  pretrain:
    data: {kind: text, train: "builtin:tiny", dev: "builtin:tiny"}
    objectives: [{kind: causal_lm}]
    optimizer: {kind: adamw, lr: 1e-2}
    batch: 16 windows
    length: 8 steps
  finetune:
    from: pretrain
    data:
      kind: rows
      train: "builtin:tiny"
      dev: "builtin:tiny"
      format: {kind: single, text: text, label: label}
    objectives: [{kind: classification}, {kind: causal_lm, weight: 0.5}]
    optimizer: {kind: adamw, lr: 5e-3}
    batch: 16 rows
    length: 12 steps
"""


def tiny(path: Path, patch: dict[str, Any] | None = None) -> Path:
    """Writes RECIPE to `path` with `patch` (full key, as in `--set`: new value) applied; returns `path`."""
    recipe = yaml.safe_load(RECIPE)
    for key, value in (patch or {}).items():
        *outer, last = key.split(".")
        inner = recipe
        for name in outer:
            inner = inner[name]
        inner[last] = deepcopy(value)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True), encoding="utf-8")
    return path


def killed_and_whole(path: Path, until: str, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """The weights of the stage `until` of a run that went through and of one that died at that stage's first
    checkpoint, before its end; they have the same bits. What leads to the stage is done once for both."""
    from gradus.pipeline.run import run
    from gradus.pipeline.running.stage import StageRun

    whole = run(path, runs=path.parent / "whole", device="cpu", until=until)
    saved = StageRun._save

    def killed(self: StageRun, trainer: Any) -> None:
        saved(self, trainer)
        assert self.node.name == until and trainer.clock.step < trainer.feed.steps
        raise KeyboardInterrupt

    done = shutil.ignore_patterns(f"{until}-*", "cache")
    shutil.copytree(path.parent / "whole", path.parent / "killed", ignore=done, dirs_exist_ok=True)
    monkeypatch.setattr(StageRun, "_save", killed)
    with pytest.raises(KeyboardInterrupt):
        run(path, runs=path.parent / "killed", device="cpu", until=until)
    monkeypatch.setattr(StageRun, "_save", saved)
    again = run(path, runs=path.parent / "killed", device="cpu", until=until)
    (stage,) = (whole / "stages").glob(f"{until}-*")
    weights, other = (one / "stages" / stage.name / "model/model.safetensors" for one in (whole, again))
    assert weights.read_bytes() == other.read_bytes()
    return weights, other


def one_task(path: Path, preset: str, context: int, stage: str, **task: Any) -> Path:
    """Writes a recipe whose one `stage` learns a task, with characters for tokens; returns `path`."""
    usual = {"batch": "8 rows", "optimizer": {"kind": "adamw", "lr": 1e-2}, "precision": "fp32"}
    model = {"preset": preset, "layers": 1, "width": 16, "heads": 2, "context": context}
    content = {"tokenizer": {"kind": "char"}, "model": model, "stages": {stage: usual | task}}
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    return path


def lines(path: Path) -> list[dict[str, Any]]:
    """The objects of a file of JSON lines."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
