"""Token shards: what is read back is what was encoded, whole or not there, written once."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from gradus.core.errors import UserError
from gradus.core.storage import digest_json, is_whole
from gradus.data import shards
from gradus.data.shards import token_store
from gradus.tokenizers import BytePairTokenizer, CharacterTokenizer, PretrainedTokenizer, Tokenizer

TEXTS = [
    "It was the best of times. " * 30,
    "话说天下大势，分久必合，合久必分。" * 40,
    "短",
    "line\r\nline <|end|>\n",
]


@dataclass
class Document:
    text: str


@dataclass
class Texts:
    """Text in memory; `reads` counts how often it was read."""

    texts: list[str]
    reads: int = 0

    @property
    def digest(self) -> str:
        return digest_json(self.texts)

    def documents(self) -> Iterator[Document]:
        self.reads += 1
        return map(Document, self.texts)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return BytePairTokenizer(vocab_size=300).build(TEXTS)


def expected(tokenizer: Tokenizer, texts: list[str]) -> tuple[np.ndarray, list[int]]:
    parts = [np.append(ids, tokenizer.role("end")) for ids in tokenizer.encode(texts)]
    return np.concatenate(parts), [0, *np.cumsum([len(part) for part in parts])]


def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of 64 bytes, batches of 50 characters and pieces of 20: every border is crossed."""
    monkeypatch.setattr(shards, "SHARD_BYTES", 64)
    monkeypatch.setattr(shards, "BATCH", 50)
    monkeypatch.setattr(Tokenizer.pieces, "__defaults__", (20,))


def test_reads_what_was_encoded(
    tmp_path: Path, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    small(monkeypatch)
    done: list[int] = []
    store = token_store(Texts(TEXTS), tokenizer, tmp_path, done.append)
    tokens, borders = expected(tokenizer, TEXTS)
    assert store.total == len(tokens) == borders[-1] and store.documents.tolist() == borders
    assert store.bytes == sum(len(text.encode()) for text in TEXTS) == done[-1]
    assert done == sorted(done) and len(done) > 5 and len(list(store.folder.glob("*.bin"))) > 5
    assert store.read(0, store.total).dtype == np.int64
    for start, stop in [
        (0, store.total),
        (0, 0),
        (31, 33),
        (32, 64),
        (5, 200),
        (store.total - 1, store.total),
    ]:
        assert np.array_equal(store.read(start, stop), tokens[start:stop])
    for start, stop in [(-1, 2), (3, 2), (0, store.total + 1)]:
        with pytest.raises(IndexError):
            store.read(start, stop)


def test_size_of_shards_and_batches_changes_no_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = CharacterTokenizer().build(TEXTS)
    large = token_store(Texts(TEXTS), tokenizer, tmp_path / "large")
    small(monkeypatch)
    fine = token_store(Texts(TEXTS), tokenizer, tmp_path / "small")
    assert np.array_equal(large.read(0, large.total), fine.read(0, fine.total))
    assert large.documents.tolist() == fine.documents.tolist() and large.digest == fine.digest
    assert len(list(fine.folder.glob("*.bin"))) > len(list(large.folder.glob("*.bin"))) == 1


def test_written_once_for_each_text_and_tokenizer(tmp_path: Path, tokenizer: Tokenizer) -> None:
    source = Texts(TEXTS)
    first, second = (token_store(source, tokenizer, tmp_path) for _ in range(2))
    assert source.reads == 1 and first.digest == second.digest
    assert token_store(Texts(TEXTS[:2]), tokenizer, tmp_path).digest != first.digest
    assert token_store(source, tokenizer.with_roles(["sentinel 0"]), tmp_path).digest != first.digest
    assert len(list(tmp_path.glob("tokens-*/"))) == 3
    travelled = pickle.loads(pickle.dumps(first))
    assert np.array_equal(travelled.read(0, 9), first.read(0, 9)) and len(pickle.dumps(first)) < 1000


def test_large_vocabularies_take_four_bytes(tmp_path: Path) -> None:
    characters = [chr(0x20000 + number) for number in range(40_000)] + [
        chr(0x4E00 + i) for i in range(20_000)
    ]
    characters += [chr(0xAC00 + number) for number in range(11_000)]
    tokenizer = CharacterTokenizer().build(["".join(characters)])
    assert tokenizer.size == 71_007
    store = token_store(Texts(["".join(characters)]), tokenizer, tmp_path)
    assert store.read(0, store.total).tolist() == [
        *tokenizer.encode(["".join(characters)])[0],
        tokenizer.role("end"),
    ]
    assert store.read(0, store.total).max() == 71_006
    assert (store.folder / "00000.bin").stat().st_size == 4 * store.total


@pytest.mark.parametrize("damage", ["index.json", "documents.npy", "00000.bin", "MANIFEST.json"])
@pytest.mark.parametrize("how", ["gone", "cut"])
def test_a_damaged_store_is_written_anew(tmp_path: Path, tokenizer: Tokenizer, damage: str, how: str) -> None:
    store = token_store(Texts(TEXTS), tokenizer, tmp_path)
    file = store.folder / damage
    if how == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[:-2])
    source = Texts(TEXTS)
    again = token_store(source, tokenizer, tmp_path)
    assert source.reads == 1 and is_whole(again.folder)
    assert np.array_equal(again.read(0, again.total), expected(tokenizer, TEXTS)[0])


