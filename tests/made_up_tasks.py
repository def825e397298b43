"""A made-up run of several tasks, as GPT-1's ablations are: classes, a number, answers of a row; variants
that transfer fewer layers; and a language model that is asked along its pre-training."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from made_up_run import TEXTS, common, node_of, write_stage

from gradus.core.keyed import keyed_generator
from gradus.core.storage import write_json
from gradus.evaluation.metrics import classification_metrics, number_metrics
from gradus.evaluation.statistics import wilson_interval

TASKS = {"sst2": "classes", "cola": "classes", "stsb": "number", "dream": "choices"}
VARIANTS = {
    "as written": 0.8, "no pre-training": 0.45, "no auxiliary loss": 0.79, "LSTM": 0.6,
    "embeddings": 0.5, "1 layer": 0.55, "2 layers": 0.66, "word vectors": 0.48,
}  # fmt: skip
"""Variant -> how good it is; the last four change sst2 alone."""
TRANSFER = {"embeddings": {"layers": 0}, "1 layer": {"layers": 1}, "2 layers": {"layers": 2},
            "word vectors": "word vectors"}  # fmt: skip
SEEDS = (1, 2)
LAYERS = 4
ROWS = {"dev": 90, "test": 120}
FLOORS = {
    "classes": {"majority": {"accuracy": 0.52, "macro_f1": 0.34, "matthews": 0.0},
                "naive_bayes": {"accuracy": 0.7, "macro_f1": 0.7, "matthews": 0.4}},
    "number": {"mean": {"pearson": 0.0, "spearman": 0.0, "loss": 2.1},
               "word_overlap": {"pearson": 0.31, "spearman": 0.3, "loss": 1.8}},
    "choices": {"chance": {"accuracy": 1 / 3}, "majority": {"accuracy": 0.35},
                "word_overlap": {"accuracy": 0.41}},
}  # fmt: skip
MAIN = {"classes": "accuracy", "number": "pearson", "choices": "accuracy"}


def make_tasks(folder: Path) -> Path:
    """Writes the run and returns its folder."""
    nodes, outcomes = {}, []
    for variant in VARIANTS:
        body = "lstm" if variant == "LSTM" else "full"
        pretrain = f"pretrain-{body}"
        nodes[pretrain] = node_of(pretrain, "pretrain", None, 1, "text")
        for seed in SEEDS:
            stages = {} if variant == "no pre-training" else {"pretrain": pretrain}
            for task in TASKS:
                changed = variant not in TRANSFER or task == "sst2"
                id = f"{task}-{list(VARIANTS).index(variant) if changed else 0}{seed}"
                nodes[id] = node_of(id, task, stages.get("pretrain"), seed, "rows")
                if not (folder / "stages" / id).exists():
                    _task(folder / "stages" / id, nodes[id], variant)
                stages[task] = id
            outcomes.append({"variant": variant, "seed": seed, "stages": stages, "results": list(TASKS)})
    for body in ("full", "lstm"):
        _pretrain(folder / "stages" / f"pretrain-{body}", nodes[f"pretrain-{body}"])
    plan = {
        "recipe": "gpt1_small",
        "recipe_digest": "0d9c11b7a634aa",
        "nodes": list(nodes.values()),
        "outcomes": outcomes,
    }
    write_json(folder / "plan.json", plan)
    return folder


def _task(home: Path, node: dict, variant: str) -> None:
    task, measure = node["stage"], TASKS[node["stage"]]
    results = {}
    for split, size in ROWS.items():
        lines = [
            _prediction(measure, task, split, row, VARIANTS[variant], node["seed"]) for row in range(size)
        ]
        results[split] = _scores(measure, lines)
        home.mkdir(parents=True, exist_ok=True)
        body = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        (home / f"predictions-{split}.jsonl").write_text(body, encoding="utf-8")
    record = common(node, [{"kind": "classification"}], {"train": {"rows": 900, "tokens": 30_000}})
    record["config"]["transfer"] = TRANSFER.get(variant, "all")
    if variant == "no auxiliary loss":
        record["config"]["auxiliary"] = 0
    record |= {
        "model": {"layers": LAYERS, "body": "lstm" if variant == "LSTM" else "transformer"},
        "training": {"steps": 90, "rows": 2700, "tokens": 90_000, "seconds": 30.0,
                     "tokens_per_second": 3000.0, "metric": "matthews" if task == "cola" else MAIN[measure]},
        "labels": ["坏", "好"] if measure == "classes" else None,
        "results": results, "floors": dict.fromkeys(ROWS, FLOORS[measure]),
    }  # fmt: skip
    evaluated = {"kind": "evaluate", "step": 90, "split": "dev", "metrics": results["dev"]}
    write_stage(home, record, [evaluated])


def _prediction(measure: str, task: str, split: str, row: int, skill: float, seed: int) -> dict:
    hard = float(keyed_generator("hard", task, split, row).random())
    luck = float(keyed_generator("luck", task, split, row, seed, int(100 * skill)).random())
    right = 0.7 * hard + 0.3 * luck < skill
    line = {"row": row, "file": f"{split}.tsv", "line": row + 1, "text": f"{TEXTS[row % len(TEXTS)]} {row}"}
    if measure == "number":
        truth = round(5 * hard, 2)
        said = truth + (1 - skill) * 8 * (luck - 0.5)
        return line | {"label": truth, "predicted": said, "error": said - truth}
    if measure == "choices":
        answers = ["去看电影。", "He <stays> at home.", "都不对"]
        said = answers[0] if right else answers[1]
        return line | {"label": answers[0], "predicted": said, "correct": right,
                       "probabilities": [0.6, 0.3, 0.1] if right else [0.2, 0.7, 0.1]}  # fmt: skip
    label, other = ("好", "坏") if row % 3 else ("坏", "好")
    said = label if right else other
    sure = {said: 0.5 + luck / 2, "好坏".replace(said, ""): 0.5 - luck / 2}
    return line | {"label": label, "predicted": said, "correct": right, "probabilities": sure}


def _scores(measure: str, lines: list[dict]) -> dict[str, float]:
    truth, said = ([line[key] for line in lines] for key in ("label", "predicted"))
    if measure == "number":
        return number_metrics(truth, said)
    if measure == "choices":
        return {"accuracy": float(np.mean([line["correct"] for line in lines])), "loss": 0.8}
    names = ["坏", "好"]
    found = classification_metrics(
        [names.index(x) for x in truth], [names.index(x) for x in said], None, names
    )
    return {**found, "loss": 0.6}


def _pretrain(home: Path, node: dict) -> None:
    lines, last = [], {}
    for step in range(100, 1001, 100):
        skill = 1 - np.exp(-step / 500) if node["id"].endswith("full") else 0.4
        for name, chance, shots in (("sst2", 0.5, 0), ("sst2_few", 0.5, 8), ("dream", 1 / 3, 0)):
            right = int(200 * (chance + (0.0 if name == "dream" else 0.22 * skill)))
            low, high = wilson_interval(right, 200)
            measured = {"accuracy": right / 200, "low": low, "high": high, "chance": chance,
                        "majority": 0.5, "rows": 200, "shots": shots}  # fmt: skip
            said = "above chance" if low > chance else "at chance"
            last[name] = {"name": name, "task": "words", "split": "dev", "metric": "accuracy",
                          "metrics": measured, "verdict": said}  # fmt: skip
            lines.append(
                {"kind": "zero_shot", "step": step, "epoch": 1.0, "tokens": step * 8192, **last[name]}
            )
        low, high = 0.02 * skill - 0.06, 0.02 * skill + 0.1
        measured = {"matthews": 0.02, "low": low, "high": high, "chance": 0.0, "accuracy": 0.6,
                    "majority": 0.69, "rows": 200, "shots": 0}  # fmt: skip
        last["cola"] = {"name": "cola", "task": "threshold", "split": "dev", "metric": "matthews",
                        "metrics": measured, "verdict": "at chance"}  # fmt: skip
        lines.append({"kind": "zero_shot", "step": step, "epoch": 1.0, "tokens": step * 8192, **last["cola"]})
        lines.append(
            {"kind": "evaluate", "step": step, "split": "dev", "metrics": {"loss": 4.0, "bits_per_byte": 1.6}}
        )
    text = {"rows": 16000, "tokens": 4_800_000, "bytes": 21_300_000}
    record = common(node, [{"kind": "causal_lm"}], {"train": text})
    record |= {
        "model": {"layers": LAYERS},
        "training": {"steps": 1000, "rows": 64000, "tokens": 8_192_000, "seconds": 900.0,
                     "tokens_per_second": 9000.0},
        "results": {"dev": {"loss": 4.0, "bits_per_byte": 1.6}},
        "floors": {"dev": {"unigram": {"bits_per_byte": 2.56}}},
        "zero_shot": {name: {**found, "counts": {}} for name, found in last.items()},
    }  # fmt: skip
    write_stage(home, record, lines)
