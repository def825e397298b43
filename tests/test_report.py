"""The report of a made-up run: it says what the folder holds, escaped, in the same bytes each time."""

from __future__ import annotations

import html.parser
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from gradus.core.errors import UserError
from gradus.core.keyed import keyed_generator
from gradus.core.storage import write_json
from gradus.evaluation.metrics import classification_metrics
from gradus.report import export, headline, load_run, print_table, results_markdown, tables, write_report
from gradus.report.errors import wrong_rows
from gradus.report.figures import curves, cut, dots, ticks
from gradus.report.summary import Cell, Line
from gradus.report.words import duration, number, probability

TEXTS = [
    "这本书的结尾让人失望，前半部分却写得很好。",
    "a stirring , funny and finally transporting re imagining of beauty and the beast",
    "译文流畅，值得一读再读！",
    "it 's not that the plot is thin , it 's that <b>nobody</b> noticed & nobody cared",
    "洋洋洒洒五百多页，内容几乎没有纰漏，不过重复的地方也不少。",
    "one long string of cliches",
    "<script>alert('x')</script> 男主好渣！看的气死我了！",
]
SEEDS = (1, 2, 3)
VARIANTS = {"as written": 0.86, "no pretraining": 0.68}
ROWS = {"dev": 240, "test": 360}
NAIVE_BAYES = 0.79


def make_run(folder: Path, unfinished: bool = False) -> Path:
    """A run of two variants and three seeds; with `unfinished`, one stage is half done and one missing."""
    nodes = [_node("pretrain-00aa11bb", "pretrain", None, 1, "text")]
    outcomes = []
    for number_, variant in enumerate(VARIANTS):
        for seed in SEEDS:
            stages = {"finetune": f"finetune-{number_}{seed}c0ffee"}
            parent = None
            if variant == "as written":
                stages = {"pretrain": "pretrain-00aa11bb", **stages}
                parent = "pretrain-00aa11bb"
            nodes.append(_node(stages["finetune"], "finetune", parent, seed, "rows"))
            outcomes.append({"variant": variant, "seed": seed, "stages": stages, "results": ["finetune"]})
    plan = {
        "recipe": "quickstart",
        "recipe_digest": "5f0c2d9e81b7a6340d11",
        "nodes": nodes,
        "outcomes": outcomes,
    }
    write_json(folder / "plan.json", plan)
    (folder / "recipe.yaml").write_text(
        "seed: 1\nmodel: {preset: gpt1, layers: 4, width: 256}\nseeds: 3\n", "utf-8"
    )
    _pretrain(folder / "stages" / nodes[0]["id"], nodes[0])
    for node, outcome in zip(nodes[1:], outcomes):
        _finetune(folder / "stages" / node["id"], node, outcome["variant"])
    if unfinished:
        half, missing = (folder / "stages" / node["id"] for node in nodes[-2:])
        for file in [*half.glob("predictions*"), half / "stage.json", *missing.glob("*")]:
            file.unlink()
        missing.rmdir()
        with open(half / "metrics.jsonl", "a") as file:
            file.write('{"kind": "train", "st')
    return folder


def _node(id: str, stage: str, parent: str | None, seed: int, kind: str) -> dict:
    return {
        "id": id,
        "stage": stage,
        "fingerprint": id.split("-")[1] * 4,
        "parent": parent,
        "seed": seed,
        "kind": kind,
    }


def _common(node: dict, objectives: list, data: dict) -> dict:
    return {
        **node,
        "status": "done",
        "config": {"objectives": objectives},
        "digests": {"data": dict.fromkeys(data, "9a" * 16), "tokenizer": "7c" * 16},
        "versions": {"gradus": "0.1.0", "torch": "2.13.0", "python": "3.11.7"},
        "threads": 2,
        "device": "cpu",
        "precision": "bf16",
        "parameters": 5_390_000,
        "labels": None,
        "data": data,
        "times": {
            "started": "2025-01-01T10:00:00",
            "finished": "2025-01-01T10:30:00",
            "prepare": 1,
            "train": 2,
        },
    }


