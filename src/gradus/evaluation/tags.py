"""How good tags of words are: how many are right, and precision, recall and F1 of the entities they mark.

As seqeval 1.2 (Nakayama 2018; after conlleval, Tjong Kim Sang and Buchholz 2000) counts them: an entity is
right where its type, its first and its last word are, over all rows together.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence

from gradus.data.tags import OUTSIDE, Entity, Scheme, as_wanted, entities

Tagging = Sequence[str | None]
"""The tags of a row's words; None for a word that was not read."""


def tag_metrics(right: Sequence[Sequence[str]], said: Sequence[Tagging], scheme: Scheme) -> dict[str, float]:
    """`accuracy` over words, of which one that was not read is wrong; and where tags mark entities,
    `precision`, `recall` and `f1` in seqeval's default mode, and `strict_f1` in its strict one, which counts
    no entity that the scheme would write otherwise. What is undefined is 0."""
    words = sum(map(len, right))
    alike = sum(one == other for row in zip(right, said) for one, other in zip(*row))
    metrics = {"accuracy": alike / max(words, 1)}
    if scheme != "none":
        told = [[tag or OUTSIDE for tag in tags] for tags in said]
        precision, recall, f1 = _scores(entities, right, told)
        strict = _scores(lambda tags: as_wanted(tags, scheme), right, told)
        metrics |= {"precision": precision, "recall": recall, "f1": f1, "strict_f1": strict[2]}
    return metrics


def _scores(
    read: Callable[[Sequence[str]], list[Entity]],
    right: Sequence[Sequence[str]],
    said: Sequence[Sequence[str]],
) -> tuple[float, float, float]:
    wanted, found = ({(row, *one) for row, tags in enumerate(rows) for one in read(tags)}
                     for rows in (right, said))  # fmt: skip
    both = len(wanted & found)
    return (both / max(len(found), 1), both / max(len(wanted), 1),
            2 * both / max(len(found) + len(wanted), 1))  # fmt: skip


def tag_floors(
    known: Sequence[tuple[Sequence[str], Sequence[str]]],
    words: Sequence[Sequence[str]],
    right: Sequence[Sequence[str]],
    scheme: Scheme,
) -> dict[str, dict[str, float]]:
    """Metrics of `majority`, the most frequent tag of train, and of `word_majority`, that of each word, or of
    all where train has not the word (the baseline of Charniak et al. 1993). `known` are the words and
    tags of the rows of train; among equals the first in order counts."""
    by_word: dict[str, Counter[str]] = defaultdict(Counter)
    for row, tags in known:
        for word, tag in zip(row, tags):
            by_word[word][tag] += 1
    usual = _most(sum(by_word.values(), Counter()))
    own = {word: _most(counts) for word, counts in by_word.items()}
    said = {
        "majority": [[usual] * len(row) for row in words],
        "word_majority": [[own.get(word, usual) for word in row] for row in words],
    }
    return {name: tag_metrics(right, tags, scheme) for name, tags in said.items()}


def _most(counts: Counter[str]) -> str:
    return max(sorted(counts), key=lambda tag: counts[tag])
