"""A release of GPT-1 in OpenAI's own files, but small and made up: a vocabulary of merges, and shards of
weights."""

from __future__ import annotations

import json
from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np

from gradus.families.release import SHAPES, SHARDS
from gradus.tokenizers.release import ENCODER, MERGES

TEXT = (
    "the cat sat on the mat and the dog said that the cat had a hat . it was the best of times , then ? 中 文"
)
Shape = tuple[int, ...]


@cache
def vocabulary(merges: int = 60) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Characters, characters that end a word, and the commonest pairs, as byte-pair encoding counts them."""
    words = Counter((*word[:-1], word[-1] + "</w>") for word in TEXT.split())
    letters = [*"abcdefghijklmnopqrstuvwxyzé'.,?!-_\"<>0123456789文\n"]
    tokens = ["<unk>", *letters, *(letter + "</w>" for letter in letters), "中</w>"]
    made = []
    for _ in range(merges):
        pairs: Counter[tuple[str, str]] = Counter()
        for word, count in words.items():
            for pair in zip(word, word[1:]):
                pairs[pair] += count
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        made.append(best)
        tokens.append("".join(best))
        words = Counter({_merged(word, best): count for word, count in words.items()})
    tokens = list(dict.fromkeys(tokens))
    return {token: number for number, token in enumerate(tokens)}, made


def _merged(word: tuple[str, ...], pair: tuple[str, str]) -> tuple[str, ...]:
    found: list[str] = []
    for part in word:
        if found and (found[-1], part) == pair:
            found[-1] += part
        else:
            found.append(part)
    return tuple(found)


def write_vocabulary(folder: Path, names: tuple[str, str] = (ENCODER, MERGES)) -> dict[str, int]:
    """Writes both files; returns the vocabulary."""
    tokens, merges = vocabulary()
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text(json.dumps(tokens), encoding="utf-8")
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges), ""]
    (folder / names[1]).write_text("\n".join(lines), encoding="utf-8")
    return tokens


def shapes(tokens: int, layers: int = 2, width: int = 64, context: int = 24) -> list[Shape]:
    """The shapes of all arrays in the order of the release."""
    layer: list[Shape] = [
        (1, width, 3 * width), (3 * width,), (1, width, width), (width,), (width,), (width,),
        (1, width, 4 * width), (4 * width,), (1, 4 * width, width), (width,), (width,), (width,),
    ]  # fmt: skip
    return [(context, width), (tokens, width), *layer * layers]


def write_weights(folder: Path, sizes: list[Shape], seed: int = 0) -> list[np.ndarray]:
    """Random arrays of these shapes as one vector in ten shards; returns the arrays."""
    random = np.random.default_rng(seed)
    arrays = [random.normal(0, 0.2, size).astype(np.float32) for size in sizes]
    vector = np.concatenate([array.ravel() for array in arrays])
    folder.mkdir(parents=True, exist_ok=True)
    for name, part in zip(SHARDS, np.array_split(vector, len(SHARDS))):
        np.save(folder / name, part, allow_pickle=False)
    (folder / SHAPES).write_text(json.dumps(sizes))
    return arrays


def write_release(folder: Path) -> list[np.ndarray]:
    """The whole of it."""
    return write_weights(folder, shapes(len(write_vocabulary(folder))))
