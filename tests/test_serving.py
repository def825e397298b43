"""A model in use: folders of ours and of transformers, any number of rows, any script, mistakes."""

from __future__ import annotations

import io
import json
import math
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

import gradus
from gradus.core.errors import UserError
from gradus.core.model import ModelConfig
from gradus.core.storage import new_folder, read_json, write_json
from gradus.data.formats import Pair, Single
from gradus.evaluation.generate import Sampling, generate
from gradus.evaluation.metrics import classification_metrics
from gradus.families.folder import write_folder
from gradus.nn.transformer import Transformer
from gradus.objectives import CausalLMConfig, ClassificationConfig, Task
from gradus.pipeline.serving import Model, evaluate_file, load, predict_file, row_template
from gradus.tokenizers import BytePairTokenizer, Tokenizer
from gradus.training.learner import Learner

transformers = pytest.importorskip("transformers")

TEXTS = [
    "The film was a quiet joy from the first scene to the last.",
    "这部电影从头到尾都很安静，也很动人。",
    "A dull, noisy and far too long evening; we left early.",
    "故事太长，演员也没有精神，我们提前走了。",
    "Nobody expects a masterpiece, and nobody gets one 🙂.",
]
CONTEXT = 64
LABELS = ("坏", "好", "so-so")
SINGLE = Single(text="text", label="label")
PAIR = Pair(first="premise", second="hypothesis", label="label")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small gain nothing from a second thread, and lose much where the machine is busy."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return BytePairTokenizer(vocab_size=330).build(iter(TEXTS * 5))


def written(
    path: Path, tokenizer: Tokenizer, form: Single | Pair | None, auxiliary: bool = True, **card
) -> Path:
    """A model folder as a stage leaves it, with random weights."""
    config = ModelConfig(
        layers=2, width=32, heads=2, context=CONTEXT, vocab_size=tokenizer.size, initial_deviation=0.3
    )
    labels = LABELS if form else ()
    objectives = [ClassificationConfig()] if form else [CausalLMConfig()]
    if form and auxiliary:
        objectives.append(CausalLMConfig(weight=0.5))
    task = Task(config, "finetune", labels)
    learner = Learner(Transformer(config), [one.build(task) for one in objectives]).initialise(5)
    about = {
        "format_version": 1, "stage": "finetune", "fingerprint": "f", "model": config.plain(),
        "roles": tokenizer.roles, "objectives": [one.plain() for one in objectives],
        "heads": {"finetune": {"objective": "classification", "labels": list(labels)}} if form else {},
        "labels": list(labels) or None,
    }  # fmt: skip
    if form is None:
        about |= {"windows": "contiguous", "encoding": "utf-8", "documents": "file"}
    else:
        about |= {"format": form.plain(), "long": "truncate", "reader": {}}
    with new_folder(path) as folder:
        write_folder(
            folder, config,
            {name.removeprefix("transformer."): tensor for name, tensor in learner.state_dict().items()},
            about | card, lambda to: tokenizer.save(to, row_template(form) if form else None, config.context),
            labels=labels or None, pad_id=tokenizer.role("pad"),
        )  # fmt: skip
    return path


@pytest.fixture(scope="module")
def language(tmp_path_factory, tokenizer: Tokenizer) -> Path:
    return written(tmp_path_factory.mktemp("language") / "model", tokenizer, None)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory, tokenizer: Tokenizer) -> Path:
    return written(tmp_path_factory.mktemp("classifier") / "model", tokenizer, SINGLE)


@pytest.fixture(scope="module")
def pairs(tmp_path_factory, tokenizer: Tokenizer) -> Path:
    return written(tmp_path_factory.mktemp("pairs") / "model", tokenizer, PAIR, auxiliary=False)


def use(folder: Path, **options) -> Model:
    return load(folder, device="cpu", **options)


# Text


def test_generate_goes_on_from_the_prompt_and_repeats_itself_for_a_seed(language: Path):
    model = use(language)
    for prompt in ("The film", "这部电影", ""):
        said = model.generate(prompt, tokens=12, seed=4)
        assert (
            said
            == model.generate(prompt, tokens=12, seed=4)
            == use(language).generate(prompt, tokens=12, seed=4)
        )
        assert said != model.generate(prompt, tokens=12, seed=5)
        assert not any(role in said for role in model.tokens.roles.values())


