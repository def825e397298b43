"""`gradus convert`: OpenAI's files in, the same logits and text as transformers out; bad files are told.

The weights are made up, in the very format of the release; see `made_up_release`.
"""

from __future__ import annotations

import json
import math
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from made_up_release import TEXT, shapes, vocabulary, write_release, write_vocabulary, write_weights
from typer.testing import CliRunner

import gradus
from gradus.cli import app
from gradus.core import libraries
from gradus.core.errors import UserError
from gradus.core.storage import is_whole
from gradus.families.folder import read_folder
from gradus.families.release import SHAPES, SHARDS, read_config, read_weights
from gradus.nn.transformer import count_parameters
from gradus.pipeline.models.converting import convert
from gradus.pipeline.run import run
from gradus.tokenizers import Tokenizer, standard
from gradus.tokenizers.release import ENCODER, MERGES

transformers = pytest.importorskip("transformers")

TOKENS = len(vocabulary()[0])
MODEL = {"vocab_size": TOKENS, "n_positions": 24, "n_embd": 64, "n_layer": 2, "n_head": 1}
PROMPTS = ["The cat sat", "it was the best", "中文 the dog"]


@pytest.fixture(scope="module")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("发布") / "model"
    write_release(path)
    return path


@pytest.fixture(scope="module")
def converted(release: Path) -> Path:
    convert(release, release.parent / "gradus")
    return release.parent / "gradus"


def reference(arrays: list[np.ndarray]) -> Any:
    """transformers' language model with the arrays in its own places: a Conv1D keeps [in, out]."""
    made = transformers.OpenAIGPTLMHeadModel(transformers.OpenAIGPTConfig(**MODEL))
    state = {"positions_embed.weight": arrays[0], "tokens_embed.weight": arrays[1]}
    places = ["attn.c_attn.weight", "attn.c_attn.bias", "attn.c_proj.weight", "attn.c_proj.bias",
              "ln_1.weight", "ln_1.bias", "mlp.c_fc.weight", "mlp.c_fc.bias",
              "mlp.c_proj.weight", "mlp.c_proj.bias", "ln_2.weight", "ln_2.bias"]  # fmt: skip
    for number, array in enumerate(arrays[2:]):
        layer, place = divmod(number, 12)
        state[f"h.{layer}.{places[place]}"] = array[0] if array.ndim == 3 else array
    loaded = made.transformer.load_state_dict({key: torch.from_numpy(part) for key, part in state.items()})
    assert not loaded.missing_keys and not loaded.unexpected_keys
    made.tie_weights()
    return made.eval()


def test_the_logits_are_those_of_transformers(tmp_path: Path, converted: Path) -> None:
    theirs = reference(write_release(tmp_path / "release"))
    loaded = transformers.AutoModelForCausalLM.from_pretrained(converted).eval()
    ours = gradus.load(converted, device="cpu")
    random = np.random.default_rng(3)
    for length in (1, 7, 24):
        ids = random.integers(0, TOKENS, length)
        found = ours.logits([ids.tolist()])[0]
        with torch.no_grad():
            expected = theirs(torch.from_numpy(ids)[None]).logits[0].numpy()
            again = loaded(torch.from_numpy(ids)[None]).logits[0].numpy()
        assert np.abs(found - expected).max() < 1e-5 and np.abs(again - expected).max() < 1e-5
    text = "the cat sat on the mat ."
    tokens = torch.from_numpy(ours.tokens.encode([text])[0].astype(np.int64))[None]
    with torch.no_grad():
        loss = theirs(tokens, labels=tokens).loss.item()
    likelihood, predicted = ours.score([text])[0]
    assert predicted == tokens.numel() - 1 <= 23 and -likelihood / predicted == pytest.approx(loss, abs=1e-5)


def test_what_it_writes(release: Path, converted: Path) -> None:
    names = {path.name for path in converted.iterdir()}
    assert names == {
        "config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", "gradus.json",
        "MANIFEST.json",
    }  # fmt: skip
    assert is_whole(converted)
    folder = read_folder(converted)
    assert folder.config == read_config(release) and folder.task is None and folder.labels is None
    assert folder.config.plain() | {"layers": 2, "width": 64, "heads": 1, "context": 24, "vocab_size": TOKENS,
                                    "norm": "after", "activation": "gelu_tanh", "tie_embeddings": True,
                                    "feed_forward": None} == folder.config.plain()  # fmt: skip
    assert all(torch.equal(folder.tensors[name], part) for name, part in read_weights(release).items())
    assert Tokenizer.load(converted).size == TOKENS and folder.card is not None
    assert folder.card["converted_from"] == "OpenAI's release"


