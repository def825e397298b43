"""Zero-shot and few-shot: the figures are those of a slow loop over tokens, wrong keys are told, and training
does not notice."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from scipy.stats import binomtest
from sklearn.metrics import matthews_corrcoef
from tiny import tiny

from gradus.core.errors import UserError
from gradus.core.example import ragged
from gradus.core.model import ModelConfig
from gradus.distributed.world import World
from gradus.evaluation.prompts import SEPARATOR, Asked, Asker, Question, filled, names_in
from gradus.evaluation.shots import shots_said
from gradus.evaluation.statistics import matthews, matthews_interval, wilson_interval
from gradus.evaluation.zero_shot import answer_nats, best_threshold, line, measure, result, verdict
from gradus.nn.transformer import Transformer
from gradus.pipeline.check import check
from gradus.pipeline.material import Material
from gradus.pipeline.plan import make_plan
from gradus.pipeline.probing import make_probes, probe_digests
from gradus.pipeline.reading import read_recipe
from gradus.pipeline.recipe import Stage
from gradus.pipeline.run import run
from gradus.tokenizers import BytePairTokenizer, Tokenizer

TEXTS = ["这部电影很好看。The film is very good.", "这本书很难看。The book is very bad."] * 20
CONTEXT = 24


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return BytePairTokenizer(vocab_size=420).build(TEXTS)


@pytest.fixture(scope="module")
def transformer(tokenizer: Tokenizer) -> Transformer:
    config = ModelConfig(layers=2, width=16, heads=2, context=CONTEXT, vocab_size=tokenizer.size)
    return Transformer(config, torch.float64).initialise(3).eval()


@pytest.fixture(scope="module")
def asker(tokenizer: Tokenizer) -> Asker:
    return Asker(tokenizer, CONTEXT, tokenizer.role("end"))


def question(prompt: str, *answers: str, shots: tuple[str, ...] = ()) -> Question:
    return Question(prompt, answers, 0, "rows.tsv", 7, shots)


QUESTIONS = [
    question("The film is very", " good", " bad", " good good, very good"),
    question("这部电影很", "好看", "难看。", "好"),
    question("", "A", "电"),
    question("The book is very bad. 这部电影很好看。" * 6, " good", " bad"),
    question("上午好", "。", "。。", "。。。"),
]


def log_probability(transformer: Transformer, ids: list[int]) -> float:
    """Of the last of `ids` after the others, in a forward of its own."""
    states = transformer(ragged([np.array(ids[:-1])], round_to=1))
    logits = states[-1] @ transformer.output_weight.t()
    return float(logits[ids[-1]] - torch.logsumexp(logits, 0))


def expected(one: Question, asker: Asker, transformer: Transformer) -> list[float]:
    """Log-probability of each answer's tokens, one token at a time, found without what is tested."""
    tokenizer = asker.tokenizer
    whole = [tokenizer.encode([one.prompt + answer])[0].tolist() for answer in one.answers]
    alone = tokenizer.encode([one.prompt])[0].tolist()
    start = 0
    while start < len(alone) and all(ids[: start + 1] == alone[: start + 1] for ids in whole):
        start += 1
    head = max(0, max(map(len, whole)) - asker.context)
    sums = []
    for ids in whole:
        total = 0.0
        for place in range(start, len(ids)):
            total += log_probability(transformer, [asker.opening, *ids[head : place + 1]])
        sums.append(total)
    return sums


def test_scores_are_those_of_a_loop_over_tokens(asker: Asker, transformer: Transformer) -> None:
    with torch.no_grad():
        found = answer_nats(transformer, asker.ask(QUESTIONS), World(), 100)
        for one, nats in zip(QUESTIONS, found):
            assert np.allclose(-nats, expected(one, asker, transformer), rtol=1e-9, atol=1e-9), one.prompt


@pytest.mark.parametrize("budget", [1, 40, 10_000])
def test_the_batch_size_does_not_matter(budget: int, asker: Asker, transformer: Transformer) -> None:
    asked = asker.ask(QUESTIONS)
    whole = answer_nats(transformer, asked, World(), 200)
    parts = answer_nats(transformer, asked, World(), budget)
    assert all(np.allclose(a, b, rtol=1e-12) for a, b in zip(whole, parts))


class Ranks(World):
    """A rank whose fellows have sent what `heard` holds."""

    heard: list[list[Any]] = []

    def gather(self, value: Any) -> list[Any]:
        Ranks.heard.append(value)
        return list(Ranks.heard)


