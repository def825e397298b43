"""Reports of many tasks: table 5 and figure 2 of GPT-1, numbers and answers of rows beside classes."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import made_up_tasks as made_up
import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from gradus.core.keyed import keyed_generator
from gradus.core.storage import write_json
from gradus.evaluation.statistics import paired_correlation
from gradus.report import Run, export, headline, load_run, print_table, results_markdown, tables, write_report
from gradus.report.ablations import asked, transferred
from gradus.report.errors import class_tables, number_points, wrong_rows
from gradus.report.figures import Curve, curves, scatter
from gradus.report.tasks import PAPER_ROWS, task_tables


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_up.make_tasks(tmp_path_factory.mktemp("runs") / "gpt1_small")


@pytest.fixture(scope="module")
def run(folder: Path) -> Run:
    return load_run(folder)


def test_each_task_has_its_own_metric(run: Run) -> None:
    dev, test = task_tables(tables(run))
    assert (dev.split, test.split) == ("dev", "test")
    assert dev.tasks == {"sst2": "accuracy", "cola": "matthews", "stsb": "pearson", "dream": "accuracy"}
    first = dev.lines[0]
    values = [
        [stage.results["dev"][metric] for stage in run.of("as written", task)]
        for task, metric in dev.tasks.items()
    ]
    assert first.cells["average"].values == pytest.approx(np.mean(values, axis=0))
    assert first.cells["average"].deviation == pytest.approx(np.std(np.mean(values, axis=0), ddof=1))


def test_each_cell_has_its_own_verdict(run: Run) -> None:
    table = task_tables(tables(run))[-1]
    assert set(table.verdicts["no pre-training"].values()) == {"worse"}
    assert set(table.verdicts["as written"].values()) == {None}
    two = table.verdicts["2 layers"]
    assert two.pop("sst2") == "worse" and set(two.values()) == {"the same stage"}


def test_floors_and_the_paper_stand_below(run: Run) -> None:
    table = task_tables(tables(run))[-1]
    floors = {floor.title: floor.values for floor in table.floors}
    assert floors["majority label"] == {"sst2": 0.52, "cola": 0.0, "dream": 0.35}
    assert floors["word overlap"] == {"stsb": 0.31, "dream": 0.41} and floors["mean of train"] == {
        "stsb": 0.0
    }
    assert [floor.title for floor in table.paper] == [f"paper: {name}" for name in PAPER_ROWS]
    assert table.paper[3].values == pytest.approx({"sst2": 0.905, "cola": 0.303, "stsb": 0.718})


def test_the_paper_s_averages_are_those_of_its_rows() -> None:
    averages = [float(np.mean(row)) for row in PAPER_ROWS.values()]
    assert averages == pytest.approx([74.7, 59.9, 75.0, 69.1], abs=0.07)


def test_headline_counts_tasks(run: Run) -> None:
    said = headline(run)
    assert re.fullmatch(r"Pre-training helped on 4 of 4 tasks: average \d\d\.\d against \d\d\.\d", said.title)
    assert said.details[0].startswith("On test: sst2 (accuracy), cola (Matthews), ")
    assert any("beats “LSTM” on 4 of 4 tasks" in detail for detail in said.details)
    assert not any("embeddings" in detail for detail in said.details)


def test_numbers_are_compared_by_correlation(run: Run) -> None:
    table = next(table for table in tables(run) if (table.stage, table.split) == ("stsb", "test"))
    line = table.line("no pre-training")
    gap = line.cells["pearson"].mean - table.lines[0].cells["pearson"].mean
    assert table.compared == "Pearson's r" and line.test["difference"] == pytest.approx(gap)
    assert line.test["low"] < gap < line.test["high"] < 0 and line.verdict == "worse"


def test_matthews_is_compared_by_itself(run: Run) -> None:
    table = next(table for table in tables(run) if (table.stage, table.split) == ("cola", "test"))
    line = table.line("LSTM")
    gap = line.cells["matthews"].mean - table.lines[0].cells["matthews"].mean
    assert table.compared == "Matthews' correlation" and line.test["difference"] == pytest.approx(gap)
    sst2 = next(table for table in tables(run) if table.stage == "sst2")
    assert sst2.compared == "rows right"


def test_the_average_is_over_what_every_variant_has(folder: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(folder, tmp_path / "run"))
    plan = json.loads((other / "plan.json").read_text(encoding="utf-8"))
    for outcome in plan["outcomes"]:
        if outcome["variant"] == "LSTM":
            del outcome["stages"]["dream"]
    write_json(other / "plan.json", plan)
    record = json.loads((other / "stages" / "sst2-32" / "stage.json").read_text(encoding="utf-8"))
    write_json(other / "stages" / "sst2-32" / "stage.json", record | {"device": "cuda of another make"})
    run = load_run(other)
    table = task_tables(tables(run))[-1]
    assert table.averaged == ["sst2", "cola", "stsb"] and "dream" in table.tasks
    for line in table.lines:
        own = np.mean([line.cells[task].values for task in table.averaged], axis=0)
        assert line.cells["average"].values == pytest.approx(own)
    assert table.paper[0].values["average"] == pytest.approx((0.913 + 0.454 + 0.82) / 3)
    drawn = results_markdown([export(run, tmp_path / "small.json")])
    assert "| average of 3 |" in drawn
    assert "The average is over sst2, cola and stsb, which every variant has." in drawn
    assert "- 1 stage on cuda of another make, " in drawn
    assert "The same stage as the first variant's: embeddings, 1 layer, 2 layers and word vectors." in drawn


def test_paired_correlation_is_a_bootstrap_of_rows() -> None:
    rng = keyed_generator("rows of numbers")
    truth = rng.normal(size=60)
    a, b = truth + 0.5 * rng.normal(size=(2, 60)), truth + 1.5 * rng.normal(size=(3, 60))
    found = paired_correlation(truth, a, b, samples=2000, key=("x",))
    assert found == paired_correlation(truth, a, b, samples=2000, key=("x",))

    def difference(rows: np.ndarray) -> float:
        means = [np.mean([np.corrcoef(truth[rows], seed[rows])[0, 1] for seed in side]) for side in (a, b)]
        return float(means[0] - means[1])

    assert found["difference"] == pytest.approx(difference(np.arange(60)))
    drawn = [difference(rng.integers(60, size=60)) for _ in range(1000)]
    assert (found["low"], found["high"]) == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.04)
    swapped = paired_correlation(truth, b, a, samples=2000, key=("x",))
    assert swapped["high"] == pytest.approx(-found["low"]) and swapped["p"] == found["p"] < 0.01
    assert paired_correlation(truth, a, a)["p"] == 1.0
    constant = paired_correlation(truth, a, np.full((1, 60), 2.5))
    assert constant["difference"] == pytest.approx(np.mean([np.corrcoef(truth, s)[0, 1] for s in a]))
    assert paired_correlation([1.0, 2.0], [[1.0, 2.0]], [[2.0, 1.0]])["p"] >= 0.5
    with pytest.raises(ValueError, match="the same rows"):
        paired_correlation(truth[1:], a, b)


def test_layers_differ_in_nothing_else(run: Run) -> None:
    (found,) = transferred(run)
    assert (found.stage, found.split, list(found.cells)) == ("sst2", "dev", [0, 1, 2, 4])
    full = next(table for table in tables(run) if table.stage == "sst2").lines[0]
    assert found.cells[made_up.LAYERS] == full.cells["accuracy"]


def test_zero_shot_along_pretraining(run: Run) -> None:
    found = {(one.variants[0], one.name): one for one in asked(run)}
    assert len(found) == 8
    few, cola = found["as written", "sst2_few"], found["LSTM", "cola"]
    assert few.title == "sst2_few, 8 shots" and len(few.points) == 10
    assert few.points[-1][0] == 8_192_000 and few.points[-1][1] == few.metrics["accuracy"]
    assert few.above_chance[-1][1] == pytest.approx(2 * few.points[-1][1] - 1)
    assert cola.metric == "matthews" and cola.verdict == "at chance"


@pytest.mark.parametrize(
    ("shown", "said"),
    [(0.4, "sst2_few, 8 shots, 0.4 shown"), (0.0, "sst2_few, zero-shot: none of 8 shots shown"),
     (8.0, "sst2_few, 8 shots")],
)  # fmt: skip
def test_shots_that_had_no_room_are_not_claimed(
    shown: float, said: str, folder: Path, tmp_path: Path
) -> None:
    other = Path(shutil.copytree(folder, tmp_path / "run"))
    for path in other.glob("stages/pretrain-*/stage.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        record["zero_shot"]["sst2_few"]["metrics"]["shots_shown"] = shown
        write_json(path, record)
    run = load_run(other)
    assert {one.title for one in asked(run) if one.name == "sst2_few"} == {said}
    assert f"{said}:" in write_report(run).read_text(encoding="utf-8")
    drawn = results_markdown([export(run, tmp_path / "small.json")])
    assert f"| {said} (" in drawn
    with open(tmp_path / "printed.txt", "w+", encoding="utf-8") as file:
        print_table(run, Console(file=file, width=190))
        file.seek(0)
        assert f"{said} (" in file.read()


def test_unfinished_stage_tells_its_last_zero_shot(folder: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(folder, tmp_path / "run"))
    (other / "stages" / "pretrain-full" / "stage.json").unlink()
    found = [one for one in asked(load_run(other)) if one.variants[0] == "as written"]
    assert len(found) == 4 and all(len(one.points) == 10 for one in found)


def test_page_shows_every_task(folder: Path, run: Run) -> None:
    page = write_report(run).read_text(encoding="utf-8")
    assert write_report(folder).read_text(encoding="utf-8") == page
    for said in ("all tasks, test", "paper: LSTM w/ aux LM", "BooksCorpus", 'id="layers"', 'id="zero-shot"',
                 "difference in Pearson&#39;s r, 95 %", "At chance", "the same stage",
                 "Predicted against true", "He &lt;stays&gt; at home.", "去看电影。"):  # fmt: skip
        assert said in page, said
    assert page.count('class="band') == 8 and page.count("error-bar") >= 4 and "nan" not in page
    assert (
        "<figcaption>sst2: accuracy, dev</figcaption>" in page
    )  # transferred layers, on the task's own scale
    section = {
        name: page[page.index(f'id="stage-{name}"') :].split("</section>")[0] for name in made_up.TASKS
    }
    shown = {name: "Label by label" in text for name, text in section.items()}
    assert shown == {"sst2": True, "cola": True, "stsb": False, "dream": False}


def test_errors_of_numbers_and_answers(run: Run) -> None:
    numbers, answers = run.of("LSTM", "stsb"), run.of("LSTM", "dream")
    assert class_tables(numbers) == [] and class_tables(answers) == []
    split, points = number_points(numbers)
    assert split == "dev" and len(points) == made_up.ROWS["dev"]
    _, total, rows = wrong_rows(numbers)
    assert total == made_up.ROWS["dev"] and rows[0].confidence == max(row.confidence for row in rows)
    _, total, rows = wrong_rows(answers)
    assert rows[0].confidence == 0.7 and rows[0].predicted == "He <stays> at home."
    assert number_points(answers) == ("", [])


def test_export_keeps_all_and_draws_it_again(run: Run, tmp_path: Path) -> None:
    path = export(run, tmp_path / "gpt1_small.json")
    assert len(path.read_bytes()) < 100_000
    drawn = results_markdown([path])
    assert (
        "| no pre-training | " in drawn
        and " † |" in drawn
        and "| *paper: Transformer w/ aux LM (full)* |" in drawn
    )
    assert "### transferred layers" in drawn and "### zero-shot and few-shot" in drawn
    for title in ("### all tasks, dev", "### all tasks, test", "### pretrain, dev", "### stsb, test"):
        assert title in drawn
    for block in re.findall(r"(?:^\|.*\n)+", drawn, re.M):
        assert len({line.count("|") for line in block.splitlines()}) == 1
    with open(tmp_path / "printed.txt", "w+", encoding="utf-8") as file:
        print_table(run, Console(file=file, width=150))
        file.seek(0)
        printed = file.read()
    assert "all tasks, test" in printed and "at chance" in printed and "stsb, test" not in printed


def test_files_of_earlier_exports_are_drawn(run: Run, tmp_path: Path) -> None:
    record = json.loads(export(run, tmp_path / "new.json").read_text())
    del record["transferred"], record["zero_shot"]
    for table in record["tables"]:
        for variant in table["variants"]:
            del variant["planned"], variant["same"]
    write_json(tmp_path / "old.json", record)
    assert "### all tasks, test" in results_markdown([tmp_path / "old.json"])


def test_export_is_written_before_anything_is_printed(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr("gradus.report.print_table", stop)
    from gradus.cli import app

    CliRunner().invoke(app, ["report", str(folder), "--export", str(tmp_path / "kept.json")])
    assert json.loads((tmp_path / "kept.json").read_text())["recipe"] == "gpt1_small"


def test_intervals_and_clouds_are_drawn() -> None:
    points = [(0.0, 0.5, 0.4, 0.6), (5.0, 0.55, 0.5, 0.6), (9.0, 0.5, float("nan"), 0.6)]
    band = curves("a", "accuracy", [Curve("一", 0, points)], [("chance", 0.1)], "million tokens")
    assert band.count('class="band') == 1 and "chance 10.0" in band and "nan" not in band
    bars = curves("a", "accuracy", [Curve("一", 0, points, dots=True)], (), "transferred layers")
    assert bars.count("error-bar") == 2 and "9 transferred" not in bars
    assert scatter("a", [], 0) == "" and scatter("a", [(1.0, 1.0)], 0).count("h0") == 1
