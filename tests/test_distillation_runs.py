"""Distillation from the user's side: a recipe with teachers runs, resumes, caches what they say, and tells
what cannot be."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from safetensors.numpy import load_file
from tiny import killed_and_whole, tiny

from gradus.pipeline.models.serving import load
from gradus.pipeline.planning.material import Material
from gradus.pipeline.planning.plan import Plan, make_plan
from gradus.pipeline.planning.prepare import prepare
from gradus.pipeline.recipes.reading import read_recipe
from gradus.pipeline.run import run
from gradus.pipeline.running import teaching

ROWS = {"kind": "rows", "train": "builtin:tiny", "dev": "builtin:tiny",
        "format": {"kind": "single", "text": "text", "label": "label"}}  # fmt: skip
SOFT = {"kind": "distillation", "teacher": "finetune", "temperature": 3}
TASK = {"kind": "classification", "weight": 0.5}
STUDENT = {
    "model": {"layers": 1}, "data": ROWS, "objectives": [SOFT, TASK], "batch": "16 rows",
    "length": "12 steps", "optimizer": {"kind": "adamw", "lr": 5e-3}, "save": {"every": "5 steps"},
}  # fmt: skip
Command = Callable[..., tuple[int, str]]


def recipe(path: Path, patch: dict[str, Any] | None = None, **stages: Any) -> Path:
    """The tiny recipe with a teacher of two layers, `finetune`, and `stages`, a student unless given."""
    changes = {"model.layers": 2, **{f"stages.{name}": one for name, one in stages.items()}}
    return tiny(path, {**changes, **({} if stages else {"stages.student": STUDENT}), **(patch or {})})


def planned(path: Path, runs: Path) -> tuple[Plan, Material]:
    material = Material(path.parent, runs / "cache")
    return make_plan(read_recipe(path), material), material


def folder_of(run_folder: Path, stage: str) -> Path:
    (found,) = (run_folder / "stages").glob(f"{stage}-*")
    return found


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a student with all that there is to learn, and one that begins with chosen layers."""
    every = [SOFT | {"hidden": {}, "attention": {"of": "probabilities"}}, TASK]
    halved = STUDENT | {"from": "finetune", "transfer": {"layers": [1]}}
    path = recipe(tmp_path_factory.mktemp("done") / "taught.yaml", None,
                  student=STUDENT | {"objectives": every}, halved=halved)  # fmt: skip
    return run(path, runs=path.parent / "runs", device="cpu")


def test_a_student_leaves_without_its_lessons(done: Path) -> None:
    folder = folder_of(done, "student")
    card = json.loads((folder / "model" / "gradus.json").read_text(encoding="utf-8"))
    assert [one["kind"] for one in card["objectives"]] == ["classification"]
    assert not any("hidden" in name for name in load_file(folder / "model" / "model.safetensors"))
    record = json.loads((folder / "stage.json").read_text(encoding="utf-8"))
    assert record["teachers"] == [folder_of(done, "finetune").name]
    (projection,) = (one for one in record["transfer"] if "hidden-states" in one["tensor"])
    assert (projection["what"], projection["shape"]) == ("new", [16, 16])
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    learnt = [line["loss"] for line in lines if line["kind"] == "train"]
    assert all({*loss} == {"classification", "distillation", "hidden", "attention"} for loss in learnt)
    model = load(folder / "model", device="cpu")
    (answer,) = model.predict(["这部电影很好看。"])
    assert sum(answer["probabilities"].values()) == pytest.approx(1)


def test_chosen_layers_are_where_they_were_chosen_from(done: Path) -> None:
    """Every tensor of the teacher is loaded or dropped, and the student's one layer is its second."""
    record = json.loads((folder_of(done, "halved") / "stage.json").read_text(encoding="utf-8"))
    assert record["model"]["layers"] == 1
    blocks = [one for one in record["transfer"] if ".blocks." in one["tensor"]]
    assert {one["why"] for one in blocks if one["what"] == "loaded"} >= {
        "there blocks.1.attention.output.weight"
    }
    assert sum(one["what"] == "dropped" for one in blocks) == sum(one["what"] == "loaded" for one in blocks)
    assert not any(one["what"] == "new" for one in record["transfer"])


def test_teacher_and_students_are_the_results(done: Path) -> None:
    plan = json.loads((done / "plan.json").read_text(encoding="utf-8"))
    assert {*plan["outcomes"][0]["results"]} == {"finetune", "student", "halved"}