def test_ranks_share_the_rows(asker: Asker, transformer: Transformer) -> None:
    asked = asker.ask(QUESTIONS)
    whole = answer_nats(transformer, asked, World(), 200)
    Ranks.heard = []
    for rank in range(3):
        shared = answer_nats(transformer, asked, Ranks(rank, 3), 200)
    assert len(shared) == len(whole)
    assert all(np.allclose(a, b, rtol=1e-12) for a, b in zip(whole, shared))


def test_answers_that_read_the_same_share_a_sequence(asker: Asker) -> None:
    (one,) = asker.ask([question("The film is very", " good", " bad")])
    assert one.lengths.tolist() == [1, 1] and len(one.example.sequences) == 1
    (longer,) = asker.ask([question("上午好", "。", "。。", "。。。")])
    assert longer.lengths.tolist() == [1, 2, 3] and len(longer.example.sequences) == 1
    (other,) = asker.ask([question("上午好", "。A", "A。")])
    assert len(other.example.sequences) == 2


def spoken(asked: Asked, asker: Asker) -> list[str]:
    """The text that is scored of each answer."""
    values = asked.targets.value
    return [
        asker.tokenizer.decode(values[asked.answer == number])  # type: ignore[attr-defined]
        for number in range(len(asked.lengths))
    ]


def test_text_is_tokenised_whole(asker: Asker, tokenizer: Tokenizer) -> None:
    joint = tokenizer.encode(["这部电影很好看"])[0].tolist()
    apart = tokenizer.encode(["这部电影很"])[0].tolist() + tokenizer.encode(["好看"])[0].tolist()
    assert joint != apart, "the tokenizer of this test must have a token across the border"
    (one,) = asker.ask([question("这部电影很", "好看", "X")])
    first, second = spoken(one, asker)
    assert first.endswith("好看") and second.endswith("X") and first != "好看"
    assert first.removesuffix("好看") == second.removesuffix("X"), "the same beginning is scored for both"


def test_the_head_of_the_prompt_is_cut_and_counted(asker: Asker, tokenizer: Tokenizer) -> None:
    prompt = "这部电影很好看。The film is very good. " * 5 + "It is"
    (one,) = asker.ask([question(prompt, " good", " very very bad")])
    size = max(len(tokenizer.encode([prompt + answer])[0]) for answer in (" good", " very very bad"))
    assert one.example.truncated == size - CONTEXT > 0
    assert all(sequence[0] == asker.opening for sequence in one.example.sequences)
    assert max(map(len, one.example.sequences)) == CONTEXT
    assert spoken(one, asker) == [" good", " very very bad"]


def test_an_answer_is_never_cut(asker: Asker) -> None:
    with pytest.raises(UserError, match=r"rows.tsv:7: an answer has \d+ tokens, the context holds 24"):
        asker.ask([question("It is", " good" * 40, " bad")])
    with pytest.raises(UserError, match="rows.tsv:7: there is nothing to score"):
        asker.ask([question("It is", "", " bad")])


def test_texts_alone_are_scored_from_their_first_token(asker: Asker, transformer: Transformer) -> None:
    texts = ["The film is good.", "电影", "这部电影很好看。" * 20]
    asked = asker.read([question("", text) for text in texts])
    assert [one.example.truncated > 0 for one in asked] == [False, False, True]
    found = answer_nats(transformer, asked, World(), 100)
    with torch.no_grad():
        for text, nats in list(zip(texts, found))[:2]:
            assert np.allclose(-nats, expected(question("", text), asker, transformer), rtol=1e-9)
    assert asked[2].lengths.tolist() == [CONTEXT]


def test_shots_that_do_not_fit_are_left_out_whole(asker: Asker) -> None:
    shots = tuple(f"The film is {word}{SEPARATOR}" for word in ("good", "bad", "very bad", "very good"))
    few, whole = asker.ask(
        [question("It is", " good", " bad", shots=shots), question("", "A", "B", shots=shots[:1])]
    )
    assert 0 < few.shots < 4 and whole.shots == 1
    text = asker.tokenizer.decode(few.example.sequences[0][1:])  # type: ignore[attr-defined]
    assert text == "".join(shots[4 - few.shots :]) + "It is" and few.example.truncated == 0


def test_prompts_name_columns() -> None:
    assert names_in("{标题}: {text} {{x}} {text}") == ["标题", "text"]
    assert filled("{标题}: {{{text}}}", {"标题": "好", "text": "{a}"}) == "好: {{a}}"
    for bad in ("{text", "text}", "{}", "{a}} b"):
        with pytest.raises(ValueError, match="brace"):
            names_in(bad)


