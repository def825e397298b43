"""Whole words of Chinese by jieba: its own words are the oracle, over every kind of vocabulary, and through
the commands."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jieba
import numpy as np
import pytest
import tokenizers
import toy
from test_encoder_recipes import ENCODER
from tiny import tiny
from tokenizers import decoders, models, normalizers, pre_tokenizers

from gradus.cli import main
from gradus.core import libraries
from gradus.core.errors import UserError
from gradus.core.example import Example
from gradus.core.keyed import keyed_generator
from gradus.data.builtin import builtin_text
from gradus.objectives import MaskedLMConfig, Task
from gradus.objectives.masked_lm import MaskedLM
from gradus.pipeline.check import check
from gradus.pipeline.models.evaluating import evaluate_file
from gradus.pipeline.models.serving import load
from gradus.pipeline.planning.material import Material
from gradus.pipeline.planning.plan import make_plan
from gradus.pipeline.recipes.reading import read_recipe
from gradus.pipeline.run import run
from gradus.pipeline.running.stage import StageRun
from gradus.tokenizers import BytePairTokenizer, CharacterTokenizer, Tokenizer

CHINESE = "他来到了网易杭研大厦，小明硕士毕业于中国科学院计算所。今天天气很好，我们在北京大学的图书馆看书。"
MIXED = "我用Python3编程, 3月14日在AA制的饭馆吃饭! Don't 说话，naïve 的人工智能模型GPT有1.5亿个参数。"


def characters() -> Tokenizer:
    return CharacterTokenizer().build([CHINESE, MIXED])


def bytes_of(size: int) -> Tokenizer:
    return BytePairTokenizer(vocab_size=size).build([CHINESE[:20] * 3, "大学的" * 20, MIXED[:12]])


def pieces() -> Tokenizer:
    """As BERT's Chinese vocabulary: characters, and pieces of other words."""
    parts = [*CHINESE, *MIXED, *(f"##{one}" for one in MIXED), "Pyth", "##on3"]
    vocabulary = {part: number for number, part in enumerate(dict.fromkeys(["[UNK]", "[MASK]", *parts]))}
    inner = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    inner.normalizer = normalizers.BertNormalizer(strip_accents=False, lowercase=False)
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.BertPreTokenizer(), decoders.WordPiece()
    return Tokenizer(inner, {"unknown": "[UNK]", "mask": "[MASK]"})


def unigrams() -> Tokenizer:
    """Text behind "▁", and bytes for what the vocabulary lacks: 研 and 饭."""
    known = [one for one in dict.fromkeys([*CHINESE, *MIXED, "大学", "计算"]) if one not in " 研饭"]
    named = ["<unk>", "<mask>", "▁", *(f"<0x{byte:02X}>" for byte in range(256)), *known]
    scores = [(text, -1.0 - place / 1000) for place, text in enumerate(named)]
    inner = tokenizers.Tokenizer(models.Unigram(scores, 0, byte_fallback=True))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return Tokenizer(inner, {"unknown": "<unk>", "mask": "<mask>"})


VOCABULARIES = {"characters": characters, "bytes": lambda: bytes_of(263), "byte pairs": lambda: bytes_of(300),
                "pieces": pieces, "unigrams": unigrams}  # fmt: skip


def objective(tokenizer: Tokenizer, **options: Any) -> MaskedLM:
    settings = {"unit": "word", "words": "jieba"} | options
    model = toy.model(arrangement="encoder")
    return MaskedLMConfig(**settings).build(Task(model, "toy", vocabulary=tokenizer))


def grouped(how: MaskedLM, ids: np.ndarray) -> list[list[int]]:
    """The places of the tokens of each word."""
    return [word.tolist() for word in how._words(Example(0, (ids,)), ids, np.arange(len(ids)))]


def words_of(text: str) -> Iterator[tuple[int, int]]:
    """jieba's words with a Chinese character, and where they stand."""
    for word, start, end in jieba.tokenize(text):
        if any("一" <= one <= "龥" for one in word):
            yield start, end


def tokens_in(tokenizer: Tokenizer, text: str, start: int, end: int) -> set[int]:
    """The tokens that write some of this part of the text, as the library tells their places: the bytes of a
    character have the same one. A space that it puts before the text is none."""
    found = tokenizer.inner.encode(text, add_special_tokens=False)
    return {at for at, (a, b) in enumerate(found.offsets)
            if a < end and b > start and found.tokens[at] != "▁"}  # fmt: skip


