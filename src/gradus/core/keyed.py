"""Randomness as a function: the same key gives the same numbers, whoever asks and in whatever order.

`keyed_hash` names a stream, `permuted` is a bijection of range(n): the i-th item of an epoch is computed, not
remembered, so a resume is one integer and order depends on neither workers nor world size.
"""

from __future__ import annotations

import hashlib

import numpy as np

ROUNDS = 8


def keyed_hash(*key: object) -> int:
    """A 63-bit integer that depends on every part of the key and on nothing else (BLAKE2b)."""
    text = "\x1f".join(f"{type(part).__name__}:{part}" for part in key)
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def keyed_generator(*key: object) -> np.random.Generator:
    """A NumPy generator for this key alone: what corruption and augmentation of a row draw from."""
    return np.random.Generator(np.random.Philox(key=keyed_hash(*key)))


def keyed_fraction(*key: object) -> float:
    """A number in [0, 1) for this key: rows below a share are held out."""
    return keyed_hash(*key) / 2**63


def permuted(index: np.ndarray | int, size: int, *key: object) -> np.ndarray:
    """Maps indices [...] of range(size) through the bijection named by `key`.

    A Feistel network over the smallest even number of bits that holds `size`, walked until it lands inside
    (cycle walking; Black and Rogaway 2002, section 3). Raises ValueError for an index out of range.
    """
    values = np.atleast_1d(np.asarray(index, dtype=np.uint64))
    if values.size and int(values.max()) >= size:
        raise ValueError(f"index {int(values.max())} is not below {size}")
    half = np.uint64(max(1, (max(size - 1, 1).bit_length() + 1) // 2))
    keys = [np.uint64(keyed_hash("round", turn, *key)) for turn in range(ROUNDS)]
    result = _feistel(values, half, keys)
    outside = result >= size
    while outside.any():
        result[outside] = _feistel(result[outside], half, keys)
        outside = result >= size
    return result.astype(np.int64)


def _feistel(values: np.ndarray, half: np.uint64, keys: list[np.uint64]) -> np.ndarray:
    mask = (np.uint64(1) << half) - np.uint64(1)
    left, right = values >> half, values & mask
    for key in keys:
        left, right = right, left ^ (mixed(right ^ key) & mask)
    return (left << half) | right


def mixed(values: np.ndarray) -> np.ndarray:
    """uint64 as unlike each other as can be: every input bit reaches every output bit (the finaliser of
    SplitMix64, Steele, Lea and Flood 2014)."""
    with np.errstate(over="ignore"):
        values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