def test_generate_is_the_tokens_of_the_model_as_text(language: Path):
    model = use(language)
    prompt = "故事太长 <|end|>"  # the text of a special token is text
    ids = model.tokens.encode([prompt])[0].tolist()
    assert model.tokens.role("end") not in ids
    end = model.tokens.role("end")
    banned = [number for number in range(len(model.tokens.roles)) if number != end]
    said = generate(model.opened.learner.transformer, ids, Sampling(tokens=9, temperature=0), end, banned)
    assert model.generate(prompt, tokens=9, temperature=0) == model.tokens.decode(said)


def test_the_likelihood_of_a_text_is_the_sum_of_its_tokens(language: Path):
    model = use(language)
    texts = [*TEXTS, "", "a", " ".join(TEXTS) * 2]
    for text, (likelihood, tokens) in zip(texts, model.score(texts)):
        ids = model.tokens.encode([text])[0].tolist()
        assert tokens == max(len(ids) - 1, 0)
        wanted = 0.0
        for start in range(0, max(len(ids) - 1, 0), CONTEXT):
            part = ids[start : start + CONTEXT + 1]
            logits = torch.from_numpy(model.logits([part[:-1]])[0]).double().log_softmax(1)
            wanted += float(logits[torch.arange(len(part) - 1), torch.tensor(part[1:])].sum())
        assert likelihood == pytest.approx(wanted, rel=1e-5, abs=1e-9)
    assert model.score([]) == []


def test_evaluating_text_is_perplexity_and_bits_per_byte_in_the_windows_of_training(
    language: Path, tmp_path: Path
):
    for name, text in (("b.txt", TEXTS[0]), ("a.txt", TEXTS[1])):
        (tmp_path / name).write_text(text * 3, encoding="utf-8")
    model = use(language)
    found = evaluate_file(model, str(tmp_path / "*.txt"))
    end = model.tokens.role("end")
    ids = [
        token
        for text in (TEXTS[1], TEXTS[0])
        for token in [*model.tokens.encode([text * 3])[0].tolist(), end]
    ]
    nats = 0.0
    for start in range(0, len(ids) - 1, CONTEXT):
        part = ids[start : start + CONTEXT + 1]
        logits = torch.from_numpy(model.logits([part[:-1]])[0]).double().log_softmax(1)
        nats -= float(logits[torch.arange(len(part) - 1), torch.tensor(part[1:])].sum())
    size = sum(len(text.encode()) * 3 for text in TEXTS[:2])
    assert found["loss"] == pytest.approx(nats / (len(ids) - 1), rel=1e-5)
    assert found["perplexity"] == pytest.approx(math.exp(nats / (len(ids) - 1)), rel=1e-4)
    assert found["bits_per_byte"] == pytest.approx(nats / math.log(2) / size, rel=1e-5)
    assert found["bytes"] == size and found["tokens"] == len(ids)
    assert model.evaluate("builtin:tiny", "dev")["bytes"] != model.evaluate("builtin:tiny")["bytes"]


# Rows


def test_predictions_come_in_order_whatever_the_batch(classifier: Path):
    model = use(classifier)
    texts = [TEXTS[number % 5] * (number % 3) + f" {number}" for number in range(150)]
    found = list(model.predict({"text": text, "other": 1} for text in texts))
    for one, text in list(zip(found, texts))[::29]:
        (alone,) = model.predict([text])
        assert one["scores"] == pytest.approx(alone["scores"], rel=1e-4, abs=1e-5)
    for one in found:
        assert sum(one["probabilities"].values()) == pytest.approx(1)
        assert one["label"] == max(LABELS, key=one["scores"].__getitem__)
        assert list(one["scores"]) == list(one["probabilities"]) == list(LABELS)
    assert len({one["label"] for one in found}) > 1


def test_rows_are_drawn_as_they_are_needed(classifier: Path):
    drawn = 0

    def endless() -> Iterator[str]:
        nonlocal drawn
        while True:
            drawn += 1
            yield TEXTS[drawn % 5]

    answers = use(classifier).predict(endless())
    for _ in range(70):
        next(answers)
    assert drawn <= 128


