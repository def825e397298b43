"""Whatever users get wrong is told in a few lines, with status 2, before anything is trained or written."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from mistakes import (
    BOOK,
    DATA_CASES,
    FOLDERS,
    GB,
    HEADER,
    OPTION_CASES,
    RECIPE,
    RECIPE_CASES,
    ROWS,
    Case,
    Said,
    edited,
    is_told,
    leaves_nothing,
    write,
)

from gradus import cli
from gradus.core.storage import lock
from gradus.pipeline import check as checking
from gradus.pipeline.run import run
from gradus.training.trainer import Trainer

Call = Callable[..., Said]


@pytest.fixture
def gradus(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Call:
    """The command, in this process: a traceback would fail the test by itself."""
    monkeypatch.delenv("GRADUS_DATA", raising=False)
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.setattr(checking, "matrix_rate", lambda device, precision: 1e11)

    def call(*words: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["gradus", *map(str, words)])
        capsys.readouterr()
        try:
            cli.main()
            status = 0
        except SystemExit as stopped:
            status = int(stopped.code or 0)
        return Said(status, *capsys.readouterr())

    return call


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with a recipe that is right and its data."""
    write(
        tmp_path,
        {"recipe.yaml": RECIPE, "books.txt": BOOK, "train.tsv": HEADER + ROWS, "dev.tsv": HEADER + ROWS},
    )
    return tmp_path


@pytest.mark.parametrize("case", [*RECIPE_CASES, *DATA_CASES, *OPTION_CASES], ids=lambda case: case.name)
def test_a_mistake_is_told_before_anything_is_trained(case: Case, place: Path, gradus: Call) -> None:
    write(place, {"recipe.yaml": edited(*case.edits), **case.files})
    options = [option.format(place=place) for option in case.options]
    for command in case.commands:
        is_told(gradus(command, place / "recipe.yaml", "--runs", place / "runs", *options), *case.told)
        leaves_nothing(place / "runs")


@pytest.mark.parametrize("recipe", [b"\xef\xbb\xbf" + RECIPE.encode(), RECIPE.replace("\n", "\r\n").encode()])
def test_files_of_windows_are_fine(recipe: bytes, place: Path, gradus: Call) -> None:
    rows = b"\xef\xbb\xbf" + (HEADER + ROWS).replace("\n", "\r\n").encode()
    write(place, {"recipe.yaml": recipe, "train.tsv": rows})
    said = gradus("check", place / "recipe.yaml", "--runs", place / "runs")
    assert said.status == 0 and "judge from" in said.out


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [("nope.yaml", None, "nope.yaml: there is no such recipe"), (".", None, "this is a folder, not a recipe"),
     ("latin.yaml", "seed: 1 # café\n".encode("latin-1"), r"latin\.yaml: the recipe is not UTF-8 .byte 13"),
     ("nul.yaml", b"seed: 1\n\0\n", r"nul\.yaml: this is not YAML")],
)  # fmt: skip
def test_a_recipe_that_cannot_be_read(
    name: str, content: bytes | None, told: str, place: Path, gradus: Call
) -> None:
    write(place, {name: content} if content is not None else {})
    for command in ("check", "run"):
        is_told(gradus(command, place / name, "--runs", place / "runs"), told)
        leaves_nothing(place / "runs")