def test_what_is_kept_is_what_the_teacher_predicts(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cache against `predict` and against the teacher's own forward on the student's tokens; asked once
    for all students, Chinese rows among them."""
    runs = done.parent
    (kept,) = (runs / "cache").glob("taught-*")
    monkeypatch.setattr(teaching, "_asked", lambda *_: pytest.fail("the cache was not used"))
    plan, material = planned(runs.parent / "taught.yaml", runs)
    (node,) = (one for one in plan.nodes.values() if one.name == "student")
    prepared = prepare(node, material)
    told = teaching.with_soft_labels(prepared, material, done / "stages", torch.device("cpu"))
    examples = [told.train.example(row) for row in range(len(told.train))]
    found = np.stack([one.taught for one in examples])
    teacher = load(folder_of(done, "finetune") / "model", device="cpu", precision="fp32")
    texts = [row.fields["text"] for row in prepared.splits["train"].rows]
    assert any("的" in text for text in texts)
    scores = np.array([list(one["scores"].values()) for one in teacher.predict(texts)])
    odds = np.exp(scores / 3) / np.exp(scores / 3).sum(1, keepdims=True)
    assert np.abs(found - odds).max() < 2e-3  # the teacher was asked in the stage's precision
    logits = np.stack(teacher.logits([one.sequences[0] for one in examples]))
    assert np.abs(logits - scores).max() < 1e-5
    assert load_file(kept / "scores.safetensors")["scores"].shape == scores.shape


def test_a_student_killed_goes_on_to_the_same_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    every = [SOFT | {"hidden": {}, "attention": {}}, {**TASK, "dropout": 0.2}]
    patch = {"model.dropout": 0.2, "stages.student.objectives": every, "stages.pretrain.length": "4 steps"}
    killed_and_whole(recipe(tmp_path / "kill.yaml", patch), "student", monkeypatch)


def test_a_language_model_learns_from_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Masked tokens, too: what is hidden from the student is hidden from its teacher."""
    text = {"kind": "text", "train": "builtin:tiny"}
    soft = {"kind": "distillation", "teacher": "big", "hidden": {"map": "last"}}
    student = {"model": {"layers": 1}, "data": text, "objectives": [soft, {"kind": "masked_lm"}],
               "batch": "16 windows", "length": "6 steps", "save": {"every": "2 steps"}}  # fmt: skip
    big = {**student, "model": {}, "objectives": [{"kind": "masked_lm"}]}
    path = recipe(tmp_path / "text.yaml", None, big=big, student=student)
    written = yaml.safe_load(path.read_text())
    written["model"] = {"preset": "bert-mini", "layers": 2, "width": 16, "heads": 2, "context": 32,
                        "feed_forward": 32}  # fmt: skip
    for name in ("pretrain", "finetune"):
        del written["stages"][name]
    path.write_text(yaml.safe_dump(written))
    killed_and_whole(path, "student", monkeypatch)


@pytest.mark.parametrize("kind", ["span_corruption", "denoising", "seq2seq"])
def test_an_encoder_decoder_learns_what_another_says(kind: str, tmp_path: Path, command: Command) -> None:
    """On what the student reads, corrupted; of its states and attention nothing is asked."""
    rows = {"kind": "rows", "train": "builtin:tiny", "dev": "builtin:tiny",
            "format": {"kind": "text_to_text", "source": "{text}", "target": "{label}"}}  # fmt: skip
    text = {"kind": "text", "train": "builtin:tiny", "dev": "builtin:tiny"}
    data, batch = (rows, "16 rows") if kind == "seq2seq" else (text, "16 windows")
    teacher = {"data": data, "objectives": [{"kind": kind}], "batch": batch, "length": "6 steps"}
    soft = {"kind": "distillation", "teacher": "finetune"}
    student = teacher | {"objectives": [soft, {"kind": kind}], "model": {"layers": 1}}
    model = {"preset": "bart-mini", "layers": 2, "width": 16, "heads": 2, "context": 48, "feed_forward": 32}
    patch = {"model": model, "stages": {"finetune": teacher, "student": student}}
    folder = run(tiny(tmp_path / "said.yaml", patch), runs=tmp_path / "runs", device="cpu")
    lines = (folder_of(folder, "student") / "metrics.jsonl").read_text().splitlines()
    learnt = [line["loss"] for line in map(json.loads, lines) if line["kind"] == "train"]
    assert learnt and all({*loss} == {kind, "distillation"} for loss in learnt)
    student["objectives"][0] = soft | {"hidden": {}}
    status, told = command("check", tiny(tmp_path / "said.yaml", patch), "--runs", tmp_path / "runs")
    assert status == 2
    assert "of an encoder-decoder only what it says is learnt: 'hidden'" in " ".join(told.split())


def test_rows_without_a_label_are_learnt_from_the_teacher(tmp_path: Path) -> None:
    lines = [f"这是第{number}篇没有标签的评论。" for number in range(40)]
    (tmp_path / "more.jsonl").write_text(
        "".join(json.dumps({"text": line}, ensure_ascii=False) + "\n" for line in lines), encoding="utf-8"
    )
    data = ROWS | {"unlabelled": str(tmp_path / "more.jsonl")}
    path = recipe(tmp_path / "more.yaml", None, student=STUDENT | {"data": data})
    folder = run(path, runs=tmp_path / "runs", device="cpu")
    record = json.loads((folder_of(folder, "student") / "stage.json").read_text(encoding="utf-8"))
    counts = record["data"]["train"]
    assert (counts["rows"], counts["unlabelled_rows"], sum(counts["labels"].values())) == (200, 40, 160)
    plan, material = planned(path, tmp_path / "runs")
    (node,) = (one for one in plan.nodes.values() if one.name == "student")
    told = teaching.with_soft_labels(
        prepare(node, material), material, folder / "stages", torch.device("cpu")
    )
    last = told.train.example(199)
    assert last.row == 199 and last.label is None and last.taught.sum() == pytest.approx(1)
    (tmp_path / "more.jsonl").write_text('{"text": "另一行"}\n', encoding="utf-8")
    other, _ = planned(path, tmp_path / "runs")
    names = {one.name: one.fingerprint for one in other.nodes.values()}
    assert names["student"] != node.fingerprint and names["finetune"] in {
        one.fingerprint for one in plan.nodes.values()
    }


def test_rows_without_a_label_are_compared_with_test(tmp_path: Path, command: Command) -> None:
    """A teacher that says what the rows of test are is told of, and stops nothing."""
    lines = [
        json.dumps({"text": f"评论{number}说这部电影很好看啊", "label": "ab"[number % 2]})
        for number in range(8)
    ]
    for name, part in (("test", lines), ("more", lines[:3])):
        (tmp_path / f"{name}.jsonl").write_text("\n".join(part) + "\n", encoding="utf-8")
    labels = {"labels": ["negative", "positive"], "map": {"label": {"a": "negative", "b": "positive"}}}
    data = ROWS | labels | {"test": str(tmp_path / "test.jsonl"), "unlabelled": str(tmp_path / "more.jsonl")}
    path = recipe(tmp_path / "seen.yaml", None, student=STUDENT | {"data": data})
    status, told = command("check", path, "--runs", tmp_path / "runs", "--device", "cpu")
    assert status == 0, told
    assert "rows of test that are in unlabelled, too: 3 of 8" in " ".join(told.split())


def test_a_teacher_of_another_tokenizer_tells_rows_but_no_tokens(tmp_path: Path, command: Command) -> None:
    first = recipe(tmp_path / "first.yaml")
    teacher = folder_of(run(first, runs=tmp_path / "runs", device="cpu", until="finetune"), "finetune")
    soft = {"kind": "distillation", "teacher": {"folder": str(teacher / "model")}}
    other = {"tokenizer": {"kind": "char"}, "stages.student": STUDENT | {"objectives": [soft, TASK]}}
    path = recipe(tmp_path / "other.yaml", other, student=STUDENT)
    status, told = command("run", path, "--runs", tmp_path / "runs", "--device", "cpu", "--until", "student")
    assert status == 0, told
    for key in ("hidden", "attention"):
        changed = other | {"stages.student": STUDENT | {"objectives": [soft | {key: {}}, TASK]}}
        path = recipe(tmp_path / "other.yaml", changed, student=STUDENT)
        for name in ("check", "run"):
            status, told = command(name, path, "--runs", tmp_path / "runs", "--device", "cpu")
            assert status == 2 and "has another tokenizer" in told and "whatever the tokenizer" in told


def test_a_row_that_is_written_anew_keeps_what_was_said_of_it(done: Path, tmp_path: Path) -> None:
    """The teacher has read the row as it stands; the student reads it with words left out."""
    student = STUDENT | {"augment": [{"kind": "deletion", "share": "30 %"}]}
    path = recipe(tmp_path / "taught.yaml", None, student=student)
    plan, material = planned(path, done.parent)
    (node,) = (one for one in plan.nodes.values() if one.name == "student")
    prepared = prepare(node, material)
    told = teaching.with_soft_labels(prepared, material, done / "stages", torch.device("cpu")).train
    changed = [told.example(row, epoch) for row in range(20) for epoch in (0, 1)]
    assert len({one.sequences[0].tobytes() for one in changed}) > 20
    assert all(np.array_equal(a.taught, b.taught) for a, b in zip(changed[::2], changed[1::2]))


MISTAKES: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "nobody": (
        {"objectives": [SOFT | {"teacher": "fintune"}, TASK]},
        ("no such teacher: 'fintune'", "'finetune'"),
    ),
    "itself": ({"objectives": [SOFT | {"teacher": "student"}, TASK]}, ("no such teacher: 'student'",)),
    "alone": ({"objectives": [SOFT]}, ("no soft labels for this: 'nothing'", "classification")),
    "no folder": (
        {"objectives": [SOFT | {"teacher": {"folder": "nope"}}, TASK]},
        ("no model folder", "nope"),
    ),
    "nothing": (
        {"objectives": [SOFT | {"weight": 0}, TASK]},
        ("nothing is learnt from the teacher: '0.0'", "hidden"),
    ),
    "a list of none": ({"objectives": [SOFT | {"teacher": []}, TASK]}, ("nobody teaches",)),
    "hard and warm": ({"objectives": [SOFT | {"hard": True}, TASK]}, ("hard labels have no temperature",)),
    "another kind": (
        {"objectives": [SOFT | {"teacher": "pretrain"}, TASK]},
        ("another kind of question", "classif"),
    ),
    "two with states": (
        {"objectives": [SOFT | {"teacher": ["finetune", "pretrain"], "hidden": {}}, TASK]},
        ("only the labels have a mean",),
    ),
    "too deep": (
        {"model": {"layers": 3}, "objectives": [SOFT | {"hidden": {}}, TASK]},
        ("3 layers, the teacher 2",),
    ),
    "no such layer": ({"from": "finetune", "transfer": {"layers": [2]}}, ("no such layer: '2'", "at most 1")),
    "whose layers": ({"from": "finetune"}, ("model.layers", "come from where the stage starts: '1'")),
    "a number": (
        {"data": ROWS | {"labels": ["a", "b"]}, "objectives": [SOFT, {"kind": "regression"}]},
        ("a number has no temperature",),
    ),
    "unlabelled alone": (
        {"data": ROWS | {"unlabelled": "builtin:tiny"}, "objectives": [TASK]},
        ("nobody says what these rows are",),
    ),
    "two rows at once": (
        {"augment": [{"kind": "mix"}]},
        ("nobody is asked about two rows at once",),
    ),
    "several tasks": (
        {
            "data": {"mix": {"a": ROWS, "b": ROWS}},
            "objectives": [SOFT, TASK | {"on": "a"}, {"kind": "multiple_choice", "on": "b"}],
        },
        ("teachers teach one task alone",),
    ),
    "other classes": (
        {"data": ROWS | {"map": {"label": {"negative": "坏", "positive": "好"}}}},
        ("other classes", "好"),
    ),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_what_cannot_be_taught_is_told(name: str, tmp_path: Path, command: Command) -> None:
    change, wanted = MISTAKES[name]
    path = recipe(tmp_path / "wrong.yaml", None, student=STUDENT | change)
    status, told = command("check", path, "--runs", tmp_path / "runs", "--device", "cpu")
    assert status == 2 and "wrong.yaml" in told, told
    for words in wanted:
        assert words in told, told


def test_a_teacher_of_several_tasks_is_refused_before_it_learns(tmp_path: Path, command: Command) -> None:
    tasks = [TASK | {"on": "a"}, TASK | {"on": "b"}]
    teacher = STUDENT | {"data": {"mix": {"a": ROWS, "b": ROWS}}, "objectives": tasks}
    path = recipe(tmp_path / "wrong.yaml", {"stages.finetune": teacher}, student=STUDENT)
    mixed = run(path, runs=tmp_path / "runs", device="cpu", until="finetune")
    folder = folder_of(mixed, "finetune") / "model"
    for name in ("finetune", {"folder": str(folder)}):
        lessons = [SOFT | {"teacher": name}, TASK]
        recipe(path, {"stages.finetune": teacher}, student=STUDENT | {"objectives": lessons})
        status, told = command("check", path, "--runs", tmp_path / "runs", "--device", "cpu")
        assert status == 2 and "this teacher knows several tasks: a, b" in " ".join(told.split()), told


def test_a_teacher_counts_in_what_is_decided_and_estimated(tmp_path: Path, command: Command) -> None:
    path = recipe(tmp_path / "plan.yaml")

    def ids(**patch: Any) -> dict[str, str]:
        recipe(path, {name.replace("__", "."): value for name, value in patch.items()}, student=STUDENT)
        return {one.name: one.fingerprint for one in planned(path, tmp_path)[0].nodes.values()}

    before, after = ids(), ids(stages__finetune__length="13 steps")
    assert before["pretrain"] == after["pretrain"] and before["student"] != after["student"]
    plan, _ = planned(path, tmp_path)
    assert [one.name for one in plan.until("student")] == ["pretrain", "finetune", "student"]
    assert {one.name for one in plan.until("pretrain")} == {"pretrain"}