def test_no_text_and_no_end(tmp_path: Path, tokenizer: Tokenizer) -> None:
    for texts in ([], [""]):
        with pytest.raises(UserError, match="no text"):
            token_store(Texts(texts), tokenizer, tmp_path)
    assert not list(tmp_path.glob("*tokens-*"))
    with pytest.raises(UserError, match="no token for the role 'end'"):
        token_store(Texts(TEXTS), Tokenizer(tokenizer.inner, {}), tmp_path)


def test_an_error_half_way_leaves_nothing(tmp_path: Path, tokenizer: Tokenizer) -> None:
    class Failing(Texts):
        def documents(self) -> Iterator[Document]:
            yield Document(TEXTS[0])
            raise UserError("bad bytes", file="b.txt", line=3)

    with pytest.raises(UserError, match="b.txt:3: bad bytes"):
        token_store(Failing(TEXTS), tokenizer, tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["tokens.lock"]


SLOW = """
import sys, time
from pathlib import Path
from gradus.data import shards
from gradus.data.shards import token_store
from gradus.tokenizers import PretrainedTokenizer

class Document:
    text = "话说天下大势 it was the best of times. " * 9

class Slow:
    digest = sys.argv[2]
    def documents(self):
        for number in range(int(sys.argv[3])):
            if number == 2:
                print("half way", flush=True)
            time.sleep(0.02)
            yield Document

shards.BATCH = 100
folder = Path(sys.argv[1])
print(token_store(Slow(), PretrainedTokenizer(path=str(folder)).build(), folder / "cache").total)
"""


def test_a_kill_half_way_leaves_nothing_that_counts(tmp_path: Path, tokenizer: Tokenizer) -> None:
    tokenizer.save(tmp_path)
    command = [sys.executable, "-c", SLOW, str(tmp_path), "killed"]
    process = subprocess.Popen([*command, "100000"], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "half way\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    cache = tmp_path / "cache"
    left = [entry.name for entry in cache.iterdir() if entry.name != "tokens.lock"]
    assert len(left) == 1 and left[0].startswith(".tokens-")
    (cache / ".other.1234.tmp").mkdir()  # somebody else's work
    token_store(Texts(TEXTS), PretrainedTokenizer(path=str(tmp_path)).build(), cache)
    assert sorted(entry.name[:7] for entry in cache.iterdir()) == [".other.", "tokens-", "tokens."]


def test_two_processes_write_it_once(tmp_path: Path, tokenizer: Tokenizer) -> None:
    tokenizer.save(tmp_path)
    command = [sys.executable, "-c", SLOW, str(tmp_path), "shared", "20"]
    both = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    outputs = sorted(process.communicate()[0] for process in both)
    assert all(process.returncode == 0 for process in both)
    assert [output.count("half way") for output in outputs] in ([0, 1], [1, 0])
    assert outputs[0].split()[-1] == outputs[1].split()[-1]
    (folder,) = (tmp_path / "cache").glob("tokens-*/")
    assert is_whole(folder)


@pytest.mark.data
def test_a_novel(tmp_path: Path, tokenizer: Tokenizer) -> None:
    root = os.environ.get("GRADUS_DATA")
    if not root:
        pytest.skip("GRADUS_DATA is not set")
    files = (
        sorted(Path(root, "LM_en_novels/test").glob("*.txt"))
        + sorted(Path(root, "LM_zh_novels").glob("*.txt"))[:1]
    )
    texts = [file.read_text(encoding="utf-8-sig") for file in files]
    store = token_store(Texts(texts), tokenizer, tmp_path)
    tokens, borders = expected(tokenizer, texts)
    assert np.array_equal(store.read(0, store.total), tokens) and store.documents.tolist() == borders
