"""Tokenizers: nothing is lost, nothing is forged, nothing depends on threads, and Hugging Face agrees."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError
from tokenizers import decoders, models, pre_tokenizers

from gradus.core.errors import UserError
from gradus.tokenizers import (
    ROLES,
    BytePairTokenizer,
    CharacterTokenizer,
    PretrainedTokenizer,
    Tokenizer,
    TokenizerConfig,
)
from gradus.tokenizers.cutting import GPT2_CUTS, pieces

ENGLISH = "It was the best of times, it was the worst of times; we'd said so, hadn't we? 1859 was it.\r\n"
CHINESE = (
    "话说天下大势，分久必合，合久必分。周末七国分争，并入于秦。「你好！」他说：“世界很大。”共２０００字。\n"
)
TEXTS = [ENGLISH * 3, CHINESE * 3, "emoji 👩‍👩‍👧 🎉🎉  and\ttabs \n\n"]
HARD = [
    "",
    ENGLISH,
    CHINESE,
    "中文 and English混在一起，不分。",
    "a 👩‍👩‍👧🎉 b",
    "line\r\nline\n\n\n  indented\t",
    "say <|end|> and <|start|><|pad|>[CLS] 你好<|extract|>",
    "  two spaces , before . punctuation ' s  don 't",
    "\u0000\ufeff\u200b\u180e\u2028",
]
TEMPLATE = (["start", "$A", "extract"], ["start", "$A", "delimiter", "$B", "extract"])


@pytest.fixture(scope="module")
def bpe() -> Tokenizer:
    return BytePairTokenizer(vocab_size=360).build(TEXTS)


@pytest.fixture(scope="module")
def char() -> Tokenizer:
    return CharacterTokenizer().build([*TEXTS, *HARD])


def ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode([text])[0].tolist()


@settings(deadline=None, max_examples=200)
@given(text=st.text() | st.text(alphabet="的一是不了人我 a's’，。\r\n\t<|end|>"))
def test_bytes_lose_nothing(bpe: Tokenizer, text: str) -> None:
    encoded = bpe.encode([text])[0]
    assert encoded.dtype == np.int32
    assert bpe.decode(encoded) == text


@pytest.mark.parametrize("text", HARD)
def test_user_text_forges_no_special_token(bpe: Tokenizer, char: Tokenizer, text: str) -> None:
    for tokenizer in (bpe, char):
        special = {tokenizer.role(name) for name in ROLES}
        assert not special & set(ids(tokenizer, text))
        assert tokenizer.decode(ids(tokenizer, text), skip_roles=True) == text


def test_roles(bpe: Tokenizer) -> None:
    assert [bpe.role(name) for name in ROLES] == list(range(7))
    assert bpe.size == 360 == bpe.inner.get_vocab_size()
    row = [bpe.role("start"), *ids(bpe, "你好"), bpe.role("extract")]
    assert bpe.decode(row) == "<|start|>你好<|extract|>"
    assert bpe.decode(row, skip_roles=True) == "你好"
    with pytest.raises(UserError, match="no token for the role 'sentinel 0'"):
        bpe.role("sentinel 0")
    with pytest.raises(ValueError, match="did you mean 'start'"):
        bpe.role("strat")


def test_missing_roles_are_added_at_the_end(bpe: Tokenizer) -> None:
    grown = bpe.with_roles(["start", "sentinel 0", "sentinel 1", "sentinel 0"])
    assert (grown.role("sentinel 0"), grown.role("sentinel 1"), grown.size) == (360, 361, 362)
    assert not bpe.has("sentinel 0") and grown.role("start") == bpe.role("start")
    assert ids(grown, ENGLISH + "<|sentinel_0|>") == ids(bpe, ENGLISH + "<|sentinel_0|>")
    assert grown.digest != bpe.digest and bpe.with_roles(["start"]) is bpe


def test_copies_forge_nothing_either(bpe: Tokenizer) -> None:
    for twin in (pickle.loads(pickle.dumps(bpe)), copy.deepcopy(bpe)):
        assert ids(twin, "a<|end|>") == ids(bpe, "a<|end|>") and twin.digest == bpe.digest


def test_half_a_surrogate_pair_is_told(bpe: Tokenizer) -> None:
    with pytest.raises(UserError, match="surrogate"):
        bpe.encode(["fine", "not \ud83d fine"])


def test_characters_are_in_order_of_frequency() -> None:
    tokenizer = CharacterTokenizer(vocab_size=9).build(["大大大小小中", "大"])
    assert ids(tokenizer, "大小中b") == [7, 8, tokenizer.role("unknown"), tokenizer.role("unknown")]
    assert CharacterTokenizer().build(["大大大小小中"]).size == 10


def test_too_small_or_no_text() -> None:
    adapter = TypeAdapter(TokenizerConfig)
    with pytest.raises(ValidationError, match="greater than or equal to 263"):
        adapter.validate_python({"kind": "bpe", "vocab_size": 262})
    smallest = adapter.validate_python({"kind": "bpe", "vocab_size": 263}).build(TEXTS)
    assert smallest.size == 263 and smallest.decode(ids(smallest, CHINESE)) == CHINESE
    with pytest.raises(ValidationError, match="'bpe', 'char', 'gpt1', 'pretrained'"):
        adapter.validate_python({"kind": "bbpe"})
    for kind in ({"kind": "bpe"}, {"kind": "char"}):
        for texts in ([], ["", ""]):
            with pytest.raises(UserError, match="no text to train"):
                adapter.validate_python(kind).build(texts)


BUILD = """
import hashlib, sys
from pathlib import Path
from gradus.tokenizers import *
text = Path(sys.argv[1]).read_text(encoding="utf-8")
for config in (BytePairTokenizer(vocab_size=600), CharacterTokenizer(vocab_size=90)):
    tokenizer = config.build([text[:5000], text[5000:]])
    print(hashlib.sha256(tokenizer.inner.to_str().encode()).hexdigest(), tokenizer.digest)
