"""Every family by the command line: from raw text to a classifier, then predict, evaluate and generate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny import tiny
from typer.testing import CliRunner

from gradus.cli import app

ROWS = "text\tlabel\n好看\tpositive\ndull and long\tnegative\n"
SMALL = {"layers": 1, "width": 16, "heads": 2, "context": 32}
FAMILIES = {
    "gpt1-mini": "causal_lm", "gpt2-mini": "causal_lm", "llama-mini": "causal_lm", "bert-mini": "masked_lm",
    "roberta-mini": "masked_lm", "bart-mini": "denoising", "t5-mini": "span_corruption",
}  # fmt: skip


def said(*command: object) -> str:
    answer = CliRunner().invoke(app, [str(word) for word in command])
    assert answer.exit_code == 0, answer.output
    return answer.stdout


@pytest.mark.parametrize("preset, kind", [
    (preset, kind) for preset, objective in FAMILIES.items() for kind in ("classification", "seq2seq")
    if kind == "classification" or objective != "masked_lm"  # an encoder says nothing
])  # fmt: skip
def test_from_raw_text_to_predictions(preset: str, kind: str, tmp_path: Path) -> None:
    objective = FAMILIES[preset]
    patch = {"model": {"preset": preset, **SMALL}, "stages.pretrain.objectives": [{"kind": objective}],
             "stages.finetune.objectives": [{"kind": kind}]}  # fmt: skip
    runs, rows = tmp_path / "runs", tmp_path / "rows.tsv"
    rows.write_text(ROWS, encoding="utf-8")
    said("run", tiny(tmp_path / "one.yaml", patch), "--runs", runs, "--device", "cpu")
    (read,) = runs.glob("one/stages/pretrain-*")
    said("predict", runs / "one", "--input", rows, "--output", tmp_path / "answers.jsonl")
    answers = [json.loads(line) for line in (tmp_path / "answers.jsonl").read_text("utf-8").splitlines()]
    assert [answer["label"] in ("negative", "positive") for answer in answers] == [True, True]
    assert "accuracy" in said("evaluate", runs / "one", "--data", rows)
    text = tmp_path / "text.txt"
    text.write_text("The sea was calm.\n海很平静。\n" * 9, encoding="utf-8")
    assert "loss" in said("evaluate", read, "--data", text)
    if objective != "masked_lm":
        assert said("generate", read, "--prompt", "The sea", "--tokens", 4)
