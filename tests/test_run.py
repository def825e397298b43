"""Stages from the user's side: what is done is not done again, what is shared is run once, lengths mean what
they say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.numpy import load_file
from tiny import tiny

import gradus
from gradus.core.errors import UserError
from gradus.pipeline.check import check
from gradus.pipeline.run import run

PATCH = {"seeds": 2, "variants": {"no pre-training": {"stages.finetune.from": "scratch"}}}


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    return tiny(tmp_path / "steps.yaml", PATCH)


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, dict[str, Any]]]:
    """A finished run for all: its recipe, and stage.json by folder name."""
    recipe = tiny(tmp_path_factory.mktemp("once") / "steps.yaml", PATCH)
    return recipe, start(recipe)


@pytest.fixture
def done(once: tuple[Path, dict[str, dict[str, Any]]], tmp_path: Path) -> Path:
    """The recipe of a copy of that run, to go on with."""
    shutil.copytree(once[0].parent, tmp_path / "copy")
    return tmp_path / "copy" / once[0].name


def start(recipe: Path, **options: Any) -> dict[str, dict[str, Any]]:
    """Runs it and returns stage.json by folder name."""
    folder = run(recipe, runs=recipe.parent / "runs", device="cpu", **options)
    return {
        path.parent.name: json.loads(path.read_text()) for path in sorted(folder.glob("stages/*/stage.json"))
    }


def times(records: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {name: json.dumps(record["times"]) for name, record in records.items()}


def test_variants_and_seeds_share_what_they_have_in_common(
    once: tuple[Path, dict[str, dict[str, Any]]], done: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe, records = done, once[1]
    stages = [record["stage"] for record in records.values()]
    assert stages.count("pretrain") == 1 and stages.count("finetune") == 4
    plan = json.loads((recipe.parent / "runs" / "steps" / "plan.json").read_text())
    assert [(one["variant"], one["seed"]) for one in plan["outcomes"]] == [
        ("as written", 5), ("as written", 6), ("no pre-training", 5), ("no pre-training", 6)
    ]  # fmt: skip
    capsys.readouterr()
    assert times(start(recipe)) == times(records)
    assert capsys.readouterr().err.count("already done") == 5

    slower = start(recipe, settings={"stages.finetune.optimizer.lr": 1e-3})
    assert len(slower) == 9 and times(slower).items() >= times(records).items()


def test_a_variant_may_bring_a_stage_along(tmp_path: Path) -> None:
    """It runs for that variant alone, and shares with the others what it can."""
    adapt = {
        "from": "pretrain", "data": {"kind": "text", "train": "builtin:tiny"}, "length": "2 steps",
        "objectives": [{"kind": "causal_lm"}], "batch": "8 windows",
    }  # fmt: skip
    changes = {"stages.adapt": adapt, "stages.finetune.from": "adapt"}
    recipe = tiny(tmp_path / "more.yaml", {"variants": {"先读原文": changes}})
    assert [record["stage"] for record in start(recipe, until="adapt").values()] == ["adapt", "pretrain"]
    start(recipe)
    plan = json.loads((tmp_path / "runs" / "more" / "plan.json").read_text())
    written, more = (one["stages"] for one in plan["outcomes"])
    assert [*written] == ["pretrain", "finetune"] and [*more] == ["pretrain", "adapt", "finetune"]
    assert written["pretrain"] == more["pretrain"] and written["finetune"] != more["finetune"]


@pytest.mark.parametrize("name", ["train", "half", "type"])
def test_a_stage_may_have_any_name(name: str, tmp_path: Path) -> None:
    """Its head is named after it, and torch's modules have methods of these names."""
    stages = yaml.safe_load(tiny(tmp_path / "one.yaml").read_text())["stages"]
    patch = {"stages": {"pretrain": stages["pretrain"], name: stages["finetune"]}}
    run = gradus.run(tiny(tmp_path / "one.yaml", patch), runs=tmp_path)
    (folder,) = run.glob(f"stages/{name}-*/model")
    assert len(list(gradus.load(folder).predict(["the sea"]))) == 1


