"""Tags of words, and the entities that they mark: B-LOC I-LOC O, as each scheme writes them.

One rule reads them all, that of conlleval and of seqeval's default mode: B and S begin an entity, E and S end
one, and I (BMES has M) or E goes on with one of its own type, else begins one. An entity whose tags are those
that the scheme would write for it is as the scheme wants it: what seqeval's strict mode counts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np

Scheme = Literal["bio", "bmes", "iobes", "none"]
"""How tags write entities; with `none` they write none, as parts of speech."""

LETTERS: dict[Scheme, tuple[str, str, str, str]] = {
    "bio": ("B", "I", "I", "B"),
    "bmes": ("B", "M", "E", "S"),
    "iobes": ("B", "I", "E", "S"),
}
"""What a scheme writes for the first word of an entity, those within, the last, and one that is alone. bio is
IOB2 (Tjong Kim Sang and Veenstra 1999)."""
OUTSIDE = "O"


class Entity(NamedTuple):
    """The words from `first` to `last`, which are of this type; "" where the tags name none."""

    type: str
    first: int
    last: int


def entities(tags: Iterable[str]) -> list[Entity]:
    """The entities that tags mark, whatever letters they use and whether or not a scheme would write them."""
    found: list[Entity] = []
    before = ""
    for place, tag in enumerate(tags):
        letter, kind = tag[0], tag[2:]
        if before in ("B", "I", "M") and letter in ("I", "M", "E") and kind == found[-1].type:
            found[-1] = found[-1]._replace(last=place)
        elif tag != OUTSIDE:
            found.append(Entity(kind, place, place))
        before = letter
    return found


def written(entity: Entity, scheme: Scheme) -> list[str]:
    """The tags of an entity's words."""
    begin, inside, end, alone = LETTERS[scheme]
    within = entity.last - entity.first - 1
    letters = [alone] if within < 0 else [begin, *[inside] * within, end]
    return [f"{letter}-{entity.type}" if entity.type else letter for letter in letters]


def all_written(found: Iterable[Entity], words: int, scheme: Scheme) -> list[str]:
    """The tags of so many words."""
    tags = [OUTSIDE] * words
    for entity in found:
        tags[entity.first : entity.last + 1] = written(entity, scheme)
    return tags


def as_wanted(tags: Sequence[str], scheme: Scheme) -> list[Entity]:
    """Those entities whose tags are as the scheme writes them."""
    return [one for one in entities(tags) if list(tags[one.first : one.last + 1]) == written(one, scheme)]


def is_of(tag: str, scheme: Scheme) -> bool:
    """Whether the scheme has such a tag."""
    if scheme == "none":
        return bool(tag)
    return tag == OUTSIDE or re.fullmatch(f"[{''.join(LETTERS[scheme])}](-.+)?", tag) is not None


def whole(tags: Iterable[str], scheme: Scheme) -> list[str]:
    """The tags of a scheme for all types among `tags`, `O` first: a type's every letter may be wanted, though
    train has not all of them. Without a scheme the tags themselves, sorted."""
    seen = set(tags)
    if scheme == "none":
        return sorted(seen)
    types = sorted({tag[2:] for tag in seen - {OUTSIDE}})
    outside = [OUTSIDE] if OUTSIDE in seen or types != [""] else []
    letters = dict.fromkeys(LETTERS[scheme])
    return outside + [f"{letter}-{kind}" if kind else letter for kind in types for letter in letters]


def may_follow(tags: Sequence[str], scheme: Scheme) -> np.ndarray:
    """Which of K tags (columns) may follow which (rows) where all entities are as the scheme writes them
    [K+1, K+1]; the last of each is what is before and behind a row of tags. Without a scheme any may."""
    if scheme == "none":
        return np.ones((len(tags) + 1, len(tags) + 1), bool)
    first, inside, last, alone = LETTERS[scheme]
    every = [*tags, OUTSIDE]
    goes_on, begun, unfinished = (
        np.array([tag[0] in letters for tag in every])
        for letters in ((inside, last), (first, inside), {first, inside} - {last, alone})
    )
    alike = np.array([[one[2:] == other[2:] for other in every] for one in every])
    return np.where(goes_on, begun[:, None] & alike, ~unfinished[:, None])