def _pretrain(home: Path, node: dict) -> None:
    rng = keyed_generator("pretrain")
    steps = np.arange(20, 3001, 20)
    curve = 2.6 + 6.4 * np.exp(-steps / 350) + 0.6 * np.exp(-steps / 2000) + rng.normal(0, 0.05, len(steps))
    lines: list[dict] = [_train_line(int(s), {"causal_lm": float(v)}, 3000) for s, v in zip(steps, curve)]
    for step in range(300, 3001, 300):
        loss = 2.75 + 6.0 * math.exp(-step / 380) + 0.6 * math.exp(-step / 2000)
        measured = {"loss": loss, "perplexity": math.exp(loss), "bits_per_byte": loss * 0.42}
        lines.append(
            {"kind": "evaluate", "step": step, "epoch": step / 500, "split": "dev", "metrics": measured}
        )
    text = {"rows": 16000, "tokens": 4_800_000, "bytes": 21_300_000, "truncated_rows": 0, "skipped_rows": 0}
    record = _common(
        node, [{"kind": "causal_lm"}], {"train": text, "dev": {**text, "rows": 1300, "tokens": 400_000}}
    )
    record |= {
        "training": {
            "steps": 3000,
            "rows": 96000,
            "tokens": 24_600_000,
            "seconds": 4020.0,
            "tokens_per_second": 6120.0,
        },
        "results": {"dev": {"loss": 2.884, "perplexity": 17.88, "bits_per_byte": 1.211}},
        "floors": {"dev": {"unigram": {"loss": 6.1, "perplexity": 445.0, "bits_per_byte": 2.56}}},
        "transfer": [{"tensor": "embed.tokens", "what": "new", "shape": [8192, 256], "why": "from scratch"}],
        "samples": [
            {
                "prompt": "The",
                "text": "The house stood at the end of the lane,\nand nobody had lived there since spring.",
            },
            {"prompt": "却说", "text": "却说那日天色已晚，众人都散了，只剩他一个人坐在灯下。"},
        ],
    }
    _write(home, record, lines)


def _train_line(step: int, loss: dict[str, float], last: int) -> dict:
    lr = 2.5e-4 * min(step / (0.1 * last), 0.5 + 0.5 * math.cos(math.pi * step / last))
    return {
        "kind": "train", "step": step, "epoch": step / 200, "tokens": step * 8192, "rows": step * 32,
        "loss": loss,        "total": sum(loss.values()), "lr": lr, "grad_norm": 0.8 + 40 / (step + 20),
        "tokens_per_second": 3400.0 + step % 70,
    }  # fmt: skip


def _finetune(home: Path, node: dict, variant: str) -> None:
    rng = keyed_generator("finetune", variant, node["seed"])
    skill = VARIANTS[variant]
    results, floors = {}, {}
    for split, size in ROWS.items():
        predictions = _predictions(split, size, skill, rng, node["seed"])
        (home).mkdir(parents=True, exist_ok=True)
        body = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in predictions)
        (home / f"predictions-{split}.jsonl").write_text(body, encoding="utf-8")
        truth, guess = ([int(item[key] == "好评") for item in predictions] for key in ("label", "predicted"))
        results[split] = {
            **classification_metrics(truth, guess, None, ["差评", "好评"]),
            "loss": 0.9 - 0.6 * skill,
        }
        floors[split] = {
            "majority": {"accuracy": 0.51, "macro_f1": 0.338, "matthews": 0.0},
            "naive_bayes": {"accuracy": NAIVE_BAYES, "macro_f1": 0.788, "matthews": 0.58},
        }
    steps = np.arange(10, 651, 10)
    lines: list[dict] = []
    for step in steps:
        fall = math.exp(-step / 240) + float(rng.normal(0, 0.04))
        lines.append(
            _train_line(int(step), {"classification": 0.2 + 0.5 * fall, "causal_lm": 3.2 + fall}, 650)
        )
    for step in (217, 434, 650):
        accuracy = results["dev"]["accuracy"] - 0.1 * math.exp(-step / 200)
        measured = {"accuracy": accuracy, "loss": 1.0 - 0.7 * accuracy}
        lines.append(
            {"kind": "evaluate", "step": step, "epoch": step / 217, "split": "dev", "metrics": measured}
        )
    rows = {"rows": 6920, "tokens": 200_000, "bytes": None, "truncated_rows": 31, "truncated_tokens": 402}
    data = {"train": {**rows, "skipped_rows": 2, "labels": {"差评": 3310, "好评": 3610}}}
    data |= {
        split: {**rows, "rows": size, "truncated_rows": 0, "truncated_tokens": 0}
        for split, size in ROWS.items()
    }
    record = _common(node, [{"kind": "classification"}, {"kind": "causal_lm", "weight": 0.5}], data)
    loaded = "loaded" if node["parent"] else "new"
    record |= {
        "labels": ["差评", "好评"],
        "training": {"steps": 650, "rows": 20760, "tokens": 600_000, "seconds": 180.2 + node["seed"],
                     "tokens_per_second": 3400.0,                     "stopped": "length", "best_step": 434},
        "results": results,
        "floors": floors,
        "transfer": [
            *({"tensor": f"blocks.{i}.query", "what": loaded, "shape": [256, 768]} for i in range(4)),
            {"tensor": "head.weight", "what": "new", "shape": [2, 256], "why": "a new task"},
        ],
        "samples": [],
    }  # fmt: skip
    _write(home, record, lines)


