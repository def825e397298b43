"""Several tasks in one stage: each learns from its own data alone and is judged by itself; order, resume and
ranks are those of any stage."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import test_objectives
import torch
import toy
from made_up_members import CHINESE, OBJECTIVES, SINGLE, members, mixed, rows
from test_laws import farthest, gradients
from test_mixture import windows
from tiny import killed_and_whole, tiny

import gradus
from gradus.core.example import Example
from gradus.core.keyed import keyed_generator
from gradus.data.feed import Feed
from gradus.data.mixture import InTurn, Mixed
from gradus.nn.transformer import Transformer
from gradus.objectives import (
    CausalLMConfig,
    ClassificationConfig,
    MaskedLMConfig,
    MultipleChoiceConfig,
    ObjectiveSettings,
    OfMembers,
    RegressionConfig,
    Task,
)
from gradus.pipeline.material import Material
from gradus.pipeline.plan import make_plan
from gradus.pipeline.prepare import prepare
from gradus.pipeline.reading import read_recipe
from gradus.report import load_run, tables, write_report
from gradus.training.learner import Learner
from gradus.training.transfer import fitting_heads

ROW_CASES: dict[str, tuple[ObjectiveSettings, str]] = {
    "classes": (ClassificationConfig(dropout=0.0), "decoder"),
    "classes, encoder": (ClassificationConfig(dropout=0.0), "encoder"),
    "number": (RegressionConfig(dropout=0.0), "decoder"),
    "choices": (MultipleChoiceConfig(dropout=0.0), "decoder"),
    "choices, sigmoid": (MultipleChoiceConfig(dropout=0.0, odds="sigmoid"), "decoder"),
    "hidden tokens": (MaskedLMConfig(), "encoder"),
    "next tokens": (CausalLMConfig(), "decoder"),
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the whole recipe."""
    return gradus.run(mixed(tmp_path_factory.mktemp("members")), runs=tmp_path_factory.mktemp("runs"))


def record(run: Path, name: str) -> tuple[Path, dict[str, Any]]:
    (file,) = run.glob(f"stages/{name}-*/stage.json")
    return file.parent, json.loads(file.read_text())


def labelled(count: int = 8) -> list[Example]:
    """Rows with a label; of two sequences each, as choices have."""
    random = keyed_generator("labelled", count)
    words = test_objectives.WORDS.words
    return [
        Example(row, tuple(random.integers(0, words, 5 + row + n) for n in range(2)), label=row % 2)
        for row in range(count)
    ]


@pytest.mark.parametrize("case", [*ROW_CASES, *test_objectives.CASES])
def test_an_objective_sees_its_own_data_alone(case: str) -> None:
    """Law 1 for every objective: rows of another data set, in its micro-batches or filling some whole, leave
    the gradient what its own rows make it."""
    config, arrangement = {**ROW_CASES, **test_objectives.CASES}[case]
    plain = config.build(
        Task(
            test_objectives.shape(arrangement), "toy", test_objectives.TAGS, vocabulary=test_objectives.WORDS
        )
    )
    own = labelled() if case in ROW_CASES else test_objectives.windows(case)
    own = [replace(one, member="own") for one in own]
    others = [replace(plain.corrupt(one, keyed_generator(one.row)), member="other") for one in own]
    model = test_objectives.shape(arrangement)

    def taught(objective: Any) -> Learner:
        return Learner(Transformer(model, torch.float64), [objective]).initialise(1).double()

    of_own = taught(OfMembers({"own": plain}, own[0], titled=True))
    spoilt = [of_own.corrupted(one, 1) for one in own]
    assert [np.concatenate(one.sequences).tolist() for one in spoilt] != [] and others[0].member == "other"
    assert of_own.corrupted(others[0], 1) is others[0]
    whole = gradients(taught(plain), [spoilt])
    mixed_up = [one for pair in zip(spoilt, others) for one in pair]
    parts = [mixed_up[:5], others[:3], mixed_up[5:]]
    assert farthest(whole, gradients(of_own, parts)) < 1e-12
    nothing = of_own(of_own.prepare(others[:2]))
    nothing.sum().backward()
    assert float(nothing.detach().abs().max()) == 0