def test_greedy_text_is_that_of_transformers(converted: Path) -> None:
    theirs = transformers.AutoModelForCausalLM.from_pretrained(converted).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(converted)
    for prompt in PROMPTS:
        ids = tokenizer(prompt, return_tensors="pt")["input_ids"]
        said = theirs.generate(ids, max_new_tokens=8, do_sample=False, pad_token_id=0, eos_token_id=-1)[0]
        assert 0 not in said[ids.shape[1] :], "an unknown token is never said here; choose another seed"
        result = CliRunner().invoke(
            app, ["generate", str(converted), "--prompt", prompt, "--temperature", "0", "--tokens", "8",
                  "--device", "cpu"],
        )  # fmt: skip
        assert result.exit_code == 0, result.output
        expected = tokenizer.decode(said)
        assert result.output.rstrip("\n") == prompt + expected[len(tokenizer.decode(ids[0])) :].rstrip()


def recipe(path: Path, folder: Path, changes: str = "") -> Path:
    path.write_text(
        "stages:\n"
        "  finetune:\n"
        f"    from: {{folder: {folder}}}\n"
        "    data:\n"
        '      {kind: rows, train: "builtin:tiny", dev: "builtin:tiny",\n'
        "      format: {kind: single, text: text, label: label}}\n"
        "    objectives: [{kind: classification}, {kind: causal_lm, weight: 0.5}]\n"
        "    length: 1 steps\n"
        "    optimizer: {kind: adamw, lr: 1e-9}\n",
        encoding="utf-8",
    )
    return path


def test_special_tokens_extend_the_embedding(converted: Path, tmp_path: Path) -> None:
    """As in the released code: N(0, 0.02) behind the vocabulary, all else as it was (train.py)."""
    done = run(recipe(tmp_path / "a.yaml", converted), runs=tmp_path / "runs", device="cpu")
    stage = next((done / "stages").iterdir())
    table = {moved["tensor"]: moved for moved in json.loads((stage / "stage.json").read_text())["transfer"]}
    resized = table.pop("transformer.embedding.tokens.weight")
    assert resized["what"] == "resized" and resized["shape"] == [TOKENS + 3, 64] and "3 new" in resized["why"]
    assert {moved["what"] for moved in table.values()} == {"loaded", "new"}
    tokenizer = Tokenizer.load(stage / "model")
    assert [tokenizer.role(name) for name in ("start", "delimiter", "extract")] == [
        TOKENS, TOKENS + 1, TOKENS + 2,
    ]  # fmt: skip
    before = read_folder(converted).tensors["embedding.tokens.weight"]
    after = read_folder(stage / "model").tensors["embedding.tokens.weight"]
    assert torch.allclose(after[:TOKENS], before, atol=1e-6)
    assert 0.015 < float(after[TOKENS:].std()) < 0.025
    theirs = transformers.AutoModelForSequenceClassification.from_pretrained(stage / "model").eval()
    words = transformers.AutoTokenizer.from_pretrained(stage / "model")
    texts = ["a good day", "The cat; 中文 and more."]
    encoded = words(texts, padding=True, truncation=True, max_length=24, return_tensors="pt")
    with torch.no_grad():
        expected = theirs(**encoded).logits.numpy()
    for found, wanted in zip(gradus.load(stage / "model", device="cpu").predict(texts), expected):
        assert np.abs(np.array(list(found["scores"].values())) - wanted).max() < 1e-4


def test_a_recipe_names_the_tokenizer_alone(release: Path, tmp_path: Path) -> None:
    path = tmp_path / "text.yaml"
    path.write_text(
        f"tokenizer: {{kind: gpt1, path: {release}}}\n"
        "model: {preset: gpt1-tiny, layers: 1, width: 16, heads: 2, context: 32}\n"
        "stages:\n"
        "  pretrain:\n"
        '    data: {kind: text, train: "builtin:tiny", dev: "builtin:tiny"}\n'
        "    objectives: [{kind: causal_lm}]\n"
        "    length: 2 steps\n",
        encoding="utf-8",
    )
    done = run(path, runs=tmp_path / "runs", device="cpu")
    saved = Tokenizer.load(next((done / "stages").iterdir()) / "model")
    assert saved.role("end") == TOKENS + 3 and saved.role("extract") == TOKENS + 2


# Hugging Face's folders


def hugging_face(path: Path, name: str, **more: Any) -> Any:
    torch.manual_seed(2)
    made = getattr(transformers, name)(transformers.OpenAIGPTConfig(**MODEL, **more)).eval()
    made.save_pretrained(path)
    tokens, merges = vocabulary()
    transformers.OpenAIGPTTokenizer(vocab=tokens, merges=merges).save_pretrained(path)
    return made


