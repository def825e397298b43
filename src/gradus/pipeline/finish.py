"""What a trained stage leaves behind: results, predictions, floors, samples, a model folder and, last,
stage.json."""

from __future__ import annotations

import json
import platform
import resource
import shutil
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gradus.core.storage import digest_json, new_folder, write_file, write_json
from gradus.data.rows import RowsData
from gradus.distributed.world import World
from gradus.evaluation.evaluator import as_scored
from gradus.evaluation.floors import unigram_floor
from gradus.evaluation.generate import generate
from gradus.evaluation.sampling import Sampling
from gradus.evaluation.texts import libraries_of
from gradus.families.folder import write_folder
from gradus.objectives import CausalLMConfig
from gradus.pipeline.answers import prediction_lines, row_floors
from gradus.pipeline.opening import TEXT_KEYS, natural_reader, never_said, row_template, text_template
from gradus.pipeline.plan import Node
from gradus.pipeline.prepared import Prepared
from gradus.pipeline.splits import Split
from gradus.pipeline.stage import StageRun, heads_of
from gradus.tokenizers import Tokenizer
from gradus.training.learner import Learner

SAMPLES, SAMPLE_TOKENS, PROMPT_WORDS = 3, 60, 8


def finish(run: StageRun, learner: Learner) -> dict[str, Any]:
    """Scores dev and test once with the weights that leave, writes everything, and returns stage.json's
    content."""
    prepared = run.prepared
    results: dict[str, dict[str, float]] = {}
    for split in ("dev", "test"):
        if split in prepared.splits:
            results[split], scores = run.final_metrics(learner, split)
            if prepared.answers is not None and run.world.first:
                lines = prediction_lines(prepared, prepared.splits[split], scores[prepared.main])
                _write_lines(run.folder / f"predictions-{split}.jsonl", lines)
    answered = run.final_probes(learner)
    run.world.barrier()
    if not run.world.first:
        run.world.barrier()
        return {}
    _write_skipped(run)
    model = run.folder / "model"
    with new_folder(model) as folder:
        write_model(folder, prepared, learner)
    floors, samples = _known_floors(run, learner), _samples(prepared, learner)
    record = _record(run, results, samples) | {"floors": floors, "zero_shot": answered}
    write_json(run.folder / "stage.json", record)
    shutil.rmtree(run.checkpoints, ignore_errors=True)
    run.world.barrier()
    return record


def write_model(folder: Any, prepared: Prepared, learner: Learner) -> None:
    """Writes the model folder: Hugging Face's files where those can express the model, and gradus.json."""
    tokenizer, data = prepared.tokenizer, prepared.node.stage.data
    tensors = {name.removeprefix("transformer."): tensor for name, tensor in learner.state_dict().items()}
    template = text_template(tokenizer, prepared.model)
    if isinstance(data, RowsData):
        template = row_template(data.format, prepared.model)
    labels = prepared.labels.names if prepared.labels else prepared.window_labels
    write_folder(
        folder,
        prepared.model,
        tensors,
        card(prepared),
        lambda path: tokenizer.save(path, template, prepared.model.context),
        labels=list(labels) or None,
        task=None if prepared.answers is None else prepared.node.stage.measure,
        roles={role: tokenizer.role(role) for role in tokenizer.roles},
    )


def card(prepared: Prepared) -> dict[str, Any]:
    """gradus.json: what Hugging Face's files have no place for."""
    stage, data = prepared.node.stage, prepared.node.stage.data
    about: dict[str, Any] = {
        "format_version": 1,
        "stage": prepared.node.name,
        "fingerprint": prepared.node.fingerprint,
        "model": prepared.model.plain(),
        "roles": dict(prepared.tokenizer.roles),
        "objectives": [objective.plain() for objective in stage.tasks],
        "heads": heads_of(prepared),
        "labels": list(prepared.labels.names) if prepared.labels else None,
        "range": prepared.range,
    }
    if not isinstance(data, RowsData):
        text = next(iter(data.parts.values())).plain()
        return about | {key: text[key] for key in TEXT_KEYS}
    return about | {"format": data.format.plain(), "long": data.long, "reader": data.reader_options().plain(),
                    "natural": natural_reader(data), "multi_label": data.plain().get("multi_label"),
                    "metrics": list(stage.text_metrics)}  # fmt: skip