def test_logits_of_the_tokenizer_s_ids_are_the_scores_of_predict(classifier: Path, pairs: Path):
    model = use(classifier)
    logits = model.logits([model.tokenizer.encode(text).ids for text in TEXTS])
    for scores, one in zip(logits, model.predict(TEXTS)):
        assert scores.dtype == np.float32 and scores.shape == (3,)
        np.testing.assert_allclose(scores, list(one["scores"].values()), rtol=1e-5, atol=1e-6)
    model = use(pairs)
    ids = model.tokenizer.encode("好 <|extract|>", "不好").ids
    (one,) = model.predict([{"premise": "好 <|extract|>", "hypothesis": "不好", "label": None}])
    np.testing.assert_allclose(model.logits([ids])[0], list(one["scores"].values()), rtol=1e-5, atol=1e-6)


def test_what_does_not_fit_is_cut_and_counted(classifier: Path, tokenizer: Tokenizer, tmp_path: Path):
    long = " ".join(TEXTS)
    size = len(tokenizer.encode([long])[0])
    short, cut = use(classifier).predict(["short", long])
    assert (short["truncated"], cut["truncated"]) == (0, size - (CONTEXT - 2))
    strict = use(written(tmp_path / "strict", tokenizer, SINGLE, long="error"))
    with pytest.raises(UserError, match=r"rows:2: text: the row has \d+ tokens, the context holds 64"):
        list(strict.predict(["short", long]))


def rows_file(path: Path, count: int, labelled: bool = True) -> Path:
    lines = []
    for number in range(count):
        label = {"label": LABELS[number % 3]} if labelled else {}
        lines.append(json.dumps({"text": f"{TEXTS[number % 5]} {number}", **label}, ensure_ascii=False))
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_file_of_rows_becomes_a_file_of_predictions(classifier: Path, tmp_path: Path):
    model = use(classifier)
    source, output = rows_file(tmp_path / "rows.jsonl", 100, labelled=False), tmp_path / "new" / "out.jsonl"
    assert predict_file(model, source, output) == {"rows": 100, "truncated_rows": 0, "truncated_tokens": 0}
    found = [json.loads(line) for line in output.read_text(encoding="utf-8").splitlines()]
    assert [(one["row"], one["line"]) for one in found] == [(number, number + 1) for number in range(100)]
    assert "坏" in output.read_text(encoding="utf-8") and found[0]["file"] == str(source)
    expected = list(model.predict(f"{TEXTS[number % 5]} {number}" for number in range(100)))
    for one, wanted in zip(found, expected):
        assert one["label"] == wanted["label"] and one["score"] == wanted["scores"][wanted["label"]]
        assert one["probabilities"] == wanted["probabilities"]
    assert [file.name for file in output.parent.iterdir()] == ["out.jsonl"]


def test_a_bad_row_leaves_the_old_predictions_untouched(classifier: Path, tmp_path: Path):
    source, output = rows_file(tmp_path / "rows.jsonl", 80), tmp_path / "out.jsonl"
    output.write_text("old")
    source.write_text(source.read_text(encoding="utf-8") + '{"txet": "?"}\n', encoding="utf-8")
    with pytest.raises(
        UserError, match=r"rows.jsonl:81: there is no such column: 'text' \(did you mean 'txet'\?"
    ):
        predict_file(use(classifier), source, output)
    assert output.read_text() == "old" and len(list(tmp_path.iterdir())) == 2


def test_standard_input_and_output(classifier: Path, tmp_path: Path, monkeypatch, capsys):
    model = use(classifier)
    data = rows_file(tmp_path / "rows.jsonl", 3).read_bytes()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data), "utf-8"))
    predict_file(model, "-", "-")
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["file"] for line in lines] == ["standard input"] * 3
    table = "text\tmore\n这部电影\tx\n".encode()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(table), "utf-8"))
    assert predict_file(model, "-", tmp_path / "out.jsonl", reader="tsv")["rows"] == 1


def test_rows_are_read_as_in_training_and_json_as_json(tokenizer: Tokenizer, tmp_path: Path):
    reader = {
        "columns": ["label", "text"],
        "map": {"label": {"0": "坏", "1": "好", "2": "so-so"}},
        "drop": {"label": ["-"]},
    }
    model = use(written(tmp_path / "model", tokenizer, SINGLE, reader=reader))
    (tmp_path / "rows.tsv").write_text("0\t很长\n-\tnothing\n2\tso so\n", encoding="utf-8")
    (tmp_path / "bare.tsv").write_text("很长\nnothing\nso so\n", encoding="utf-8")
    rows_file(tmp_path / "rows.jsonl", 2)
    assert predict_file(model, tmp_path / "rows.tsv", tmp_path / "a")["rows"] == 3  # an answer for every row
    assert predict_file(model, tmp_path / "bare.tsv", tmp_path / "b")["rows"] == 3
    assert (tmp_path / "a").read_text().replace("rows.tsv", "bare.tsv") == (tmp_path / "b").read_text()
    assert predict_file(model, tmp_path / "rows.jsonl", tmp_path / "c")["rows"] == 2
    assert evaluate_file(model, tmp_path / "rows.tsv")["rows"] == 2  # what training leaves out is not scored