def test_intervals_and_matthews_are_those_of_others() -> None:
    for right, rows in ((0, 10), (10, 10), (457, 872), (1, 2)):
        interval = binomtest(right, rows).proportion_ci(method="wilson")
        assert np.allclose(wilson_interval(right, rows), (interval.low, interval.high), atol=1e-9)
    random = np.random.default_rng(1)
    truth, guess = random.random(200) < 0.7, random.random(200) < 0.5
    guess |= truth & (random.random(200) < 0.4)
    cells = [int((guess & truth).sum()), int((guess & ~truth).sum()),
             int((~guess & truth).sum()), int((~guess & ~truth).sum())]  # fmt: skip
    assert np.isclose(matthews(*cells), matthews_corrcoef(truth, guess))
    assert matthews(5, 5, 0, 0) == 0 == matthews(0, 0, 0, 0)
    low, high = matthews_interval(cells)
    drawn = [random.integers(0, 200, 200) for _ in range(1000)]
    slow = np.percentile([np.corrcoef(truth[rows], guess[rows])[0, 1] for rows in drawn], [2.5, 97.5])
    assert np.allclose((low, high), slow, atol=0.02)
    assert matthews_interval(cells) == (low, high) != matthews_interval(cells, key=("other",))


def test_the_threshold_is_the_best_of_all() -> None:
    random = np.random.default_rng(2)
    for rows in (2, 3, 40):
        truth = np.arange(rows) % 3 > 0
        scores = np.round(random.normal(size=rows) + truth, 1)
        found = best_threshold(scores, truth)
        every = [matthews_corrcoef(truth, scores > border) for border in np.unique(scores)]
        assert np.isclose(matthews_corrcoef(truth, scores > found), max(every))
    assert best_threshold(np.array([1.0, 1.0]), np.array([True, False])) == 1.0


def test_a_threshold_is_never_worse_than_one_class_for_all() -> None:
    for truth in ([True, True, False], [True, False, False], [True, False]):
        likely = np.array(truth)  # the likelier the text, the less it is of the likely class
        scores = np.arange(len(truth)) - 5.0
        borders = scores[:-1] + 0.5
        assert max(matthews_corrcoef(likely, scores > border) for border in borders) < 0
        named = scores > best_threshold(scores, likely)
        assert named.tolist() == [likely.mean() > 0.5] * len(truth), "the class of most rows, for all"
    random = np.random.default_rng(3)
    for _ in range(200):
        scores, likely = random.integers(-4, 0, 5) * 1.0, np.append(random.random(3) < 0.5, [True, False])
        found = best_threshold(scores, likely)
        every = [matthews_corrcoef(likely, scores > border) for border in (-9, *np.unique(scores))]
        assert np.isfinite(found) and np.isclose(matthews_corrcoef(likely, scores > found), max(every))


def test_what_a_person_reads() -> None:
    figures = {"low": 0.476, "high": 0.5422, "chance": 0.5, "majority": 0.5092, "most_named": 1.0, "shots": 8}
    found = {"name": "sst2", "split": "dev", "metric": "accuracy", "verdict": "at chance",
             "metrics": {"accuracy": 0.50917, **figures}}  # fmt: skip
    assert line(found) == (
        "zero-shot sst2 (dev, 8 shots): accuracy 0.5092 [0.4760, 0.5422], chance 0.5000, majority 0.5092: "
        "at chance, the same answer for every row"
    )
    found["metrics"] = {"matthews": 0.1, **figures, "shots": 0, "most_named": 0.9}
    shown = line(found | {"metric": "matthews", "verdict": "above chance"})
    assert shown == "zero-shot sst2 (dev): matthews 0.1000 [0.4760, 0.5422], chance 0.5000: above chance"


def test_shots_that_were_not_shown_are_not_claimed() -> None:
    def said(shots: int, shown: float | None = None) -> str:
        return shots_said({"shots": shots} | ({} if shown is None else {"shots_shown": shown}))

    assert said(0, 0.0) == said(0) == ""
    assert said(3, 3.0) == said(3) == "3 shots" and said(1, 1.0) == "1 shot"
    assert said(3, 0.4) == "3 shots, 0.4 shown"
    assert said(3, 0.0) == "zero-shot: none of 3 shots shown"
    assert said(3, 0.004) == "3 shots, 0.004 shown", "some are not none"
    assert said(3, 2.996) == "3 shots, 2.996 shown", "nor all"
    assert said(8, 1 / 3) == "8 shots, 0.3 shown"


