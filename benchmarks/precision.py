"""Memory of a training step in each precision: what a `gradus run` took at most, beside what `check` planned.

    python benchmarks/precision.py        # some minutes on two cores; the table of docs/optimisation.md

A language model of built-in text, vocabulary 8192, AdamW, dropout 0.1; every run is a process of its own,
with the allocator settings of the command, and takes two steps, since the optimizer's numbers come with the
first. On a CPU it is the process's peak, libraries included (the 1 x 16 model has little else); on a CUDA
device what tensors took there. CPUs without products in fp16 take minutes where bf16 takes seconds, so there
fp16 is measured with few tokens alone.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from itertools import product
from pathlib import Path

import torch
import yaml

from gradus.pipeline.check import check

SIZES = {
    "1 x 16": {"layers": 1, "width": 16, "heads": 2},
    "4 x 256": {"layers": 4, "width": 256, "heads": 4},
    "8 x 512": {"layers": 8, "width": 512, "heads": 8},
}
FEW, MANY = 2, 16
"""Windows of 256 tokens a step."""
STEPS = [("1 x 16", FEW), ("4 x 256", FEW), ("4 x 256", MANY), ("8 x 512", MANY)]
PRECISIONS = ("fp32", "bf16", "fp16")
CALL = "from gradus.cli import main; main()"


def recipe(folder: Path, size: str, windows: int, precision: str) -> Path:
    stage = {
        "data": {"kind": "text", "train": "builtin:tiny"}, "objectives": [{"kind": "causal_lm"}],
        "batch": f"{windows} windows", "length": "2 steps", "precision": precision,
    }  # fmt: skip
    content = {
        "tokenizer": {"kind": "char"}, "stages": {"pretrain": stage},
        "model": {"preset": "gpt1", "context": 256, "vocab_size": 8192} | SIZES[size],
    }  # fmt: skip
    path = folder / f"{size}-{windows}-{precision}.yaml".replace(" ", "")
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    return path


def measured(path: Path, runs: Path) -> dict[str, float]:
    """Weights, bytes planned and bytes taken at most of a run in a process of its own."""
    (one,) = check(path, runs=runs).nodes
    command = [sys.executable, "-c", CALL, "run", str(path), "--runs", str(runs)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{path.stem} failed:\n{done.stderr}")
    record = json.loads((runs / path.stem / "stages" / one.node.id / "stage.json").read_text("utf-8"))
    taken = record["training"]["peak_memory"]
    return {"weights": record["parameters"], "planned": one.estimate.memory, "taken": taken}


def main() -> None:
    print("| model | weights | tokens a step | precision | peak, GB | planned, GB |")
    print("|---|---:|---:|---|---:|---:|")
    with tempfile.TemporaryDirectory(prefix="gradus-") as folder:
        for (size, windows), precision in product(STEPS, PRECISIONS):
            if precision == "fp16" and windows == MANY and not torch.cuda.is_available():
                continue
            found = measured(recipe(Path(folder), size, windows, precision), Path(folder) / "runs")
            weights = f"{found['weights'] / 1e6:.1f} M"
            taken, planned = (f"{found[key] / 1e9:.2f}" for key in ("taken", "planned"))
            line = size, weights, f"{256 * windows:,}", precision, taken, planned
            print(f"| {' | '.join(line)} |", flush=True)


if __name__ == "__main__":
    main()