"""


def test_the_same_text_gives_the_same_tokenizer(tmp_path: Path) -> None:
    """Many pairs of equal count, so that ties are broken; other hash seeds and numbers of threads."""
    numbers = np.random.default_rng(0).integers(0, 40, 9000)
    words = [
        "abcdefghij的一是了我不人在他有"[number % 20] + " ，"[number % 2] * int(number > 20)
        for number in numbers
    ]
    file = tmp_path / "text.txt"
    file.write_text("".join(words), encoding="utf-8")
    outputs = set()
    for seed, threads in (("0", "1"), ("1", "2"), ("2", "4")):
        environment = os.environ | {"PYTHONHASHSEED": seed, "RAYON_NUM_THREADS": threads}
        command = [sys.executable, "-c", BUILD, str(file)]
        outputs.add(subprocess.run(command, env=environment, check=True, capture_output=True).stdout)
    assert len(outputs) == 1


def test_a_fork_neither_warns_nor_hangs() -> None:
    program = (
        "import os\nfrom gradus.tokenizers import CharacterTokenizer\n"
        "tokenizer = CharacterTokenizer().build(['你好 world'])\ntokenizer.encode(['你好', 'world'])\n"
        "child = os.fork()\n"
        "if not child:\n    os._exit(len(tokenizer.encode(['你好', 'wor'])[1]))\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    environment = {key: value for key, value in os.environ.items() if key != "TOKENIZERS_PARALLELISM"}
    result = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (result.stdout, result.stderr) == ("3\n", "")


# Cutting


@settings(deadline=None, max_examples=300)
@given(text=st.text(alphabet="ab's’t，。、！？”』）12 \n\r\t\u3000\u00a0\u180e中文字🎉.<|end|>", max_size=80))
def test_a_cut_changes_no_token(bpe: Tokenizer, char: Tokenizer, text: str) -> None:
    for tokenizer in (bpe, char):
        parts = list(tokenizer.pieces(text, size=1))
        assert "".join(parts) == text
        assert np.array_equal(np.concatenate(tokenizer.encode(parts)), tokenizer.encode([text])[0])


@pytest.mark.parametrize("text", [ENGLISH * 40, CHINESE * 40, "".join(HARD) * 20])
def test_long_texts_are_cut(bpe: Tokenizer, char: Tokenizer, text: str) -> None:
    for tokenizer in (bpe, char):
        parts = list(tokenizer.pieces(text, size=100))
        assert len(parts) > len(text) / 160 and all(parts)
        assert np.array_equal(np.concatenate(tokenizer.encode(parts)), tokenizer.encode([text])[0])


def test_training_on_pieces_is_training_on_the_whole() -> None:
    whole = ENGLISH * 5 + CHINESE * 5
    parts = list(pieces(whole, GPT2_CUTS, size=10))
    config = BytePairTokenizer(vocab_size=350)
    assert len(parts) > 20 and config.build([whole]).digest == config.build(parts).digest


def test_what_is_not_proven_is_not_cut(bpe: Tokenizer) -> None:
    prefixed = tokenizers.Tokenizer.from_str(bpe.inner.to_str())
    prefixed.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    greedy = tokenizers.Tokenizer.from_str(bpe.inner.to_str())
    greedy.add_tokens(["best of times"])
    for inner in (prefixed, greedy, word_tokenizer()):
        assert list(Tokenizer(inner, {}).pieces(ENGLISH * 9, size=10)) == [ENGLISH * 9]


# Files


def word_tokenizer() -> tokenizers.Tokenizer:
    """A foreign tokenizer, as BERT's: its own roles, and truncation and padding in its file."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "你", "好", "[OTHER]"]
    inner = tokenizers.Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]")
    )
    inner.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    inner.decoder = decoders.WordPiece()
    inner.add_special_tokens(words[:5])
    return inner