def test_evaluating_rows_gives_the_metrics_of_the_predictions(classifier: Path, tmp_path: Path):
    model = use(classifier)
    found = evaluate_file(model, rows_file(tmp_path / "rows.jsonl", 40))
    answers = list(model.predict(f"{TEXTS[number % 5]} {number}" for number in range(40)))
    predicted = [LABELS.index(one["label"]) for one in answers]
    odds = np.array([list(one["probabilities"].values()) for one in answers])
    truth = [number % 3 for number in range(40)]
    wanted = classification_metrics(truth, predicted, odds, LABELS)
    assert {name: found[name] for name in wanted} == pytest.approx(wanted, rel=1e-4)
    assert found["loss"] == pytest.approx(-np.log(odds[range(40), truth]).mean(), rel=1e-4)
    assert found["rows"] == 40 and found["causal_lm.loss"] > 1


# Folders of transformers


def foreign(path: Path, tokenizer: Tokenizer | None, kind: type, **options) -> transformers.PreTrainedModel:
    config = transformers.OpenAIGPTConfig(
        vocab_size=330, n_positions=40, n_embd=32, n_layer=2, n_head=2, initializer_range=0.2, **options
    )
    torch.manual_seed(3)
    model = kind(config).eval()
    model.save_pretrained(path)
    if tokenizer is not None:
        tokenizer.save(path)
    return model


def test_a_language_model_of_transformers(tmp_path: Path, tokenizer: Tokenizer):
    reference = foreign(tmp_path, tokenizer, transformers.OpenAIGPTLMHeadModel)
    model = use(tmp_path)
    for text, (likelihood, tokens) in zip(TEXTS, model.score(TEXTS)):
        ids = model.tokens.encode([text])[0][:40].tolist()
        with torch.inference_mode():
            wanted = reference(input_ids=torch.tensor([ids]), labels=torch.tensor([ids]))
        np.testing.assert_allclose(model.logits([ids])[0], wanted.logits[0].numpy(), atol=2e-5)
        if tokens < 40:
            assert likelihood == pytest.approx(-float(wanted.loss) * tokens, rel=1e-5)
    ids = torch.tensor([model.tokens.encode(["这部"])[0].tolist()])
    end = model.tokens.role("end")
    roles = [model.tokens.role(name) for name in model.tokens.roles if name != "end"]
    said = reference.generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=8, do_sample=False, pad_token_id=0,
        eos_token_id=end, suppress_tokens=roles,
    )[0, ids.shape[1] :].tolist()  # fmt: skip
    wanted = model.tokens.decode([token for token in said if token != end])
    assert model.generate("这部", tokens=8, temperature=0) == wanted
    with pytest.raises(UserError, match="has no classes: it is a language model .*`gradus generate`"):
        model.predict(["text"])


def test_without_a_token_for_end_each_document_is_scored_alone(tmp_path: Path, tokenizer: Tokenizer):
    bare = Tokenizer(tokenizer.inner, {})
    foreign(tmp_path / "model", None, transformers.OpenAIGPTLMHeadModel)
    bare.save(tmp_path / "model")
    model = use(tmp_path / "model")
    for number in (0, 1):
        (tmp_path / f"{number}.txt").write_text(TEXTS[number], encoding="utf-8")
    found = evaluate_file(model, [str(tmp_path / "0.txt"), str(tmp_path / "1.txt")])
    nats = -sum(likelihood for likelihood, _ in model.score(TEXTS[:2]))
    assert found["bits_per_byte"] == pytest.approx(nats / math.log(2) / len("".join(TEXTS[:2]).encode()))
    with pytest.raises(UserError, match="the prompt is empty"):
        model.generate("")


def test_bf16_predicts_nearly_the_same(classifier: Path):
    exact, coarse = (list(use(classifier, precision=name).predict(TEXTS)) for name in ("fp32", "bf16"))
    for one, other in zip(exact, coarse):
        assert other["scores"] != one["scores"]
        assert other["scores"] == pytest.approx(one["scores"], abs=0.2)