@pytest.mark.parametrize("kind", VOCABULARIES)
@pytest.mark.parametrize("text", [CHINESE, MIXED], ids=["Chinese", "mixed"])
def test_the_tokens_of_a_word_of_jieba_belong_together(kind: str, text: str) -> None:
    """And no others do, in Chinese: a border stands wherever no token reaches from one of its words to the
    next."""
    tokenizer = VOCABULARIES[kind]()
    (ids,) = tokenizer.encode([text])
    found = grouped(objective(tokenizer), ids)
    group = {place: number for number, word in enumerate(found) for place in word}
    words = list(words_of(text))
    for start, end in words:
        assert len({group[at] for at in tokens_in(tokenizer, text, start, end)}) == 1
    for (a, b), (c, d) in zip(words, words[1:]):
        left, right = tokens_in(tokenizer, text, a, b), tokens_in(tokenizer, text, c, d)
        if b == c and not left & right:
            assert group[max(left)] != group[min(right)]
    assert len(found) < len(grouped(objective(tokenizer, words=None), ids))


def test_words_as_they_are_read_aloud() -> None:
    tokenizer = characters()
    (ids,) = tokenizer.encode([MIXED])
    said, plain = (
        [tokenizer.decode(ids[word].tolist()) for word in grouped(objective(tokenizer, words=words), ids)]
        for words in ("jieba", None)
    )
    assert {"Python3", "编程", "AA制", "吃饭", "Don", "说话", "naïve", "人工智能", "GPT", "参数"} <= set(said)
    assert [one for one in said if one.isascii()] == [one for one in plain if one.isascii() and one != "AA"]


@pytest.mark.parametrize("kind", VOCABULARIES)
def test_whole_words_or_nothing_and_as_many_as_asked(kind: str) -> None:
    tokenizer, share, draws = VOCABULARIES[kind](), 0.15, 200
    how, text = objective(tokenizer, share=share), CHINESE + MIXED + CHINESE
    (ids,) = tokenizer.encode([text])
    words = [tokens_in(tokenizer, text, start, end) for start, end in words_of(text)]
    open_places = ~how.known.plays_role[ids]
    wanted, counts = round(share * open_places.sum()), np.zeros(len(ids))
    for epoch in range(draws):
        example = how.corrupt(Example(0, (ids,)), keyed_generator("mask", epoch))
        assert example.chosen is not None
        index, truth = example.chosen
        chosen = set(index.tolist())
        assert len(chosen) <= wanted and np.array_equal(ids[index], truth)
        assert all(word <= chosen or not word & chosen for word in words)
        counts[index] += 1
    assert counts.sum() > 0.97 * wanted * draws
    assert counts[open_places].min() > 0 and counts.max() < 3 * share * draws


def test_windows_may_begin_and_end_within_a_character() -> None:
    """What is left of the character stays together; the words further in are the same."""
    tokenizer = bytes_of(263)
    (ids,) = tokenizer.encode([CHINESE])
    how = objective(tokenizer)
    whole, found = grouped(how, ids), grouped(how, ids[1:-1])
    assert sum(map(len, found)) == len(ids) - 2 and len(ids) == len(CHINESE.encode())
    inner = [[place + 1 for place in word] for word in found]
    assert inner[3:-3] == [word for word in whole if inner[3][0] <= word[0] <= inner[-4][0]]


def test_a_word_ends_at_a_role_and_with_its_sequence() -> None:
    tokenizer = characters()
    north, capital = (int(tokenizer.encode([one])[0][0]) for one in "北京")
    mask, how = tokenizer.role("mask"), objective(tokenizer)
    for parts, wanted in (
        (([north, capital],), [[0, 1]]),
        (([north, mask, capital],), [[0], [2]]),
        (([north], [capital]), [[0], [1]]),
    ):
        example = Example(0, tuple(map(np.array, parts)))
        tokens = np.concatenate(example.sequences)
        found = how._words(example, tokens, np.flatnonzero(tokens != mask))
        assert [word.tolist() for word in found] == wanted


