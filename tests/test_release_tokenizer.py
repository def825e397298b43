"""GPT-1's own tokenizer: the ids of transformers and of byte-pair encoding written out; nothing forged.

The whole vocabulary and real text are in the tests marked `data`.
"""

from __future__ import annotations

import copy
import json
import os
import pickle
import re
import unicodedata
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_release import TEXT, vocabulary, write_vocabulary
from pydantic import TypeAdapter, ValidationError

from gradus.core import libraries
from gradus.core.errors import UserError
from gradus.tokenizers import GPT1Tokenizer, Tokenizer, TokenizerConfig, standard
from gradus.tokenizers.cutting import harmless_cuts
from gradus.tokenizers.release import ENCODER, HUB_ENCODER, HUB_MERGES, MERGES

HARD = [
    "",
    TEXT,
    "The CAT's Hat; it'S 12.50, \"then\"—that!!",
    "中文 and English混在一起，不分。",
    "café naïve ÉTÉ é",
    "<unk> _start_ _classify_ <|end|> </w> a</w>",
    "tabs\tand\r\nlines\n\n  spaces\u00a0here\u3000",
    "\u0000\ufeff\u200b a\u0301 emoji 🎉👩‍👩‍👧",
]
ALPHABET = st.text(alphabet="abht's .,!?-\n\t\r中文字，é\u0301Éİσς<>_/w🎉\u00a0", max_size=60)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("词表") / "release"
    write_vocabulary(path)
    return path


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return GPT1Tokenizer(path=folder.name).build(root=folder.parent)


def ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode([text])[0].tolist()


def byte_pairs(word: str) -> list[int]:
    """Byte-pair encoding by its definition: always the earliest merge that fits (Sennrich et al. 2016)."""
    tokens, merges = vocabulary()
    rank = {pair: number for number, pair in enumerate(merges)}
    parts = [*word[:-1], word[-1] + "</w>"]
    while fitting := [pair for pair in zip(parts, parts[1:]) if pair in rank]:
        best, joined = min(fitting, key=rank.__getitem__), []
        for part in parts:
            if joined and (joined[-1], part) == best:
                joined[-1] += part
            else:
                joined.append(part)
        parts = joined
    return [tokens.get(part, 0) for part in parts]


def bert_words(text: str) -> list[str]:
    """BERT's words in lower case, from its description (Devlin et al. 2019, released code)."""
    text = "".join(
        " " if character.isspace() else character
        for character in text
        if character in "\t\n\r" or not unicodedata.category(character).startswith("C")
    )
    text = re.sub("([\u4e00-\u9fff])", r" \1 ", text)
    text = unicodedata.normalize("NFD", text)
    text = "".join(one for one in text if unicodedata.category(one) != "Mn")
    text = "".join(one.lower() for one in text)
    marks = "".join(chr(number) for number in range(33, 127) if not chr(number).isalnum())
    text = "".join(
        f" {one} " if one in marks or unicodedata.category(one).startswith("P") else one for one in text
    )
    return text.split()


@settings(deadline=None, max_examples=300)
@given(text=ALPHABET)
def test_the_ids_are_those_of_the_definition(tokenizer: Tokenizer, text: str) -> None:
    assert ids(tokenizer, text) == [token for word in bert_words(text) for token in byte_pairs(word)]


@pytest.mark.parametrize("text", HARD)
def test_the_ids_are_those_of_transformers(tokenizer: Tokenizer, text: str) -> None:
    transformers = pytest.importorskip("transformers")
    tokens, merges = vocabulary()
    theirs = transformers.OpenAIGPTTokenizer(vocab=tokens, merges=merges, split_special_tokens=True)
    assert theirs(text, add_special_tokens=False)["input_ids"] == ids(tokenizer, text)


def test_roles_stand_behind_the_vocabulary_as_in_the_released_code(tokenizer: Tokenizer) -> None:
    size = len(vocabulary()[0])
    assert tokenizer.size == size and tokenizer.roles == {"unknown": "<unk>", "pad": "<unk>"}
    for wanted in (["start", "extract"], ["end"], ["extract", "end", "delimiter", "start"]):
        grown = tokenizer.with_roles(wanted)
        assert [grown.role(name) for name in ("start", "delimiter", "extract")] == [size, size + 1, size + 2]
        assert grown.decode([size, size + 1, size + 2]) == "_start__delimiter__classify_"
        assert grown.size == size + 3 + ("end" in wanted)
        assert "end" not in wanted or grown.role("end") == size + 3
    twice = tokenizer.with_roles(["start", "extract"]).with_roles(["end"])
    assert twice.roles == tokenizer.with_roles(["start", "end"]).roles and twice.role("end") == size + 3