def test_a_classifier_of_transformers_with_the_stage_of_a_recipe(tmp_path: Path, tokenizer: Tokenizer):
    folder = tmp_path / "model"
    names = {0: "NEGATIVE", 1: "POSITIVE"}
    options = {
        "id2label": names,
        "label2id": {name: number for number, name in names.items()},
        "pad_token_id": 0,
    }
    reference = foreign(folder, tokenizer, transformers.OpenAIGPTForSequenceClassification, **options)
    ids = [tokenizer.role("start"), *tokenizer.encode([TEXTS[0]])[0].tolist(), tokenizer.role("extract")]
    with torch.inference_mode():
        wanted = reference(input_ids=torch.tensor([ids])).logits[0].numpy()
    bare = use(folder)
    np.testing.assert_allclose(bare.logits([ids])[0], wanted, atol=1e-5)
    with pytest.raises(UserError, match="does not say how rows are read .*--recipe RECIPE --stage STAGE"):
        list(bare.predict([TEXTS[0]]))
    recipe = tmp_path / "recipe.yaml"
    data = {
        "kind": "rows",
        "train": "x.tsv",
        "format": {"kind": "single", "text": "review", "label": "label"},
    }
    stage = {"data": data, "objectives": [{"kind": "classification"}], "length": "1 epochs"}
    recipe.write_text(yaml.safe_dump({"stages": {"finetune": stage}}))
    model = use(folder, recipe=recipe, stage="finetune")
    (one,) = model.predict([{"review": TEXTS[0]}])
    assert one["scores"] == pytest.approx(dict(zip(names.values(), wanted.tolist())), abs=1e-5)
    data["labels"] = ["0", "1"]
    recipe.write_text(yaml.safe_dump({"stages": {"finetune": stage}}))
    assert use(folder, recipe=recipe, stage="finetune").labels == ("0", "1")
    data["labels"] = ["0", "1", "2"]
    recipe.write_text(yaml.safe_dump({"stages": {"finetune": stage}}))
    with pytest.raises(UserError, match="names 3 labels, the model has 2 classes"):
        use(folder, recipe=recipe, stage="finetune")
    with pytest.raises(UserError, match="did you mean 'finetune'"):
        use(folder, recipe=recipe, stage="finetun")
    with pytest.raises(UserError, match="--stage"):
        use(folder, recipe=recipe)


# Mistakes


@pytest.mark.parametrize(
    "wrong,told",
    [
        ({"top_p": 0}, "top_p: .*greater than 0: '0'"),
        ({"top_p": 1.5}, "top_p: .*less than or equal to 1: '1.5'"),
        ({"tokens": "many"}, "tokens: .*integer.*: 'many'"),
        ({"temprature": 1}, "no such setting: 'temprature' .*did you mean 'temperature'"),
        ({"beams": 3, "top_k": 5}, "beam search draws nothing: leave out top_k"),
    ],
)
def test_wrong_settings_of_generate(language: Path, wrong: dict, told: str):
    with pytest.raises(UserError, match=told):
        use(language).generate("a", **wrong)


def test_a_model_is_asked_for_what_it_was_taught(language: Path, pairs: Path, classifier: Path):
    assert isinstance(use(classifier).generate("a", tokens=2), str)
    with pytest.raises(UserError, match="not taught to predict text .*`gradus predict`"):
        use(pairs).generate("a")
    with pytest.raises(UserError, match="no single text: 'a' .*its columns are premise, hypothesis"):
        list(use(pairs).predict(["a"]))
    with pytest.raises(UserError, match="rows:1: there is no such column: 'hypothesis' .*one of premise"):
        list(use(pairs).predict([{"premise": "a"}]))
    with pytest.raises(UserError, match="it is a language model"):
        predict_file(use(language), "rows.tsv", "-")
    for ids in ([], [1] * (CONTEXT + 1), [400], [-1], ["a"], [1.5], [[1], [2, 3]]):
        with pytest.raises(UserError, match="sequence 1"):
            use(language).logits([[1], ids])


