"""What a trained stage leaves behind: results, predictions, floors, samples, a model folder and, last,
stage.json."""

from __future__ import annotations

import platform
import resource
import shutil
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gradus.core.storage import digest_json, new_folder, read_json, write_json, write_lines
from gradus.data.rows import RowsData
from gradus.distributed.precision import DTYPES
from gradus.distributed.world import World
from gradus.evaluation.evaluator import Scores, as_scored
from gradus.evaluation.floors import unigram_floor
from gradus.evaluation.generate import generate
from gradus.evaluation.sampling import Sampling
from gradus.evaluation.texts import libraries_of
from gradus.families.adapter import write_adapter
from gradus.families.folder import read_folder, theirs, write_folder
from gradus.nn.adapters import merged
from gradus.nn.transformer import Transformer
from gradus.objectives import CausalLMConfig
from gradus.pipeline.models.opening import TEXT_KEYS, natural_reader, never_said, row_template, text_template
from gradus.pipeline.planning.plan import Node
from gradus.pipeline.planning.prepared import Prepared
from gradus.pipeline.planning.splits import Split
from gradus.pipeline.running.judging import judge
from gradus.pipeline.running.predictions import prediction_lines, row_floors
from gradus.pipeline.running.stage import StageRun, heads_of
from gradus.tokenizers import Tokenizer
from gradus.training.learner import Learner
from gradus.training.transfer import transfer

SAMPLES, SAMPLE_TOKENS, PROMPT_WORDS = 3, 60, 8


def finish(run: StageRun, learner: Learner) -> dict[str, Any]:
    """Scores dev and test once with the weights that leave, writes everything, and returns stage.json's
    content. Where the context scores dev alone, `score_test` does the rest when it is wanted."""
    prepared = run.prepared
    results: dict[str, dict[str, float]] = {}
    for split in run.context.scored:
        if split in prepared.splits:
            results[split], scores = run.final_metrics(learner, split)
            _write_predictions(run, split, scores)
    answered = run.final_probes(learner)
    run.world.barrier()
    if not run.world.first:
        run.world.barrier()
        return {}
    _write_skipped(run)
    model = run.folder / "model"
    with new_folder(model) as folder:
        write_model(folder, prepared, learner)
    _write_adapter(run, learner)
    samples = _samples(prepared, learner)
    floors = {name: _scored_floors(run, task, learner) for name, task in prepared.tasks.items()}
    record = _record(run, results, samples) | {"floors": floors.get("", {}), "zero_shot": answered}
    if prepared.members:
        record["members"] = {
            name: _known(task) | {"objectives": [objective.plain() for objective in task.node.stage.judged],
                                  "metric": task.node.stage.metric, "floors": floors[name]}
            for name, task in prepared.members.items()
        }  # fmt: skip
    write_json(run.folder / "stage.json", record)
    shutil.rmtree(run.checkpoints, ignore_errors=True)
    run.world.barrier()
    return record


def is_done(folder: Path) -> bool:
    """Whether a stage's folder holds a finished stage."""
    try:
        return read_json(folder / "stage.json")["status"] == "done"
    except (OSError, ValueError, KeyError):
        return False


def lacks_test(folder: Path) -> bool:
    """Whether a finished stage has a test split that was not scored yet."""
    record = read_json(folder / "stage.json")
    return "test" in record["data"] and "test" not in record["results"]


def score_test(run: StageRun) -> None:
    """Scores test with the weights that left a finished stage, which a loop had scored on dev alone."""
    prepared, folder, record = run.prepared, run.folder / "model", read_json(run.folder / "stage.json")
    learner = Learner(Transformer(prepared.model, DTYPES[run.precision]), prepared.objectives)
    transfer(learner, read_folder(folder).tensors, {head: head for head in learner.heads}, str(folder))
    learner.to(run.world.device)
    steps = record["training"]["steps"]
    metrics, scores = judge(prepared, learner, "test", steps, run.world, run.budget)
    if run.world.first:
        _write_predictions(run, "test", scores)
        record["results"]["test"] = metrics
        for name, task in prepared.tasks.items():
            told = record["members"][name] if name else record
            told["floors"] |= _scored_floors(run, task, learner)
        write_json(run.folder / "stage.json", record)
    run.world.barrier()


def _write_predictions(run: StageRun, split: str, scores: Mapping[str, Scores]) -> None:
    """What was predicted of each row of a split, a file for every task; by the first rank."""
    for name, found in scores.items() if run.world.first else ():
        task = run.prepared.tasks[name]
        if task.answers is not None:
            of_task = "-".join(filter(None, ("predictions", name, split)))
            write_lines(run.folder / f"{of_task}.jsonl", prediction_lines(task, task.splits[split], found))


def _scored_floors(run: StageRun, task: Prepared, learner: Learner) -> dict[str, Any]:
    floors = _known_floors(run, task, learner)
    return {split: floors[split] for split in floors if split in run.context.scored}