def test_law_1_of_two_tasks_any_cut_is_the_sum_over_both() -> None:
    """w_1 S_1 / N_1 + w_2 S_2 / N_2, each of its own rows, by hand."""
    model = toy.model()
    first, second = (ClassificationConfig(dropout=0.0, weight=w).build(Task(model, name, labels))
                     for w, name, labels in ((1.0, "a", tuple("xy")), (0.3, "b", tuple("xyz"))))  # fmt: skip
    some = [replace(one, label=(one.label or 0) % 2, member="a") for one in toy.examples(6)]
    others = [replace(one, label=one.label or 0, member="b") for one in toy.examples(9)]
    both = [OfMembers({"a": first}, some[0], True), OfMembers({"b": second}, others[0], True)]
    learner = Learner(Transformer(model, torch.float64), both).initialise(1).double()
    cuts = [[some + others], [some, others], [some[:1] + others[:4], others[4:], some[1:]]]
    found = [gradients(learner, parts) for parts in cuts]
    alone = [gradients(learner, [some]), gradients(learner, [others])]
    summed = {name: sum(one[name] for one in alone if name in one) for one in alone for name in one}
    for one in found:
        assert farthest(summed, one) < 1e-12


def test_law_2_turns_alternate_and_are_a_function() -> None:
    parts = {"few": windows(3), "many": windows(10, 1000), "some": windows(5, 2000)}
    source = InTurn(parts, np.ones(3) / 3, seed=1)
    feed = Feed(source, 4, 1, 60, shuffled=False)
    drawn = [
        (example.member, int(example.sequences[0][0]))
        for step in range(15)
        for _, example in feed.examples(step)
    ]
    assert [name for name, _ in drawn] == ["few", "many", "some"] * 20
    for name, part in parts.items():
        times = Counter(first for other, first in drawn if other == name)
        assert len(times) == len(part) and max(times.values()) - min(times.values()) <= 1
    again = [e.sequences[0][0] for s in reversed(range(15)) for _, e in reversed(feed.examples(s))]
    assert again == [first for _, first in reversed(drawn)]
    ranks = [Feed(source, 4, 1, 60, rank, 2, shuffled=False) for rank in range(2)]
    shared = [
        [(e.member, int(e.sequences[0][0])) for s in range(15) for _, e in feed.examples(s)] for feed in ranks
    ]
    assert drawn[0::2] == shared[0] and drawn[1::2] == shared[1]


def test_an_example_knows_its_data_set() -> None:
    source = Mixed({"a": windows(4), "b": windows(8, 1000)}, np.array([1, 2]) / 3, 1)
    for index in range(12):
        example = source.example(index)
        assert example.member == ("b" if example.sequences[0][0] >= 1000 else "a")


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


def test_a_head_goes_once_and_by_its_name_first() -> None:
    two, three = {"labels": ["a", "b"]}, {"labels": ["a", "b", "c"]}
    assert fitting_heads({"x": two, "y": two}, {"y": two, "z": two}) == {"y": "y", "x": "z"}
    assert fitting_heads({"x": two, "y": two}, {"z": two}) == {"x": "z"}
    assert fitting_heads({"z": three}, {"z": two}) == {}


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