def test_seeds_that_repeat_nothing_are_told(tmp_path: Path) -> None:
    pretrain = yaml.safe_load(tiny(tmp_path / "text.yaml").read_text())["stages"]["pretrain"]
    recipe = tiny(tmp_path / "text.yaml", {"seeds": 3, "stages": {"pretrain": pretrain}})
    (told,) = [note for note in check(recipe, runs=tmp_path, device="cpu").notes if note.startswith("seeds")]
    assert "no stage reads rows" in told and "{count: 3, from: pretrain}" in told
    recipe = tiny(tmp_path / "text.yaml", {"seeds": 3})
    assert not [note for note in check(recipe, runs=tmp_path, device="cpu").notes if note.startswith("seeds")]


def test_what_decides_the_bits_is_in_the_fingerprint(recipe: Path) -> None:
    def ids(patch: dict[str, Any]) -> list[str]:
        """The nodes of the recipe as written, with its first seed: what comes from `pretrain`, and itself."""
        checks = check(recipe, runs=recipe.parent / "runs", settings={"seeds": 1, **patch}, device="cpu")
        return list(checks.plan.outcomes[0]["stages"].values())

    as_written = ids({})
    assert ids({"stages.pretrain.save": {"every": "1 steps"}}) == as_written
    for patch in (
        {"seed": 6},
        {"model.layers": 2},
        {"tokenizer": {"kind": "char"}},
        {"stages.pretrain.data.limit": 1},
        {"stages.pretrain.length": "9 steps"},
    ):
        assert not set(ids(patch)) & set(as_written), patch
    later = ids({"stages.finetune.optimizer.lr": 1e-3})
    assert later[0] == as_written[0] and later[1] != as_written[1]


def test_check_counts_the_steps_of_a_batch_that_grows(recipe: Path) -> None:
    patch = {
        "stages.pretrain.length": "2 epochs",
        "stages.pretrain.batch_ramp": {"from": "2 windows", "over": "50 %"},
        "stages.pretrain.evaluate": {"every": "0.5 epochs"},
    }
    told = check(recipe, runs=recipe.parent / "runs", settings=patch, device="cpu").nodes[0]
    (record,) = start(recipe, until="pretrain", settings=patch).values()
    assert record["stage"] == told.node.name and record["training"]["steps"] == told.estimate.steps
    log = next(recipe.parent.glob(f"runs/steps/stages/{record['id']}/metrics.jsonl")).read_text()
    lines = [json.loads(line) for line in log.splitlines()]
    epochs = [line["epoch"] for line in lines if line["kind"] == "evaluate"]
    largest = 16 / record["data"]["train"]["rows"]  # a step may go this much beyond the half epoch
    assert len(epochs) == 4 and all(0 <= at - half < largest for at, half in zip(epochs, (0.5, 1, 1.5, 2)))


def test_until_fresh_and_length_in_minutes(recipe: Path) -> None:
    first = start(recipe, until="pretrain", settings={"stages.pretrain.length": "0.01 minutes", "seeds": 1})
    (record,) = first.values()
    length = json.loads(next(recipe.parent.glob("runs/steps/stages/*/length.json")).read_text())
    assert record["training"]["steps"] == length["steps"] >= 1
    again = start(recipe, until="pretrain", fresh=True)
    assert [
        record["training"]["steps"] for record in again.values() if record["config"]["length"] == "8 steps"
    ] == [8]


def test_the_best_weights_leave_where_stop_is_given(recipe: Path) -> None:
    patch = {
        "stages.pretrain.stop": {"metric": "loss", "patience": 2},
        "stages.pretrain.optimizer.lr": 0.3,
        "stages.pretrain.schedule": {"kind": "constant", "warmup": "0 steps"},
        "stages.pretrain.length": "60 steps",
        "stages.pretrain.evaluate": {"every": "3 steps"},
    }
    (record,) = start(recipe, until="pretrain", settings=patch).values()
    log = next(recipe.parent.glob("runs/steps/stages/*/metrics.jsonl")).read_text().splitlines()
    losses = [
        (line["metrics"]["loss"], line["step"]) for line in map(json.loads, log) if line["kind"] == "evaluate"
    ]
    best, step = min(losses)
    assert (
        record["training"]["stopped"] == "patience"
        and record["training"]["best_step"] == step < losses[-1][1]
    )
    assert record["results"]["dev"]["loss"] == pytest.approx(best, rel=1e-6)