def _predictions(split: str, size: int, skill: float, rng: np.random.Generator, seed: int) -> list[dict]:
    items = []
    for row in range(size):
        label = ("差评", "好评")[int(keyed_generator("label", split, row).integers(2))]
        other = "差评" if label == "好评" else "好评"
        hard = keyed_generator("hard", split, row).random()
        predicted = label if 0.6 * hard + 0.4 * rng.random() < skill * 0.9 + 0.03 else other
        sure = 0.5 + 0.5 * float(rng.random())
        items.append({
            "row": row, "file": f"{split}.tsv", "line": row + 1, "text": f"{TEXTS[row % len(TEXTS)]} {row}",
            "label": label,            "predicted": predicted, "correct": predicted == label,
            "probabilities": {predicted: sure, (other if predicted == label else label): 1 - sure},
        })  # fmt: skip
    return items


def _write(home: Path, record: dict, lines: list[dict]) -> None:
    write_json(home / "stage.json", record)
    (home / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("runs") / "quickstart")


class _Wellformed(html.parser.HTMLParser):
    """Counts that what opens is closed, in order, and keeps the visible text and every address."""

    VOID = {"meta", "br", "link", "img", "input", "hr"}

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.text: list[str] = []
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("href", "src")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def read(path: Path) -> _Wellformed:
    parser = _Wellformed()
    parser.feed(path.read_text(encoding="utf-8"))
    parser.close()
    assert not parser.open
    return parser


def test_page_is_whole_offline_and_escaped(folder: Path) -> None:
    path = write_report(folder)
    page = read(path)
    assert path == folder / "report.html"
    assert "script" not in page.seen and "img" not in page.seen and "link" not in page.seen
    assert all(address.startswith("#") for address in page.addresses)
    assert "url(http" not in path.read_text(encoding="utf-8")
    said = "".join(page.text)
    assert "<script>alert('x')</script> 男主好渣！" in said
    assert "却说那日天色已晚" in said and "好评" in said
    targets = set(re.findall(r'id="([^"]+)"', path.read_text(encoding="utf-8")))
    assert {address[1:] for address in page.addresses} <= targets


def test_same_folder_same_bytes(folder: Path) -> None:
    first = write_report(folder).read_bytes()
    assert write_report(folder).read_bytes() == first


def test_tables_hold_what_the_stages_measured(folder: Path) -> None:
    run = load_run(folder)
    dev, test = tables(run)
    assert (dev.split, test.split, test.stage, test.metric) == ("dev", "test", "finetune", "accuracy")
    values = [stage.results["test"]["accuracy"] for stage in run.of("as written", "finetune")]
    cell = test.lines[0].cells["accuracy"]
    assert cell.values == tuple(values)
    assert cell.mean == pytest.approx(np.mean(values)) and cell.deviation == pytest.approx(
        np.std(values, ddof=1)
    )
    assert [floor.title for floor in test.floors] == ["majority label", "naive Bayes"]
    assert test.strongest_floor().values["accuracy"] == NAIVE_BAYES
    paired = test.lines[1].test
    gap = test.lines[1].cells["accuracy"].mean - cell.mean
    assert paired["difference"] == pytest.approx(gap) and paired["low"] < gap < paired["high"] < 0
    assert test.lines[1].verdict == "worse" and test.lines[0].test is None


