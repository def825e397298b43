"""What the benchmarks share: sides in processes of their own, the machine they ran on, its matrix rates."""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

LAYERS, WIDTH, HEADS, VOCABULARY = 4, 256, 4, 8192
"""The shape of every benchmark's model."""

Found = dict[str, Any]
RunSide = Callable[[list[str], int], list[float]]


def matrix_rate(precision: str) -> list[float]:
    """Seconds of a product of two matrices 2048 x 2048, repeated."""
    import torch

    dtype = {"bf16": torch.bfloat16, "fp32": torch.float32}[precision]
    first, second = torch.randn(2, 2048, 2048).to(dtype)
    seconds = []
    for _ in range(30):
        start = time.perf_counter()
        first @ second
        seconds.append(time.perf_counter() - start)
    return seconds[5:]


def side(script: str, arguments: list[str], steps: int) -> list[float]:
    """The seconds that one side of `script` measured, run in a new process."""
    command = [sys.executable, script, "--side", *arguments, "--steps", str(steps)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(arguments)} failed:\n{done.stderr}")
    measured: list[float] = json.loads(done.stdout.splitlines()[-1])
    return measured


def step_marks() -> tuple[list[float], Any]:
    """A list that fills with the time at each step's end, and the callback of Hugging Face's Trainer that
    fills it."""
    from transformers import TrainerCallback

    marks: list[float] = []

    class Watch(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> None:
            marks.append(time.perf_counter())

    return marks, Watch()


def machine() -> dict[str, Any]:
    """What the figures depend on."""
    import torch

    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    return {"cpu": names[0] if names else platform.processor(), "threads": torch.get_num_threads(),
            "torch": torch.__version__, "python": platform.python_version()}  # fmt: skip


def heading(found: Found, rates: dict[str, float]) -> str:
    """The machine in a line."""
    cpu = found["machine"]
    told = ", ".join(f"{key} {rate / 1e12:.2f} TFLOP/s" for key, rate in rates.items())
    return f"{cpu['cpu']}, {cpu['threads']} threads, torch {cpu['torch']}; matrix rate {told}"


def main(
    story: str | None,
    run_side: RunSide,
    compare: Callable[[int, int], Found],
    table: Callable[[Found], list[str]],
    steps: int,
) -> None:
    """The command line of a benchmark: compares, prints the table, exports the figures."""
    parser = argparse.ArgumentParser(description=story, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=steps, help="timed steps a side and round")
    parser.add_argument("--export", type=Path, help="write all figures to this JSON file")
    parser.add_argument("--side", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side:
        print(json.dumps(run_side(options.side, options.steps)))
        return
    found = compare(options.rounds, options.steps)
    print("\n".join(table(found)))
    if options.export:
        options.export.parent.mkdir(parents=True, exist_ok=True)
        options.export.write_text(json.dumps(found, indent=1) + "\n")
