"""Rows and stages to ask a language model about: two classes, several answers, Chinese among them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gradus.core.example import ragged
from gradus.evaluation.prompts import Asker, Question
from gradus.nn.transformer import Transformer
from gradus.pipeline.planning.material import Material
from gradus.pipeline.planning.probing import make_probes
from gradus.pipeline.recipes.stages import Stage
from gradus.tokenizers import Tokenizer

TEXTS = ["这部电影很好看。The film is very good.", "这本书很难看。The book is very bad."] * 20


def data(folder: Path, **changes: Any) -> dict[str, Any]:
    """Rows of two classes, one in three of them Chinese; dev has 12, train 30."""
    for split, size in (("train", 30), ("dev", 12)):
        lines = []
        for number in range(size):
            good = number % 3 != 1
            text = f"第{number}部电影" if number % 3 == 0 else f"film {number} of {split}"
            lines.append(f"{text} {'good' if good else 'bad'}\t{int(good)}")
        (folder / f"{split}.tsv").write_text("text\tlabel\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return {"kind": "rows", "train": str(folder / "train.tsv"), "dev": str(folder / "dev.tsv"),
            "format": {"kind": "single", "text": "text", "label": "label"}} | changes  # fmt: skip


def choices(folder: Path) -> dict[str, Any]:
    """Rows of two to four answers, among them Chinese ones."""
    for split, size in (("train", 6), ("dev", 9)):
        rows = [
            {"text": f"那天是{number}号。", "ask": f"是几号 {split}？", "right": str(number % 2),
             "answers": [f"{number + other}号" for other in range(2 + number % 3)]}
            for number in range(size)
        ]  # fmt: skip
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {"kind": "rows", "train": str(folder / "train.jsonl"), "dev": str(folder / "dev.jsonl"),
            "format": {"kind": "multiple_choice", "context": "text", "question": "ask", "answers": "answers",
                       "label": "right", "label_is": "index"}}  # fmt: skip


def words(folder: Path, **changes: Any) -> dict[str, Any]:
    return {"kind": "words", "data": data(folder), "prompt": "{text} very",
            "answers": {"0": " bad", "1": " good"}} | changes  # fmt: skip


def four(folder: Path) -> dict[str, Any]:
    return {
        "sst": words(folder),
        "sst_few": words(folder, shots=3),
        "cola": {"kind": "threshold", "data": data(folder)},
        "dream": {"kind": "choices", "data": choices(folder)},
    }


def stage(**zero_shot: Any) -> Stage:
    return Stage.model_validate(
        {"data": {"kind": "text", "train": "x"}, "objectives": [{"kind": "causal_lm"}], "length": "1 step",
         "zero_shot": zero_shot}
    )  # fmt: skip


def probes(folder: Path, tokenizer: Tokenizer, seed: int = 1, context: int = 200, **zero_shot: Any) -> list:
    material = Material(Path(), folder / "cache")
    return make_probes("read", stage(**zero_shot), seed, tokenizer, context, material)


def question(prompt: str, *answers: str, shots: tuple[str, ...] = ()) -> Question:
    return Question(prompt, answers, 0, "rows.tsv", 7, shots)


def log_probability(transformer: Transformer, ids: list[int]) -> float:
    """Of the last of `ids` after the others, in a forward of its own."""
    states = transformer(ragged([np.array(ids[:-1])], round_to=1))
    logits = states[-1] @ transformer.output_weight.t()
    return float(logits[ids[-1]] - torch.logsumexp(logits, 0))


def expected(one: Question, asker: Asker, transformer: Transformer) -> list[float]:
    """Log-probability of each answer's tokens, one token at a time, found without what is tested."""
    tokenizer = asker.tokenizer
    whole = [tokenizer.encode([one.prompt + answer])[0].tolist() for answer in one.answers]
    alone = tokenizer.encode([one.prompt])[0].tolist()
    start = 0
    while start < len(alone) and all(ids[: start + 1] == alone[: start + 1] for ids in whole):
        start += 1
    head = max(0, max(map(len, whole)) - asker.context)
    sums = []
    for ids in whole:
        total = 0.0
        for place in range(start, len(ids)):
            total += log_probability(transformer, [asker.opening, *ids[head : place + 1]])
        sums.append(total)
    return sums