def test_headline_says_what_helped(folder: Path) -> None:
    said = headline(load_run(folder))
    assert re.fullmatch(
        r"Pretraining helped: accuracy \d\d\.\d against \d\d\.\d, p < 0\.001; naive Bayes 79\.0", said.title
    )
    assert any("better than naive Bayes" in detail for detail in said.details)


def test_going_run_shows_what_there_is(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "going", unfinished=True)
    run = load_run(folder)
    assert [stage.status for stage in run.stages.values()].count("done") == 5
    assert {stage.status for stage in run.stages.values()} == {"done", "not finished", "not started"}
    said = "".join(read(write_report(folder)).text)
    assert "not finished" in said and "Not finished: 5 of 7 stages done." in said
    line = tables(run)[0].lines[1]
    assert (line.seeds, line.planned) == ([1], 3) and line.cells["accuracy"].deviation is None


def test_nothing_done_yet(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "begun")
    for stage in (folder / "stages").iterdir():
        for file in stage.iterdir():
            file.unlink()
    assert headline(load_run(folder)).title == "No results yet"
    assert "0 of 7" in "".join(read(write_report(folder)).text)
    print_table(load_run(folder), Console(file=open(tmp_path / "out", "w")))
    with pytest.raises(UserError, match="no stage of this run has results"):
        export(folder, tmp_path / "small.json")


def test_one_text_stage_alone(tmp_path: Path) -> None:
    node = _node("pretrain-00aa11bb", "pretrain", None, 1, "text")
    outcome = {
        "variant": "as written",
        "seed": 1,
        "stages": {"pretrain": node["id"]},
        "results": ["pretrain"],
    }
    write_json(
        tmp_path / "plan.json",
        {"recipe": "语言", "recipe_digest": "ab", "nodes": [node], "outcomes": [outcome]},
    )
    _pretrain(tmp_path / "stages" / node["id"], node)
    assert headline(load_run(tmp_path)).title == "Pretrain reaches 1.211 bits per byte; unigram 2.560"
    assert "语言" in "".join(read(write_report(tmp_path)).text)


