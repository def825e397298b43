"""The report of a made-up run: it says what the folder holds, escaped, in the same bytes each time."""

from __future__ import annotations

import html.parser
import json
import re
from pathlib import Path

import numpy as np
import pytest
from made_up_run import NAIVE_BAYES, VARIANTS, make_run, one_text_stage
from rich.console import Console

from gradus.core.errors import UserError
from gradus.core.storage import read_json, write_json
from gradus.report import export, headline, load_run, print_table, results_markdown, tables, write_report
from gradus.report.errors import wrong_rows


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


def test_page_is_whole_offline_and_escaped(finished_run: Path) -> None:
    path = write_report(finished_run)
    page = read(path)
    assert path == finished_run / "report.html"
    assert "script" not in page.seen and "img" not in page.seen and "link" not in page.seen
    assert all(address.startswith("#") for address in page.addresses)
    assert "url(http" not in path.read_text(encoding="utf-8")
    said = "".join(page.text)
    assert "<script>alert('x')</script> 男主好渣！" in said
    assert "却说那日天色已晚" in said and "好评" in said
    targets = set(re.findall(r'id="([^"]+)"', path.read_text(encoding="utf-8")))
    assert {address[1:] for address in page.addresses} <= targets


def test_same_folder_same_bytes(finished_run: Path) -> None:
    first = write_report(finished_run).read_bytes()
    assert write_report(finished_run).read_bytes() == first


def test_tables_hold_what_the_stages_measured(finished_run: Path) -> None:
    run = load_run(finished_run)
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


def test_headline_says_what_helped(finished_run: Path) -> None:
    said = headline(load_run(finished_run))
    assert re.fullmatch(
        r"Pretraining helped: accuracy \d\d\.\d against \d\d\.\d, p < 0\.001; naive Bayes 79\.0", said.title
    )
    assert any("better than naive Bayes" in detail for detail in said.details)


@pytest.mark.parametrize("weak_first", [False, True])
def test_figures_stand_in_the_order_in_which_their_variants_are_named(
    weak_first: bool, tmp_path: Path
) -> None:
    folder = make_run(tmp_path / "two")
    plan = read_json(folder / "plan.json")
    names = {"as written": "强", "no pretraining": "弱"}
    plan["outcomes"] = [one | {"variant": names[one["variant"]]} for one in plan["outcomes"]]
    if weak_first:
        plan["outcomes"].reverse()
    write_json(folder / "plan.json", plan)
    found = re.match(r"“强” beats “弱”: accuracy (\S+) against (\S+), p", headline(load_run(folder)).title)
    assert found and float(found[1]) > float(found[2])


def test_going_run_shows_what_there_is(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "going", unfinished=True)
    run = load_run(folder)
    assert [stage.status for stage in run.stages.values()].count("done") == 5
    assert {stage.status for stage in run.stages.values()} == {"done", "not finished", "not started"}
    said = "".join(read(write_report(folder)).text)
    assert "not finished" in said and "Not finished: 5 of 7 stages done." in said
    assert "Not finished: 5 of 7 stages done." in results_markdown([export(run, tmp_path / "small.json")])
    line = tables(run)[0].lines[1]
    assert (line.seeds, line.planned) == ([1], 3) and line.cells["accuracy"].deviation is None


def test_nothing_done_yet(run_to_change: Path, tmp_path: Path) -> None:
    for stage in (run_to_change / "stages").iterdir():
        for file in stage.iterdir():
            file.unlink()
    assert headline(load_run(run_to_change)).title == "No results yet"
    assert "0 of 7" in "".join(read(write_report(run_to_change)).text)
    print_table(load_run(run_to_change), Console(file=open(tmp_path / "out", "w")))
    with pytest.raises(UserError, match="no stage of this run has results"):
        export(run_to_change, tmp_path / "small.json")


def test_one_text_stage_alone(tmp_path: Path) -> None:
    one_text_stage(tmp_path)
    assert headline(load_run(tmp_path)).title == "Pretrain reaches 1.211 bits per byte; unigram 2.560"
    assert "语言" in "".join(read(write_report(tmp_path)).text)


def test_floors_that_differ_name_their_variant(run_to_change: Path) -> None:
    for stage in load_run(run_to_change).of("no pretraining", "finetune"):
        record = json.loads((stage.folder / "stage.json").read_text())
        record["floors"]["test"]["naive_bayes"]["accuracy"] = 0.5
        write_json(stage.folder / "stage.json", record)
    test = tables(load_run(run_to_change))[1]
    titles = [floor.title for floor in test.floors]
    assert titles == ["majority label", "naive Bayes (as written)", "naive Bayes (no pretraining)"]
    assert test.strongest_floor("no pretraining").values["accuracy"] == 0.51
    write_report(run_to_change)


def test_other_rows_are_not_compared(run_to_change: Path) -> None:
    for stage in load_run(run_to_change).of("no pretraining", "finetune"):
        file = stage.folder / "predictions-test.jsonl"
        file.write_text("\n".join(file.read_text().split("\n")[1:]))
    dev, test = tables(load_run(run_to_change))
    assert dev.lines[1].verdict == "worse" and test.lines[1].verdict is None
    assert "untested" in headline(load_run(run_to_change)).title


def test_surest_errors_come_first(finished_run: Path) -> None:
    split, total, rows = wrong_rows(load_run(finished_run).of("no pretraining", "finetune"))
    assert split == "dev" and total >= len(rows) == 20
    weights = [row.confidence * row.wrong / row.seeds for row in rows]
    assert weights == sorted(weights, reverse=True) and all(2 * row.wrong > row.seeds for row in rows)


def test_printed_table(finished_run: Path, tmp_path: Path) -> None:
    with open(tmp_path / "printed.txt", "w+", encoding="utf-8") as file:
        print_table(load_run(finished_run), Console(file=file, width=140))
        file.seek(0)
        printed = file.read()
    for word in ("Pretraining helped", "finetune, test", "naive Bayes", "worse (p < 0.001)", "macro F1"):
        assert word in printed


def test_export_and_markdown(finished_run: Path, tmp_path: Path) -> None:
    path = export(finished_run, tmp_path / "results" / "quickstart.json")
    assert len(path.read_bytes()) < 20_000
    record = json.loads(path.read_text())
    assert (record["recipe"], record["seeds"], record["variants"]) == (
        "quickstart",
        [1, 2, 3],
        list(VARIANTS),
    )
    (machine,) = record["machines"]
    assert machine["versions"]["torch"] == "2.13.0" and machine["tokens_per_second"]["finetune"] == 3400
    drawn = results_markdown([path])
    assert drawn == results_markdown([path])
    for block in re.findall(r"(?:^\|.*\n)+", drawn, re.M):
        assert len({line.count("|") for line in block.splitlines()}) == 1
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


def test_broken_line_is_named(run_to_change: Path) -> None:
    file = run_to_change / "stages" / "pretrain-00aa11bb" / "metrics.jsonl"
    file.write_text("{}\nnonsense\n{}\n")
    with pytest.raises(UserError, match=r"metrics.jsonl:2: this line is not JSON"):
        load_run(run_to_change)