def test_a_data_folder_in_the_environment_that_is_not_there(
    place: Path, gradus: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRADUS_DATA", str(place / "nope"))
    is_told(
        gradus("check", place / "recipe.yaml", "--runs", place / "runs"),
        "GRADUS_DATA: there is no such data folder",
    )


def test_cuda_on_a_machine_without(place: Path, gradus: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    is_told(
        gradus("run", place / "recipe.yaml", "--runs", place / "runs", "--device", "cuda"),
        "'cuda'",
        "there is .*cpu",
    )
    leaves_nothing(place / "runs")


def test_a_runs_folder_without_permission(place: Path, gradus: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "runs").mkdir()
    granted = os.access  # the tests may run as root, who may write anywhere
    monkeypatch.setattr("os.access", lambda path, mode: mode == os.R_OK and granted(path, mode))
    for command in ("check", "run"):
        is_told(
            gradus(command, place / "recipe.yaml", "--runs", place / "runs"),
            "runs: --runs: .*no permission to write",
        )


@pytest.mark.parametrize("command", ["check", "run"])
def test_a_disk_with_too_little_room(
    command: str, place: Path, gradus: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = shutil.disk_usage(place)._replace(free=10_000)
    monkeypatch.setattr("shutil.disk_usage", lambda path: usage)
    said = gradus(command, place / "recipe.yaml", "--runs", place / "runs")
    is_told(said, "the disk has too little room: '0 MB free'", "[0-9]+ MB are needed")
    leaves_nothing(place / "runs")


def test_a_disk_that_fills_up_while_tokenising(
    place: Path, gradus: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("gradus.data.shards._Writer.add", full)
    is_told(gradus("run", place / "recipe.yaml", "--runs", place / "runs"), "No space left on device")
    leaves_nothing(place / "runs")


def test_two_runs_of_one_recipe_at_once(place: Path, gradus: Call) -> None:
    with lock(place / "runs" / place.name / ".lock", wait=False):
        said = gradus("run", place / "recipe.yaml", "--runs", place / "runs")
    is_told(said, "another run of this recipe is under way")
    leaves_nothing(place / "runs")


def test_truncated_rows_are_counted_and_told(place: Path, gradus: Call) -> None:
    write(place, {"recipe.yaml": edited(("context: 48", "context: 12"))})
    said = gradus("check", place / "recipe.yaml", "--runs", place / "runs")
    assert said.status == 0
    assert re.search(
        r"judge: train: 16 rows \(100\.0%\) longer than the context of 12 tokens: [\d,]+ tokens cut",
        said.out,
    )
    assert gradus("run", place / "recipe.yaml", "--runs", place / "runs").status == 0
    counts = stage_record(place / "runs", "judge")["data"]["train"]
    assert counts["truncated_rows"] == 16 and f"{counts['truncated_tokens']:,} tokens cut" in said.out


def test_skipped_rows_are_counted_and_listed(place: Path, gradus: Call) -> None:
    write(
        place,
        {
            "recipe.yaml": edited(("kind: rows", "kind: rows\n      bad_rows: skip up to 2")),
            "train.tsv": HEADER + "坏\n" + ROWS + "y\n",
        },
    )
    said = gradus("check", place / "recipe.yaml", "--runs", place / "runs")
    assert said.status == 0 and "judge: train: 2 bad rows skipped" in said.out
    assert gradus("run", place / "recipe.yaml", "--runs", place / "runs").status == 0
    assert stage_record(place / "runs", "judge")["data"]["train"]["skipped_rows"] == 2
    (listed,) = (place / "runs" / place.name).glob("stages/judge-*/skipped.jsonl")
    rows = [json.loads(line) for line in listed.read_text(encoding="utf-8").splitlines()]
    assert [(row["split"], row["file"], row["line"]) for row in rows] == [
        ("train", str(place / "train.tsv"), line) for line in (2, 19)
    ]
    assert "1 field where 2 are wanted: '坏'" in rows[0]["problem"]
    assert not list((place / "runs" / place.name).glob("stages/read-*/skipped.jsonl"))


def test_rows_left_out_are_counted_and_told(place: Path, gradus: Call) -> None:
    rows = HEADER + ROWS + "平淡\t-\n"
    keys = 'kind: rows\n      drop: {label: "-"}\n      limit: 12'
    write(place, {"recipe.yaml": edited(("kind: rows", keys)), "train.tsv": rows, "dev.tsv": rows})
    said = gradus("check", place / "recipe.yaml", "--runs", place / "runs")
    for split, why in (("train: 1 row", "drop"), ("dev: 1 row", "drop"), ("train: 4 rows", "limit")):
        assert f"judge: {split} left out ({why})" in said.out
    assert gradus("run", place / "recipe.yaml", "--runs", place / "runs").status == 0
    counts = stage_record(place / "runs", "judge")["data"]["train"]
    assert (counts["rows"], counts["dropped_rows"], counts["beyond_limit_rows"]) == (12, 1, 4)


def test_labels_that_look_like_a_slip_are_told(place: Path, gradus: Call) -> None:
    reading = "columns: [words, class]\n      format: {kind: single, text: words, label: class}"
    recipe = edited(
        ("format: {kind: single, text: text, label: label}", reading), ("dev: dev.tsv", "limit: 99")
    )
    write(place, {"recipe.yaml": recipe, "train.tsv": HEADER + ROWS + ROWS.replace("\tyes", "\tYes")})
    said = gradus("check", place / "recipe.yaml", "--runs", place / "runs")
    assert said.status == 0
    out = " ".join(said.out.split())
    assert re.search(r"judge: one row only is labelled 'label': \S*train\.tsv:1; is it a header\?", out), (
        said.out
    )
    assert re.search(r"judge: the labels 'Yes' and 'yes' differ only in case or space", out), said.out


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (["optimizer: {kind: adamw, lr: 1e+38}"], ["the weights are not finite after step 1: 'transformer"]),
        (["optimizer: {kind: adamw, lr: 1e+25}", "evaluate: {every: 6 steps}"],
         ["the loss or its gradient is not finite at step 2, whose rows are window [0-9]+, window"]),
        (["optimizer: {kind: adamw, lr: 1e+25}"], ["the scores of dev at step 1 are not finite: window 0"]),
    ],
    ids=["weights", "loss", "scores"],
)  # fmt: skip
def test_training_that_diverges(lines: list[str], told: list[str], place: Path, gradus: Call) -> None:
    longer = "    length: 6 steps\n" + "".join(f"    {line}\n" for line in lines)
    write(place, {"recipe.yaml": edited(("    length: 2 steps\n", longer))})
    said = gradus("run", place / "recipe.yaml", "--runs", place / "runs")
    last = said.err.splitlines()[-1]
    assert said.status == 2 and "Traceback" not in said.err
    for pattern in [
        "stages/read-[0-9a-f]+: stages.read: ",
        *told,
        "lower lr",
        "no checkpoint was written before it",
    ]:
        assert re.search(pattern, last), said.err
    assert not [
        path for path in (place / "runs").rglob("*") if path.name in ("stage.json", "model.safetensors")
    ]


def test_training_that_diverges_names_its_last_good_checkpoint(
    place: Path, gradus: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(
        place,
        {
            "recipe.yaml": edited(
                ("    length: 2 steps\n", "    length: 6 steps\n    save: {every: 1 steps}\n")
            )
        },
    )

    def wild(trainer: Trainer, step: int) -> None:
        for group in trainer.optimizers[0].param_groups:
            group["lr"] = 1e38 if step >= 3 else 1e-3

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "_set_rates", wild)
        said = gradus("run", place / "recipe.yaml", "--runs", place / "runs")
    assert said.status == 2 and "Traceback" not in said.err
    assert re.search(r"at step 4 are not finite: .*the last good checkpoint is step-00000003\)", said.err), (
        said.err
    )
    (folder,) = (place / "runs" / place.name).glob("stages/read-*")
    assert not (folder / "stage.json").exists() and not (folder / "model").exists()
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == [
        "step-00000002",
        "step-00000003",
    ]
    said = gradus("run", place / "recipe.yaml", "--runs", place / "runs")
    assert said.status == 0 and "going on from step 3 of 6" in said.err


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the recipe that is right, its data and its finished run."""
    folder = tmp_path_factory.mktemp("finished")
    write(
        folder,
        {"recipe.yaml": RECIPE, "books.txt": BOOK, "train.tsv": HEADER + ROWS, "dev.tsv": HEADER + ROWS},
    )
    run(folder / "recipe.yaml", runs=folder / "runs", data_dir=folder)
    return folder


def model_of(finished: Path, stage: str) -> Path:
    (folder,) = (finished / "runs" / finished.name / "stages").glob(f"{stage}-*/model")
    return folder


@pytest.mark.parametrize("case", FOLDERS, ids=lambda case: case[2])
def test_a_model_folder_that_is_wrong(
    case: tuple[bool, Callable[[Path], object], str, str], finished: Path, place: Path, gradus: Call
) -> None:
    manifest, change, *told = case
    shutil.copytree(model_of(finished, "read"), place / "start")
    if not manifest:
        (place / "start" / "MANIFEST.json").unlink()
    change(place / "start")
    write(place, {"recipe.yaml": edited(("from: read", "from: {folder: start}"))})
    for command in ("check", "run"):
        is_told(gradus(command, place / "recipe.yaml", "--runs", place / "runs"), *told)
        leaves_nothing(place / "runs")


ROWS_TO_PREDICT = {
    "missing": (None, r"rows\.tsv"),
    "empty": ("", r"rows\.tsv: .*(empty|no rows)"),
    "only a header": (HEADER, r"rows\.tsv: the file holds no rows"),
    "no column": ("txet\tn\n好\t1\n", r"rows\.tsv:2: .*'?text'?.*did you mean 'txet'"),
    "too few fields": (HEADER + "好\tyes\n坏\n", r"rows\.tsv:3: 1 field where 2 are wanted: '坏'"),
    "another encoding": (HEADER.encode() + GB + b"\tyes\n", r"rows\.tsv:2: bytes .* are not utf-8.*gb18030"),
}


@pytest.mark.parametrize("name", ROWS_TO_PREDICT)
def test_rows_that_cannot_be_predicted(name: str, finished: Path, tmp_path: Path, gradus: Call) -> None:
    content, told = ROWS_TO_PREDICT[name]
    write(tmp_path, {"rows.tsv": content} if content is not None else {})
    model = model_of(finished, "judge")
    said = gradus("predict", model, "--input", tmp_path / "rows.tsv", "--output", tmp_path / "out.jsonl")
    is_told(said, told)
    assert {path.name for path in tmp_path.iterdir()} <= {"rows.tsv"}


def test_rows_of_an_unknown_label_cannot_be_evaluated(finished: Path, tmp_path: Path, gradus: Call) -> None:
    write(tmp_path, {"rows.tsv": HEADER + "一般\tYES\n"})
    said = gradus("evaluate", model_of(finished, "judge"), "--data", tmp_path / "rows.tsv")
    is_told(said, r"rows\.tsv:2: label: .*'YES'", "did you mean 'yes'")


def test_a_mistake_spares_what_was_finished_before(finished: Path, place: Path, gradus: Call) -> None:
    shutil.copytree(finished / "runs", place / "runs")
    (place / "runs" / finished.name).rename(place / "runs" / place.name)
    before = {path: path.read_bytes() for path in (place / "runs" / place.name).rglob("*") if path.is_file()}
    write(place, {"dev.tsv": HEADER + "一般\tmaybe\n"})
    for options in ([], ["--fresh"]):
        is_told(gradus("run", place / "recipe.yaml", "--runs", place / "runs", *options), "'maybe'")
    after = {path: path.read_bytes() for path in (place / "runs" / place.name).rglob("*") if path.is_file()}
    assert after == before


@pytest.mark.parametrize(
    ("words", "told"),
    [(["check", "recipe.yaml"], r"gradus: .*recipe\.yaml:19: stages\.judge\.lenght: unknown key"),
     (["run"], "missing argument"), (["report", "nothing"], "gradus: nothing: there is no such folder")],
)  # fmt: skip
def test_the_real_command_exits_with_2(words: list[str], told: str, place: Path) -> None:
    write(place, {"recipe.yaml": edited(("length: 3", "lenght: 3"))})
    environment = {name: value for name, value in os.environ.items() if name != "GRADUS_DATA"}
    command = [sys.executable, "-m", "gradus.cli", *words]
    done = subprocess.run(command, cwd=place, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 2 and not done.stdout, done
    assert re.search(told, done.stderr) and "Traceback" not in done.stderr, done.stderr
    assert not (place / "runs").exists()


def stage_record(runs: Path, stage: str) -> dict:
    (folder,) = (runs / runs.parent.name).glob(f"stages/{stage}-*")
    return json.loads((folder / "stage.json").read_text(encoding="utf-8"))