@pytest.mark.parametrize("files", ["tokenizer.json", "vocab.json"])
def test_a_hugging_face_folder(tmp_path: Path, files: str) -> None:
    theirs = hugging_face(tmp_path / "hub", "OpenAIGPTLMHeadModel")
    if files == "vocab.json":
        (tmp_path / "hub/tokenizer.json").unlink()
        write_vocabulary(tmp_path / "hub", ("vocab.json", "merges.txt"))
    said = convert(tmp_path / "hub", tmp_path / "ours")
    assert "a Hugging Face folder: 2 layers, 64 wide" in said and "taught causal_lm" in said
    ours = gradus.load(tmp_path / "ours", device="cpu")
    tokens, merges = vocabulary()
    words = transformers.OpenAIGPTTokenizer(vocab=tokens, merges=merges)
    ids = words(TEXT)["input_ids"][:24]
    assert ours.tokens.encode([TEXT])[0].tolist()[:24] == ids
    with torch.no_grad():
        expected = theirs(torch.tensor([ids])).logits[0].numpy()
    assert np.abs(ours.logits([ids])[0] - expected).max() < 1e-5


@pytest.mark.parametrize(("labels", "task"), [(3, "classes"), (1, "number")])
def test_a_classifier_of_hugging_face(tmp_path: Path, labels: int, task: str) -> None:
    theirs = hugging_face(tmp_path / "hub", "OpenAIGPTForSequenceClassification", num_labels=labels)
    convert(tmp_path / "hub", tmp_path / "ours")
    folder = read_folder(tmp_path / "ours")
    assert folder.task == task and folder.labels == (
        [f"LABEL_{index}" for index in range(3)] if labels == 3 else None
    )
    ids = [5, 9, 3, 17]
    with torch.no_grad():
        expected = theirs(torch.tensor([ids])).logits[0].numpy()
    found = gradus.load(tmp_path / "ours", device="cpu").logits([ids])[0]
    assert np.abs(found - expected).max() < 1e-5


def test_the_head_of_a_classifier_goes_on_where_the_labels_are_the_same(tmp_path: Path) -> None:
    hugging_face(tmp_path / "hub", "OpenAIGPTForSequenceClassification", id2label={0: "bad", 1: "good"})
    convert(tmp_path / "hub", tmp_path / "ours")
    (tmp_path / "rows.tsv").write_text("text\tlabel\n" + "the ship\tgood\nthe sea\tbad\n" * 8)
    for labels, what in ({}, "loaded"), ({"map": {"label": {"bad": "poor"}}}, "new"):
        form = {"kind": "single", "text": "text", "label": "label"}
        data = {"kind": "rows", "train": str(tmp_path / "rows.tsv"), "format": form, **labels}
        stage = {
            "from": {"folder": str(tmp_path / "ours")},
            "data": data,
            "objectives": [{"kind": "classification"}],
        }
        recipe = {"seed": 1, "stages": {"more": {**stage, "length": "1 step"}}}
        (tmp_path / f"{what}.yaml").write_text(yaml.safe_dump(recipe))
        run = gradus.run(tmp_path / f"{what}.yaml", runs=tmp_path / "runs")
        (record,) = run.glob("stages/*/stage.json")
        moved = {one["tensor"]: one["what"] for one in json.loads(record.read_text())["transfer"]}
        assert moved["heads.more.score.weight"] == what


def test_a_pickle_is_refused_with_the_way_out(tmp_path: Path) -> None:
    hugging_face(tmp_path / "hub", "OpenAIGPTLMHeadModel")
    (tmp_path / "hub/model.safetensors").rename(tmp_path / "hub/pytorch_model.bin")
    with pytest.raises(UserError, match="pickled weights are never opened.*save_pretrained"):
        convert(tmp_path / "hub", tmp_path / "ours")
    assert not (tmp_path / "ours").exists()