def test_floors_that_differ_name_their_variant(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    for stage in load_run(folder).of("no pretraining", "finetune"):
        record = json.loads((stage.folder / "stage.json").read_text())
        record["floors"]["test"]["naive_bayes"]["accuracy"] = 0.5
        write_json(stage.folder / "stage.json", record)
    test = tables(load_run(folder))[1]
    titles = [floor.title for floor in test.floors]
    assert titles == ["majority label", "naive Bayes (as written)", "naive Bayes (no pretraining)"]
    assert test.strongest_floor("no pretraining").values["accuracy"] == 0.51
    write_report(folder)


def test_other_rows_are_not_compared(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    for stage in load_run(folder).of("no pretraining", "finetune"):
        file = stage.folder / "predictions-test.jsonl"
        file.write_text("\n".join(file.read_text().split("\n")[1:]))
    dev, test = tables(load_run(folder))
    assert dev.lines[1].verdict == "worse" and test.lines[1].verdict is None
    assert "untested" in headline(load_run(folder)).title


def test_surest_errors_come_first(folder: Path) -> None:
    split, total, rows = wrong_rows(load_run(folder).of("no pretraining", "finetune"))
    assert split == "dev" and total >= len(rows) == 20
    weights = [row.confidence * row.wrong / row.seeds for row in rows]
    assert weights == sorted(weights, reverse=True) and all(2 * row.wrong > row.seeds for row in rows)


def test_printed_table(folder: Path, tmp_path: Path) -> None:
    with open(tmp_path / "printed.txt", "w+", encoding="utf-8") as file:
        print_table(load_run(folder), Console(file=file, width=140))
        file.seek(0)
        printed = file.read()
    for word in ("Pretraining helped", "finetune, test", "naive Bayes", "worse (p < 0.001)", "macro F1"):
        assert word in printed


def test_export_and_markdown(folder: Path, tmp_path: Path) -> None:
    path = export(folder, tmp_path / "results" / "quickstart.json")
    assert len(path.read_bytes()) < 20_000
    record = json.loads(path.read_text())
    assert (record["recipe"], record["seeds"], record["variants"]) == (
        "quickstart",
        [1, 2, 3],
        list(VARIANTS),
    )
    assert (
        record["machine"]["versions"]["torch"] == "2.13.0" and record["tokens_per_second"]["finetune"] == 3400
    )
    drawn = results_markdown([path])
    assert drawn == results_markdown([path])
    bars = [line for line in drawn.splitlines() if line.startswith("|")]
    assert len({line.count("|") for line in bars}) == 1
    assert "*naive Bayes*" in drawn and "± " in drawn and "5.39 M parameters" in drawn
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(UserError, match="no exported result"):
        results_markdown([tmp_path / "other.json"])
    with pytest.raises(UserError, match="cannot be read"):
        results_markdown([tmp_path / "missing.json"])


def test_what_is_no_run_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not a run folder"):
        load_run(tmp_path)
    with pytest.raises(UserError, match="no such folder"):
        write_report(tmp_path / "nowhere")
    (tmp_path / "plan.json").write_text("{]")
    with pytest.raises(UserError, match=r"plan.json:1: this is not JSON"):
        load_run(tmp_path)
    (tmp_path / "plan.json").write_text(
        '{"recipe": "a", "recipe_digest": "b", "nodes": [{}], "outcomes": []}'
    )
    with pytest.raises(UserError, match="the plan is incomplete"):
        load_run(tmp_path)


def test_broken_line_is_named(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "run")
    file = folder / "stages" / "pretrain-00aa11bb" / "metrics.jsonl"
    file.write_text("{}\nnonsense\n{}\n")
    with pytest.raises(UserError, match=r"metrics.jsonl:2: this line is not JSON"):
        load_run(folder)


def test_numbers_as_shown() -> None:
    assert number(0.8123, "accuracy") == "81.2" and number(-0.0001, "matthews") == "0.0"
    assert number(-0.05, "accuracy", sign=True) == "−5.0" and number(0.05, "accuracy", sign=True) == "+5.0"
    assert (
        number(None, "loss") == "–"
        and number(math.nan, "loss") == "–"
        and number(1.9234, "bits_per_byte") == "1.923"
    )
    assert (
        probability(0.0002) == "p < 0.001"
        and probability(0.0031) == "p = 0.003"
        and probability(0.42) == "p = 0.42"
    )
    assert [duration(s) for s in (4.21, 42, 185, 120, 7800)] == [
        "4.2 s",
        "42 s",
        "3 min 5 s",
        "2 min",
        "2 h 10 min",
    ]
    assert cut("这本书的结尾让人失望", 8) == "这本书的…" and cut("short", 8) == "short"


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.0), (0.512, 0.857), (2.1, 2.1), (0.0, 3000.0), (-0.4, 0.1), (0.0, 2.5e-4)]
)
def test_ticks_span_the_values(low: float, high: float) -> None:
    marks = ticks(low, high)
    assert marks[0] <= low + 1e-12 and marks[-1] >= high - 1e-12 and 1 <= len(marks) <= 8
    assert len({round(b - a, 12) for a, b in zip(marks, marks[1:])}) <= 1


def test_figures_of_odd_curves(folder: Path) -> None:
    from gradus.report.figures import Curve

    assert curves("loss", "loss", []) == ""
    assert curves("loss", "loss", [Curve("a", 0, [(1.0, math.nan)])]) == ""
    for points in ([(0.0, 1.0)], [(5.0, 0.0), (9.0, 0.0)], [(float(s), 1.0 / (s + 1)) for s in range(5000)]):
        drawn = curves("loss <&>", "loss", [Curve("一", 9, points)], [("floor", 0.5)])
        assert drawn.startswith("<svg") and "nan" not in drawn and len(drawn) < 20_000
    table = tables(load_run(folder))[0]
    assert dots(table, {}).count('class="ring') == 6
    lost = Line("diverged", [1], 1, {table.metric: Cell.of([math.nan])}, None)
    assert dots(replace(table, lines=[lost]), {}) == ""
    assert Cell.of([0.5]).deviation is None
