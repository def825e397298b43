"""Which model a stage's or a run's folder stands for, and what the command line says when it is misused."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from tiny import tiny

import gradus
from gradus.core.errors import UserError
from gradus.core.storage import read_json, write_json
from gradus.pipeline.models.results import model_folder, model_lines


def command(*words: str, folder: Path) -> subprocess.CompletedProcess[str]:
    run = [sys.executable, "-m", "gradus.cli", *words]
    return subprocess.run(run, capture_output=True, text=True, cwd=folder, timeout=120)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two stages, a variant and two seeds; its working folder."""
    place = tmp_path_factory.mktemp("results")
    patch = {"stages.pretrain.length": "2 steps", "stages.finetune.length": "2 steps", "seeds": 2}
    tiny(place / "mine" / "recipe.yaml", patch | {"variants": {"none": {"stages.finetune.from": "scratch"}}})
    done = command("run", "mine/recipe.yaml", "--device", "cpu", folder=place)
    assert done.returncode == 0, done.stderr
    (place / "said").write_text(done.stdout)
    assert "training the tokenizer: done, 300 tokens" in done.stderr
    return place


def test_a_run_ends_with_the_path_of_its_model(run: Path):
    plan = read_json(run / "runs" / "mine" / "plan.json")
    stages = plan["outcomes"][0]["stages"]
    wanted = f"model: runs/mine/stages/{stages['finetune']}/model (as written, seed 5)"
    assert (run / "said").read_text().splitlines()[-1] == wanted
    assert len(plan["nodes"]) == 5
    (line,) = model_lines(run / "runs" / "mine", "pretrain")
    assert line.endswith(f"/stages/{stages['pretrain']}/model (as written, seed 5)")


def test_folders_of_a_model_a_stage_and_a_run(run: Path, capsys: pytest.CaptureFixture[str]):
    home = run / "runs" / "mine"
    stage = home / "stages" / read_json(home / "plan.json")["outcomes"][0]["stages"]["finetune"]
    assert model_folder(stage / "model") == model_folder(stage) == stage / "model"
    assert capsys.readouterr().err == ""
    assert model_folder(home) == stage / "model"
    assert capsys.readouterr().err == f"model: {stage}/model (as written, seed 5)\n"
    assert list(gradus.load(home, device="cpu").predict(["好"]))[0]["label"]
    (run / "new.jsonl").write_text('{"text": "好"}\n', encoding="utf-8")
    done = command("predict", "runs/mine", "--input", "new.jsonl", "--output", "-", folder=run)
    assert json.loads(done.stdout)["label"] and done.stderr.splitlines()[-1] == "1 row"
    assert command("evaluate", "runs/mine", "--data", "builtin:tiny", folder=run).returncode == 0
    done = command("generate", str(stage.parent / stage.name), "--tokens", "1", folder=run)
    assert done.returncode == 0


def test_a_run_without_a_result_or_with_several(run: Path, tmp_path: Path):
    home = tmp_path / "runs" / "mine"
    plan = read_json(run / "runs" / "mine" / "plan.json")
    write_json(home / "plan.json", plan)
    assert model_lines(home) == []
    with pytest.raises(UserError, match="no result yet .*`gradus run` goes on"):
        model_folder(home)
    stages = plan["outcomes"][0]["stages"]
    (home / "stages" / stages["pretrain"]).mkdir(parents=True)
    with pytest.raises(UserError, match="this stage is not done"):
        model_folder(home / "stages" / stages["pretrain"])
    plan["outcomes"][0]["results"] = ["pretrain", "finetune"]
    write_json(home / "plan.json", plan)
    for stage in stages.values():
        write_json(home / "stages" / stage / "stage.json", {})
    with pytest.raises(
        UserError, match="several results .name one: .*pretrain-.*/model, .*finetune-.*/model"
    ):
        model_folder(home)
    assert len(model_lines(home)) == 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["init", "mine", "--text", "a.txt", "b.txt"], "quotes, --text 'corpus/*.txt'; gradus init --help"),
        (["predict", "mine"], "gradus: missing option '--input' (gradus predict --help)"),
        (["predcit"], "'predict'"),
        (["generate", "m", "--tokens", "x"], "--tokens"),
    ],
)
def test_a_wrong_command_line_is_told_in_a_line(words: list[str], told: str, tmp_path: Path):
    done = command(*words, folder=tmp_path)
    assert (done.returncode, done.stderr.count("\n"), done.stdout) == (2, 1, "")
    assert done.stderr.startswith("gradus: ") and told in done.stderr


def test_the_version(tmp_path: Path):
    assert command("--version", folder=tmp_path).stdout == f"gradus {gradus.__version__}\n"