def test_user_text_forges_no_special_token(tokenizer: Tokenizer) -> None:
    grown = tokenizer.with_roles(["start", "delimiter", "extract", "end"])
    special = {grown.role(name) for name in ("start", "delimiter", "extract", "end")}
    for text in ("_start_ a _delimiter_ b _classify_", "<|end|>", "<unk>"):
        assert not special & set(ids(grown, text)) and ids(grown, text) == ids(tokenizer, text)
    assert 0 not in ids(grown, "<unk>") and 0 in ids(grown, "☃")
    for twin in (pickle.loads(pickle.dumps(grown)), copy.deepcopy(grown)):
        assert ids(twin, "_start_<unk>") == ids(grown, "_start_<unk>") and twin.digest == grown.digest


def test_decoding_gives_words_back(tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(ids(tokenizer, "The CAT sat, then?")) == "the cat sat , then ?"


@settings(deadline=None, max_examples=300)
@given(text=ALPHABET)
def test_a_cut_changes_no_token(tokenizer: Tokenizer, text: str) -> None:
    parts = list(tokenizer.pieces(text, size=1))
    assert "".join(parts) == text
    assert np.concatenate(tokenizer.encode(parts)).tolist() == ids(tokenizer, text)


def test_long_texts_are_cut_where_it_is_proven(tokenizer: Tokenizer) -> None:
    assert len(list(tokenizer.pieces(TEXT * 40, size=100))) > 30
    other = json.loads(tokenizer.inner.to_str())
    other["normalizer"]["lowercase"] = False
    assert harmless_cuts(json.dumps(other)) is None


def test_on_disk_and_in_transformers(tmp_path: Path, tokenizer: Tokenizer) -> None:
    transformers = pytest.importorskip("transformers")
    grown = tokenizer.with_roles(["start", "delimiter", "extract", "end"])
    template = (["start", "$A", "extract"], ["start", "$A", "delimiter", "$B", "extract"])
    grown.save(tmp_path / "saved", template, context=24)
    again = Tokenizer.load(tmp_path / "saved")
    assert (again.roles, again.digest, again.size) == (grown.roles, grown.digest, grown.size)
    theirs = transformers.AutoTokenizer.from_pretrained(tmp_path / "saved")
    assert len(theirs) == grown.size and theirs.pad_token_id == 0
    start, delimiter, extract = map(grown.role, ("start", "delimiter", "extract"))
    for text in HARD:
        own = ids(grown, text)
        assert ids(again, text) == own == theirs(text, add_special_tokens=False)["input_ids"]
        assert theirs(text)["input_ids"] == [start, *own, extract]
        assert theirs(text, "a hat")["input_ids"] == [start, *own, delimiter, *ids(grown, "a hat"), extract]
        assert theirs.decode(own) == grown.decode(own)
    padded = theirs(["cat", "the cat sat"], padding=True, return_tensors="np")
    assert padded["attention_mask"][0, -1] == 0 == padded["input_ids"][0, -1]


def test_a_folder_of_hugging_face_has_the_same(tmp_path: Path, tokenizer: Tokenizer) -> None:
    write_vocabulary(tmp_path / "hub", (HUB_ENCODER, HUB_MERGES))
    assert GPT1Tokenizer(path=str(tmp_path / "hub")).build().digest == tokenizer.digest
    transformers = pytest.importorskip("transformers")
    tokens, merges = vocabulary()
    transformers.OpenAIGPTTokenizer(vocab=tokens, merges=merges).save_pretrained(tmp_path / "theirs")
    theirs = Tokenizer.load(tmp_path / "theirs")
    assert theirs.roles == tokenizer.roles and theirs.size == tokenizer.size
    assert theirs.with_roles(["start"]).roles == tokenizer.with_roles(["start"]).roles
    assert [ids(theirs, text) for text in HARD] == [ids(tokenizer, text) for text in HARD]


# Bad files


def replaced(name: str, change: Callable[[str], str]) -> Callable[[Path], None]:
    def apply(path: Path) -> None:
        (path / name).write_text(change((path / name).read_text(encoding="utf-8")), encoding="utf-8")

    return apply


def with_tokens(change: Callable[[dict], object]) -> Callable[[Path], None]:
    def apply(text: str) -> str:
        tokens = json.loads(text)
        change(tokens)
        return json.dumps(tokens)

    return replaced(ENCODER, apply)


BAD = {
    "no folder": (lambda path: [one.unlink() for one in path.iterdir()], "no vocabulary of GPT-1.*encoder"),
    "no merges": (lambda path: (path / MERGES).unlink(), r"vocab_40000\.bpe: a file .* missing"),
    "no encoder": (lambda path: (path / ENCODER).unlink(), r"encoder_bpe_40000\.json: a file .* missing"),
    "broken": (replaced(ENCODER, lambda text: text[:50]), r"encoder_bpe_40000\.json: cannot be read as JSON"),
    "a list": (replaced(ENCODER, lambda text: "[]"), "this is no vocabulary.*an object is wanted"),
    "no number": (with_tokens(lambda tokens: tokens.update(a="1")), "a: the id of a token is no integer"),
    "twice": (with_tokens(lambda tokens: tokens.update(a=2)), "json: (a|b): an id stands twice: '2'"),
    "too large": (with_tokens(lambda tokens: tokens.update(a=999)), "json: a: an id is out of range: '999'"),
    "no unknown": (with_tokens(lambda t: t.update({"<u>": t.pop("<unk>")})), "lacks a token: '<unk>'"),
    "three": (replaced(MERGES, lambda text: text + "a b c\n"), r"bpe:\d+: this is no merge: 'a b c'"),
    "foreign": (replaced(MERGES, lambda text: text + "q z\n"), r"bpe:\d+: the merge needs .* lacks: 'qz'"),
    "not UTF-8": (lambda path: (path / MERGES).write_bytes(b"\xff\xfe"), r"bpe: cannot be read"),
}  # fmt: skip


@pytest.mark.parametrize("case", list(BAD))
def test_bad_files_are_told_in_one_line(tmp_path: Path, case: str) -> None:
    change, message = BAD[case]
    write_vocabulary(tmp_path)
    change(tmp_path)
    with pytest.raises(UserError, match=message) as error:
        GPT1Tokenizer(path=str(tmp_path)).build()
    assert "\n" not in str(error.value)


def test_the_recipe_names_it() -> None:
    adapter = TypeAdapter(TokenizerConfig)
    config = adapter.validate_python({"kind": "gpt1", "path": "GPT1"})
    assert isinstance(config, GPT1Tokenizer) and config.pre_tokenization == "simple"
    with pytest.raises(ValidationError, match="'simple' or 'release'"):
        adapter.validate_python({"kind": "gpt1", "path": "GPT1", "pre_tokenization": "spacy"})


# The words of the released code


@pytest.mark.parametrize(
    ("text", "standard_text"),
    [
        ("Well—he said… no–yes―maybe", "Well - he said... no - yes - maybe"),
        ("so-called (a)!!  --ok?!", "so - called ( a ) !! -- ok ? !"),
        ("a \n\n  b\u00a0c\t d \n", "a \n b c d"),
        ('"中文"；好/坏 [1] {x}|_y_~', '" 中文 " ；好 / 坏 [ 1 ] { x } | _ y _ ~'),
        ("it´s a\\b * c+d;e,f", "it's a \\ b * c + d ; e , f"),
        ("", ""),
    ],
)
def test_text_is_standardised_as_released(text: str, standard_text: str) -> None:
    assert standard.standardise(text) == standard_text


def test_a_missing_library_is_told_with_the_extra(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(libraries, "version", absent)
    with pytest.raises(UserError, match=r"pre_tokenization: .*needs ftfy.*gradus-lm\[release\]"):
        GPT1Tokenizer(path=str(folder), pre_tokenization="release").build()


@pytest.fixture
def pretend(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for ftfy and spaCy: words at spaces, a line's end being one."""
    monkeypatch.setattr(standard, "versions", lambda: dict.fromkeys(standard.LIBRARIES, "1"))
    words: Callable[[str], list[str]] = lambda text: [  # noqa: E731
        word.lower() for word in re.findall(r"\n|\S+", standard.standardise(text))
    ]
    monkeypatch.setattr(standard, "words_of_release", lambda: words)


def test_words_are_encoded_one_by_one(folder: Path, tmp_path: Path, pretend: None) -> None:
    released = GPT1Tokenizer(path=str(folder), pre_tokenization="release").build()
    simple = GPT1Tokenizer(path=str(folder)).build()
    text = "The CAT's é\nhat—中文"
    expected = [
        token for word in ("the", "cat's", "é", "\n", "hat", "-", "中文") for token in byte_pairs(word)
    ]
    assert ids(released, text) == expected != ids(simple, text)
    assert ids(released, "") == [] and released.digest != simple.digest
    assert list(released.pieces("a\n" * 99, size=5)) == ["a\n" * 99]
    grown = released.with_roles(["start", "extract"])
    grown.save(tmp_path)
    for again in (Tokenizer.load(tmp_path), pickle.loads(pickle.dumps(grown))):
        assert again.pre_tokenization == "release" and again.digest == grown.digest
        assert ids(again, text + " _start_") == expected[:-1] + ids(released, "中文 _start_")[1:]
    with pytest.raises(UserError, match="surrogate"):
        released.encode(["fine", "not \ud83d fine"])


def test_an_unknown_way_on_disk_is_refused(tmp_path: Path, tokenizer: Tokenizer) -> None:
    tokenizer.save(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"gradus_pre_tokenization": "nltk"}))
    with pytest.raises(UserError, match="gradus_pre_tokenization: .*'nltk'.*release"):
        Tokenizer.load(tmp_path)


def test_the_words_of_ftfy_and_spacy() -> None:
    pytest.importorskip("ftfy")
    pytest.importorskip("spacy")
    words = standard.words_of_release()
    assert words("It's—well… “U.S.” don't \n go!!") == [
        "it", "'s", "-", "well", "...", '"', "u.s.", '"', "do", "n't", "\n", "go", "!", "!",
    ]  # fmt: skip
    assert words("l&amp;amp café") == ["l&amp", "café"]
    assert words("中文\r\n你好") == ["中文", "\n", "你好"] and words("") == []


# The real vocabulary on real text


def public_data() -> Path:
    root = os.environ.get("GRADUS_DATA")
    if not root:
        pytest.skip("GRADUS_DATA is not set")
    return Path(root)


@pytest.mark.data
def test_every_line_has_the_ids_of_transformers() -> None:
    """All of SST2 and every tenth line of the novels; all 306,169 lines take a minute and agree, too."""
    transformers = pytest.importorskip("transformers")
    root = public_data()
    config = GPT1Tokenizer(path="GPT1_vocabulary")
    ours = config.build(root=root)
    folder = root / "GPT1_vocabulary"
    merges = [tuple(line.split()) for line in (folder / MERGES).read_text("utf-8").split("\n")[1:-1]]
    theirs = transformers.OpenAIGPTTokenizer(
        vocab=json.loads((folder / ENCODER).read_text("utf-8")), merges=merges
    )
    assert ours.size == 40478 == len(theirs)
    novels = [
        line
        for file in sorted((root / "LM_en_novels").glob("*/*.txt"))
        for line in file.read_text("utf-8-sig").split("\n")
    ]
    films = [
        line
        for name in ("train", "dev", "test")
        for line in (root / f"SST2/{name}.tsv").open(encoding="utf-8")
    ]
    lines = films + novels[::10]
    assert len(films) > 9600 and len(novels) > 300_000
    for begin in range(0, len(lines), 20_000):
        part = lines[begin : begin + 20_000]
        expected = theirs(part, add_special_tokens=False)["input_ids"]
        for line, found, wanted in zip(part, ours.encode(part), expected):
            assert found.tolist() == wanted, line


@pytest.mark.data
def test_cuts_in_a_whole_novel() -> None:
    root = public_data()
    ours = GPT1Tokenizer(path="GPT1_vocabulary").build(root=root)
    for place in ("LM_en_novels/test", "LM_zh_novels"):
        text = sorted((root / place).glob("*.txt"))[-1].read_text("utf-8-sig")[:500_000]
        parts = list(ours.pieces(text, size=2000))
        assert len(parts) > len(text) / 2300
        assert np.array_equal(np.concatenate(ours.encode(parts)), ours.encode([text])[0])
