"""A stage that asks: rows, shots and limits, mistakes told with their line; and training does not notice."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_up_probes import TEXTS, choices, data, expected, four, probes, question, stage, words
from pydantic import ValidationError
from safetensors.torch import load_file
from sklearn.metrics import matthews_corrcoef
from tiny import tiny

from gradus.core.errors import UserError
from gradus.core.model import ModelConfig
from gradus.distributed.world import World
from gradus.evaluation.prompts import SEPARATOR, Asker
from gradus.evaluation.zero_shot import best_threshold, line, measure, result
from gradus.nn.transformer import Transformer
from gradus.pipeline.check import check
from gradus.pipeline.planning.material import Material
from gradus.pipeline.planning.plan import make_plan
from gradus.pipeline.planning.probing import make_probes, probe_digests
from gradus.pipeline.recipes.reading import read_recipe
from gradus.pipeline.run import run
from gradus.tokenizers import BytePairTokenizer, Tokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return BytePairTokenizer(vocab_size=420).build(TEXTS)


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