def write_model(folder: Any, prepared: Prepared, learner: Learner) -> None:
    """Writes the model folder: Hugging Face's files where those can express the model, and gradus.json."""
    tokenizer, task = prepared.tokenizer, _speaker(prepared)
    data = task.node.stage.data
    tensors = _own_names(merged(learner))
    template = text_template(tokenizer, prepared.model)
    if isinstance(data, RowsData):
        template = row_template(data.format, prepared.model)
    labels = task.labels.names if task.labels else task.window_labels
    write_folder(
        folder,
        prepared.model,
        tensors,
        card(prepared),
        lambda path: tokenizer.save(path, template, prepared.model.context),
        labels=list(labels) or None,
        task=None if task.answers is None else task.node.stage.measure,
        roles={role: tokenizer.role(role) for role in tokenizer.roles},
    )


def _speaker(prepared: Prepared) -> Prepared:
    """The task that Hugging Face's files tell of: the one with the head, where several tasks have one."""
    headed = [task for task in prepared.tasks.values() if any(one.head_name for one in task.objectives)]
    return [*headed, *prepared.tasks.values()][0]


def _own_names(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix("transformer."): tensor for name, tensor in tensors.items()}


def _write_adapter(run: StageRun, learner: Learner) -> None:
    """adapter/: what peft loads on the folder that the stage began with, where Hugging Face's code can hold
    the model."""
    adapters, base = run.node.stage.adapters, run.context.start(run.node)
    if adapters is None or base is None or (model := theirs(run.folder / "model")) is None:
        return
    grown = {moved.tensor for moved in run.moved if moved.what == "resized"}
    whole = {name: tensor for name, tensor in learner.state_dict().items()
             if name in grown or name.startswith("heads.")}  # fmt: skip
    with new_folder(run.folder / "adapter") as folder:
        write_adapter(folder, adapters, learner.transformer, model, _own_names(whole), base)


def card(prepared: Prepared) -> dict[str, Any]:
    """gradus.json: what Hugging Face's files have no place for; of several tasks each under its name."""
    members = {name: _taught(task) for name, task in prepared.members.items()}
    return {
        "format_version": 2 if members else 1,
        "stage": prepared.node.name,
        "fingerprint": prepared.node.fingerprint,
        "model": prepared.model.plain(),
        "roles": dict(prepared.tokenizer.roles),
        "heads": heads_of(prepared),
        **({"members": members} if members else _taught(prepared)),
    }


def _taught(task: Prepared) -> dict[str, Any]:
    """What a task learnt, and how its rows or text are read."""
    stage, data = task.node.stage, task.node.stage.data
    about: dict[str, Any] = {
        "objectives": [objective.plain() for objective in stage.judged],
        "labels": list(task.labels.names) if task.labels else None,
        "range": task.range,
    }
    if not isinstance(data, RowsData):
        text = next(iter(data.parts.values())).plain()
        return about | {key: text[key] for key in TEXT_KEYS}
    return about | {"format": data.format.plain(), "long": data.long, "reader": data.reader_options().plain(),
                    "natural": natural_reader(data), "multi_label": data.plain().get("multi_label"),
                    "metrics": list(stage.text_metrics)}  # fmt: skip


def _write_skipped(run: StageRun) -> None:
    """skipped.jsonl: the bad rows that were left out, one object a row; no file where there was none."""
    lines = [
        {"split": name, "file": row.file, "line": row.line, "problem": row.problem}
        for name, split in run.prepared.splits.items()
        for row in split.skipped
    ]
    if lines:
        write_lines(run.folder / "skipped.jsonl", lines)


def _known(task: Prepared) -> dict[str, Any]:
    """What stage.json tells of the data of a stage, or of one task of several."""
    return {
        "data": {name: split.counts for name, split in task.splits.items()},
        "labels": list(task.labels.names) if task.labels else None,
        "label_weights": task.label_weights,
    }


def _known_floors(run: StageRun, prepared: Prepared, learner: Learner) -> dict[str, Any]:
    stage = prepared.node.stage
    scored = [[one.plain() for one in stage.judged], prepared.model.context]
    key = digest_json([scored, run.digests, stage.data.plain(), prepared.tokenizer.digest])
    if key not in run.context.floors:
        asked = learner.asked(prepared.objectives) if run.prepared.members else learner
        run.context.floors[key] = _floors(prepared, asked)
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
        "cached_layers": prepared.cached,
        "learning": sum(shape.numel() for shape in prepared.learning.values()),
        **_known(prepared),
        "transfer": [moved.plain() for moved in run.moved],
        "training": {
            "steps": trainer.clock.step, "rows": trainer.clock.rows, "tokens": trainer.clock.tokens,
            "seconds": round(trainer.seconds, 3),
            "peak_memory": _peak_memory(run), "held_memory": _held_memory(run),
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


def _held_memory(run: StageRun) -> int:
    """Bytes of the weights, the gradients of those that learn, and what the optimizer keeps of them."""
    weights = list(run.trainer.learner.parameters())
    kept = [tensor for optimizer in run.trainer.optimizers for state in optimizer.state.values()
            for tensor in state.values() if isinstance(tensor, torch.Tensor)]  # fmt: skip
    return sum(one.nbytes for one in (*weights, *(one for one in weights if one.requires_grad), *kept))


def _peak_memory(run: StageRun) -> int:
    """Bytes: of the device where it has its own memory, else the most this process ever held."""
    if run.world.device.type == "cuda":
        return torch.cuda.max_memory_allocated(run.world.device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
