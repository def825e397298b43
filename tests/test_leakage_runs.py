"""Long runs of words in two texts: against brute force, with their places, and without holding the text."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator

import pytest
from test_leakage import HAN, LONG

from gradus.data import runs as runs_module
from gradus.data.folding import WIDE, folded, units
from gradus.data.runs import Passage, Runs, SharedRuns


def in_units(text: str) -> tuple[list[str], list[int]]:
    codes, kinds = folded(text)
    kept, begins = units(kinds)
    letters, ends = [chr(code) for code in codes[kept]], [*begins[1:], len(kept)]
    words = ["".join(letters[begin:end]) for begin, end in zip(begins, ends)]
    return words, [1 if kinds[kept[begin]] == WIDE else 2 for begin in begins]


def windows(text: str, size: int) -> list[str]:
    """By the definition: from every unit on, as many as make `size` half words."""
    words, weights = in_units(text)
    found = []
    for begin in range(len(words)):
        total = 0
        for end in range(begin, len(words)):
            total += weights[end]
            if total >= size:
                found.append("".join(words[begin : end + 1]))
                break
    return found


def by_brute_force(seen: list[str], asked: list[str]) -> tuple[int, int, int, int]:
    known = {size: {window for text in seen for window in windows(text, size)} for size in range(16, 27)}
    of = owners = of_runs = hits = 0
    for text in asked:
        size = min(26, sum(in_units(text)[1]))
        own = windows(text, size) if size == 26 else windows(text, size)[:1] if size >= 16 else []
        found = [window in known[size] for window in own]
        of, owners, of_runs, hits = of + bool(own), owners + any(found), of_runs + len(own), hits + sum(found)
    return of, owners, of_runs, hits


def test_runs_agree_with_brute_force(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = random.Random(1)
    parts = [
        "cat",
        "the Dog",
        "ran.",
        "一",
        "二",
        "好看",
        "«x»",
        "Ｂ",
        "e\u0301",
        "don't",
        "-",
        "\n",
        "  ",
        "한국",
    ]
    total = 0
    for trial in range(60):
        monkeypatch.setattr(runs_module, "_PIECE", 1 << draw.randint(4, 9))
        seen = [
            "".join(draw.choice(parts) + draw.choice(["", " "]) for _ in range(draw.randint(0, 80)))
            for _ in range(4)
        ]
        asked = []
        for _ in range(6):
            source = draw.choice(seen)
            begin = draw.randint(0, len(source))
            asked.append(draw.choice(["", "zz "]) + source[begin : begin + draw.randint(20, 90)].upper())
        found = Runs([[], passages(asked)]).found_in(passages(seen))
        assert found[0] == SharedRuns(0, 0, 0, 0, None)
        if trial % 2:  # without the overlap of asked texts themselves, which counts a few runs twice
            monkeypatch.setattr(runs_module, "_PIECE", 1 << 19)
            found = Runs([[], passages(asked)]).found_in(passages(seen))
            wanted = by_brute_force(seen, asked)
            assert (found[1].of, found[1].owners, found[1].of_runs, found[1].runs) == wanted
            total += wanted[1]
    assert total > 20


def passages(texts: list[str]) -> list[Passage]:
    return [Passage(text, f"{number}.txt", 1, number) for number, text in enumerate(texts)]


@pytest.mark.parametrize("piece", [64, 1 << 19])
def test_runs_know_their_places(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs_module, "_PIECE", piece)
    seen = [Passage("x y z.\n" * 40 + f"{LONG}\n天\n{HAN}", "book.txt", 10, 0)]
    asked = [[Passage("no", "r", 1, 0), Passage(f"Oh!\n{LONG.upper()}", "r", 5, 1)],
             [Passage(HAN[1:28], "z", 7, 0)],
             [Passage(HAN[:15], "z", 8, 0)], [Passage(HAN[3:19], "z", 9, 0)]]  # fmt: skip
    found = Runs(asked).found_in(iter(seen))
    assert [one.first for one in found] == [
        ("r:6", "book.txt:50"),
        ("z:7", "book.txt:52"),
        None,
        ("z:9", "book.txt:52"),
    ]
    assert [one.owners for one in found] == [1, 1, 0, 1]
    assert found == Runs(asked).found_in(iter(seen))


def test_text_is_streamed() -> None:
    words = [f"word{number}" for number in range(500)]

    def text(documents: int) -> Iterator[Passage]:
        draw = random.Random(2)
        for number in range(documents):
            yield Passage(" ".join(draw.choices(words, k=20_000)), "a", 1, number)

    def peak(documents: int) -> int:
        tracemalloc.start()
        asked.found_in(text(documents))
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    asked = Runs([[Passage(LONG, "a", 1, 0)]])
    peak(2)
    assert peak(24) < 1.2 * peak(8)