def test_verdicts() -> None:
    figures = {"low": 0.48, "high": 0.55, "chance": 0.5, "majority": 0.6}
    assert verdict("accuracy", figures) == "at chance"
    assert verdict("accuracy", figures | {"low": 0.3, "high": 0.4}) == "below chance"
    assert (
        verdict("accuracy", figures | {"low": 0.55, "high": 0.62}) == "above chance, not above the majority"
    )
    assert verdict("accuracy", figures | {"low": 0.61, "high": 0.7}) == "above chance"
    assert verdict("matthews", figures | {"chance": 0.0}) == "above chance"


# A stage with probes


def data(folder: Path, **changes: Any) -> dict[str, Any]:
    """Rows of two classes, one in three of them Chinese; dev has 12, train 30."""
    for split, size in (("train", 30), ("dev", 12)):
        lines = []
        for number in range(size):
            good = number % 3 != 1
            text = f"第{number}部电影" if number % 3 == 0 else f"film {number} of {split}"
            lines.append(f"{text} {'good' if good else 'bad'}\t{int(good)}")
        (folder / f"{split}.tsv").write_text("text\tlabel\n" + "\n".join(lines) + "\n", encoding="utf-8")
    return {"kind": "rows", "train": str(folder / "train.tsv"), "dev": str(folder / "dev.tsv"),
            "format": {"kind": "single", "text": "text", "label": "label"}} | changes  # fmt: skip


def choices(folder: Path) -> dict[str, Any]:
    """Rows of two to four answers, among them Chinese ones."""
    for split, size in (("train", 6), ("dev", 9)):
        rows = [
            {"text": f"那天是{number}号。", "ask": f"是几号 {split}？", "right": str(number % 2),
             "answers": [f"{number + other}号" for other in range(2 + number % 3)]}
            for number in range(size)
        ]  # fmt: skip
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        (folder / f"{split}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {"kind": "rows", "train": str(folder / "train.jsonl"), "dev": str(folder / "dev.jsonl"),
            "format": {"kind": "multiple_choice", "context": "text", "question": "ask", "answers": "answers",
                       "label": "right", "label_is": "index"}}  # fmt: skip


def words(folder: Path, **changes: Any) -> dict[str, Any]:
    return {"kind": "words", "data": data(folder), "prompt": "{text} very",
            "answers": {"0": " bad", "1": " good"}} | changes  # fmt: skip


def four(folder: Path) -> dict[str, Any]:
    return {
        "sst": words(folder),
        "sst_few": words(folder, shots=3),
        "cola": {"kind": "threshold", "data": data(folder)},
        "dream": {"kind": "choices", "data": choices(folder)},
    }


def stage(**zero_shot: Any) -> Stage:
    return Stage.model_validate(
        {"data": {"kind": "text", "train": "x"}, "objectives": [{"kind": "causal_lm"}], "length": "1 step",
         "zero_shot": zero_shot}
    )  # fmt: skip


def probes(folder: Path, tokenizer: Tokenizer, seed: int = 1, context: int = 200, **zero_shot: Any) -> list:
    material = Material(Path(), folder / "cache")
    return make_probes("read", stage(**zero_shot), seed, tokenizer, context, material)


