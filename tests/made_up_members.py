"""A recipe with English rows of two classes, Chinese rows of three and a text, all in one stage, and the
Chinese alone after it."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from tiny import tiny

SINGLE = {"kind": "single", "text": "text", "label": "label"}
ENGLISH = {"a fair wind": "good", "the mast broke": "bad", "home at last": "good", "all were lost": "bad"}
CHINESE = {"风平浪静": "好", "风暴折断了桅杆": "坏", "船停在港里": "中", "我们到家了": "好"}
OBJECTIVES = [
    {"kind": "classification", "on": "english"},
    {"kind": "classification", "on": "chinese"},
    {"kind": "causal_lm", "weight": 0.5},
]


def rows(path: Path, labelled: dict[str, str], times: int) -> dict[str, Any]:
    """Data of kind rows: each text `times` over, with a number behind it."""
    lines = [f"{label}\t{text} {number}" for number in range(times) for text, label in labelled.items()]
    path.write_text("label\ttext\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return {"kind": "rows", "train": str(path), "dev": "25 %", "format": SINGLE}


def members(folder: Path) -> dict[str, Any]:
    """The data sets of the mixture."""
    folder.mkdir(parents=True, exist_ok=True)
    return {
        "english": rows(folder / "english.tsv", ENGLISH, 12),
        "chinese": rows(folder / "chinese.tsv", CHINESE, 6),
        "sea": {"kind": "text", "train": "builtin:tiny", "dev": "builtin:tiny"},
    }


def mixed(folder: Path, patch: dict[str, Any] | None = None) -> Path:
    """Writes the recipe, with `patch` applied to its stage `multi`; returns its path."""
    parts = members(folder)
    common = {"optimizer": {"kind": "adamw", "lr": 5e-3}, "batch": "16 rows", "length": "12 steps"}
    multi = {"data": {"mix": parts, "by": "turns"}, "objectives": OBJECTIVES, **common, **(patch or {})}
    target = {"data": parts["chinese"], "objectives": [{"kind": "classification"}], **common}
    stages = {"multi": multi, "chinese": {"from": "multi", **target}}
    return tiny(folder / "seas.yaml", {"stages": stages, "tokenizer": {"kind": "char"}})


def record(run: Path, name: str) -> tuple[Path, dict[str, Any]]:
    (file,) = run.glob(f"stages/{name}-*/stage.json")
    return file.parent, json.loads(file.read_text())


def two_ranks(recipe: str, runs: str, until: str, port: str) -> int:
    """Runs the recipe in two processes that meet at `port`; how many of them failed. They are forks, so that
    what is heavy is imported once."""
    import gradus
    from gradus.pipeline import run  # noqa: F401

    children = []
    for rank in range(2):
        children.append(os.fork())
        if children[-1] == 0:
            place = {"RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            os.environ.update({name: str(value) for name, value in place.items()})
            gradus.run(recipe, runs=runs, until=until, device="cpu")
            os._exit(0)
    return sum(os.waitpid(child, 0)[1] != 0 for child in children)


if __name__ == "__main__":
    sys.exit(two_ranks(*sys.argv[1:]))
