"""Which column is the label, which the text, whether the first row is a header: guesses from the values."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from gradus.pipeline.look import CHINESE_SHARE, han_share

MOST_LABELS = 200
LONGEST_LABEL = 40
"""Characters of a label on average, at most."""
_LABEL_NAMES = (
    "label", "labels", "class", "category", "target", "sentiment", "polarity", "intent", "topic",
    "标签", "类别", "分类", "情感", "情感倾向",
)  # fmt: skip
_TEXT_NAMES = (
    "text", "sentence", "content", "review", "comment", "document", "body", "文本", "内容", "评论", "句子",
)  # fmt: skip
_PAIRS = [
    names.split()
    for names in (
        "premise hypothesis", "sentence1 sentence2", "text1 text2", "text_a text_b", "question sentence",
        "question1 question2", "question answer", "query document",
    )
]  # fmt: skip
_NUMBER = re.compile(r"[-+]?[0-9]*\.?[0-9]+(?:[eE][-+]?[0-9]+)?")


@dataclass(frozen=True)
class Column:
    """One column that every row has."""

    name: str
    values: list[str]

    @cached_property
    def kinds(self) -> Counter[str]:
        """How often each value stands there, the empty one left out."""
        return Counter(value.strip() for value in self.values if value.strip())

    @cached_property
    def empty(self) -> float:
        return 1 - sum(self.kinds.values()) / len(self.values)

    @cached_property
    def mean(self) -> float:
        """Characters of a value."""
        return sum(map(len, self.values)) / len(self.values)

    @property
    def could_be_label(self) -> bool:
        """Few values, short, each seen twice on average, and no measurements."""
        numbers = [kind for kind in self.kinds if _NUMBER.fullmatch(kind)]
        real = len(numbers) == len(self.kinds) and any("." in kind for kind in numbers)
        most = max(2, min(MOST_LABELS, len(self.values) // 2))
        return 2 <= len(self.kinds) <= most and self.mean <= LONGEST_LABEL and not real

    @property
    def could_be_text(self) -> bool:
        """Mostly filled, and mostly of several words or in Chinese."""
        some = self.values[:: max(1, len(self.values) // 1000)]
        several = sum(" " in value.strip() or han_share([value]) > CHINESE_SHARE for value in some)
        return self.mean >= 4 and self.empty < 0.05 and several > len(some) / 2


def label_column(columns: Sequence[Column]) -> Column | None:
    """What most looks like the label: by name, then filled, then the fewest values, then the first."""

    def rank(column: Column) -> tuple[int, bool, int]:
        name = column.name.lower()
        named = 0 if name in _LABEL_NAMES else 1 if any(word in name for word in _LABEL_NAMES) else 2
        return named, column.empty > 0, len(column.kinds)

    return min((column for column in columns if column.could_be_label), key=rank, default=None)


def text_columns(columns: Sequence[Column]) -> tuple[str, ...]:
    """The two columns of a pair, or the one with the text; none where nothing is long enough."""
    names = {column.name.lower(): column.name for column in columns}
    for first, second in _PAIRS:
        if first in names and second in names:
            return names[first], names[second]
    long = [column for column in columns if column.could_be_text]
    if len(long) == 2 and min(column.mean for column in long) >= 0.1 * max(column.mean for column in long):
        return long[0].name, long[1].name
    if named := next(
        (column.name for name in _TEXT_NAMES for column in long if column.name.lower() == name), None
    ):
        return (named,)
    most = max(
        long or [column for column in columns if column.mean >= 2],
        key=lambda column: column.mean,
        default=None,
    )
    return (most.name,) if most else ()


def has_header(cells: Sequence[Sequence[str]], width: int) -> bool:
    """Whether the first row names the columns: no number in it, and where values are few none of them."""
    first = [cell.strip() for cell in cells[0][:width]]
    if any(_NUMBER.fullmatch(cell) or len(cell) > 2 * LONGEST_LABEL for cell in first):
        return False
    columns = [Column(str(place), [row[place] for row in cells[1:]]) for place in range(width)]
    few = [(name, column) for name, column in zip(first, columns) if name and column.could_be_label]
    if any(name in column.kinds for name, column in few):
        return False
    return bool(few) or any(name.lower() in (*_LABEL_NAMES, *_TEXT_NAMES) for name in first)


def invented_names(cells: Sequence[Sequence[str]]) -> list[str]:
    """Names for the columns of a file without header, after what they hold."""
    names = [f"column {place}" for place in range(1, len(cells[0]) + 1)]
    columns = [Column(name, list(values)) for name, values in zip(names, zip(*cells))]
    label = label_column(columns)
    texts = text_columns([column for column in columns if column is not label]) if label else ()
    called = dict(zip(texts, ("text",) if len(texts) == 1 else ("first", "second")))
    if label:
        called[label.name] = "label"
    return [called.get(name, name) for name in names]
