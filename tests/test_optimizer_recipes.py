"""Optimizers, groups and schedules from the user's side: a recipe names them, check proves and draws them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file
from tiny import killed_and_whole, tiny
from typer.testing import CliRunner

import gradus
from gradus.cli import app
from gradus.core.errors import UserError

KINDS: list[dict[str, Any]] = [
    {"kind": "sgd", "lr": 0.1, "momentum": 0.9, "nesterov": True},
    {"kind": "adafactor"},
    {"kind": "muon", "lr": 1e-2, "layer_decay": 1.5, "groups": [{"match": "*.positions.*", "rate": 0}]},
]
SCHEDULES: list[dict[str, Any]] = [
    {"kind": "inverse_sqrt", "warmup": "2 steps"}, {"kind": "one_cycle"}, {"kind": "warmup_stable_decay"},
]  # fmt: skip


@pytest.mark.parametrize("optimizer, schedule", zip(KINDS, SCHEDULES), ids=lambda part: part["kind"])
def test_a_run_that_was_killed_goes_on_to_the_same_bits(
    optimizer: dict[str, Any], schedule: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    part = {"optimizer": optimizer, "schedule": schedule, "save": {"every": "3 steps"}}
    path = tiny(tmp_path / "one.yaml", {f"stages.pretrain.{key}": value for key, value in part.items()})
    killed_and_whole(path, "pretrain", monkeypatch)


def test_a_stage_stays_near_its_start_where_it_is_told_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved = []
    for strength in (0.0, 30.0):
        place = tmp_path / str(strength)
        part = {"penalties": {"l2_start": strength}, "save": {"every": "5 steps"}, "clip": None,
                "optimizer": {"kind": "sgd", "lr": 0.02}}  # fmt: skip
        path = tiny(place / "one.yaml", {f"stages.finetune.{key}": value for key, value in part.items()})
        model, _ = killed_and_whole(path, "finetune", monkeypatch)
        (start,) = (place / "whole").glob("one/stages/pretrain-*/model/model.safetensors")
        before, after = load_file(start), load_file(model)
        moved.append(sum(float((after[name] - tensor).square().sum()) for name, tensor in before.items()))
    assert 0 < moved[1] < 0.5 * moved[0]


@pytest.mark.parametrize("kind", ["adamw", "muon", "adafactor"])
def test_what_is_frozen_stays_and_costs_nothing(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    frozen = ["transformer.*"] if kind == "muon" else ["transformer.embedding.*", "*.blocks.0.attention.*"]
    part = {"freeze": frozen, "optimizer": {"kind": kind, "lr": 1e-2}, "save": {"every": "5 steps"},
            "objectives": [{"kind": "classification"}]}  # fmt: skip
    path = tiny(tmp_path / "one.yaml", {f"stages.finetune.{key}": value for key, value in part.items()})
    model, _ = killed_and_whole(path, "finetune", monkeypatch)
    (start,) = (tmp_path / "whole").glob("one/stages/pretrain-*/model/model.safetensors")
    before, after = load_file(start), load_file(model)
    for name, tensor in before.items():  # by the names of OpenAI's GPT
        held = kind == "muon" or "embed" in name or ".attn." in name
        assert bool((after[name] == tensor).all()) == held, name
    free = {f"stages.finetune.{key}": value for key, value in part.items() if key != "freeze"}
    needs = [gradus.check(tiny(tmp_path / "one.yaml", patch), runs=tmp_path / "whole").nodes[1].estimate
             for patch in ({**free, "stages.finetune.freeze": frozen}, free)]  # fmt: skip
    assert needs[0].memory < needs[1].memory and needs[0].disk <= needs[1].disk


def test_gradual_unfreezing_resumes_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = {"unfreeze": {"layers": 1, "every": "4 steps"}, "save": {"every": "5 steps"}}
    path = tiny(tmp_path / "one.yaml", {f"stages.finetune.{key}": value for key, value in part.items()})
    killed_and_whole(path, "finetune", monkeypatch)


@pytest.mark.parametrize(
    "frozen, told",
    [(["transformer.blocs.*"], "freeze: no parameter has such a name: 'transformer.blocs.*'"),
     (["*"], "freeze: nothing is left to learn")],
)  # fmt: skip
def test_what_cannot_be_frozen_is_told(frozen: list[str], told: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as mistake:
        gradus.check(tiny(tmp_path / "one.yaml", {"stages.finetune.freeze": frozen}), runs=tmp_path)
    assert told in str(mistake.value)


def test_a_stage_from_scratch_has_nothing_to_stay_near(tmp_path: Path) -> None:
    patch = {"stages.pretrain.penalties": {"l2_start": 0.1}}
    with pytest.raises(UserError, match="penalties.l2_start: a stage from scratch starts from nothing"):
        gradus.check(tiny(tmp_path / "one.yaml", patch), runs=tmp_path)


@pytest.mark.parametrize(
    "optimizer, told",
    [
        ({"kind": "sgd"}, r"optimizer.lr: .*missing|optimizer.lr: .*wanted"),
        ({"kind": "sgd", "lr": 0.1, "nesterov": True}, "optimizer.nesterov: this is a kind of momentum"),
        ({"kind": "adamw", "groups": [{"match": "block.0.*"}]},
         r"groups: no parameter has such a name: .block.0.\*"),
        ({"kind": "adamw", "groups": [{"match": "*", "rat": 2}]},
         "groups.0.rat: unknown key .did you mean 'rate'"),
        ({"kind": "adamw", "layer_decay": 0.9}, "layer_decay: .*greater than or equal to 1"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_told(optimizer: dict[str, Any], told: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=told):
        gradus.check(tiny(tmp_path / "one.yaml", {"stages.pretrain.optimizer": optimizer}), runs=tmp_path)


def test_check_tells_where_adafactor_cuts_a_schedule_off(tmp_path: Path) -> None:
    for rate, capped in ((1e-2, False), (2.0, True)):
        patch = {"stages.pretrain.optimizer": {"kind": "adafactor", "lr": rate}}
        checks = gradus.check(tiny(tmp_path / "one.yaml", patch), runs=tmp_path)
        assert any("1 / sqrt(step)" in note for note in checks.notes) == capped


def test_memory_goes_by_the_optimizer(tmp_path: Path) -> None:
    needs = []
    for kind in ("adafactor", "adamw"):
        patch = {"stages.pretrain.optimizer": {"kind": kind}, "model.width": 512, "model.layers": 4}
        checks = gradus.check(tiny(tmp_path / "one.yaml", patch), runs=tmp_path)
        needs.append(checks.nodes[0].estimate)
    parameters = needs[0].parameters
    assert 7.9 * parameters < needs[1].memory - needs[0].memory <= 8 * parameters
    assert needs[0].disk < needs[1].disk


def test_check_draws_the_rates(tmp_path: Path) -> None:
    recipe = tiny(tmp_path / "one.yaml")
    drawn = CliRunner().invoke(
        app, ["check", str(recipe), "--runs", str(tmp_path), "--plot", str(tmp_path / "a.svg")]
    )
    assert drawn.exit_code == 0 and "learning rate" in (tmp_path / "a.svg").read_text()
    refused = CliRunner().invoke(
        app, ["check", str(recipe), "--runs", str(tmp_path), "--plot", str(tmp_path / "a.doc")]
    )
    assert isinstance(refused.exception, UserError) or refused.exit_code == 2
