"""ROUGE and BLEU of texts that are said: by hand, beside the libraries, and through the commands."""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer
from rouge_score.tokenize import tokenize
from sacrebleu import corpus_bleu
from test_seq2seq import BOTH, FORMAT, recipe, records

from gradus.cli import main
from gradus.core import libraries
from gradus.core.errors import UserError
from gradus.evaluation.texts import text_metrics, words_of
from gradus.pipeline.check import check
from gradus.pipeline.models.serving import load
from gradus.pipeline.run import run

ENGLISH = (["The cat sat.", "It's raining - hard!"], ["the cat ate fish", "It is raining hard again."])
CHINESE = (["今天天气好。", "用BERT做分类"], ["今天好天气！", "用 Bert 做文本分类"])


@given(st.text(st.characters(max_codepoint=127)))
@settings(max_examples=200, deadline=None)
def test_words_of_plain_english_are_those_of_the_library(text: str) -> None:
    assert words_of(text) == tokenize(text, None)


def test_words_of_other_scripts() -> None:
    assert words_of("用BERT做 3 次分类，naïve_Übung！") == [
        *"用",
        "bert",
        "做",
        "3",
        *"次分类",
        "naïve",
        "übung",
    ]
    assert words_of("カタカナとкнига 한국어") == [*"カタカナと", "книга", "한국어"]
    assert words_of("。, —") == []


def test_rouge_by_hand() -> None:
    found = text_metrics(["rouge"], ENGLISH[0][:1], ENGLISH[1][:1])
    assert list(found) == ["rouge_l", "rouge_1", "rouge_2"]
    assert found == pytest.approx({"rouge_l": 4 / 7, "rouge_1": 4 / 7, "rouge_2": 2 / 5})
    # Of 今天天气好 and 今天好天气: all 5 characters, 2 of 4 pairs (今天, 天气), 今天天气 in order.
    found = text_metrics(["rouge"], CHINESE[0][:1], CHINESE[1][:1])
    assert found == pytest.approx({"rouge_l": 4 / 5, "rouge_1": 1.0, "rouge_2": 1 / 2})
    # 用 bert 做 分 类 against 用 bert 做 文 本 分 类; the mean with the texts above.
    found = text_metrics(["rouge"], *CHINESE)
    assert found["rouge_1"] == pytest.approx((1 + 10 / 12) / 2)
    assert found["rouge_2"] == pytest.approx((1 / 2 + 6 / 10) / 2)
    assert text_metrics(["rouge"], ["", "。"], ["a b", "好"])["rouge_1"] == 0


def test_bleu_by_hand() -> None:
    """7 units each: 6 of them right, 4 of 6 pairs, 3 of 5 triples, 2 of 4 quadruples, no brevity."""
    wanted = (6 / 7 * 4 / 6 * 3 / 5 * 2 / 4) ** (1 / 4)
    assert text_metrics(["bleu"], ["我们今天去看书"], ["我们今天去买书"])["bleu"] == pytest.approx(wanted)
    pair = ["we all go today to read books"], ["we all go today to buy books"]
    assert text_metrics(["bleu"], *pair)["bleu"] == pytest.approx(wanted)
    both = (["我们今天去看书", *pair[0]], ["我们今天去买书", *pair[1]])
    assert text_metrics(["bleu"], *both)["bleu"] == pytest.approx(wanted)
    assert text_metrics(["bleu"], [""], ["好书"])["bleu"] == 0


@pytest.mark.parametrize(("texts", "tokenizer"), [(ENGLISH, "13a"), (CHINESE, "zh")])
def test_the_numbers_are_the_libraries(texts: tuple[list[str], list[str]], tokenizer: str) -> None:
    """The library knows no letter but a to z, so for it each Chinese character is a word of its own."""
    said, wanted = texts
    found = text_metrics(["rouge", "bleu"], said, wanted)
    assert found["bleu"] == pytest.approx(corpus_bleu(said, [wanted], tokenize=tokenizer).score / 100)
    spelt = [
        ["".join(f" c{ord(one):x} " if "一" <= one <= "龥" else one for one in text) for text in some]
        for some in texts
    ]
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"])
    each = [scorer.score(right, one) for one, right in zip(*spelt)]
    for name, kind in (("rouge_1", "rouge1"), ("rouge_2", "rouge2"), ("rouge_l", "rougeL")):
        assert found[name] == pytest.approx(sum(one[kind].fmeasure for one in each) / len(each))


TO_TEXT = {"kind": "text_to_text", "source": "{text}", "target": "{said}"}