def test_a_foreign_tokenizer(tmp_path: Path) -> None:
    inner = word_tokenizer()
    inner.enable_truncation(2)
    inner.enable_padding(length=8)
    inner.save(str(tmp_path / "tokenizer.json"))
    config = PretrainedTokenizer(path=tmp_path.name)
    foreign = config.build(root=tmp_path.parent)
    assert ids(foreign, "good 你 好 good [CLS]") == [5, 7, 8, 5, 1, 1, 1]
    assert foreign.role("start") == foreign.role("extract") == 2
    assert foreign.role("delimiter") == foreign.role("end") == 3
    mapped = PretrainedTokenizer(path=str(tmp_path / "tokenizer.json"), roles={"end": "[OTHER]"}).build()
    assert mapped.role("end") == 9 and ids(mapped, "good") == [5]
    grown = Tokenizer(word_tokenizer(), {"unknown": "[UNK]"}).with_roles(["start", "extract"])
    assert (grown.role("start"), grown.role("extract"), grown.size) == (10, 11, 12)
    grown.save(tmp_path / "grown")
    assert Tokenizer.load(tmp_path / "grown").roles == grown.roles  # as stored, not as guessed


def test_foreign_dropout_is_off(tmp_path: Path, bpe: Tokenizer) -> None:
    parts = json.loads(bpe.inner.to_str())
    parts["model"]["dropout"] = 0.9
    (tmp_path / "tokenizer.json").write_text(json.dumps(parts), encoding="utf-8")
    assert ids(Tokenizer.load(tmp_path), ENGLISH) == ids(bpe, ENGLISH)


def test_bad_files(tmp_path: Path, bpe: Tokenizer) -> None:
    with pytest.raises(UserError, match=r"tokenizer\.json: there is no tokenizer"):
        Tokenizer.load(tmp_path)
    with pytest.raises(UserError, match="nowhere: there is no tokenizer"):
        PretrainedTokenizer(path=str(tmp_path / "nowhere")).build()
    for broken in ("", "{", "{}", '{"version": "1.0", "model": {"type": "New"}}'):
        (tmp_path / "tokenizer.json").write_text(broken)
        with pytest.raises(UserError, match=r"tokenizer\.json: cannot be read as a tokenizer") as error:
            Tokenizer.load(tmp_path)
        assert "\n" not in str(error.value)
    bpe.save(tmp_path)
    config = tmp_path / "tokenizer_config.json"
    for broken in ("[]", "{", '{"gradus_roles": {"begin": "a"}}', '{"gradus_roles": {"end": "<none>"}}'):
        config.write_text(broken)
        with pytest.raises(UserError, match=r"tokenizer_config\.json"):
            Tokenizer.load(tmp_path)
    config.unlink()
    assert Tokenizer.load(tmp_path).roles == bpe.roles
    with pytest.raises(UserError, match="roles.mask: no such token in the vocabulary: '<x>'"):
        PretrainedTokenizer(path=str(tmp_path), roles={"mask": "<x>"}).build()
    with pytest.raises(ValidationError, match="not a role of a token"):
        PretrainedTokenizer(path=str(tmp_path), roles={"begin": "<x>"})
    with pytest.raises(UserError, match="no token for the role 'sentinel 0'"):
        bpe.save(tmp_path, (["sentinel 0", "$A"], ["$A", "$B"]))


