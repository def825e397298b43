"""A made-up finished run for the report: two variants, three seeds, and the numbers to find again."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np

from gradus.core.keyed import keyed_generator
from gradus.core.storage import write_json
from gradus.evaluation.metrics import classification_metrics

TEXTS = [
    "这本书的结尾让人失望，前半部分却写得很好。",
    "a stirring , funny and finally transporting re imagining of beauty and the beast",
    "译文流畅，值得一读再读！",
    "it 's not that the plot is thin , it 's that <b>nobody</b> noticed & nobody cared",
    "洋洋洒洒五百多页，内容几乎没有纰漏，不过重复的地方也不少。",
    "one long string of cliches",
    "<script>alert('x')</script> 男主好渣！看的气死我了！",
]
SEEDS = (1, 2, 3)
VARIANTS = {"as written": 0.86, "no pretraining": 0.68}
ROWS = {"dev": 240, "test": 360}
NAIVE_BAYES = 0.79


def make_run(folder: Path, unfinished: bool = False) -> Path:
    """A run of two variants and three seeds; with `unfinished`, one stage is half done and one missing."""
    nodes = [node_of("pretrain-00aa11bb", "pretrain", None, 1, "text")]
    outcomes = []
    for number_, variant in enumerate(VARIANTS):
        for seed in SEEDS:
            stages = {"finetune": f"finetune-{number_}{seed}c0ffee"}
            parent = None
            if variant == "as written":
                stages = {"pretrain": "pretrain-00aa11bb", **stages}
                parent = "pretrain-00aa11bb"
            nodes.append(node_of(stages["finetune"], "finetune", parent, seed, "rows"))
            outcomes.append({"variant": variant, "seed": seed, "stages": stages, "results": ["finetune"]})
    plan = {
        "recipe": "quickstart",
        "recipe_digest": "5f0c2d9e81b7a6340d11",
        "nodes": nodes,
        "outcomes": outcomes,
    }
    write_json(folder / "plan.json", plan)
    (folder / "recipe.yaml").write_text(
        "seed: 1\nmodel: {preset: gpt1, layers: 4, width: 256}\nseeds: 3\n", "utf-8"
    )
    _pretrain(folder / "stages" / nodes[0]["id"], nodes[0])
    for node, outcome in zip(nodes[1:], outcomes):
        _finetune(folder / "stages" / node["id"], node, outcome["variant"])
    if unfinished:
        half, missing = (folder / "stages" / node["id"] for node in nodes[-2:])
        for file in [*half.glob("predictions*"), half / "stage.json", *missing.glob("*")]:
            file.unlink()
        missing.rmdir()
        with open(half / "metrics.jsonl", "a") as file:
            file.write('{"kind": "train", "st')
    return folder


def one_text_stage(folder: Path) -> None:
    """A run of one stage of text alone."""
    node = node_of("pretrain-00aa11bb", "pretrain", None, 1, "text")
    outcome = {
        "variant": "as written",
        "seed": 1,
        "stages": {"pretrain": node["id"]},
        "results": ["pretrain"],
    }
    write_json(
        folder / "plan.json",
        {"recipe": "语言", "recipe_digest": "ab", "nodes": [node], "outcomes": [outcome]},
    )
    _pretrain(folder / "stages" / node["id"], node)


def node_of(id: str, stage: str, parent: str | None, seed: int, kind: str) -> dict:
    return {
        "id": id,
        "stage": stage,
        "fingerprint": id.split("-")[1] * 4,
        "parent": parent,
        "seed": seed,
        "kind": kind,
    }


def common(node: dict, objectives: list, data: dict) -> dict:
    return {
        **node,
        "status": "done",
        "config": {"objectives": objectives},
        "digests": {"data": dict.fromkeys(data, "9a" * 16), "tokenizer": "7c" * 16},
        "versions": {"gradus": "0.1.0", "torch": "2.13.0", "python": "3.11.7"},
        "threads": 2,
        "device": "cpu",
        "precision": "bf16",
        "parameters": 5_390_000,
        "labels": None,
        "data": data,
        "times": {
            "started": "2025-01-01T10:00:00",
            "finished": "2025-01-01T10:30:00",
            "prepare": 1,
            "train": 2,
        },
    }


def _pretrain(home: Path, node: dict) -> None:
    rng = keyed_generator("pretrain")
    steps = np.arange(20, 3001, 20)
    curve = 2.6 + 6.4 * np.exp(-steps / 350) + 0.6 * np.exp(-steps / 2000) + rng.normal(0, 0.05, len(steps))
    lines: list[dict] = [_train_line(int(s), {"causal_lm": float(v)}, 3000) for s, v in zip(steps, curve)]
    for step in range(300, 3001, 300):
        loss = 2.75 + 6.0 * math.exp(-step / 380) + 0.6 * math.exp(-step / 2000)
        measured = {"loss": loss, "perplexity": math.exp(loss), "bits_per_byte": loss * 0.42}
        lines.append(
            {"kind": "evaluate", "step": step, "epoch": step / 500, "split": "dev", "metrics": measured}
        )
    text = {"rows": 16000, "tokens": 4_800_000, "bytes": 21_300_000, "truncated_rows": 0, "skipped_rows": 0}
    record = common(
        node, [{"kind": "causal_lm"}], {"train": text, "dev": {**text, "rows": 1300, "tokens": 400_000}}
    )
    record |= {
        "training": {
            "steps": 3000,
            "rows": 96000,
            "tokens": 24_600_000,
            "seconds": 4020.0,
            "tokens_per_second": 6120.0,
            "metric": "bits_per_byte",
        },
        "results": {"dev": {"loss": 2.884, "perplexity": 17.88, "bits_per_byte": 1.211}},
        "floors": {"dev": {"unigram": {"loss": 6.1, "perplexity": 445.0, "bits_per_byte": 2.56}}},
        "transfer": [{"tensor": "embed.tokens", "what": "new", "shape": [8192, 256], "why": "from scratch"}],
        "samples": [
            {
                "prompt": "The",
                "text": "The house stood at the end of the lane,\nand nobody had lived there since spring.",
            },
            {"prompt": "却说", "text": "却说那日天色已晚，众人都散了，只剩他一个人坐在灯下。"},
        ],
    }
    write_stage(home, record, lines)


def _train_line(step: int, loss: dict[str, float], last: int) -> dict:
    lr = 2.5e-4 * min(step / (0.1 * last), 0.5 + 0.5 * math.cos(math.pi * step / last))
    return {
        "kind": "train", "step": step, "epoch": step / 200, "tokens": step * 8192, "rows": step * 32,
        "loss": loss,        "total": sum(loss.values()), "lr": lr, "grad_norm": 0.8 + 40 / (step + 20),
        "tokens_per_second": 3400.0 + step % 70,
    }  # fmt: skip


def _finetune(home: Path, node: dict, variant: str) -> None:
    rng = keyed_generator("finetune", variant, node["seed"])
    skill = VARIANTS[variant]
    results, floors = {}, {}
    for split, size in ROWS.items():
        predictions = _predictions(split, size, skill, rng, node["seed"])
        (home).mkdir(parents=True, exist_ok=True)
        body = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in predictions)
        (home / f"predictions-{split}.jsonl").write_text(body, encoding="utf-8")
        truth, guess = ([int(item[key] == "好评") for item in predictions] for key in ("label", "predicted"))
        results[split] = {
            **classification_metrics(truth, guess, None, ["差评", "好评"]),
            "loss": 0.9 - 0.6 * skill,
        }
        floors[split] = {
            "majority": {"accuracy": 0.51, "macro_f1": 0.338, "matthews": 0.0},
            "naive_bayes": {"accuracy": NAIVE_BAYES, "macro_f1": 0.788, "matthews": 0.58},
        }
    steps = np.arange(10, 651, 10)
    lines: list[dict] = []
    for step in steps:
        fall = math.exp(-step / 240) + float(rng.normal(0, 0.04))
        lines.append(
            _train_line(int(step), {"classification": 0.2 + 0.5 * fall, "causal_lm": 3.2 + fall}, 650)
        )
    for step in (217, 434, 650):
        accuracy = results["dev"]["accuracy"] - 0.1 * math.exp(-step / 200)
        measured = {"accuracy": accuracy, "loss": 1.0 - 0.7 * accuracy}
        lines.append(
            {"kind": "evaluate", "step": step, "epoch": step / 217, "split": "dev", "metrics": measured}
        )
    rows = {"rows": 6920, "tokens": 200_000, "bytes": None, "truncated_rows": 31, "truncated_tokens": 402}
    data = {"train": {**rows, "skipped_rows": 2, "labels": {"差评": 3310, "好评": 3610}}}
    data |= {
        split: {**rows, "rows": size, "truncated_rows": 0, "truncated_tokens": 0}
        for split, size in ROWS.items()
    }
    record = common(node, [{"kind": "classification"}, {"kind": "causal_lm", "weight": 0.5}], data)
    loaded = "loaded" if node["parent"] else "new"
    record |= {
        "labels": ["差评", "好评"],
        "training": {"steps": 650, "rows": 20760, "tokens": 600_000, "seconds": 180.2 + node["seed"],
                     "tokens_per_second": 3400.0, "stopped": "length", "best_step": 434,
                     "metric": "accuracy"},
        "results": results,
        "floors": floors,
        "transfer": [
            *({"tensor": f"blocks.{i}.query", "what": loaded, "shape": [256, 768]} for i in range(4)),
            {"tensor": "head.weight", "what": "new", "shape": [2, 256], "why": "a new task"},
        ],
        "samples": [],
    }  # fmt: skip
    write_stage(home, record, lines)


def _predictions(split: str, size: int, skill: float, rng: np.random.Generator, seed: int) -> list[dict]:
    items = []
    for row in range(size):
        label = ("差评", "好评")[int(keyed_generator("label", split, row).integers(2))]
        other = "差评" if label == "好评" else "好评"
        hard = keyed_generator("hard", split, row).random()
        predicted = label if 0.6 * hard + 0.4 * rng.random() < skill * 0.9 + 0.03 else other
        sure = 0.5 + 0.5 * float(rng.random())
        items.append({
            "row": row, "file": f"{split}.tsv", "line": row + 1, "text": f"{TEXTS[row % len(TEXTS)]} {row}",
            "label": label,            "predicted": predicted, "correct": predicted == label,
            "probabilities": {predicted: sure, (other if predicted == label else label): 1 - sure},
        })  # fmt: skip
    return items


def write_stage(home: Path, record: dict, lines: list[dict]) -> None:
    write_json(home / "stage.json", record)
    (home / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