def summaries(folder: Path) -> dict[str, Any]:
    """Rows whose target is short for their text, and the patch of a recipe that learns them."""
    places, things = ["北京", "上海", "our town"], ["下雨", "天晴", "it snows"]
    lines = [{"text": f"{place} 今天 {thing} !", "said": f"{place}{thing}"}
             for place in places for thing in things]  # fmt: skip
    text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
    (folder / "rows.jsonl").write_text(text, encoding="utf-8")
    rows = str(folder / "rows.jsonl")
    return {"model": {**BOTH["model"], "context": 96}, "stages.finetune.precision": "fp32",
            "stages.finetune.data": {"kind": "rows", "train": rows, "dev": rows, "format": TO_TEXT},
            "stages.finetune.length": "60 steps", "stages.finetune.optimizer.lr": 2e-2,
            "stages.finetune.evaluate": {"every": "30 steps", "metrics": ["bleu"]},
            "stages.finetune.stop": {"metric": "rouge_l"}}  # fmt: skip


def test_they_stand_wherever_numbers_do(tmp_path: Path, capsys: Any, monkeypatch: Any) -> None:
    """In stage.json, as what stops and is compared, in the report, and in `gradus evaluate` of the folder."""
    path = recipe(tmp_path / "both.yaml", {"kind": "denoising"}, summaries(tmp_path))
    folder = run(path, runs=tmp_path / "runs", device="cpu")
    record = records(folder)["finetune"]
    dev = record["results"]["dev"]
    names = ["loss", "perplexity", "exact_match", "bleu", "rouge_l", "rouge_1", "rouge_2"]
    assert sorted(dev) == sorted(names) and dev["rouge_l"] > 0.3
    assert record["training"]["metric"] == "rouge_l" and "sacrebleu" in record["versions"]
    lines = [json.loads(line) for line in (folder / "stages" / record["id"] / "metrics.jsonl").open()]
    seen = [line["metrics"]["rouge_l"] for line in lines if line["kind"] == "evaluate"]
    assert len(seen) == 2 and dev["rouge_l"] == max(seen)

    model = load(folder, device="cpu")
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").open(encoding="utf-8")]
    said = [one["text"] for one in model.predict([{"text": row["text"]} for row in rows])]
    again = text_metrics(["bleu", "rouge"], said, [row["said"] for row in rows])
    assert again == pytest.approx({name: dev[name] for name in again})

    for arguments in (
        ["evaluate", str(folder), "--data", str(tmp_path / "rows.jsonl")],
        ["report", str(folder)],
    ):
        monkeypatch.setattr("sys.argv", ["gradus", *arguments])
        main()
    printed = capsys.readouterr().out
    assert f"rouge_l\t{dev['rouge_l']:.6g}\n" in printed and f"bleu\t{dev['bleu']:.6g}\n" in printed
    assert "ROUGE-L" in printed and "BLEU" in printed and f"{100 * dev['rouge_l']:.1f}" in printed


def test_a_missing_library_is_told_by_check(tmp_path: Path, monkeypatch: Any) -> None:
    def version(name: str) -> str:
        if name == "sacrebleu":
            raise PackageNotFoundError(name)
        return "1"

    monkeypatch.setattr(libraries, "version", version)
    path = recipe(tmp_path / "both.yaml", {"kind": "denoising"}, summaries(tmp_path))
    words = r"both.yaml:\d+: stages.finetune.evaluate.*: BLEU needs sacrebleu, which is not installed "
    with pytest.raises(UserError, match=words + r'\(pip install "gradus-lm\[text\]"\)'):
        check(path, runs=tmp_path / "runs", device="cpu")
    patch = summaries(tmp_path) | {"stages.finetune.evaluate": {"every": "30 steps"}}
    check(recipe(tmp_path / "both.yaml", {"kind": "denoising"}, patch), runs=tmp_path / "runs", device="cpu")


@pytest.mark.parametrize(
    ("patch", "words"),
    [
        ({"stages.finetune.data.format": FORMAT, "stages.finetune.evaluate": {"metrics": ["rouge"]}},
         r"yaml:\d+: stages.finetune.evaluate.metrics: this judges texts.*'rouge'.*seq2seq.*target"),
        ({"stages.finetune.data.format": FORMAT, "stages.finetune.stop": {"metric": "bleu"}},
         r"yaml:\d+: stages.finetune.stop.metric: this judges texts.*'bleu'"),
        ({"stages.pretrain.evaluate": {"metrics": ["bleu"]}}, "pretrain.evaluate.metrics: this judges"),
        ({"stages.finetune.evaluate": {"metrics": ["meteor"]}}, "evaluate.metrics.*'meteor'.*rouge.*bleu"),
        ({"stages.finetune.evaluate": {"metrics": []}}, "evaluate.metrics"),
    ],
)  # fmt: skip
def test_where_no_text_is_said_none_is_judged(patch: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        check(recipe(tmp_path / "both.yaml", {"kind": "denoising"}, patch), runs=tmp_path, device="cpu")