def test_paths_that_are_wrong(classifier: Path, language: Path, tmp_path: Path):
    model = use(classifier)
    with pytest.raises(UserError, match="no such file: .*nowhere.tsv"):
        predict_file(model, tmp_path / "nowhere.tsv", "-")
    source = rows_file(tmp_path / "rows.jsonl", 2)
    with pytest.raises(UserError, match="output: this is a folder"):
        predict_file(model, source, tmp_path)
    with pytest.raises(UserError, match="output: cannot be written"):
        predict_file(model, source, source / "below.jsonl")
    for one in (model, use(language)):
        for data in ("nowhere.tsv", "10 %", "nothing*.txt"):
            with pytest.raises(UserError, match="^data: no "):
                evaluate_file(one, data)
    with pytest.raises(UserError, match="did you mean 'test'"):
        evaluate_file(model, source, split="tests")
    with pytest.raises(UserError, match="rows.jsonl:1: there is no such column: 'label'"):
        evaluate_file(model, rows_file(tmp_path / "rows.jsonl", 2, labelled=False))


def test_folders_that_are_wrong(classifier: Path, tokenizer: Tokenizer, tmp_path: Path):
    with pytest.raises(UserError, match="this is no model folder"):
        use(tmp_path)
    with pytest.raises(
        UserError, match="precision: there is no such precision: 'fp23' .*did you mean 'fp32'"
    ):
        use(classifier, precision="fp23")
    with pytest.raises(UserError, match="there is no such device: 'gpu'"):
        load(classifier, device="gpu")
    for change, told in (
        ({"format_version": 9}, "gradus.json: format_version: .*newer Gradus"),
        ({"objectives": [{"kind": "guessing"}]}, "gradus.json: 0: .*guessing"),
        ({"stage": "other"}, "lack a head that gradus.json names"),
        ({"reader": {"reader": "tvs"}}, "gradus.json: reader.reader: "),
        ({"objectives": None}, "gradus.json: .*valid list"),
    ):
        broken = tmp_path / "broken"
        shutil.copytree(classifier, broken)
        (broken / "MANIFEST.json").unlink()
        card = {**read_json(broken / "gradus.json"), **change}
        write_json(broken / "gradus.json", card)
        with pytest.raises(UserError, match=told):
            use(broken)
        del card["objectives"]
        write_json(broken / "gradus.json", {**card, "format_version": 1})
        with pytest.raises(UserError, match="gradus.json: objectives: this key is missing"):
            use(broken)
        shutil.rmtree(broken)
    bare = tmp_path / "bare"
    foreign(bare, None, transformers.OpenAIGPTLMHeadModel)
    assert use(bare).logits([[1, 2]])[0].shape == (2, 330)
    with pytest.raises(UserError, match="there is no tokenizer"):
        use(bare).generate("a")
    tokenizer.with_roles(["sentinel 0"]).save(bare)
    with pytest.raises(UserError, match="331 tokens, the model's embedding 330 rows"):
        use(bare).generate("a")


# The whole way, and the package's surface


def test_a_stage_s_model_is_evaluated_as_its_training_did(tmp_path: Path):
    recipe = tmp_path / "tiny.yaml"
    recipe.write_text(
        """
tokenizer: {kind: bpe, vocab_size: 320}
model: {layers: 1, width: 16, heads: 2, context: 64}
stages:
  pretrain:
    data: {kind: text, train: "builtin:tiny", dev: "builtin:tiny"}
    objectives: [{kind: causal_lm}]
    batch: 4 windows
    length: 2 steps
  finetune:
    from: pretrain
    data:
      kind: rows
      train: builtin:tiny
      test: builtin:tiny
      format: {kind: single, text: text, label: label}
    objectives: [{kind: classification}, {kind: causal_lm, weight: 0.5}]
    batch: 8 rows
    length: 2 steps
""",
        encoding="utf-8",
    )
    folder = gradus.run(recipe, runs=tmp_path / "runs", device="cpu")
    for stage, split in (("pretrain", "dev"), ("finetune", "test")):
        (home,) = (folder / "stages").glob(f"{stage}-*")
        found = use(home / "model", precision="auto").evaluate("builtin:tiny", split)
        results = read_json(home / "stage.json")["results"][split]
        assert {name: found[name] for name in results} == pytest.approx(results, rel=1e-6)


def test_the_package_is_light_until_it_is_used():
    code = "import sys, gradus; print(sorted({'torch', 'numpy', 'pydantic'} & set(sys.modules)), dir(gradus))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.startswith("[] ") and all(name in said for name in ("'Recipe'", "'check'", "'load'", "'run'"))
    assert gradus.load is load
    with pytest.raises(AttributeError, match="has no attribute 'lod'"):
        gradus.lod  # noqa: B018