@pytest.mark.parametrize("by", ["turns", {"temperature": 2}])
def test_killed_in_the_middle_it_ends_with_the_same_bits(
    tmp_path: Path, by: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    patch = {"data": {"mix": members(tmp_path), "by": by}, "save": {"every": "5 steps"}, "length": "13 steps",
             "stop": {"metric": "chinese.loss", "patience": 9}, "evaluate": {"every": "3 steps"},
             "model": {"dropout": 0.2}}  # fmt: skip
    killed_and_whole(mixed(tmp_path, patch), "multi", monkeypatch)


def test_two_ranks_are_one_though_each_has_one_task(tmp_path: Path) -> None:
    """Two data sets in turn over two ranks: a rank never meets the other's head."""
    parts = members(tmp_path)
    two = {"mix": {name: parts[name] for name in ("english", "chinese")}, "by": "turns"}
    objectives = [{**one, "dropout": 0} for one in OBJECTIVES[:2]]
    path = mixed(
        tmp_path, {"data": two, "objectives": objectives, "model": {"dropout": 0}, "precision": "fp32"}
    )
    gradus.run(path, runs=tmp_path / "1", until="multi", device="cpu")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, Path(__file__).with_name("made_up_members.py")]
    done = subprocess.run(
        [*command, path, tmp_path / "2", "multi", str(port)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    one, other = (record(tmp_path / runs / "seas", "multi")[1] for runs in ("1", "2"))
    for metric, value in one["results"]["dev"].items():
        assert other["results"]["dev"][metric] == pytest.approx(value, rel=1e-3, abs=1e-6), metric
    assert one["training"]["tokens"] == other["training"]["tokens"]


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


def test_labels_under_one_head_weigh_what_each_data_set_says() -> None:
    """The sum over both data sets of torch's own loss, each with its own positive weights."""
    weights, model = {"a": (3.0, 1.0, 0.5), "b": (1.0, 7.0, 1.0)}, toy.model()
    own = {
        name: ClassificationConfig(dropout=0.0).build(
            Task(model, "a+b", tuple("中坏好"), class_weights=given, sets=True)
        )
        for name, given in weights.items()
    }
    sets = [np.array([1.0, 0.0, 1.0]), np.array([0.0, 1.0, 0.0]), np.array([1.0, 1.0, 1.0])] * 2
    some = [
        replace(row, label=marks, member=name) for row, marks, name in zip(toy.examples(6), sets, "aababb")
    ]
    both = Learner(Transformer(model, torch.float64), [OfMembers(own, some[0], True)]).initialise(1).double()
    batch = both.prepare(some)
    (logits,) = both.predict(batch)
    wanted = torch.nn.functional.binary_cross_entropy_with_logits(
        logits,
        torch.tensor(np.stack(sets), dtype=torch.float32),
        pos_weight=torch.tensor([weights[name] for name in "aababb"]),
        reduction="none",
    )
    assert float(both(batch).detach()) == pytest.approx(float(wanted.mean(1).sum()), rel=1e-5)


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


def test_rows_of_every_task_are_read_anew_each_epoch_and_texts_are_not(
    tmp_path: Path, command: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`augment` is the stage's: words go and rows are mixed in both tasks, killed or not."""
    augment = [{"kind": "deletion", "share": "50 %", "rows": "60 %"}, {"kind": "mix", "rows": "50 %"}]
    path = mixed(tmp_path, {"augment": augment, "save": {"every": "5 steps"}})
    material = Material(path.parent, tmp_path / "cache")
    plan = make_plan(read_recipe(path), material)
    (node,) = (node for node in plan.nodes.values() if node.name == "multi")
    train = prepare(node, material).train
    assert isinstance(train, InTurn)
    for name, part in zip(train.names, train.parts):
        first, later = ([part.example(row, epoch) for row in range(len(part))] for epoch in (0, 1))
        anew = sum(a.sequences[0].tolist() != b.sequences[0].tolist() for a, b in zip(first, later))
        joined = sum(one.partner is not None for one in first)
        assert (anew > 3, joined > 3) == (name != "sea", name != "sea")
    killed_and_whole(path, "multi", monkeypatch)
    texts = {name: members(tmp_path)["sea"] for name in "ab"}
    patch = {"data": {"mix": texts}, "objectives": OBJECTIVES[2:], "augment": augment, "batch": "4 windows"}
    code, told = command("check", str(mixed(tmp_path, patch)))
    assert code == 2 and "augment" in told and "labelled rows" in told


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