def test_measures_are_those_of_a_loop(tmp_path: Path, tokenizer: Tokenizer) -> None:
    config = ModelConfig(layers=1, width=16, heads=2, context=200, vocab_size=tokenizer.size)
    transformer = Transformer(config, torch.float64).initialise(4).eval()
    for parameter in transformer.parameters():
        parameter.data *= 10  # or every answer is as good as the next
    asker = Asker(tokenizer, 200, tokenizer.role("end"))
    sst, _, cola, dream = probes(tmp_path, tokenizer, **four(tmp_path))
    rows = [line.split("\t") for line in (tmp_path / "dev.tsv").read_text().splitlines()[1:]]
    with torch.no_grad():
        right = 0
        for text, label in rows:
            bad, good = expected(question(f"{text} very", " bad", " good"), asker, transformer)
            right += (good > bad) == (label == "1")
        found = measure(sst, transformer, World(), 500)
        assert found["accuracy"] == right / 12 and found["chance"] == 0.5 and found["rows"] == 12
        assert found["majority"] == 8 / 12 and found["low"] < found["accuracy"] < found["high"]

        right = 0
        for text in (tmp_path / "dev.jsonl").read_text().splitlines():
            row = json.loads(text)
            asked = question(f"{row['text']}\n{row['ask']}\n", *row["answers"])
            sums = expected(asked, asker, transformer)
            sizes = [len(tokenizer.encode([asked.prompt + answer])[0]) for answer in asked.answers]
            alone = len(tokenizer.encode([asked.prompt])[0])
            right += int(np.argmax([s / (size - alone) for s, size in zip(sums, sizes)])) == int(row["right"])
        found = measure(dream, transformer, World(), 500)
        assert found["accuracy"] == right / 9
        assert np.isclose(found["chance"], np.mean([1 / 2, 1 / 3, 1 / 4]))

        scored = {}
        for split in ("train", "dev"):
            lines = [line.split("\t") for line in (tmp_path / f"{split}.tsv").read_text().splitlines()[1:]]
            scored[split] = (
                np.array([
                    expected(question("", text), asker, transformer)[0] / len(tokenizer.encode([text])[0])
                    for text, _ in lines
                ]),
                np.array([label == "1" for _, label in lines]),
            )  # fmt: skip
        found = measure(cola, transformer, World(), 500)
        threshold = best_threshold(*scored["train"])
        assert np.isclose(found["threshold"], threshold) and found["chance"] == 0
        assert np.isclose(
            found["matthews"], matthews_corrcoef(scored["dev"][1], scored["dev"][0] > threshold)
        )


def decoded(probe: Any, tokenizer: Tokenizer) -> list[str]:
    return [tokenizer.decode(asked.example.sequences[0][1:]) for asked in probe.rows]


def test_shots_are_rows_of_train_drawn_by_the_seed(tmp_path: Path, tokenizer: Tokenizer) -> None:
    data(tmp_path)
    train = (tmp_path / "train.tsv").read_text().splitlines()[1:]
    dev = (tmp_path / "dev.tsv").read_text().splitlines()[1:]
    known = {f"{text} very {'good' if label == '1' else 'bad'}"
             for text, label in (line.split("\t") for line in train)}  # fmt: skip
    (first,) = probes(tmp_path, tokenizer, sst=words(tmp_path, shots=3))
    draws = []
    for text, row in zip(decoded(first, tokenizer), dev):
        *shots, own = text.split(SEPARATOR)
        assert own.startswith(row.split("\t")[0] + " very") and len(set(shots)) == 3
        assert set(shots) <= known and not any(shot.startswith(row.split("\t")[0]) for shot in shots)
        draws.append(tuple(shots))
    assert len(set(draws)) > 6, "each row has shots of its own"
    assert max(Counter(shot for shots in draws for shot in shots).values()) < 9
    (again,) = probes(tmp_path, tokenizer, sst=words(tmp_path, shots=3))
    (other,) = probes(tmp_path, tokenizer, seed=2, sst=words(tmp_path, shots=3))
    assert decoded(again, tokenizer) == decoded(first, tokenizer) != decoded(other, tokenizer)


def test_a_short_context_is_told_with_the_shots(tmp_path: Path, tokenizer: Tokenizer) -> None:
    for context, said in (
        (16, "zero-shot: none of 3 shots shown"),
        (45, "3 shots, {} shown"),
        (400, "3 shots"),
    ):
        (probe,) = probes(tmp_path, tokenizer, context=context, reviews=words(tmp_path, shots=3))
        config = ModelConfig(layers=1, width=16, heads=2, context=context, vocab_size=tokenizer.size)
        measured = measure(probe, Transformer(config).initialise(1).eval(), World(), 500)
        shown = float(np.mean([asked.shots for asked in probe.rows]))
        assert (measured["shots"], measured["shots_shown"]) == (3, shown)
        assert probe.counts()["shots_shown"] == shown
        assert f"zero-shot reviews (dev, {said.format(f'{shown:.1f}')}): accuracy" in line(
            result(probe, measured)
        )


def test_rows_of_train_that_lose_tokens_for_a_threshold_are_counted(
    tmp_path: Path, tokenizer: Tokenizer
) -> None:
    given = data(tmp_path)
    with open(tmp_path / "train.tsv", "a", encoding="utf-8") as file:
        file.write("这部电影很好看。" * 40 + "\t1\n" + "bad " * 300 + "\t0\n")
    (probe,) = probes(tmp_path, tokenizer, context=60, cola={"kind": "threshold", "data": given})
    lost = [len(tokenizer.encode([text])[0]) - 60 for text in ("这部电影很好看。" * 40, "bad " * 300)]
    counts = probe.counts()
    assert (counts["rows"], counts["cut_rows"], counts["cut_tokens"]) == (12, 0, 0)
    assert (counts["train_rows"], counts["train_cut_rows"]) == (32, 2)
    assert counts["train_cut_tokens"] == sum(lost) and min(lost) > 0