def test_what_is_no_source_and_no_target(release: Path, converted: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no model that can be converted.*params_shapes.json.*config.json"):
        convert(tmp_path / "nowhere", tmp_path / "new")
    with pytest.raises(UserError, match="folder of Gradus already"):
        convert(converted, tmp_path / "new")
    (tmp_path / "file").write_text("")
    for taken in (converted, tmp_path, tmp_path / "file"):
        with pytest.raises(UserError, match="the target is there already"):
            convert(release, taken)
    with pytest.raises(UserError, match="--pre-tokenization: .*'relase'.*did you mean 'release'"):
        convert(release, tmp_path / "new", "relase")
    (tmp_path / "empty").mkdir()
    convert(release, tmp_path / "empty")
    assert is_whole(tmp_path / "empty") and not (tmp_path / "new").exists()


def test_the_words_of_the_release_travel_with_the_folder(
    release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libraries, "version", lambda name: "1")
    monkeypatch.setattr(standard, "words_of_release", lambda: str.split)
    convert(release, tmp_path / "ours", "release")
    assert gradus.load(tmp_path / "ours", device="cpu").tokens.pre_tokenization == "release"


# Bad files


def saved(name: str, change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        np.save(path / name, change(np.load(path / name)), allow_pickle=True)

    return apply


def with_shapes(change: Callable[[list], Any]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        content = json.loads((path / SHAPES).read_text())
        (path / SHAPES).write_text(json.dumps(change(content) or content))

    return apply


def pickled(path: Path) -> None:
    np.save(path / SHARDS[2], np.array([{"a": 1}], dtype=object), allow_pickle=True)


def cut(path: Path) -> None:
    data = (path / SHARDS[4]).read_bytes()
    (path / SHARDS[4]).write_bytes(data[: len(data) // 2])


NUMBERS = sum(math.prod(shape) for shape in shapes(TOKENS))
BAD: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no shard": (lambda path: (path / SHARDS[7]).unlink(), r"params_7\.npy: a shard .*missing.*params_9"),
    "no shapes": (lambda path: (path / SHAPES).unlink(), r"params_shapes\.json: a file .* missing"),
    "short": (saved(SHARDS[3], lambda part: part[:-5]), rf"params_3\.npy: .* adds up to {NUMBERS} "),
    "empty": (saved(SHARDS[9], lambda part: part[:0]), r"params_9\.npy: .*this one holds 0; about"),
    "square": (saved(SHARDS[0], lambda part: part.reshape(1, -1)), r"params_0\.npy: .*one dimension"),
    "double": (saved(SHARDS[5], lambda part: part.astype(float)), r"params_5\.npy: .*float64.*float32"),
    "objects": (pickled, r"params_2\.npy: cannot be read as an array.*32-bit floats"),
    "cut": (cut, r"params_4\.npy: cannot be read as an array"),
    "no array": (lambda path: (path / SHARDS[1]).write_text("weights"), r"params_1\.npy: cannot be read"),
    "broken": (lambda path: (path / SHAPES).write_text("[["), r"shapes\.json: cannot be read as JSON"),
    "an object": (with_shapes(lambda _: {"a": 1}), r"shapes\.json: these are no shapes"),
    "negative": (with_shapes(lambda all: all.append([-1])), "these are no shapes"),
    "a shape less": (with_shapes(lambda all: all[:-1]), "these 25 shapes are not those.*12 arrays"),
    "no layer": (with_shapes(lambda all: all[:2]), "these 2 shapes are not"),
    "another shape": (with_shapes(lambda all: all.__setitem__(5, [65])), r"array 5 .*\[65\], \[64\] is"),
    "not 64": (
        lambda path: (path / SHAPES).write_text(json.dumps(shapes(TOKENS, width=48))),
        "48 wide .*64 wide, and a multiple",
    ),
    "another vocabulary": (
        lambda path: write_weights(path, shapes(TOKENS + 1)),
        f"the vocabulary has {TOKENS} tokens, the embedding {TOKENS + 1} rows",
    ),
    "no encoder": (lambda path: (path / ENCODER).unlink(), rf"{ENCODER}: a file .* is missing"),
    "bad merges": (lambda path: (path / MERGES).write_text("a b c"), rf"{MERGES}:1: this is no merge"),
}  # fmt: skip


@pytest.mark.parametrize("case", list(BAD))
def test_a_bad_release_is_told_in_one_line(release: Path, tmp_path: Path, case: str) -> None:
    change, message = BAD[case]
    shutil.copytree(release, tmp_path / "release")
    change(tmp_path / "release")
    with pytest.raises(UserError, match=message) as error:
        convert(tmp_path / "release", tmp_path / "ours")
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["release"]


def test_the_command_tells_what_it_did(release: Path, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["convert", str(release), str(tmp_path / "ours")])
    assert result.exit_code == 0 and result.output.startswith(
        f"{tmp_path / 'ours'}: OpenAI's release: 2 layers"
    )
    again = CliRunner().invoke(app, ["convert", str(release), str(tmp_path / "ours")])
    assert isinstance(again.exception, UserError)


@pytest.mark.data
def test_the_published_shapes_are_the_papers_model() -> None:
    root = os.environ.get("GRADUS_DATA")
    if not root:
        pytest.skip("GRADUS_DATA is not set")
    config = read_config(Path(root) / "GPT1_vocabulary")
    assert (config.layers, config.width, config.heads, config.context, config.hidden) == (
        12,
        768,
        12,
        512,
        3072,
    )
    assert count_parameters(config) == 116_534_784
    with pytest.raises(UserError, match=r"params_0\.npy: a shard of the release is missing"):
        read_weights(Path(root) / "GPT1_vocabulary")