def test_the_same_words_whatever_a_program_taught_jieba() -> None:
    tokenizer = characters()
    (ids,) = tokenizer.encode([CHINESE])
    before = grouped(objective(tokenizer), ids)
    jieba.add_word("今天天气很好")
    try:
        assert "今天天气很好" in jieba.lcut(CHINESE)
        assert grouped(objective(tokenizer), ids) == before
    finally:
        jieba.del_word("今天天气很好")


def recipe(folder: Path, **options: Any) -> Path:
    """Four steps of an encoder on English and Chinese, by words of jieba, and a class after them."""
    objectives = [{"kind": "masked_lm", "unit": "word", "words": "jieba"} | options]
    patch = {"model": ENCODER, "stages.pretrain.length": "4 steps", "stages.pretrain.precision": "fp32",
             "stages.pretrain.objectives": objectives,
             "stages.finetune.objectives": [{"kind": "classification"}]}  # fmt: skip
    return tiny(folder / "masked.yaml", patch)


def test_through_the_commands(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    """jieba's version stands in stage.json, and the folder is evaluated by the same hidden tokens."""
    folder = run(recipe(tmp_path), runs=tmp_path / "runs", device="cpu", until="pretrain")
    (file,) = (folder / "stages").glob("pretrain-*/stage.json")
    record = json.loads(file.read_text(encoding="utf-8"))
    assert record["versions"]["jieba"] == version("jieba")
    text = "\n".join(document.text for document in builtin_text("tiny", "dev"))
    assert len(list(words_of(text))) > 20
    found = evaluate_file(load(file.parent, device="cpu"), "builtin:tiny", "dev")
    for metric, value in record["results"]["dev"].items():
        assert found[metric] == pytest.approx(value, rel=1e-5), metric
    (tmp_path / "text.txt").write_text(text, encoding="utf-8")
    data = str(tmp_path / "text.txt")
    monkeypatch.setattr("sys.argv", ["gradus", "evaluate", str(file.parent), "--data", data])
    main()
    said = dict(line.split("\t") for line in capsys.readouterr().out.splitlines())
    assert list(said) == ["loss", "perplexity", "accuracy", "tokens", "bytes"]


def fingerprints(path: Path) -> list[str]:
    plan = make_plan(read_recipe(path), Material(path.parent, path.parent / "cache"))
    return [node.fingerprint for node in plan.nodes.values()]


def test_the_version_belongs_to_the_fingerprint(tmp_path: Path, monkeypatch: Any) -> None:
    known, plain = fingerprints(recipe(tmp_path)), fingerprints(recipe(tmp_path, words=None))
    assert known == fingerprints(recipe(tmp_path)) != plain
    monkeypatch.setattr(libraries, "version", lambda name: "another")
    assert known != fingerprints(recipe(tmp_path)) and plain == fingerprints(recipe(tmp_path, words=None))


def test_what_cannot_be_is_told_by_check(tmp_path: Path, monkeypatch: Any) -> None:
    def told(mistake: str, **options: Any) -> None:
        with pytest.raises(UserError, match=rf"masked.yaml:\d+: stages.pretrain.objectives.*{mistake}"):
            check(recipe(tmp_path, **options), runs=tmp_path / "runs", device="cpu")

    told(r"words: single tokens are chosen here: 'jieba' \(write `unit: word`\)", unit="token")
    told("words: .*'pkuseg'.*jieba", words="pkuseg")

    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(libraries, "version", absent)
    missing = "`words: jieba` needs jieba, which is not installed: 'jieba'"
    told(rf": {missing} \(pip install \"gradus-lm\[chinese\]\"")


def test_a_killed_stage_goes_on_to_the_same_bits(tmp_path: Path, monkeypatch: Any) -> None:
    saved = StageRun._save

    def killed(self: StageRun, trainer: Any) -> None:
        saved(self, trainer)
        raise KeyboardInterrupt

    path = recipe(tmp_path)
    settings = {"stages.pretrain.save": {"every": "2 steps"}}

    def weights(runs: str) -> bytes:
        folder = run(path, runs=tmp_path / runs, device="cpu", until="pretrain", settings=settings)
        (file,) = (folder / "stages").glob("pretrain-*/model/model.safetensors")
        return file.read_bytes()

    whole = weights("whole")
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(StageRun, "_save", killed)
        weights("killed")
    assert weights("killed") == whole
