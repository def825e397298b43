"""Words that go, change places, come in or are hidden: what is left is a text, in English and Chinese, and
shares are what they are said to be."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gradus.core.duration import Quantity
from gradus.core.errors import UserError
from gradus.core.keyed import keyed_generator
from gradus.data.augmentation import (
    HIDDEN,
    Deletion,
    Insertion,
    Known,
    Masking,
    OfWords,
    Replacement,
    Swap,
)
from gradus.data.parting import Parted
from gradus.data.synonyms import Synonyms, read_synonyms
from gradus.pipeline.worked.augmentation import WORKED
from gradus.pipeline.worked.objectives import rewritten
from gradus.tokenizers.segmenters import segmenter

ENGLISH = "A good film , really; don't miss it in New York ."
CHINESE = "这部电影很好看，我用GPT-3看了两遍。"
TABLE = "good\tfine\tdecent\n电影\t影片\n\nnew york\tthe Big Apple\n好\t佳\n好看\t精彩\n"
KINDS = [Deletion(), Swap(), Insertion(), Masking(), Replacement(file="f"), Insertion(file="f")]


@pytest.fixture
def table(tmp_path: Path) -> Synonyms:
    (tmp_path / "同义词.tsv").write_text(TABLE, encoding="utf-8")
    return read_synonyms(tmp_path / "同义词.tsv", "augment.0.file")


def share(kind: OfWords, percent: float) -> OfWords:
    return kind.model_copy(update={"share": Quantity(percent, "%")})


def test_words_are_runs_of_letters_and_single_characters_of_chinese() -> None:
    english = ["A", "good", "film", "really", "don't", "miss", "it", "in", "New", "York"]
    assert list(Parted.of(ENGLISH).words) == english
    assert list(Parted.of(CHINESE).words) == [*"这部电影很好看我用", "GPT-3", *"看了两遍"]
    by_jieba = Parted.of(CHINESE, segmenter("jieba"))
    assert {"电影", "好看", "GPT-3"} <= set(by_jieba.words) and by_jieba.text == CHINESE
    assert Parted.of(ENGLISH, segmenter("jieba")) == Parted.of(ENGLISH)
    assert Parted.of("हिन्दी, Vie\u0323\u0302t!").words == ("हिन्दी", "Vie\u0323\u0302t")


@given(st.text(alphabet="ab é好看。, ._3\n\t", max_size=30), st.integers(0, 99))
def test_whatever_is_done_words_are_neither_lost_nor_made_up(text: str, key: int) -> None:
    """Oracle: the multiset of words before and after."""
    parted, random = Parted.of(text), keyed_generator(key)
    assert parted.text == text and len(parted.gaps) == len(parted.words) + 1
    if not parted.words:
        return
    known, before = Known(word=lambda random: "词"), Counter(parted.words)
    deleted = share(Deletion(), 50).changed(parted, random, known)
    assert deleted.words and not Counter(deleted.words) - before and deleted.text.strip()
    swapped = share(Swap(), 50).changed(parted, random, known)
    assert Counter(swapped.words) == Counter(Parted.of(swapped.text).words) == before
    assert Parted.of(deleted.text).words == deleted.words
    inserted = share(Insertion(), 30).changed(parted, random, known)
    assert Counter(inserted.words) - before == Counter({"词": max(1, int(0.3 * len(parted.words)))})
    assert Counter(Parted.of(inserted.text).words) == Counter(inserted.words)
    hidden = share(Masking(), 50).changed(parted, random, known).text
    assert hidden.replace(HIDDEN[0], "").replace(HIDDEN[1], "") == text


def test_what_is_deleted_leaves_no_double_spaces() -> None:
    parted = Parted.of(ENGLISH)

    def left(*gone: int) -> str:
        return parted.without([place in gone for place in range(len(parted.words))]).text

    assert left(1) == "A film , really; don't miss it in New York ."
    assert left(0, 1) == "film , really; don't miss it in New York ."
    assert left(2) == "A good , really; don't miss it in New York ."
    assert left(9) == "A good film , really; don't miss it in New ."
    assert Parted.of("a b").without([False, True]).text == "a"
    assert Parted.of("a 好b").without([False, True, False]).text == "a b"
    assert Parted.of("a好b").without([False, True, False]).text == "a b"
    assert Parted.of("天 好 看").without([False, True, False]).text == "天 看"


def test_what_is_inserted_has_spaces_where_its_neighbours_have() -> None:
    parted = Parted.of("我用BERT做 it.")
    found = [parted.inserted(place, "x").text for place in range(len(parted.words) + 1)]
    assert found == ["x我用BERT做 it.", "我x用BERT做 it.", "我用x BERT做 it.", "我用BERT x做 it.",
                     "我用BERT做 x it.", "我用BERT做 it x."]  # fmt: skip
    assert parted.inserted(2, "好").text == "我用好BERT做 it."


@pytest.mark.parametrize("text", [ENGLISH, CHINESE], ids=["English", "Chinese"])
@pytest.mark.parametrize("kind", [Deletion(), Masking()], ids=["deletion", "masking"])
def test_so_many_words_go_or_are_hidden_as_is_said(kind: OfWords, text: str) -> None:
    """Within four deviations of a binomial; all words are equally likely."""
    parted, times, odds = Parted.of(text), 2000, 0.2
    gone: Counter[int] = Counter()
    for key in range(times):
        taken = share(kind, 100 * odds).some(parted, keyed_generator("share", key))
        gone.update(np.flatnonzero(taken).tolist())
    deviation = (odds * (1 - odds) / times) ** 0.5
    assert all(abs(gone[place] / times - odds) < 4 * deviation for place in range(len(parted.words)))


@pytest.mark.parametrize("text", [ENGLISH, CHINESE], ids=["English", "Chinese"])
def test_swaps_and_insertions_are_counted(text: str) -> None:
    """10 swaps of 100 words move at most 20 of them; every place is as likely to be inserted at."""
    words = Parted.of(" ".join([text] * 3))
    number = max(1, int(0.1 * len(words.words)))
    moved = [
        sum(a != b for a, b in zip(words.words, Swap().changed(words, keyed_generator(key), Known()).words))
        for key in range(50)
    ]
    assert 0 < max(moved) <= 2 * number
    places: Counter[int] = Counter()
    small = Parted.of("a b c 好")
    for key in range(1000):
        found = Insertion().changed(small, keyed_generator(key), Known(word=lambda random: "x"))
        places[found.words.index("x")] += 1
    assert sorted(places) == [0, 1, 2, 3, 4] and min(places.values()) > 200 - 4 * 12.7


def test_synonyms_are_found_over_several_words_and_the_longest_wins(table: Synonyms) -> None:
    def found(text: str) -> list[str]:
        parted = Parted.of(text)
        return [parted.between(*place) for place in table.found(parted)]

    assert found(ENGLISH) == ["good", "New York"]
    assert found(CHINESE) == ["电影", "好看"]
    said = {
        share(Replacement(file="f"), 100)
        .changed(Parted.of(ENGLISH), keyed_generator(key), Known(None, table))
        .text
        for key in range(20)
    }
    rest = "film , really; don't miss it in The Big Apple ."
    assert said == {f"A fine {rest}", f"A decent {rest}"}
    whole = share(Replacement(file="f"), 100).changed(
        Parted.of(CHINESE), keyed_generator(0), Known(None, table)
    )
    assert whole.text == "这部影片很精彩，我用GPT-3看了两遍。"
    one = Replacement(file="f").changed(Parted.of(CHINESE), keyed_generator(0), Known(None, table)).text
    assert one in ("这部影片很好看，我用GPT-3看了两遍。", "这部电影很精彩，我用GPT-3看了两遍。")


def test_insertion_with_a_table_takes_synonyms_of_the_text(table: Synonyms) -> None:
    known = Known(None, table)
    added: set[str] = set()
    for key in range(60):
        changed = Insertion(file="f").changed(Parted.of("good 电影"), keyed_generator(key), known)
        added |= set(changed.words) - {"good", "电", "影"}
    assert added == {"fine", "decent", "影片"}
    assert Insertion(file="f").changed(Parted.of("dull 无聊"), keyed_generator(0), known).text == "dull 无聊"


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_a_single_word_stays(kind: OfWords, table: Synonyms) -> None:
    for text in ("word", "词", "  word!"):
        for key in range(5):
            changed = share(kind, 100).changed(Parted.of(text), keyed_generator(key), Known(None, table))
            assert changed.words and text.strip("! ") in changed.text


@pytest.mark.parametrize(
    ("content", "told"),
    [("good\tfine\n好看\n", r":2: a word alone has no synonym: '好看' \(a line is two or more words, parted"),
     ("good fine\n", r":1: a word alone has no synonym: 'good fine'"),
     ("好\t佳\n\ngood\t\tfine\n", r":3: one of these is no word: 'good\\t\\tfine'"),
     ("good\tGood\n", ":1: a word stands twice in its line"), ("\n", "the table has no synonyms"),
     ("好\t佳\n".encode("gb18030"), r":1: bytes .* are not utf-8 \(a table of synonyms is UTF-8\)")],
)  # fmt: skip
def test_a_table_that_is_none_is_told(content: str | bytes, told: str, tmp_path: Path) -> None:
    path = tmp_path / "table.tsv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=told):
        read_synonyms(path, "augment.0.file")


def test_the_examples_of_the_page_are_printed_by_the_code() -> None:
    text = (Path(__file__).parents[1] / "docs" / "augmentation.md").read_text(encoding="utf-8")
    assert rewritten(text, WORKED) == text, "python -m gradus.pipeline.worked.augmentation"
    assert sorted(re.findall(r"<!-- printed: (.+?) -->", text)) == sorted(WORKED)