def test_a_checkpoint_of_other_conditions_is_refused(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from gradus.training.trainer import Trainer

    patch = {"seeds": 1, "stages.pretrain.save": {"every": "2 steps"}}
    step = Trainer._step

    def broken(self: Trainer) -> bool:
        if self.clock.step == 5:
            raise KeyError("a bug")
        return step(self)

    monkeypatch.setattr(Trainer, "_step", broken)
    with pytest.raises(KeyError):
        start(recipe, until="pretrain", settings=patch)
    monkeypatch.setattr(Trainer, "_step", step)
    threads = torch.get_num_threads()
    # Only what the run is told: really more threads than free cores would take half a minute.
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads + 1)
    with pytest.raises(UserError, match=f"threads {threads} -> {threads + 1}.*resume-inexact"):
        start(recipe, until="pretrain", settings=patch)
    (record,) = start(recipe, until="pretrain", settings=patch, inexact=True).values()
    assert record["training"]["steps"] == 8


def test_tied_weights_are_stored_once(done: Path) -> None:
    tensors = load_file(next(done.parent.glob("runs/steps/stages/pretrain-*/model")) / "model.safetensors")
    assert not any("lm_head" in name for name in tensors)


def test_rows_can_teach_a_language_model(done: Path) -> None:
    before = {path.parent.name for path in done.parent.glob("runs/steps/stages/*/stage.json")}
    patch = {"stages.finetune.objectives": [{"kind": "causal_lm"}], "seeds": 1, "variants": {}}
    (record,) = (record for name, record in start(done, settings=patch).items() if name not in before)
    assert record["training"]["metric"] == "loss" and set(record["results"]["dev"]) == {"loss", "perplexity"}


def test_what_a_recipe_leaves_out_is_the_paper_s(recipe: Path) -> None:
    from gradus.pipeline.recipes.reading import read_recipe

    def stage(**patch: Any) -> Any:
        return read_recipe(
            recipe, {f"stages.finetune.{key}": value for key, value in patch.items()}
        ).recipe.stages["finetune"]

    assert stage(optimizer=None).optimizer.lr == 6.25e-5
    assert stage(optimizer={"kind": "adam"}).optimizer.lr == 6.25e-5
    assert stage(optimizer={"weight_decay": 0.1}).optimizer.kind == "adamw"
    assert str(stage(schedule={"kind": "linear", "final": 0.1}).schedule.warmup) == "0.2 %"
    assert stage(schedule={"kind": "cosine"}).schedule.warmup is None


def test_the_run_folder_is_called_like_the_recipe(recipe: Path) -> None:
    from gradus.pipeline.recipes.reading import read_recipe

    folder = recipe.parent / "mine"
    assert read_recipe(tiny(folder / "recipe.yaml")).name == "mine" and read_recipe(recipe).name == "steps"


def test_the_floor_of_a_text_counts_the_tokens_that_the_model_predicts(tmp_path: Path) -> None:
    """Loss and bits per byte of both are a token's nats and a byte's bits of the same tokens and bytes."""
    folder = run(tiny(tmp_path / "recipe.yaml"), runs=tmp_path / "runs", device="cpu", until="pretrain")
    (file,) = (folder / "stages").glob("pretrain-*/stage.json")
    record = json.loads(file.read_text(encoding="utf-8"))
    ours, floor = record["results"]["dev"], record["floors"]["dev"]["unigram"]
    assert floor["bits_per_byte"] / floor["loss"] == pytest.approx(
        ours["bits_per_byte"] / ours["loss"], rel=1e-9
    )