def _write_lines(path: Path, lines: Sequence[dict[str, Any]]) -> None:
    write_file(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def _write_skipped(run: StageRun) -> None:
    """skipped.jsonl: the bad rows that were left out, one object a row; no file where there was none."""
    lines = [
        {"split": name, "file": row.file, "line": row.line, "problem": row.problem}
        for name, split in run.prepared.splits.items()
        for row in split.skipped
    ]
    if lines:
        _write_lines(run.folder / "skipped.jsonl", lines)


def _known_floors(run: StageRun, learner: Learner) -> dict[str, Any]:
    stage, prepared = run.node.stage, run.prepared
    scored = [[one.plain() for one in stage.tasks], prepared.model.context]
    key = digest_json([scored, run.digests, stage.data.plain(), prepared.tokenizer.digest])
    if key not in run.context.floors:
        run.context.floors[key] = _floors(prepared, learner)
    return run.context.floors[key]


def _floors(prepared: Prepared, learner: Learner) -> dict[str, Any]:
    """What learns nothing of language, on the same splits: of text, on the same tokens."""
    if prepared.answers is not None or prepared.node.stage.told_answers:
        return row_floors(prepared)
    train, main = prepared.splits["train"], prepared.objectives[prepared.main]
    if not (prepared.node.stage.every_token or main.names_tokens):
        return {}
    counts = _token_counts(train, prepared.tokenizer)
    if main.names_tokens:  # it is never asked for those that play a role
        counts[[prepared.tokenizer.role(name) for name in prepared.tokenizer.roles]] = 0
    floors = {}
    for name, split in prepared.splits.items():
        if split is train:
            continue
        wanted = np.zeros_like(counts)
        for example in as_scored(learner, split.source, World()):
            wanted += np.bincount(main.targets(example).value, minlength=len(wanted))
        size = None if main.names_tokens else split.counts["bytes"]
        floors[name] = {"unigram": unigram_floor(counts, wanted, size)}
    return floors


def _token_counts(split: Split, tokenizer: Tokenizer) -> np.ndarray:
    counts = np.zeros(tokenizer.size, dtype=np.int64)
    if not split.stores:
        for index in range(len(split.source)):
            for sequence in split.source.example(index).sequences:
                counts += np.bincount(sequence, minlength=len(counts))
    for store in split.stores:
        for start in range(0, store.total, 1 << 22):
            tokens = store.read(start, min(start + (1 << 22), store.total))
            counts += np.bincount(tokens, minlength=len(counts))
    return counts


def _samples(prepared: Prepared, learner: Learner) -> list[dict[str, str]]:
    """What a language model goes on to say; keyed, so the same weights say the same."""
    if not any(isinstance(objective, CausalLMConfig) for objective in prepared.node.stage.objectives):
        return []
    if prepared.node.stage.reads != "text":
        return []
    tokenizer = prepared.tokenizer
    learner.eval()
    found = []
    for number, prompt in enumerate(prepared.node.recipe.prompts or _prompts(prepared)):
        sampling = Sampling(tokens=SAMPLE_TOKENS, temperature=0.8, top_k=40, seed=prepared.node.seed + number)
        ids = [int(token) for token in tokenizer.encode([prompt])[0]]
        said = generate(
            learner.transformer, ids, sampling, tokenizer.role("end"), never_said(tokenizer, prepared.model)
        )
        found.append({"prompt": prompt, "text": tokenizer.decode(said)})
    return found


def _prompts(prepared: Prepared) -> list[str]:
    """The first words of a few places in dev (or train), evenly apart."""
    store = prepared.splits.get("dev", prepared.splits["train"]).stores[0]
    places = [store.total * number // SAMPLES for number in range(SAMPLES)]
    texts = [
        prepared.tokenizer.decode(store.read(at, min(at + 64, store.total)).tolist(), True) for at in places
    ]
    return [prompt for prompt in (_opening(text) for text in texts) if prompt]


def _opening(text: str) -> str:
    words = text.split()
    if len(words) > PROMPT_WORDS:
        return " ".join(words[1 : PROMPT_WORDS + 1])
    return "".join(words)[1:13]


def _record(
    run: StageRun, results: dict[str, dict[str, float]], samples: Sequence[dict[str, str]]
) -> dict[str, Any]:
    prepared, node, trainer = run.prepared, run.node, run.trainer
    environment = run.environment
    stage = node.stage
    return {
        "status": "done",
        "id": node.id, "stage": node.name, "fingerprint": node.fingerprint, "seed": node.seed,
        "kind": node.kind,
        "config": stage.model_dump(mode="json", by_alias=True),
        "model": prepared.model.plain(),
        "parent": node.parent.id if node.parent else (str(node.folder) if node.folder else None),
        "teachers": [one.id if isinstance(one, Node) else str(one) for one in node.teachers],
        "digests": {"data": run.digests, "tokenizer": prepared.tokenizer.digest},
        "versions": {"gradus": version("gradus-lm"), "torch": torch.__version__,
                     "python": platform.python_version(),
                     **libraries_of(stage.text_metrics), **stage.libraries},
        **{key: environment[key] for key in ("threads", "device", "precision", "world")},
        "parameters": sum(parameter.numel() for parameter in trainer.learner.plain.parameters()),
        "data": {name: split.counts for name, split in prepared.splits.items()},
        "labels": list(prepared.labels.names) if prepared.labels else None,
        "label_weights": prepared.label_weights,
        "transfer": [moved.plain() for moved in run.moved],
        "training": {
            "steps": trainer.clock.step, "rows": trainer.clock.rows, "tokens": trainer.clock.tokens,
            "seconds": round(trainer.seconds, 3),
            "peak_memory": _peak_memory(run),
            "tokens_per_second": round(trainer.clock.tokens / max(trainer.seconds, 1e-9), 1),
            "stopped": run.stopped, "best_step": run.stopping.best_step, "metric": run.stopping.metric,
        },
        "results": results,
        "samples": list(samples),
        "times": {
            "started": run.started, "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "prepare": round(run.prepare_seconds, 3), "train": round(trainer.seconds, 3),
            "evaluate": round(run.seconds["evaluate"], 3),
        },
    }  # fmt: skip


def _peak_memory(run: StageRun) -> int:
    """Bytes: of the device where it has its own memory, else the most this process ever held."""
    if run.world.device.type == "cuda":
        return torch.cuda.max_memory_allocated(run.world.device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
