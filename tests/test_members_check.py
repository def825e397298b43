"""Several tasks in one stage, before it runs: what `check` counts, and how a mistake in one is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from made_up_members import CHINESE, OBJECTIVES, SINGLE, members, mixed, rows
from tiny import tiny

import gradus


def test_check_counts_the_chains_of_a_task(tmp_path: Path) -> None:
    """Many tags scored together beside other rows take what they would take alone, and no less."""
    tags = "".join(f"船{number} B-T{number}\n海 O\n\n" for number in range(120))
    (tmp_path / "tags.conll").write_text(tags, encoding="utf-8")
    form = {"kind": "words", "words": "word", "tags": "tag"}
    tagged = {
        "kind": "rows",
        "train": str(tmp_path / "tags.conll"),
        "columns": ["word", "tag"],
        "format": form,
    }
    found = {}
    for loss in ("cross_entropy", "crf"):
        parts = members(tmp_path) | {"tags": tagged}
        objectives = [*OBJECTIVES, {"kind": "token_classification", "on": "tags", "loss": loss}]
        path = mixed(tmp_path, {"data": {"mix": parts}, "objectives": objectives, "batch": "400 rows"})
        multi = gradus.check(path, runs=tmp_path / "runs", device="cpu").nodes[0]
        found[loss] = multi.estimate.memory
    learnt = 16 * (241 + 2) * 241  # weights of the chain, their gradients and moments
    assert found["crf"] - found["cross_entropy"] - learnt > 12 * 241 * 241 * 120


def test_check_prices_every_value_of_a_search(tmp_path: Path) -> None:
    limit = {"stages.multi.data.mix.english.limit": {"integers": [8, 16]}}
    search = {"search": {"metric": "multi.dev.loss", "space": limit}}
    checks = gradus.check(mixed(tmp_path), runs=tmp_path / "runs", settings=search)
    assert checks.loops.lines[1:] == ["search: stages.multi.data.mix.english.limit: integers [8, 16]"]


def test_check_says_what_an_epoch_is_made_of_and_what_it_costs(tmp_path: Path) -> None:
    parts = members(tmp_path)
    parts["chinese"] = rows(tmp_path / "long.tsv", {"海" * 99: "长", **CHINESE}, 3)
    checks = gradus.check(mixed(tmp_path, {"data": {"mix": parts, "by": "turns"}}), runs=tmp_path / "runs")
    (note,) = [note for note in checks.notes if "an epoch is" in note]
    assert "english 33%" in note and "chinese 33%" in note and "sea 33%" in note
    assert any(note.startswith("multi.chinese: train: ") and "longer" in note for note in checks.notes)
    multi = next(one for one in checks.nodes if one.node.name == "multi")
    assert multi.estimate.steps == 12 and multi.estimate.seconds > 0
    assert multi.estimate.parameters - checks.nodes[-1].estimate.parameters == (2 + 4 - 3) * 16


WRONG: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "no such data set": (
        lambda stage: stage["objectives"].append({"kind": "causal_lm", "on": "englsh"}),
        "objectives.3.on: there is no such data set: 'englsh' (did you mean 'english'?",
    ),
    "a head on none": (
        lambda stage: stage["objectives"][0].pop("on"),
        "objectives.0: the objective does not say which data set it is on: 'classification' (such as `on: e",
    ),
    "scored by nobody": (
        lambda stage: stage.update(objectives=OBJECTIVES[:2]),
        "data.mix.sea: no objective scores this data set: 'sea' (an objective `on: sea`",
    ),
    "other labels under one head": (
        lambda stage: stage.update(
            objectives=[{"kind": "classification", "on": ["english", "chinese"]}, {"kind": "causal_lm"}]
        ),
        "theirs differ: 'english: bad, good; chinese: 中, 坏, 好'",
    ),
    "weights for a stranger": (
        lambda stage: stage["data"].update(by={"weights": {"english": 1, "chinse": 2}}),
        "by.weights: there is no such data set: 'chinse' (did you mean 'chinese'?",
    ),
    "no weight": (
        lambda stage: stage["data"].update(by={"weights": {"english": 1, "chinese": 2}}),
        "by.weights: this data set has no weight: 'sea'",
    ),
    "twice on one": (
        lambda stage: stage["objectives"].append({"kind": "causal_lm", "on": "sea"}),
        "objectives: sea: this objective stands there twice: 'causal_lm'",
    ),
    "a text with labels": (
        lambda stage: stage["objectives"].append({"kind": "regression", "on": "sea"}),
        "objectives: sea: the objective regression needs data of kind rows",
    ),
    "a key for another task": (
        lambda stage: stage["data"]["mix"]["english"].update(weights="balanced")
        or stage["objectives"].__setitem__(0, {"kind": "regression", "on": "english"}),
        "data.mix.english.weights: english: this key is for classification",
    ),
    "no such column": (
        lambda stage: stage["data"]["mix"]["chinese"].update(format={**SINGLE, "label": "lable"}),
        "chinese.tsv:2: there is no such column: 'lable'",
    ),
    "no such file": (
        lambda stage: stage["data"]["mix"]["chinese"].update(train="nowhere.tsv"),
        "stages.multi.data.mix.chinese.train",
    ),
    "nothing to balance": (
        lambda stage: stage["data"]["mix"]["english"].update(labels=["bad", "good", "?"], weights="balanced"),
        "stages.multi.data.mix.english.weights: nothing in train has this label",
    ),
    "no such label": (
        lambda stage: stage["data"]["mix"]["chinese"].update(weights={"好的": 2}),
        "stages.multi.data.mix.chinese.weights: there is no such label: '好的'",
    ),
    "no label at all": (
        lambda stage: stage["data"]["mix"]["chinese"].update(format={"kind": "single", "text": "text"}),
        "stages.multi.data.mix.chinese.format.label: the objective needs to know the column",
    ),
    "a metric nobody reports": (
        lambda stage: stage.update(stop={"metric": "sea.accuracy"}),
        "stop.metric: this stage reports no such metric: 'sea.accuracy'",
    ),
    "no metric in common": (
        lambda stage: stage.update(
            stop={"patience": 1}, objectives=[{"kind": "regression", "on": "english"}, *OBJECTIVES[1:]]
        ),
        "stop: the data sets are judged by different metrics: name one",
    ),
    "called as an objective is": (
        lambda stage: (
            stage["data"]["mix"].update(causal_lm=stage["data"]["mix"].pop("sea")),
            stage["data"].update(by="size"),
        ),
        "mix.causal_lm",
    ),
    "windows": (lambda stage: stage.update(batch="16 windows"), "batch: the batch counts rows here"),
    "a word for by": (lambda stage: stage["data"].update(by="turn"), "word: 'turn' (did you mean 'turns'"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_mistake_is_told_in_a_line(
    case: str, tmp_path: Path, command: Callable[..., tuple[int, str]]
) -> None:
    spoil, said = WRONG[case]
    stage: dict[str, Any] = {
        "data": {"mix": members(tmp_path), "by": "turns"},
        "objectives": [*map(dict, OBJECTIVES)],
    }
    spoil(stage)
    status, told = command("check", mixed(tmp_path, stage), "--runs", tmp_path / "runs")
    assert status == 2 and said in told and len(told) < 600, told


def test_on_is_for_mixtures(tmp_path: Path, command: Callable[..., tuple[int, str]]) -> None:
    patch = {"stages.finetune.objectives": [{"kind": "classification", "on": "sst"}]}
    status, told = command("check", tiny(tmp_path / "one.yaml", patch), "--runs", tmp_path / "runs")
    assert status == 2 and "objectives.0.on: the stage has one data set alone: 'sst'" in told