def test_check_tells_what_the_context_leaves_out(tmp_path: Path) -> None:
    given = four(tmp_path)
    with open(tmp_path / "train.tsv", "a", encoding="utf-8") as file:
        file.write("这部电影很好看。" * 40 + "\t1\n")
    path = tiny(tmp_path / "recipe.yaml", {"stages.pretrain.zero_shot": given})
    notes = check(path, runs=tmp_path / "runs", device="cpu").notes
    train = [
        note for note in notes if note.startswith("pretrain: zero_shot.cola: 1 row of train longer than")
    ]
    assert len(train) == 1 and train[0].endswith(" tokens cut before the threshold is chosen")
    shots = [
        note for note in notes if note.startswith("pretrain: zero_shot.sst_few: the context of 32 tokens")
    ]
    assert len(shots) == 1 and "3 shots" in shots[0] and "shown" in shots[0]


def test_what_is_said_of_leaks_decides_no_stage(tmp_path: Path) -> None:
    """Neither in the stage's data nor in that of its zero-shot tasks; what `drop` leaves out does."""
    given = words(tmp_path)
    given["data"]["test"] = str(tmp_path / "test.tsv")
    first = (tmp_path / "train.tsv").read_text(encoding="utf-8").splitlines()[1]
    (tmp_path / "test.tsv").write_text(f"text\tlabel\n{first}\n一部新的电影\t0\n", encoding="utf-8")
    found = {}
    for word in ("allow", "stop", "drop"):
        asked = {"sst": given | {"data": given["data"] | {"leakage": word}}}
        path = tiny(tmp_path / "recipe.yaml", {"stages.pretrain.zero_shot": asked})
        nodes = make_plan(read_recipe(path), Material(tmp_path, tmp_path / "cache")).nodes.values()
        found[word] = next(node.fingerprint for node in nodes if node.name == "pretrain")
    assert found["allow"] == found["stop"] != found["drop"]


def test_a_row_is_never_among_its_own_shots(tmp_path: Path, tokenizer: Tokenizer) -> None:
    both = data(tmp_path, dev=str(tmp_path / "train.tsv"))
    (probe,) = probes(tmp_path, tokenizer, context=2000, sst=words(tmp_path, data=both, shots=29))
    assert [asked.shots for asked in probe.rows] == [29] * 30
    for text in decoded(probe, tokenizer):
        *shots, own = text.split(SEPARATOR)
        assert len(set(shots)) == 29 and not any(shot.startswith(own) for shot in shots)


def test_a_limit_scores_rows_of_the_whole_split(tmp_path: Path, tokenizer: Tokenizer) -> None:
    (some,) = probes(tmp_path, tokenizer, sst=words(tmp_path, limit=5))
    (every,) = probes(tmp_path, tokenizer, seed=9, sst=words(tmp_path))
    texts, all_ = decoded(some, tokenizer), decoded(every, tokenizer)
    places = [all_.index(text) for text in texts]
    assert len(places) == 5 and places == sorted(places) != list(range(5))


def test_the_text_begins_where_the_model_expects_it(tmp_path: Path, tokenizer: Tokenizer) -> None:
    rows = stage(sst=words(tmp_path)).model_copy(
        update={"data": stage(sst=words(tmp_path)).zero_shot["sst"].data}
    )
    (probe,) = make_probes("read", rows, 1, tokenizer, 200, Material(Path(), tmp_path / "cache"))
    assert {int(asked.example.sequences[0][0]) for asked in probe.rows} == {tokenizer.role("start")}
    (probe,) = probes(tmp_path, tokenizer, sst=words(tmp_path))
    assert {int(asked.example.sequences[0][0]) for asked in probe.rows} == {tokenizer.role("end")}


DATA_MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"answers": {"1": " good", "2": " bad"}}, r"read.zero_shot.sst.answers: no row has this class: '2'"),
    ({"answers": {"0": " bad", "1": " good", "x": " so so"}}, r"answers: no row has this class: 'x'"),
    ({"prompt": "{txt} very"}, r"zero_shot.sst.prompt: no row has this column: 'txt' \(did you mean 'text'"),
    ({"shots": 31}, r"zero_shot.sst.shots: train has 29 rows that may be shown .*: '31'"),
]


