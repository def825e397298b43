"""Several tasks in one stage, from the user's side: each is judged, told, handed on and asked by itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from made_up_members import CHINESE, OBJECTIVES, members, mixed, record, rows
from tiny import tiny

import gradus
from gradus.report import load_run, tables, write_report


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the whole recipe."""
    return gradus.run(mixed(tmp_path_factory.mktemp("members")), runs=tmp_path_factory.mktemp("runs"))


def test_each_is_judged_by_itself_and_the_mean_is_over_labels(run: Path) -> None:
    folder, found = record(run, "multi")
    dev = found["results"]["dev"]
    assert dev["accuracy"] == (dev["english.accuracy"] + dev["chinese.accuracy"]) / 2
    assert dev["loss"] == (dev["english.loss"] + dev["chinese.loss"]) / 2
    assert dev["sea.bits_per_byte"] > 0 and "bits_per_byte" not in dev
    assert found["training"]["metric"] == "accuracy"
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    names = {name for line in lines if line["kind"] == "train" for name in line["loss"]}
    assert names == {"english.classification", "chinese.classification", "causal_lm"}
    for name, classes in (("english", {"good", "bad"}), ("chinese", set(CHINESE.values()))):
        said = [
            json.loads(one) for one in (folder / f"predictions-{name}-dev.jsonl").read_text().splitlines()
        ]
        assert len(said) == found["members"][name]["data"]["dev"]["rows"]
        assert dev[f"{name}.accuracy"] == np.mean([one["correct"] for one in said])
        assert {one["predicted"] for one in said} <= classes == set(said[0]["probabilities"])
        assert found["members"][name]["floors"]["dev"]["majority"]["accuracy"] >= 0
    assert not list(folder.glob("predictions-dev.jsonl")) and not list(folder.glob("predictions-sea*"))


def test_a_later_stage_takes_the_head_with_its_labels(run: Path) -> None:
    _, found = record(run, "chinese")
    heads = {
        moved["tensor"]: moved["what"] for moved in found["transfer"] if moved["tensor"].startswith("heads")
    }
    assert heads == {"heads.chinese.score.weight": "loaded", "heads.english.score.weight": "dropped"}


def test_the_folder_answers_for_each(
    run: Path, tmp_path: Path, command: Callable[..., tuple[int, str]]
) -> None:
    model, found = record(run, "multi")[0] / "model", record(run, "multi")[1]
    assert gradus.load(model, member="chinese").labels == ("中", "坏", "好")
    asked = tmp_path / "rows.tsv"
    asked.write_text("text\n风平浪静\n", encoding="utf-8")
    status, told = command("predict", model, "--input", asked, "--output", "-", "--member", "chinese")
    assert status == 0 and set(json.loads(told[told.index("{") :])["probabilities"]) == {"中", "坏", "好"}
    dev = record(run, "multi")[0] / "predictions-english-dev.jsonl"
    status, told = command("evaluate", model, "--data", dev, "--member", "english")
    words = told.split()
    assert status == 0
    assert float(words[words.index("accuracy") + 1]) == pytest.approx(
        found["results"]["dev"]["english.accuracy"]
    )
    status, told = command("generate", model, "--prompt", "The sea", "--tokens", "3", "--member", "sea")
    assert status == 0 and told.startswith("The sea")


@pytest.mark.parametrize(
    "options, said",
    [
        ([], "several tasks (--member english or chinese or sea)"),
        (["--member", "chinse"], "--member: the model knows no such task: 'chinse'"),
    ],
)
def test_which_one_is_meant_has_to_be_said(
    run: Path, command: Callable[..., tuple[int, str]], options: list[str], said: str
) -> None:
    model = record(run, "multi")[0] / "model"
    status, told = command("predict", model, "--input", "-", "--output", "-", *options)
    assert status == 2 and said in told and len(told) < 400


def test_a_model_of_one_task_has_no_members(run: Path, command: Callable[..., tuple[int, str]]) -> None:
    model = record(run, "chinese")[0] / "model"
    status, told = command("predict", model, "--input", "-", "--output", "-", "--member", "chinese")
    assert status == 2 and "it knows one task alone" in told


def test_the_report_has_a_table_for_each(run: Path) -> None:
    read = load_run(run)
    found = {(table.stage, table.metric) for table in tables(read, read.tasks_of("multi"))}
    assert found == {
        ("multi.english", "accuracy"),
        ("multi.chinese", "accuracy"),
        ("multi.sea", "bits_per_byte"),
    }
    page = write_report(read).read_text()
    assert 'id="stage-multi.chinese"' in page and "Label by label" in page


def test_variants_are_tested_against_each_other_task_by_task(tmp_path: Path) -> None:
    path = mixed(tmp_path)
    slower = {"stages.multi.optimizer.lr": 1e-5}
    settings = {"stages.chinese": None, "variants": {"slower": slower}}
    read = load_run(gradus.run(path, runs=tmp_path / "runs", settings=settings))
    compared = {table.stage: table for table in tables(read)}
    assert set(compared) == {"multi.english", "multi.chinese", "multi.sea"}
    for name in ("english", "chinese"):
        line = compared[f"multi.{name}"].line("slower")
        assert line is not None and line.test is not None


