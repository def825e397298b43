"""What the fine-tuning benchmark claims, on a small model: its gradient, its rows, and what its peer sees."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from gradus.core.model import ModelConfig

FOLDER = Path(__file__).parent.parent / "benchmarks"


@pytest.fixture
def finetune(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("finetune")


def small(**changes: object) -> ModelConfig:
    return ModelConfig(layers=2, width=16, heads=2, context=512, vocab_size=8192, dropout=0.0, **changes)


@pytest.mark.parametrize("norm", ["after", "before"])
def test_a_step_without_padding_has_the_gradient_of_the_padded_batch(finetune: ModuleType, norm: str) -> None:
    rows = finetune.examples(finetune.ROWS)
    assert len({row.tokens for row in rows}) > 10
    assert finetune.gradient_gap(small(norm=norm), rows) < finetune.EXACT


def test_rows_have_the_lengths_that_are_told(finetune: ModuleType) -> None:
    rows = finetune.examples(4096)
    assert sum(row.tokens for row in rows) / len(rows) == pytest.approx(37, rel=0.02)
    assert min(int(row.sequences[0].min()) for row in rows) > finetune.PAD


def test_the_peers_batch_holds_the_same_targets(finetune: ModuleType) -> None:
    rows = finetune.examples(8)
    batch = finetune.padded([{"input_ids": row.sequences[0], "classes": row.label} for row in rows])
    assert batch["attention_mask"].sum(1).tolist() == [row.tokens for row in rows]
    assert int((batch["labels"][:, 1:] >= 0).sum()) == sum(row.tokens - 1 for row in rows)


def test_every_side_is_measured_each_round_and_told(
    finetune: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    def side(script: str, arguments: list[str], steps: int) -> list[float]:
        return [0.0 if arguments[0] == "gradient" else 2.0 if "sorted" in arguments else 1.0]

    monkeypatch.setattr(finetune.common, "side", side)
    found = finetune.compare(rounds=2, steps=4)
    assert {len(values) for values in found["rows_per_second"].values()} == {2}
    told = {line.split("  ")[0]: line for line in finetune.table(found)[2:]}
    assert set(told) == set(found["rows_per_second"])
    assert "2.00 x sorted peer" in told["gradus bf16"]
    monkeypatch.setattr(finetune, "EXACT", 0.0)
    with pytest.raises(SystemExit, match="gradient differs"):
        finetune.compare(rounds=1, steps=4)
