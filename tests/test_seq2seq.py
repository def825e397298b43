"""Text to text: what rows become for each arrangement, how answers are judged, and recipes from raw text to
an encoder-decoder that answers."""

from __future__ import annotations

import json
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_objectives import shape
from tiny import killed_and_whole, tiny

from gradus.core.errors import UserError
from gradus.core.example import Example
from gradus.core.model import ModelConfig
from gradus.data.builtin import builtin_rows
from gradus.data.formats import Pair, TextToText
from gradus.data.labels import Labels
from gradus.data.readers import Row
from gradus.data.text_to_text import TextToTextEncoder, row_encoder
from gradus.distributed.world import World
from gradus.evaluation.answering import answer_nats, greedy_matches
from gradus.nn.transformer import Transformer
from gradus.objectives import Seq2SeqConfig, Task
from gradus.objectives.base import extracts
from gradus.pipeline.check import check
from gradus.pipeline.models.serving import load, predict_file
from gradus.pipeline.recipes.stages import Stage
from gradus.pipeline.run import run
from gradus.pipeline.worked.objectives import Words
from gradus.tokenizers import CharacterTokenizer, Tokenizer
from gradus.training.learner import Learner

ROWS = [
    Row(0, {"text": "这本书很好看", "label": "1", "summary": "好"}, "rows", 1),
    Row(1, {"text": "dull and far too long", "label": "0", "summary": "too long"}, "rows", 2),
]
WORDS = {"0": "negative", "1": "positive"}
TO_WORDS = TextToText(source="opinion: {text}", label="label", answers=WORDS)
TO_TEXT = TextToText(source="{text} =>", target="{summary}")


def tokens() -> Tokenizer:
    texts = [text for form in (TO_WORDS, TO_TEXT) for row in ROWS for text in form.corpus(row)]
    return CharacterTokenizer(kind="char").build(iter(texts))


def encoder(
    form: TextToText, arrangement: str, context: int = 48, long: Any = "truncate"
) -> TextToTextEncoder:
    made = tokens()
    model = ModelConfig(
        layers=1, width=16, heads=2, context=context, vocab_size=made.size, dropout=0.0,
        arrangement=arrangement, initial_deviation=0.3,
    )  # fmt: skip
    found = row_encoder(form, made, model, None, long)
    assert isinstance(found, TextToTextEncoder)
    return found


def shown(form: TextToText, arrangement: str, **options: Any) -> list[tuple[str, ...]]:
    made = encoder(form, arrangement, **options)
    tokenizer = made.tokenizer
    assert isinstance(tokenizer, Tokenizer)
    return [
        tuple(tokenizer.decode(one) for one in (*row.sequences, *row.decoded)) for row in made.encode(ROWS)
    ]


def test_what_rows_become() -> None:
    assert shown(TO_WORDS, "encoder_decoder") == [
        ("opinion: 这本书很好看<|end|>", "<|start|>positive<|end|>"),
        ("opinion: dull and far too long<|end|>", "<|start|>negative<|end|>"),
    ]
    assert shown(TO_TEXT, "decoder") == [
        ("<|start|>这本书很好看 =><|delimiter|>好<|end|>",),
        ("<|start|>dull and far too long =><|delimiter|>too long<|end|>",),
    ]
    assert [row.label for row in encoder(TO_WORDS, "decoder").encode(ROWS)] == [1, 0]