@pytest.mark.parametrize(("changes", "said"), DATA_MISTAKES, ids=[said[:40] for _, said in DATA_MISTAKES])
def test_mistakes_in_rows_are_told(
    changes: dict[str, Any], said: str, tmp_path: Path, tokenizer: Tokenizer
) -> None:
    with pytest.raises(UserError, match=said):
        probes(tmp_path, tokenizer, sst=words(tmp_path, **changes))


def test_a_class_without_a_text_is_told_with_its_row(tmp_path: Path, tokenizer: Tokenizer) -> None:
    given = words(tmp_path)
    with open(tmp_path / "dev.tsv", "a", encoding="utf-8") as file:
        file.write("so so\t中\n")
    said = (
        r"read.zero_shot.sst.answers: `answers` has no text for this class: '中' \(the label of .*dev.tsv:14"
    )
    with pytest.raises(UserError, match=said):
        probes(tmp_path, tokenizer, sst=given)
    with pytest.raises(UserError, match="a threshold parts two classes, not 3: '0, 1, 中'"):
        probes(tmp_path, tokenizer, cola={"kind": "threshold", "data": given["data"]})


def test_an_empty_text_and_a_missing_file_are_told(tmp_path: Path, tokenizer: Tokenizer) -> None:
    given = words(tmp_path)
    with open(tmp_path / "dev.tsv", "a", encoding="utf-8") as file:
        file.write(" \t1\n")
    with pytest.raises(UserError, match=r"dev.tsv:14: text: the text is empty"):
        probes(tmp_path, tokenizer, sst=given)
    gone = words(tmp_path)
    gone["data"]["dev"] = str(tmp_path / "gone.tsv")
    with pytest.raises(UserError, match=r"stages.read.zero_shot.sst.data.dev: "):
        probe_digests("read", stage(sst=gone), Material(Path(), tmp_path / "cache"))


RECIPE_MISTAKES: list[tuple[str, Any, str]] = [
    ("split", "test", "zero_shot.sst.data: the split to score, test, is not there"),
    ("split", "train", "zero_shot.sst.shots: shots are rows of train"),
    ("prompt", "{text very", "zero_shot.sst.prompt: a column's name in braces"),
    (
        "prompt",
        "{text} {label} is",
        "zero_shot.sst.prompt: the prompt names the column with the label: "
        r"'\{label\}' .*name columns that hold texts",
    ),
    ("answers", {"0": " a", "1": " a"}, "zero_shot.sst.answers: two classes have the same text: ' a'"),
    ("answers", {"0": " a"}, "zero_shot.sst.answers: at least 2 wanted"),
    ("kind", "word", "zero_shot.sst: unknown word: 'word' .*did you mean 'words'"),
    ("kind", "choices", "zero_shot.sst.answers: unknown key"),
    ("promt", "x", "zero_shot.sst.promt: unknown key .*did you mean 'prompt'"),
]


@pytest.mark.parametrize(("key", "value", "said"), RECIPE_MISTAKES)
def test_mistakes_in_the_recipe_are_told_with_their_line(
    key: str, value: Any, said: str, tmp_path: Path
) -> None:
    given = words(tmp_path, shots=2) | {key: value}
    path = tiny(tmp_path / "recipe.yaml", {"stages.pretrain.zero_shot": {"sst": given}})
    with pytest.raises(UserError, match=rf"recipe.yaml:\d+: stages.pretrain.{said}"):
        run(path, runs=tmp_path / "runs", device="cpu")


def test_a_prompt_of_choices_may_not_name_the_label(tmp_path: Path) -> None:
    given: dict[str, Any] = {"kind": "choices", "data": choices(tmp_path)}
    for prompt in ("{context} {right}", "{text} 答案是{right}："):
        with pytest.raises(ValidationError, match="the prompt names the column with the label"):
            stage(dream=given | {"prompt": prompt})
    given["data"]["format"] |= {"context": "right", "label": "context"}  # the names of the format go first
    assert stage(dream=given | {"prompt": "{context} {question} {{label}}"})


def test_only_a_language_model_can_be_asked(tmp_path: Path) -> None:
    patch = {"stages.finetune.zero_shot": {"sst": words(tmp_path)},
             "stages.finetune.objectives": [{"kind": "classification"}]}  # fmt: skip
    path = tiny(tmp_path / "recipe.yaml", patch)
    with pytest.raises(UserError, match=r"finetune.zero_shot: a stage that does not learn to predict text"):
        run(path, runs=tmp_path / "runs", device="cpu")


