"""What the benchmarks share: sides in processes of their own, the machine they ran on, its matrix rates."""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
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


def median_second(script: str, arguments: list[str], steps: int) -> float:
    """Of the steps of one side, run in a new process."""
    return statistics.median(side(script, arguments, steps))


def tried(script: str, peers: Mapping[str, list[str]], tokens: int, steps: int) -> dict[str, float]:
    """Tokens a second of every setting of the peer, a few steps each."""
    few = max(4, steps // 3)
    return {name: tokens / median_second(script, arguments, few) for name, arguments in peers.items()}


def turns(script: str, sides: Mapping[str, list[str]], tokens: int, rounds: int, steps: int) -> Found:
    """Matrix rates and tokens a second of all sides in turn, `rounds` times."""
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    rates: dict[str, list[float]] = {"bf16": [], "fp32": []}
    for number in range(rounds):
        for precision, measured in rates.items():
            measured.append(2 * 2048**3 / median_second(script, ["rate", precision], 1))
        for name, arguments in sides.items():
            speeds[name].append(tokens / median_second(script, arguments, steps))
            print(f"round {number + 1}  {name:36} {speeds[name][-1]:7.0f} tokens/s", flush=True)
    return {"machine": machine(), "matrix_rate": rates, "tokens_per_second": speeds}


def peer_arguments(folder: str, windows: int, steps: int, precision: str) -> Any:
    """The settings of Hugging Face's Trainer for pre-training on the CPU, as ours are."""
    from transformers import TrainingArguments

    return TrainingArguments(
        folder, per_device_train_batch_size=windows, max_steps=steps, bf16=precision == "bf16", use_cpu=True,
        max_grad_norm=1.0, learning_rate=2.5e-4, weight_decay=0.01, save_strategy="no", logging_steps=500,
        report_to=[], disable_tqdm=True,
    )  # fmt: skip


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