def test_what_is_too_long_is_cut_and_counted_or_told() -> None:
    cut = encoder(TO_TEXT, "encoder_decoder", context=6)
    assert [row.truncated for row in cut.encode(ROWS)] == [4, 19 + 3]
    assert shown(TO_TEXT, "encoder_decoder", context=6)[1] == ("dull <|end|>", "<|start|>too l<|end|>")
    assert shown(TO_TEXT, "decoder", context=14)[1] == ("<|start|>dul<|delimiter|>too long<|end|>",)
    assert shown(TO_TEXT, "decoder", context=8)[1] == ("<|start|>d<|delimiter|>too <|end|>",)
    with pytest.raises(UserError, match="rows:2: summary: the target has 8 tokens, the context holds 7"):
        long = TextToText(source="{label}", target="{summary}")
        encoder(long, "encoder_decoder", context=8, long="error").encode(ROWS)
    with pytest.raises(UserError, match="rows:1: text: the source has 9 tokens, the context holds 7"):
        encoder(TO_TEXT, "encoder_decoder", context=8, long="error").encode(ROWS)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"source": "no column", "target": "{a}"}, "names no column"),
        ({"source": "{a}", "target": "none"}, "names no column"),
        ({"source": "{a", "target": "{b}"}, "in braces"),
        ({"source": "{a}"}, "one text to say"),
        ({"source": "{a}", "label": "b"}, "goes with"),
        ({"source": "{a}", "answers": WORDS}, "goes with"),
        ({"source": "{a}", "target": "{b}", "label": "b", "answers": WORDS}, "one text to say"),
        ({"source": "{a}", "label": "b", "answers": {"0": "same", "1": " same"}}, "the same word"),
        ({"source": "{a}", "label": "b", "answers": {"0": "same"}}, "at least 2"),
        ({"source": "{a} {b}", "label": "b", "answers": WORDS}, "one of the texts"),
    ],
)
def test_formats_that_make_no_sense_are_refused(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        TextToText(**fields)


def test_rows_that_do_not_fit_are_told_with_their_place() -> None:
    for form, row, words in (
        (TO_WORDS, {"text": "a", "label": "2"}, "rows:7: label: `answers` has no word for this class: '2'"),
        (TO_WORDS, {"text": " ", "label": "1"}, "rows:7: text: the text is empty"),
        (TO_TEXT, {"text": "a", "summary": ""}, "rows:7: summary: the text is empty"),
        (TO_TEXT, {"text": "a"}, "rows:7: there is no such column: 'summary'"),
    ):
        with pytest.raises(UserError) as mistake:
            encoder(form, "decoder").encode([Row(0, row, "rows", 7)])
        assert words in str(mistake.value)


@pytest.mark.parametrize("arrangement", ["decoder", "encoder_decoder"])
def test_exact_match_is_what_greedy_decoding_says(arrangement: str) -> None:
    """Decoded a token at a time by the plainest loop, before and after the rows are learnt by heart."""
    made = encoder(TO_WORDS, arrangement)
    objective = Seq2SeqConfig().build(Task(made.model, "toy", vocabulary=made.tokenizer))
    learner = Learner(Transformer(made.model), [objective]).initialise(3)
    examples = made.encode(ROWS)
    optimizer = torch.optim.Adam(learner.parameters(), 1e-2)
    seen = []
    for step in range(60):
        if step % 4 == 0:
            learner.eval()
            found = greedy_matches(learner.transformer, objective, examples, World(), 64).tolist()
            assert found == [greedy(learner.transformer, row, made) for row in examples]
            seen.append(tuple(found))
        learner.train()
        optimizer.zero_grad()
        (learner(learner.prepare(examples)).sum() / 18).backward()
        optimizer.step()
    assert seen[0] == (False, False) and seen[-1] == (True, True)
    nats = answer_nats(learner.transformer, objective, made.candidates(ROWS), 2, World(), 30)
    assert nats.shape == (2, 2) and nats.argmin(1).tolist() == [1, 0]
    alone = answer_nats(learner.transformer, objective, made.candidates(ROWS)[2:3], 1, World(), 30)
    assert float(alone[0, 0]) == pytest.approx(float(nats[1, 0]), abs=1e-4)


def greedy(transformer: Transformer, row: Example, made: TextToTextEncoder) -> bool:
    end, delimiter = made.tokenizer.role("end"), made.tokenizer.role("delimiter")
    whole = (row.decoded or row.sequences)[0].tolist()
    first = 1 if row.decoded else whole.index(delimiter) + 1
    said = whole[:first]
    with torch.no_grad():
        while len(said) < len(whole) and (len(said) == first or said[-1] != end):
            step = np.array([*said, 0])
            one = Example(0, row.sequences, decoded=(step,)) if row.decoded else Example(0, (step[:-1],))
            batch = Learner(transformer, []).prepare([one])
            states = transformer(batch.source, batch.decoded)[len(said) - 1]
            said.append(int(transformer.logits(states[None])[0].argmax()))
    return said == whole


BOTH = {"model": {"preset": "gpt1-tiny", "layers": 1, "width": 16, "heads": 2, "context": 32,
                  "arrangement": "encoder_decoder"}}  # fmt: skip
FORMAT = {"kind": "text_to_text", "source": "opinion: {text}", "label": "label",
          "answers": {"negative": "bad", "positive": "good"}}  # fmt: skip


def recipe(path: Path, objective: dict[str, Any], patch: dict[str, Any] | None = None) -> Path:
    changes = {
        **BOTH,
        "stages.pretrain.objectives": [objective],
        "stages.finetune.objectives": [{"kind": "seq2seq", "label_smoothing": 0.1}],
        "stages.finetune.data.format": FORMAT,
    }
    return tiny(path, deepcopy(changes | (patch or {})))


def records(folder: Path) -> dict[str, dict[str, Any]]:
    found = {}
    for place in (folder / "stages").iterdir():
        record = json.loads((place / "stage.json").read_text())
        found[record["stage"]] = record
    return found


@pytest.mark.parametrize(
    "objective",
    [
        {"kind": "span_corruption", "sentinels": 10},
        {"kind": "denoising"},
        {"kind": "denoising", "noises": ["token_masking", "token_deletion", "document_rotation"]},
        {"kind": "prefix_lm"},
    ],
    ids=lambda objective: "-".join([objective["kind"], *objective.get("noises", [])[:1]]),
)
def test_from_raw_text_to_answers(objective: dict[str, Any], tmp_path: Path) -> None:
    path = recipe(tmp_path / "both.yaml", objective)
    found = records(run(path, runs=tmp_path / "runs", device="cpu"))
    dev = found["pretrain"]["results"]["dev"]
    assert set(dev) == {"loss", "perplexity"} and found["pretrain"]["training"]["metric"] == "loss"
    answers = found["finetune"]["results"]["dev"]
    assert set(answers) == {"loss", "perplexity", "exact_match", "accuracy"}
    assert 0 <= answers["exact_match"] <= 1 and 0 < answers["accuracy"] <= 1
    assert found["finetune"]["training"]["metric"] == "accuracy"
    assert set(found["finetune"]["floors"]["dev"]) == {"majority", "naive_bayes"}


@pytest.mark.parametrize("family", ["gpt1", "bart"])
def test_what_is_generated_is_what_exact_match_counts(family: str, tmp_path: Path) -> None:
    """The folder's greedy answers, text in and text out, against the targets of dev."""
    shape = {**BOTH["model"], "family": family, "context": 160}
    if family == "bart":
        shape |= {
            "position_offset": 2,
            "embedding_norm": True,
            "activation": "gelu",
            "source_start": True,
            "delimiters": 2,
        }
    steps = {"gpt1": "60 steps", "bart": "150 steps"}[family]
    patch = {"model": shape, "stages.finetune.length": steps, "stages.finetune.optimizer.lr": 1e-2,
             "stages.finetune.evaluate": {"every": steps}}  # fmt: skip
    folder = run(recipe(tmp_path / "both.yaml", {"kind": "denoising"}, patch), runs=tmp_path, device="cpu")
    record = records(folder)["finetune"]
    model = load(folder / "stages" / record["id"] / "model", device="cpu")
    dev = builtin_rows("tiny", "dev")
    said = [model.generate(f"opinion: {row.fields['text']}", temperature=0, tokens=12) for row in dev]
    wanted = [FORMAT["answers"][row.fields["label"]] for row in dev]
    right = np.mean([one == other for one, other in zip(said, wanted)])
    assert right > 0.4
    assert right == pytest.approx(record["results"]["dev"]["exact_match"])
    # In `predict` the likeliest of the words names the class, as in the stage's accuracy.
    named = list(model.predict([{"text": row.fields["text"]} for row in dev]))
    hits = np.mean([one["label"] == row.fields["label"] for one, row in zip(named, dev)])
    assert hits == pytest.approx(record["results"]["dev"]["accuracy"])
    assert all(sum(one["probabilities"].values()) == pytest.approx(1) for one in named)


@pytest.mark.parametrize("arrangement", ["decoder", "encoder_decoder"])
def test_rows_without_named_answers_are_answered_by_a_text(arrangement: str, tmp_path: Path) -> None:
    """Through the command: a row a line, in order, whatever stands in the columns that are to be said."""
    form = {"kind": "text_to_text", "source": "{text}", "target": "{label}"}
    patch = {"model": {**BOTH["model"], "arrangement": arrangement, "context": 160},
             "stages.finetune.data.format": form, "stages.finetune.precision": "fp32",
             "stages.finetune.length": "150 steps", "stages.finetune.optimizer.lr": 1e-2,
             "stages.finetune.evaluate": {"every": "150 steps"}}  # fmt: skip
    objective = {"kind": "denoising" if arrangement == "encoder_decoder" else "prefix_lm"}
    folder = run(recipe(tmp_path / "both.yaml", objective, patch), runs=tmp_path, device="cpu")
    record = records(folder)["finetune"]
    model = load(folder / "stages" / record["id"] / "model", device="cpu")
    dev = builtin_rows("tiny", "dev")
    rows = "".join(json.dumps({"text": row.fields["text"]}, ensure_ascii=False) + "\n" for row in dev)
    (tmp_path / "rows.jsonl").write_text(rows, encoding="utf-8")
    counts = predict_file(model, tmp_path / "rows.jsonl", tmp_path / "said.jsonl", reader="jsonl")
    lines = [json.loads(line) for line in (tmp_path / "said.jsonl").read_text("utf-8").splitlines()]
    assert counts["rows"] == len(lines) and [line["row"] for line in lines] == list(range(len(dev)))
    assert all(set(line) == {"row", "file", "line", "text", "truncated"} for line in lines)
    right = np.mean([line["text"] == row.fields["label"] for line, row in zip(lines, dev)])
    assert right == pytest.approx(record["results"]["dev"]["exact_match"]) and right > 0.3


def test_a_prefix_language_model_and_answers_in_a_decoder(tmp_path: Path) -> None:
    decoder = {"model": {**BOTH["model"], "arrangement": "decoder"}}
    path = recipe(tmp_path / "one.yaml", {"kind": "prefix_lm"}, decoder)
    found = records(run(path, runs=tmp_path / "runs", device="cpu"))
    assert set(found["pretrain"]["results"]["dev"]) == {"loss", "perplexity"}
    assert set(found["finetune"]["results"]["dev"]) == {"loss", "perplexity", "exact_match", "accuracy"}
    for name in found:
        (folder,) = (tmp_path / "runs").glob(f"one/stages/{name}-*")
        model = load(folder / "model")
        with pytest.raises(UserError, match="not taught to predict every token"):
            model.score(["这本书很好看"])
    encoding = model.tokenizer.encode("好", "看")
    assert [encoding.tokens[0], encoding.tokens[-1]] == ["<|start|>", "<|end|>"]
    assert model.tokenizer.encode("好").tokens[-1] == "<|delimiter|>"


def test_answers_that_are_only_modelled_are_judged_by_their_loss() -> None:
    data = {"kind": "rows", "train": "a", "dev": "b", "format": TO_WORDS.plain()}
    for kind, metric in (("causal_lm", "loss"), ("seq2seq", "accuracy")):
        stage = Stage(data=data, objectives=[{"kind": kind}], length="1 epoch")
        assert stage.metric == metric


def test_a_killed_pre_training_goes_on_to_the_same_bits(tmp_path: Path, monkeypatch: Any) -> None:
    path = recipe(
        tmp_path / "both.yaml", {"kind": "span_corruption", "sentinels": 10},
        {"stages.pretrain.save": {"every": "3 steps"}},
    )  # fmt: skip
    killed_and_whole(path, "pretrain", monkeypatch)


@pytest.mark.parametrize(
    ("patch", "words"),
    [
        ({"stages.pretrain.objectives": [{"kind": "causal_lm"}]},
         r"stages.pretrain.objectives: an encoder-decoder cannot learn this: 'causal_lm' "
         r"\(on text an encoder-decoder can have prefix_lm, span_corruption, denoising\)"),
        ({"model.arrangement": "decoder"},
         r"pretrain.objectives: a decoder cannot learn this: 'span_corruption'.*causal_lm, prefix_lm"),
        ({"model.arrangement": "encoder", "stages.pretrain.objectives": [{"kind": "causal_lm"}]},
         r"pretrain.objectives: an encoder cannot learn this: 'causal_lm'"),
        ({"stages.pretrain.objectives": [{"kind": "span_corruption", "sentinels": 1}]},
         "stages.pretrain.objectives.sentinels: a full window has 2 spans"),
        ({"model.context": 4}, "model.context: a context of 4 tokens is too short for spans of 3"),
        ({"stages.pretrain.objectives": [{"kind": "denoising"}, {"kind": "span_corruption"}]},
         "denoising and span_corruption cannot change the same text"),
        ({"stages.pretrain.objectives": [{"kind": "seq2seq"}]}, "seq2seq needs data of kind rows"),
        ({"stages.finetune.objectives": [{"kind": "denoising"}]}, "denoising needs data of kind text"),
        ({"stages.finetune.objectives": [{"kind": "classification"}]},
         "classification does not fit rows of the format text_to_text"),
        ({"stages.finetune.data.format": {"kind": "single", "text": "text"}},
         "seq2seq does not fit rows of the format single"),
        ({"stages.finetune.data.format": {"kind": "single", "text": "text", "label": "label"},
          "stages.finetune.objectives": [{"kind": "seq2seq"}, {"kind": "classification"}]},
         "seq2seq does not fit rows of the format single"),
        ({"stages.finetune.stop": {"metric": "macro_f1"}}, "reports no such metric.*accuracy.*exact_match"),
        ({"stages.pretrain.stop": {"metric": "bits_per_byte"}}, "reports no such metric.*loss, perplexity"),
        ({"stages.finetune.data.format": {**FORMAT, "answers": {"negative": "bad", "positive": "bad"}}},
         "two classes have the same word"),
        ({"stages.finetune.data.long": "error"}, "tokens, the context holds 31"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_by_check(patch: dict[str, Any], words: str, tmp_path: Path) -> None:
    path = recipe(tmp_path / "both.yaml", {"kind": "span_corruption", "sentinels": 10}, patch)
    with pytest.raises(UserError, match=words):
        check(path, runs=tmp_path / "runs", device="cpu")


def test_windows_too_short_for_a_span_are_told(tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("a\n\nbb cc dd ee ff gg hh ii jj kk ll\n\n", encoding="utf-8")
    data = {
        "kind": "text",
        "train": str(tmp_path / "lines.txt"),
        "documents": "blank line",
        "windows": "document",
    }
    patch = {"stages.pretrain.data": data, "tokenizer": {"kind": "char"}}
    path = recipe(tmp_path / "both.yaml", {"kind": "span_corruption", "sentinels": 10}, patch)
    checks = check(path, runs=tmp_path / "runs", device="cpu")
    assert any("1 window too short for the objective" in note for note in checks.notes)
    (tmp_path / "lines.txt").write_text("a\n", encoding="utf-8")
    with pytest.raises(UserError, match="longest window of the text has 1 token.*needs 2"):
        check(path, runs=tmp_path / "runs", device="cpu")


def test_a_context_of_an_objective_alone() -> None:
    """What is asked of the model's shape is asked without a tokenizer."""
    assert Seq2SeqConfig().window(shape("encoder_decoder")) == 48


@pytest.mark.parametrize("family", ["bart", "t5"])
def test_a_class_beside_an_encoder_is_read_from_a_decoder_that_sees_the_row(family: str) -> None:
    """As in Hugging Face: the decoder reads the row one place later, and its last state tells the class."""
    changes = {"delimiters": 2, "source_start": True} if family == "bart" else {}
    model = ModelConfig.model_validate({"arrangement": "encoder_decoder", "context": 32} | changes)
    form = Pair(kind="pair", first="a", second="b", label="label")
    words = Words()
    rows = [Row(0, {"a": "it rains", "b": "水落", "label": "yes"}, "rows", 1)]
    (row,) = row_encoder(form, words, model, Labels(("no", "yes")), "error").encode(rows)
    between = ["<delimiter>"] * (2 if family == "bart" else 1)
    read = ["<start>"] * (family == "bart") + ["it", "rains", *between, "水", "落", "<end>"]
    assert [words.names[token] for token in row.sequences[0]] == read
    opening = "<end>" if family == "bart" else "<start>"
    assert [words.names[token] for token in row.decoded[0]] == [opening, *read]
    assert extracts(row, model).tolist() == [len(read) - 1]