def test_training_does_not_notice(tmp_path: Path) -> None:
    """The same bits with and without, and the figures along the way and at the end in the records."""
    plain = tiny(tmp_path / "plain.yaml")
    asked = tiny(tmp_path / "asked.yaml", {"stages.pretrain.zero_shot": four(tmp_path),
                                           "stages.pretrain.evaluate": {"every": "4 steps"}})  # fmt: skip
    weights, records, lines = [], [], []
    for recipe in (plain, asked):
        folder = run(recipe, runs=tmp_path / "runs", until="pretrain", device="cpu")
        (home,) = (folder / "stages").iterdir()
        weights.append(load_file(home / "model" / "model.safetensors"))
        records.append(json.loads((home / "stage.json").read_text(encoding="utf-8")))
        noted = [json.loads(line) for line in (home / "metrics.jsonl").read_text().splitlines()]
        lines.append([one for one in noted if one["kind"] == "zero_shot"])
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert records[0]["fingerprint"] != records[1]["fingerprint"]
    assert records[0]["zero_shot"] == {} and lines[0] == []
    assert [(one["name"], one["step"]) for one in lines[1]] == [
        (name, step) for step in (4, 8) for name in ("sst", "sst_few", "cola", "dream")
    ]
    for one in lines[1]:
        assert {"low", "high", "chance", "majority", "most_named", "rows", "shots", "shots_shown"} <= set(
            one["metrics"]
        )
        assert one["metrics"]["low"] <= one["metrics"][one["metric"]] <= one["metrics"]["high"]
        assert one["tokens"] > 0 and one["split"] == "dev" and one["verdict"]
    last = {one["name"]: one["metrics"] for one in lines[1][4:]}
    found = records[1]["zero_shot"]
    assert {name: one["metrics"] for name, one in found.items()} == last
    assert found["sst_few"]["metrics"]["shots"] == 3 and found["cola"]["metric"] == "matthews"
    assert found["sst_few"]["counts"]["shots_shown"] < 3, "a context of 32 has no room for them"
    assert found["sst_few"]["metrics"]["shots_shown"] == found["sst_few"]["counts"]["shots_shown"]
    assert found["sst"]["metrics"]["shots_shown"] == found["cola"]["metrics"]["shots_shown"] == 0


def test_a_stage_without_dev_is_asked_all_the_same(tmp_path: Path) -> None:
    recipe = tiny(tmp_path / "asked.yaml", {
        "stages.pretrain.data": {"kind": "text", "train": "builtin:tiny"},
        "stages.pretrain.zero_shot": {"sst": words(tmp_path)},
    })  # fmt: skip
    folder = run(recipe, runs=tmp_path / "runs", until="pretrain", device="cpu")
    (home,) = (folder / "stages").iterdir()
    noted = [json.loads(line)["kind"] for line in (home / "metrics.jsonl").read_text().splitlines()]
    assert noted.count("zero_shot") == 8 and "evaluate" not in noted


@pytest.mark.data
@pytest.mark.skipif("GRADUS_DATA" not in os.environ, reason="GRADUS_DATA names no folder of public data")
def test_public_rows_are_asked(tmp_path: Path, tokenizer: Tokenizer) -> None:
    root = Path(os.environ["GRADUS_DATA"])
    single = {"kind": "single", "text": "text", "label": "label"}
    sst = {"kind": "rows", "train": "SST2/train.tsv", "dev": "SST2/dev.tsv", "columns": ["text", "label"],
           "format": single}  # fmt: skip
    cola = {"kind": "rows", "train": "CoLA/in_domain_train.tsv", "dev": "CoLA/in_domain_dev.tsv",
            "columns": ["source", "label", "mark", "text"], "format": single, "limit": 200}  # fmt: skip
    asked = stage(
        sst2=words(tmp_path, data=sst, answers={"0": " negative", "1": " positive"}, limit=100),
        cola={"kind": "threshold", "data": cola, "limit": 100},
    )
    made = make_probes("read", asked, 1, tokenizer, 100, Material(root, tmp_path / "cache"))
    config = ModelConfig(layers=1, width=16, heads=2, context=100, vocab_size=tokenizer.size)
    transformer = Transformer(config).initialise(1).eval()
    for probe in made:
        found = measure(probe, transformer, World(), 4096)
        assert found["rows"] == 100 and -1 <= found["low"] <= found["high"] <= 1