@pytest.mark.parametrize("metric", ["accuracy", "chinese.macro_f1", "sea.bits_per_byte"])
def test_a_stage_may_be_chosen_by_any_of_its_tasks(tmp_path: Path, metric: str) -> None:
    path = mixed(tmp_path, {"stop": {"metric": metric}, "evaluate": {"every": "4 steps"}})
    folder, found = record(gradus.run(path, runs=tmp_path / "runs", until="multi"), "multi")
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    seen = {one["step"]: one["metrics"][metric] for one in lines if one["kind"] == "evaluate"}
    best = min(seen.values()) if "bits" in metric else max(seen.values())
    assert found["training"]["metric"] == metric and found["results"]["dev"][metric] == pytest.approx(
        best, rel=1e-3
    )


def test_one_head_for_two_data_sets_with_the_same_labels(tmp_path: Path) -> None:
    parts = members(tmp_path)
    parts["more"] = {**rows(tmp_path / "more.tsv", CHINESE, 4), "weights": "balanced"}
    del parts["english"]
    objectives = [{"kind": "classification", "on": ["chinese", "more"]}, {"kind": "causal_lm", "on": "sea"}]
    path = mixed(tmp_path, {"data": {"mix": parts}, "objectives": objectives})
    folder, found = record(run := gradus.run(path, runs=tmp_path / "runs"), "multi")
    card = json.loads((folder / "model" / "gradus.json").read_text())
    assert list(card["heads"]) == ["chinese+more"]
    assert gradus.load(folder / "model", member="more").labels == ("中", "坏", "好")
    moved = [
        one for one in record(run, "chinese")[1]["transfer"] if one["tensor"] == "heads.chinese.score.weight"
    ]
    assert moved[0]["what"] == "loaded" and "chinese+more" in moved[0]["why"]
    assert json.loads((folder / "model" / "config.json").read_text())["id2label"] == {
        "0": "中",
        "1": "坏",
        "2": "好",
    }


@pytest.mark.parametrize(
    "preset, kind", [("bert-tiny", "masked_lm"), ("bart-mini", "denoising"), ("gpt1-tiny", "prefix_lm")]
)
def test_spoilt_text_beside_rows_of_every_arrangement(tmp_path: Path, preset: str, kind: str) -> None:
    """Segments, a decoder's input and shared prefixes, of which the other data set's examples have none."""
    parts = members(tmp_path)
    pair = {"kind": "pair", "first": "text", "second": "label", "label": "class"}
    file = Path(parts["chinese"]["train"])
    lines = [f"{line}\t{number % 2}" for number, line in enumerate(file.read_text("utf-8").splitlines()[1:])]
    file.write_text("label\ttext\tclass\n" + "\n".join(lines) + "\n", encoding="utf-8")
    data = {"mix": {"sea": parts["sea"], "chinese": {**parts["chinese"], "format": pair}}, "by": "turns"}
    objectives = [{"kind": kind, "on": "sea"}, OBJECTIVES[1]]
    stage = {"data": data, "objectives": objectives, "batch": "16 rows", "length": "2 steps"}
    shape = {"preset": preset, "layers": 1, "width": 16, "heads": 2, "context": 40}
    path = tiny(
        tmp_path / "text.yaml", {"model": shape, "tokenizer": {"kind": "char"}, "stages": {"both": stage}}
    )
    dev = record(gradus.run(path, runs=tmp_path / "runs"), "both")[1]["results"]["dev"]
    assert dev["accuracy"] == dev["chinese.accuracy"] and 0 < dev["sea.loss"] < 6


def test_rows_with_several_labels_beside_others(tmp_path: Path) -> None:
    parts = members(tmp_path)
    several = {text: f"{label};海" for text, label in CHINESE.items()} | {"夜深了": "海"}
    parts["chinese"] = {**rows(tmp_path / "several.tsv", several, 6), "multi_label": {"separator": ";"}}
    stages = {"data": {"mix": parts}, "objectives": OBJECTIVES, "stop": {"metric": "chinese.micro_f1"}}
    path = mixed(tmp_path, stages)
    folder, found = record(gradus.run(path, runs=tmp_path / "runs", until="multi"), "multi")
    assert found["results"]["dev"]["chinese.micro_f1"] >= 0
    model = gradus.load(folder / "model", member="chinese")
    (said,) = model.predict(["风平浪静"])
    assert set(said["probabilities"]) == {"中", "坏", "好", "海"} and isinstance(said["labels"], list)
    assert model.evaluate(tmp_path / "several.tsv")["rows"] == 30


def test_the_target_s_own_text_without_labels_and_without_dev(tmp_path: Path) -> None:
    """Adaptation is a stage on the same rows without a label: it reads what the task trains on, no more."""
    data = rows(tmp_path / "chinese.tsv", CHINESE, 6)
    own = {**data, "format": {"kind": "single", "text": "text"}}
    common = {"optimizer": {"kind": "adamw", "lr": 5e-3}, "batch": "8 rows", "length": "1 epoch"}
    stages = {
        "adapt": {"data": own, "objectives": [{"kind": "causal_lm"}], **common},
        "finetune": {"from": "adapt", "data": data, "objectives": [{"kind": "classification"}], **common},
    }
    path = tiny(tmp_path / "adapt.yaml", {"stages": stages, "tokenizer": {"kind": "char"}})
    run = gradus.run(path, runs=tmp_path / "runs")
    adapted, tuned = record(run, "adapt")[1], record(run, "finetune")[1]
    assert adapted["digests"]["data"] == tuned["digests"]["data"]
    assert adapted["training"]["rows"] == tuned["data"]["train"]["rows"] < 24
    assert {one["what"] for one in tuned["transfer"]} == {"loaded", "new"}
