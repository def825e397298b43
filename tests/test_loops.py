# ruff: noqa: E501  (one mistake a line: the table is read across)
"""Search and iterate from the user's side: killed they go on to the same bits, test is read once, at the end,
and what was kept follows from what was measured."""

from __future__ import annotations

import json
import shutil
import statistics
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import ttest_rel
from test_kills import Whole, bits, killer, same
from tiny import tiny

from gradus.core.keyed import keyed_generator
from gradus.core.storage import read_json
from gradus.evaluation.statistics import paired_seeds
from gradus.pipeline.loops.proposals import Proposals
from gradus.pipeline.recipes.loop import Search
from gradus.pipeline.run import run
from gradus.report import load_run, loop_grids, results_markdown
from gradus.report.page import page
from gradus.report.printed import export
from gradus.training.budget import MOST_TOKENS

Command = Callable[..., tuple[int, str]]
ROWS = {
    "prompts": ["船"],
    "stages.pretrain.batch": "8 windows",
    "stages.pretrain.evaluate": {"every": "8 steps"},
    "stages.finetune.batch": "8 rows",
    "stages.finetune.data.test": "builtin:tiny",
    "stages.finetune.length": "6 steps",
    "stages.finetune.evaluate": {"every": "2 steps"},
    "stages.finetune.save": {"every": "2 steps"},
    "model.dropout": 0.1,
}
SPACE = {
    "stages.finetune.optimizer.lr": {"log": [1e-6, 1e-1]},
    "stages.finetune.objectives": {
        "choices": [
            [{"kind": "classification"}],
            [{"kind": "classification"}, {"kind": "causal_lm", "weight": 0.5}],
        ]
    },
}
LOOPS = ROWS | {
    "seeds": {"count": 2, "from": "pretrain"},
    "search": {"metric": "finetune.dev.loss", "trials": 8, "space": SPACE},
    "variants": {
        "更慢": {"stages.pretrain.optimizer.lr": 1e-6},
        "two layers": {"model.layers": 2},
        "更长": {"stages.pretrain.length": "16 steps"},
        "no dropout": {"model.dropout": 0},
    },
    "iterate": {"try": ["更慢", "更长", "no dropout"], "metric": "pretrain.dev.loss"},
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder = tmp_path_factory.mktemp("loops")
    recipe = tiny(folder / "loops.yaml", LOOPS)
    assert killer(recipe, folder / "runs", [{}]) == [0]
    seen = json.loads((folder / "runs" / "events.json").read_text())
    return Whole(recipe, folder / "runs", seen["events"], seen["seconds"])


@pytest.fixture
def folder(whole: Whole) -> Path:
    return whole.runs / "loops"


def history(folder: Path) -> list[dict[str, Any]]:
    (path,) = folder.glob("search-*.jsonl")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_killed_in_the_middle_both_loops_go_on_to_the_same_bits(whole: Whole, tmp_path: Path) -> None:
    random = keyed_generator("loops")
    lives: list[dict[str, Any]] = []
    for kind in ("step", "rename"):
        lives.append({"event": [kind, 1 + int(random.integers(whole.events[kind] // 2))]})
    assert killer(whole.recipe, tmp_path, [*lives, {}]) == [-9] * len(lives) + [0]
    same(bits(whole.runs), bits(tmp_path))


def test_trials_share_stages_and_what_is_given_up_is_not_done(folder: Path) -> None:
    trials = history(folder)
    assert [one["trial"] for one in trials] == list(range(1, 9)) and trials[0]["patch"] == {}
    assert len({one["stages"]["pretrain"] for one in trials}) == 1
    for one in trials:
        record = folder / "stages" / one["stages"]["finetune"] / "stage.json"
        assert record.is_file() == (one["state"] == "done")
        if one["state"] == "done":
            assert read_json(record)["results"]["dev"]["loss"] == one["value"] == one["reports"][-1]
    pruned = [one for one in trials if one["state"] == "pruned"]
    assert pruned and all(len(one["reports"]) < 3 for one in pruned)


def test_a_trial_is_given_up_below_the_median_of_those_before(folder: Path) -> None:
    trials = history(folder)
    for number, one in enumerate(trials):
        before = [other["reports"] for other in trials[:number] if other["state"] == "done"]
        hopeless = [
            step for step in range(len(one["reports"]))
            if len(before) >= 5 and min(one["reports"][: step + 1]) > statistics.median(r[step] for r in before)
        ]  # fmt: skip
        last = len(one["reports"]) - 1
        assert (last in hopeless and last < 2) == (one["state"] == "pruned")
        assert all(step == last for step in hopeless if step < 2)


def test_a_step_is_kept_where_its_gain_is_above_its_deviation(folder: Path) -> None:
    told = read_json(folder / "iterate.json")
    root, *steps = told["steps"]
    kept, values = root["patch"], root["values"]
    assert len(steps) == 3 and told["over"] == "every step was tried"
    for step in steps:
        gains = [old - new for new, old in zip(step["values"], values)]  # of a loss
        assert step["gains"] == gains
        assert step["kept"] == (statistics.mean(gains) > statistics.stdev(gains))
        own = LOOPS["variants"][step["variant"]]  # type: ignore[index]
        assert step["patch"] == {key: value for key, value in kept.items() if key not in own} | own
        if step["kept"]:
            kept, values = step["patch"], step["values"]
    assert {step["kept"] for step in steps} == {True, False}
    assert read_json(folder / "plan.json")["loops"]["found"] == kept


def test_test_is_scored_for_what_was_chosen_alone(folder: Path) -> None:
    plan = read_json(folder / "plan.json")
    assert [(one["variant"], one["seed"]) for one in plan["outcomes"]] == [
        ("as written", 5), ("as written", 6), ("two layers", 5), ("two layers", 6),
        ("best found", 5), ("best found", 6),
    ]  # fmt: skip
    chosen = {one["stages"]["finetune"] for one in plan["outcomes"]}
    assert len(chosen) == 6
    for path in folder.glob("stages/finetune-*"):
        record = read_json(path / "stage.json")
        assert ("test" in record["results"]) == ("test" in record["floors"]) == (path.name in chosen)
        assert (path / "predictions-test.jsonl").exists() == (path.name in chosen)


def test_test_scored_late_has_the_bits_of_test_scored_at_once(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MOST_TOKENS, "cpu", 96)  # as where lives are killed
    run(tiny(tmp_path / "plain.yaml", ROWS), runs=tmp_path, device="cpu")
    (one,) = tmp_path.glob("plain/stages/finetune-*")
    late, early = folder / "stages" / one.name, one
    for name in ("predictions-test.jsonl", "predictions-dev.jsonl", "model/model.safetensors"):
        assert (late / name).read_bytes() == (early / name).read_bytes()
    for key in ("results", "floors"):
        assert read_json(late / "stage.json")[key] == read_json(early / "stage.json")[key]


def test_a_longer_search_goes_on_and_another_recipe_begins_anew(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "loops")
    recipe = tiny(tmp_path / "loops.yaml", LOOPS)
    before = history(folder)
    options: dict[str, Any] = {"runs": tmp_path, "device": "cpu"}
    run(recipe, settings={"search.trials": 9, "iterate": None}, **options)
    assert history(tmp_path / "loops")[:8] == before and len(history(tmp_path / "loops")) == 9
    run(recipe, settings={"search.until": 99.0, "seed": 6, "iterate": None, "seeds": 1}, **options)
    files = [path.read_text().count("\n") for path in (tmp_path / "loops").glob("search-*.jsonl")]
    assert sorted(files) == [1, 9]


def test_budgets_and_trials_that_diverge(tmp_path: Path, command: Command) -> None:
    space = {"stages.finetune.optimizer.lr": {"choices": [5e-3, 1e30]}}
    recipe = tiny(
        tmp_path / "r.yaml", ROWS | {"search": {"metric": "finetune.dev.loss", "trials": 4, "space": space}}
    )
    status, said = command("run", recipe, "--runs", tmp_path, "--device", "cpu")
    trials = history(tmp_path / "r")
    assert status == 0 and {one["state"] for one in trials} == {"done", "failed"}
    assert "trial 1 of 4: as written: loss" in said and "not finite" in said
    assert "Nothing that was tried was better" in said and "(as written, seed 5)" in said
    command("run", recipe, "--runs", tmp_path, "--device", "cpu", "--fresh", "--set", "search.minutes=1e-9")
    spent = [one["seconds"] > 0 for one in history(tmp_path / "r")[1:]]  # the recipe as written is free
    assert spent[-1] and not any(spent[:-1])


def test_a_trial_that_cannot_be_is_told_and_the_search_goes_on(tmp_path: Path, command: Command) -> None:
    """Both ends are legal, and what lies between may not be: two heads want an even width."""
    space = {"model.width": {"integers": [16, 22]}}
    recipe = tiny(
        tmp_path / "r.yaml", ROWS | {"search": {"metric": "finetune.dev.loss", "trials": 8, "space": space}}
    )
    status, said = command("run", recipe, "--runs", tmp_path, "--device", "cpu")
    trials = history(tmp_path / "r")
    assert status == 0 and len(trials) == 8 and {one["state"] for one in trials} == {"done", "failed"}
    for one in trials[1:]:
        assert (one["state"] == "failed") == (one["patch"]["model.width"] % 2 == 1)
        assert (one["problem"] is not None) == (one["stages"] == {}) == (one["state"] == "failed")
    assert "failed: " in said and "is not a multiple of heads 2" in said
    assert "is not a multiple of heads 2" in page(load_run(tmp_path / "r"))


def test_proposals_are_a_function_of_seed_and_history() -> None:
    space = SPACE | {"a": {"integers": [1, 3]}, "b": {"uniform": [0, 0.5]}}
    search = Search.model_validate({"metric": "finetune.dev.accuracy", "space": space})
    written = {"stages.finetune.optimizer.lr": 9.0, "a": 2, "b": 0.1}  # outside: the study is not told of it
    lines: list[dict[str, Any]] = []
    for number in range(14):
        ask = Proposals(search, 1, written).ask(lines)
        assert ask.patch == Proposals(search, 1, written).ask(lines).patch
        if number:
            assert ask.patch != Proposals(search, 2, written).ask(lines).patch
            assert 1e-6 <= ask.patch["stages.finetune.optimizer.lr"] <= 1e-1
            assert ask.patch["stages.finetune.objectives"] in SPACE["stages.finetune.objectives"]["choices"]  # type: ignore[index]
            assert ask.patch["a"] in (1, 2, 3) and 0 <= ask.patch["b"] <= 0.5
        score = 1 - abs(ask.patch.get("b", 0.0) - 0.4)
        lines.append({"patch": ask.patch, "state": "done", "value": score, "reports": [score / 2, score]})
        lines = json.loads(json.dumps(lines))
    assert not Proposals(search, 1, written).ask(lines).hopeless([1.0])
    assert Proposals(search, 1, written).ask(lines).hopeless([0.0])


MISTAKES = [
    ({"search.space": {"stages.finetune.optimizer.lrr": {"log": [1e-5, 1e-3]}}},
     r"search.space: stages.finetune.optimizer.lrr: unknown key", "did you mean 'lr'"),
    ({"search.space": {"stages.finetun.length": {"choices": ["1 epoch", "2 epochs"]}}},
     "search.space: there is no such stage: 'finetun'", "did you mean 'finetune'"),
    ({"search.space": {"model.layers": {"uniform": [1, 2.5]}}}, "search.space: model.layers: ", "integer"),
    ({"search.space": {"model.dropout": {"uniform": [0, 1.5]}}}, "search.space: model.dropout: ", "'1.5'"),
    ({"search.space": {"model.dropout": {"uniform": [0.5, 0.1]}}}, "uniform: ", "below the second"),
    ({"search.space": {"model.dropout": {"log": [0, 0.1]}}}, "log: ", "above 0"),
    ({"search.space": {"model.dropout": {"lgo": [0, 0.1]}}}, "lgo: unknown key", "did you mean 'log'"),
    ({"search.space": {"model.dropout": {}}}, "one of log, uniform, integers and choices", ""),
    ({"search.space": {"stages.finetune.save.every": {"choices": ["1 steps", "2 steps"]}}},
     "search.space.stages.finetune.save.every: this changes nothing of finetune", "finetune.dev.accuracy"),
    ({"stages.finetune.adapters": {"rank": 2}, "search.space": {"stages.finetune.adapters.rank": {"integers": [1, 64]}}},
     "stages.finetune.adapters.rank: the matrix has no such rank: '64'", "at most 16"),
    ({"variants.slow": {"stages.finetune.transfer": {"layers": 3}}, "iterate": ["slow"]},
     "stages.finetune.transfer.layers: the model has fewer layers: '3'", "at most 1"),
    ({"stages.finetune.augment": [{"kind": "deletion"}], "search.space": {"stages.finetune.augment.0.share": {"uniform": [0, 0.5]}}},
     "this path leads into a value: 'stages.finetune.augment.0.share'", "a list is set whole"),
    ({"search.metric": "finetune.test.accuracy"}, "search.metric: ", "finetune.dev.accuracy"),
    ({"search.metric": "accuracy"}, "search.metric: ", "STAGE.dev.METRIC"),
    ({"search.metric": "finetun.dev.accuracy"}, "search.metric: there is no such stage", "did you mean 'finetune'"),
    ({"search.metric": "finetune.dev.acuracy"}, "no such metric: 'acuracy'", "did you mean 'accuracy'"),
    ({"search.metric": "finetune.dev.f1", "search.until": 0.9}, "search.metric: this stage reports no such metric: 'f1'",
     "macro_f1"),
    ({"search.until": 90}, "search.until: finetune.dev.accuracy is never above 1", "0.9"),
    ({"search.trials": 0}, "search.trials: ", "'0'"),
    ({"iterate": ["slow", "fats"]}, "iterate: there is no such variant: 'fats'", "slow"),
    ({"iterate": ["slow", "slow"]}, "iterate", "twice"),
    ({"iterate": ["idle"]}, "variants.idle: this changes nothing of finetune", "finetune.dev.accuracy"),
    ({"iterate": ["none"]}, "variants.none: leaves out the stage", "finetune.dev.accuracy"),
    ({"iterate": {"try": ["slow"], "metric": "pretrain.dev.accuracy"}}, "iterate.metric: this stage reports no such",
     "bits_per_byte"),
    ({"stages.finetune.data.dev": None}, "search chooses by dev", "10 %"),
    ({"variants.best found": {"model.layers": 2}}, "variants.best found: search calls what it finds so", "another name"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "told", "hint"), MISTAKES, ids=[told for _, told, _ in MISTAKES])
def test_mistakes_are_told_before_the_first_trial(
    change: dict[str, Any], told: str, hint: str, tmp_path: Path, command: Command
) -> None:
    usual = {
        "search": {"metric": "finetune.dev.accuracy", "space": {"model.dropout": {"uniform": [0, 0.5]}}},
        "variants": {"slow": {"stages.finetune.optimizer.lr": 1e-6}, "none": {"stages.finetune": None},
                     "idle": {"stages.finetune.save.every": "1 steps"}},
    }  # fmt: skip
    recipe = tiny(tmp_path / "r.yaml", usual | change)
    for word in ("check", "run"):
        status, said = command(word, recipe, "--runs", tmp_path / "runs", "--device", "cpu")
        assert status == 2 and told in said and hint in said, said
        assert "r.yaml" in said and not list(tmp_path.glob("runs/r/stages/*"))


def test_the_library_of_a_search_may_be_missing(
    tmp_path: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr("gradus.core.libraries.version", none)
    recipe = tiny(tmp_path / "r.yaml", LOOPS)
    status, said = command("check", recipe, "--runs", tmp_path / "runs", "--device", "cpu")
    assert status == 2 and "search needs optuna" in said and 'pip install "gradus-lm[search]"' in said


def test_what_can_be_alone_and_not_together_is_dropped(tmp_path: Path, command: Command) -> None:
    """By `check`, which prices the rest, and by `run`, which goes on."""
    changes = {
        "search": {"metric": "finetune.dev.loss", "trials": 2,
                   "space": {"model.heads": {"choices": [1, 4]}, "model.width": {"choices": [8, 18]}}},
        "variants": {"adapters": {"stages.finetune.adapters": {"rank": 12}}, "narrow": {"model.width": 8}},
        "iterate": {"try": ["adapters", "narrow"], "metric": "finetune.dev.loss"},
        "stages.finetune.length": "2 steps", "model.heads": 2,
    }  # fmt: skip
    recipe = tiny(tmp_path / "r.yaml", {**ROWS, **changes})
    status, said = command("check", recipe, "--runs", tmp_path / "runs", "--device", "cpu")
    assert status == 0 and "search: finetune.dev.loss: at most 2 trials" in said, said
    assert "iterate: narrow cannot be on top of those before it: the matrix has no such rank" in said
    status, said = command("run", recipe, "--runs", tmp_path / "runs", "--device", "cpu")
    assert status == 0, said
    steps = read_json(tmp_path / "runs" / "r" / "iterate.json")["steps"]
    assert [one["variant"] for one in steps] == ["as written", "adapters", "narrow"]
    assert ("no such rank" in str(steps[2]["problem"])) == steps[1]["kept"]


def test_check_tells_what_loops_cost(tmp_path: Path, command: Command) -> None:
    recipe = tiny(tmp_path / "r.yaml", LOOPS | {"search.minutes": 3})
    status, said = command("check", recipe, "--runs", tmp_path / "runs", "--device", "cpu")
    assert status == 0, said
    assert "search: finetune.dev.loss: at most 8 trials of" in said and "3 minutes are allowed" in said
    assert "stages.finetune.optimizer.lr: log [1e-06, 0.1]" in said
    assert "iterate: pretrain.dev.loss: 更慢, 更长, no dropout, each on 2 seeds" in said


def test_the_report_tells_the_story(folder: Path, tmp_path: Path) -> None:
    found = load_run(folder)
    search, steps = loop_grids(found)
    trials, told = history(folder), read_json(folder / "iterate.json")
    assert [row.cells[0] for row in search.rows] == [str(one["trial"]) for one in trials]
    assert any("pruned after" in row.cells[-2] for row in search.rows)
    assert [row.cells[1] for row in steps.rows[1:]] == [
        "kept" if step["kept"] else "dropped" for step in told["steps"][1:]
    ]
    assert any(note.startswith("At last, finetune, test: ") for note in steps.notes)
    html = page(found)
    assert "更长" in html and 'aria-label="tree of steps"' in html and "over seeds" in html
    text = results_markdown([export(found, tmp_path / "loops.json")])
    assert "### search" in text and "└ 更长" in text and all(note in text for note in steps.notes)


def test_the_test_over_seeds_is_student_s() -> None:
    random = keyed_generator("seeds")
    for seeds in (2, 3, 7):
        a, b = random.normal(0.8, 0.02, (2, seeds)).tolist()
        found = paired_seeds(a, b)
        assert found is not None and found["p"] == pytest.approx(ttest_rel(a, b).pvalue, rel=1e-9)
        assert found["difference"] == pytest.approx(np.mean(a) - np.mean(b))
    assert paired_seeds([0.8], [0.7]) is None
    assert paired_seeds([0.5, 0.5], [0.5, 0.5]) == {"difference": 0.0, "deviation": 0.0, "p": 1.0, "seeds": 2}
