"""Windows of two segments: where they come from, their labels, what is cut, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from gradus.core.errors import UserError
from gradus.core.example import Example
from gradus.core.model import ModelConfig
from gradus.data.frame import Frame
from gradus.data.pairs import PairWindows, cut_to, packed, shared_room
from gradus.pipeline.planning.material import Material
from gradus.pipeline.planning.plan import make_plan
from gradus.pipeline.planning.prepare import prepare
from gradus.pipeline.planning.prepared import Prepared
from gradus.pipeline.recipes.reading import read_recipe

CLS, SEP, END = 1, 2, 3
ROLES = {"start": np.array([CLS]), "delimiter": np.array([SEP]), "end": np.array([END])}
FRAME = Frame.of(ModelConfig(arrangement="encoder", segments=2))


class Sentences:
    """Sentence s has `sizes[s]` tokens, each 10 * (s + 1) and upwards by one, then `end`."""

    def __init__(self, sizes: list[int]):
        parts = [np.append(1000 * (at + 1) + np.arange(size), END) for at, size in enumerate(sizes)]
        self._tokens = np.concatenate(parts)
        self.documents = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
        self.total = len(self._tokens)

    def read(self, start: int, stop: int) -> np.ndarray:
        return self._tokens[start:stop]


def windows(sizes: list[int], counts: list[int], kind: Any, context: int = 20) -> PairWindows:
    return PairWindows(Sentences(sizes), np.array(counts), context, FRAME, ROLES, kind)


SIZES = [3, 4, 2, 5, 1, 6, 4, 3, 2, 9, 9, 4, 3, 2, 1, 5, 6, 2]
COUNTS = [7, 1, 6, 4]
OWNER = np.repeat(np.arange(4), COUNTS)


def halves(example: Example) -> tuple[list[int], list[int]]:
    """The sentences of each segment; checks the special tokens and the segments on the way."""
    ids, belongs = example.sequences[0], example.segments[0]
    assert ids[0] == CLS and ids[-1] == END and (ids == SEP).sum() == 1
    middle = int(np.flatnonzero(ids == SEP)[0])
    assert belongs.tolist() == [0] * (middle + 1) + [1] * (len(ids) - middle - 1)
    first, second = ids[1:middle], ids[middle + 1 : -1]
    assert END not in first and END not in second and len(first) and len(second)
    return [list(dict.fromkeys((part // 1000 - 1).tolist())) for part in (first, second)]


def test_half_of_the_second_segments_are_another_documents() -> None:
    source, labels = windows(SIZES, COUNTS, "sentence_pairs"), []
    for epoch in range(200):
        for index in range(len(source)):
            example = source.example(index, epoch)
            first, second = halves(example)
            assert len(example.sequences[0]) <= 20
            assert first == list(range(first[0], first[-1] + 1))
            assert second == list(range(second[0], second[-1] + 1))
            same = OWNER[first[0]] == OWNER[second[0]]
            assert same == (example.label == 0)
            assert not same or second[0] == first[-1] + 1
            assert len(set(OWNER[first].tolist())) == len(set(OWNER[second].tolist())) == 1
            labels.append(example.label)
    assert abs(np.mean(labels) - 0.5) < 3 * math.sqrt(0.25 / len(labels))


def test_half_of_the_segments_have_changed_places() -> None:
    source, labels = windows(SIZES, COUNTS, "sentence_order"), []
    for epoch in range(200):
        for index in range(len(source)):
            example = source.example(index, epoch)
            first, second = halves(example)
            early, late = (second, first) if example.label else (first, second)
            assert late[0] == early[-1] + 1 and OWNER[early[0]] == OWNER[late[-1]]
            labels.append(example.label)
    assert abs(np.mean(labels) - 0.5) < 3 * math.sqrt(0.25 / len(labels))
    alone = windows([3, 4], [2], "sentence_order")
    assert len(alone) == 1, "one document is enough"


def test_the_epoch_draws_anew_and_evaluation_sees_the_same() -> None:
    source = windows(SIZES, COUNTS, "sentence_pairs")
    again = windows(SIZES, COUNTS, "sentence_pairs")
    drawn = {tuple(source.example(0, epoch).sequences[0].tolist()) for epoch in range(20)}
    assert len(drawn) > 5
    for index in range(len(source)):
        one, other = source.example(index), again.example(index)
        assert np.array_equal(one.sequences[0], other.sequences[0]) and one.label == other.label


def test_every_sentence_of_a_document_with_two_is_in_a_window() -> None:
    source = windows(SIZES, COUNTS, "sentence_order")
    seen: set[int] = set()
    for index in range(len(source)):
        first, second = halves(source.example(index))
        seen |= {*first, *second}
    assert seen == set(range(18)) - {7} and source.alone.tolist() == [1]
    assert source.tokens >= sum(SIZES) - 3 and source.longest <= 20
    assert packed(np.array([5, 5, 5, 5, 5]), 0, 5, 11) == [(0, 2), (2, 4), (3, 5)]
    assert packed(np.array([3, 3, 3]), 0, 3, 20) == [(0, 3)]
    assert packed(np.array([30, 30, 1]), 0, 3, 20) == [(0, 2), (1, 3)]


def test_too_long_segments_lose_tokens_as_in_berts_release() -> None:
    def released(first: int, second: int, room: int) -> tuple[int, int]:
        while first + second > room:
            if first > second:
                first -= 1
            else:
                second -= 1
        return first, second

    for first in range(1, 12):
        for second in range(1, 12):
            for room in range(2, 24):
                kept = shared_room(first, second, room)
                assert sum(kept) == sum(released(first, second, room)) and min(kept) >= 1
                assert sorted(kept) == sorted(released(first, second, room))
    source = windows([30, 8, 40, 40], [2, 2], "sentence_order")
    examples = [source.example(index) for index in range(len(source))]
    assert [example.truncated for example in examples] == source.cut.tolist() == [21, 63]
    assert all(len(example.sequences[0]) == 20 for example in examples)
    text, random = np.arange(30), np.random.default_rng(1)
    heads = [int(cut_to(text, 10, random)[0]) for _ in range(400)]
    assert all(np.array_equal(np.diff(cut_to(text, 10, random)), np.ones(9)) for _ in range(5))
    assert abs(np.mean(heads) - 10) < 3 * math.sqrt(20 * 0.25 / 400)


def test_what_makes_no_pair_is_refused() -> None:
    with pytest.raises(UserError, match="no document has two sentences"):
        windows([3, 4], [1, 1], "sentence_order")
    with pytest.raises(UserError, match="there is one document"):
        windows([3, 4], [2], "sentence_pairs")
    with pytest.raises(UserError, match="no room for two segments"):
        windows(SIZES, COUNTS, "sentence_pairs", context=4)


def made(path: Path, text: str, **data: Any) -> Prepared:
    """A pre-training stage on a file of this text."""
    (path / "text.txt").write_text(text, encoding="utf-8")
    objective = {"sentence_pairs": "next_sentence", "sentence_order": "sentence_order"}[data["windows"]]
    recipe = {
        "tokenizer": {"kind": "char"},
        "model": {"preset": "gpt1-tiny", "width": 16, "heads": 2, "context": 24,
                  "arrangement": "encoder", "segments": 2},
        "stages": {"pretrain": {
            "data": {"kind": "text", "train": "text.txt", **data},
            "objectives": [{"kind": "masked_lm"}, {"kind": objective}], "length": "1 epoch"}},
    }  # fmt: skip
    (path / "recipe.yaml").write_text(yaml.safe_dump(recipe, allow_unicode=True), encoding="utf-8")
    material = Material(path, path / "cache")
    (node,) = make_plan(read_recipe(path / "recipe.yaml"), material).nodes.values()
    return prepare(node, material)


LINES = "他走了\n她也走了。我没走\n\n一句\n\nThe end.\nIs it?\nIt is.\n"


def test_documents_of_lines_and_documents_of_rules(tmp_path: Path) -> None:
    pairs = made(tmp_path, LINES, windows="sentence_pairs", documents="blank line")
    counts = pairs.splits["train"].counts
    assert (counts["documents"], counts["sentences"], counts["documents_of_one_sentence"]) == (3, 6, 1)
    said = pairs.tokenizer.decode(pairs.train.example(0, 1).sequences[0])
    assert said.startswith("<|start|>") and said.endswith("<|end|>") and "<|delimiter|>" in said
    rules = made(tmp_path, LINES, windows="sentence_order", documents="blank line", sentences="rules")
    assert rules.splits["train"].counts["sentences"] == 7
    whole = made(tmp_path, LINES, windows="sentence_order")
    assert whole.splits["train"].counts["documents"] == 1
    again = made(tmp_path, LINES, windows="sentence_order")  # from the cache
    assert again.splits["train"].counts == whole.splits["train"].counts


def test_a_file_of_single_sentences_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="text.txt.*no document has two sentences"):
        made(tmp_path, "一句\n\n又一句\n", windows="sentence_pairs", documents="blank line")