def test_saving_changes_nothing(tmp_path: Path, bpe: Tokenizer, char: Tokenizer) -> None:
    for name, tokenizer in {"bpe": bpe, "char": char}.items():
        tokenizer.save(tmp_path / name, TEMPLATE, context=64)
        again = Tokenizer.load(tmp_path / name)
        assert (again.digest, again.roles, again.size) == (tokenizer.digest, tokenizer.roles, tokenizer.size)
        assert [ids(again, text) for text in HARD] == [ids(tokenizer, text) for text in HARD]
        again.save(tmp_path / "again", TEMPLATE, context=64)
        for file in ("tokenizer.json", "tokenizer_config.json"):
            assert (tmp_path / "again" / file).read_bytes() == (tmp_path / name / file).read_bytes()
        row = again.inner.encode("你好").ids
        assert row == [again.role("start"), *ids(again, "你好"), again.role("extract")]


def test_hugging_face_agrees(tmp_path: Path, bpe: Tokenizer, char: Tokenizer) -> None:
    transformers = pytest.importorskip("transformers")
    for name, tokenizer in {"bpe": bpe, "char": char}.items():
        tokenizer.save(tmp_path / name, TEMPLATE, context=64)
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / name)
        start, delimiter, extract = map(tokenizer.role, ("start", "delimiter", "extract"))
        for text in HARD:
            ours = ids(tokenizer, text)
            assert theirs(text, add_special_tokens=False)["input_ids"] == ours
            assert theirs.decode(ours) == tokenizer.decode(ours) == text
            assert theirs(text)["input_ids"] == [start, *ours, extract]
            assert theirs(text, CHINESE)["input_ids"] == [
                start,
                *ours,
                delimiter,
                *ids(tokenizer, CHINESE),
                extract,
            ]
            cut = theirs(text, truncation=True, max_length=6)["input_ids"]
            assert cut == [start, *ours[:4], extract]
        assert len(theirs(ENGLISH * 9, truncation=True)["input_ids"]) == theirs.model_max_length == 64
        assert set(theirs(ENGLISH)) == {"input_ids", "attention_mask"}
        padded = theirs(["你", "你好世界 a"], padding=True, return_tensors="np")["input_ids"]
        assert tokenizer.role("pad") == theirs.pad_token_id == padded[0, -1] and len(theirs) == tokenizer.size
        assert (theirs.bos_token_id, theirs.eos_token_id) == (start, tokenizer.role("end"))
        theirs.save_pretrained(tmp_path / "theirs")
        ours_again = Tokenizer.load(tmp_path / "theirs")
        assert ours_again.roles == tokenizer.roles
        assert [ids(ours_again, text) for text in HARD] == [ids(tokenizer, text) for text in HARD]


@pytest.mark.data
def test_cuts_in_whole_novels(bpe: Tokenizer) -> None:
    root = os.environ.get("GRADUS_DATA")
    if not root:
        pytest.skip("GRADUS_DATA is not set")
    for folder in ("LM_en_novels/test", "LM_zh_novels"):
        file = sorted(Path(root, folder).glob("*.txt"))[-1]
        text = file.read_text(encoding="utf-8-sig")
        parts = list(bpe.pieces(text, size=2000))
        whole = bpe.encode([text])[0]
        assert np.array_equal(np.concatenate(bpe.encode(parts)), whole) and len(parts) > len(text) / 2200
        assert hashlib.sha256(bpe.decode(whole).encode()).digest() == hashlib.sha256(text.encode()).digest()
