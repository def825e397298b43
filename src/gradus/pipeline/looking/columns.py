"""Which column is the label, which the text, whether the first row is a header: guesses from the values."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from gradus.pipeline.looking.text import CHINESE_SHARE, han_share

MOST_LABELS = 200
LONGEST_LABEL = 40
"""Characters of a label on average, at most."""
_LABEL_NAMES = (
    "label", "labels", "class", "category", "target", "sentiment", "polarity", "intent", "topic", "rating",
    "stars", "grade", "emotion", "标签", "类别", "分类", "情感", "情绪", "评分", "星级", "意图",
)  # fmt: skip
_SCORE_NAMES = ("score", "similarity", "相似度", "分数", "得分")
_NEVER_NAMES = ("id", "uid", "index", "date", "time", "year", "url", "编号", "日期", "时间", "年份")
"""Columns of such names may repeat themselves, and are no classes for that."""
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
_DATE = re.compile(
    r"[0-9]{4}[-/.年][0-9]{1,2}([-/.月].*)?|[0-9]{1,2}[-/. ]([0-9]{1,2}|[A-Za-z]{3,9})[-/., ]+[0-9]{2,4}\b.*"
    r"|[A-Za-z]{3,9} [0-9]{1,2},? [0-9]{4}.*|[0-9]{1,2}:[0-9]{2}.*"
)
SAMPLE = 1000


@dataclass(frozen=True)
class Column:
    """One column; where a row lacks it, its value is empty."""

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

    @cached_property
    def is_plain(self) -> bool:
        """Whether it holds words: no JSON object or list, no numbers alone, no dates alone."""
        some = list(self.kinds)[:SAMPLE]
        return not (all(_NUMBER.fullmatch(kind) or _DATE.fullmatch(kind) for kind in some)
                    or all(listed(kind) is not None for kind in some))  # fmt: skip

    @cached_property
    def is_score(self) -> bool:
        """Whether it holds numbers, some of them with a fraction."""
        return all(map(_NUMBER.fullmatch, self.kinds)) and any("." in kind for kind in self.kinds)

    def called(self, names: Sequence[str]) -> int:
        """0 where one of the names is the column's, 1 where one is a part of it, else 2."""
        own = self.name.strip().lower()
        words = re.split(r"[\W_]+", own)
        parts = any(name in words if name.isascii() else name in own for name in names)
        return 0 if own in names else 1 if parts else 2

    @property
    def could_be_label(self) -> bool:
        """Few values, short, each seen twice on average, and neither measurements nor dates."""
        most = max(2, min(MOST_LABELS, len(self.values) // 2))
        if not 2 <= len(self.kinds) <= most or self.mean > LONGEST_LABEL or self.called(_NEVER_NAMES) < 2:
            return False
        whole = all(map(_NUMBER.fullmatch, self.kinds)) and not self.is_score
        return whole or self.is_plain

    @property
    def could_be_text(self) -> bool:
        """Mostly filled, and mostly of several words or in Chinese."""
        some = [value for value in self.values if value.strip()]
        some = some[:: max(1, len(some) // SAMPLE)]
        several = sum(" " in value.strip() or han_share([value]) > CHINESE_SHARE for value in some)
        return self.mean >= 4 and self.empty < 0.5 and several > len(some) / 2 and self.is_plain


def listed(value: str) -> list[object] | dict[str, object] | None:
    """The JSON list or object that a value is; None for all else."""
    if not value.lstrip().startswith(("[", "{")):
        return None
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, list | dict) else None


def label_column(columns: Sequence[Column]) -> Column | None:
    """What most looks like the label: by name, then mostly filled, then the fewest values, then the first."""

    def rank(column: Column) -> tuple[int, bool, int]:
        return column.called(_LABEL_NAMES), column.empty > 0.2, len(column.kinds)

    return min((column for column in columns if column.could_be_label), key=rank, default=None)


def chosen_columns(columns: Sequence[Column], wanted: str | None) -> tuple[Column | None, tuple[str, ...]]:
    """The label and the texts. `wanted` is the label where the user names it.

    Numbers with a fraction go before a class that is not called one where they are called a label or two
    texts stand beside them; those called a score are the last resort.
    """
    label = next((column for column in columns if column.name == wanted), None) or label_column(columns)
    texts = text_columns([column for column in columns if column is not label])
    if wanted is None and (label is None or label.called(_LABEL_NAMES) == 2):
        scores = sorted([column for column in columns if column.is_score], key=_rank_of_score)
        first = _rank_of_score(scores[0]) if scores else 3
        if first == 0 or (scores and len(texts) == 2) or (label is None and first == 1):
            return scores[0], texts
    return label, texts


def _rank_of_score(column: Column) -> int:
    return 0 if column.called(_LABEL_NAMES) < 2 else 1 if column.called(_SCORE_NAMES) < 2 else 2


def text_columns(columns: Sequence[Column]) -> tuple[str, ...]:
    """The two columns of a pair, or the one with the text; none where nothing is long enough."""
    names = {column.name.lower(): column.name for column in columns}
    for first, second in _PAIRS:
        if first in names and second in names:
            return names[first], names[second]
    long = [column for column in columns if column.could_be_text]
    full = [column for column in long if column.empty < 0.05]
    if len(full) == 2 and min(column.mean for column in full) >= 0.1 * max(column.mean for column in full):
        return full[0].name, full[1].name
    if named := next(
        (column.name for name in _TEXT_NAMES for column in long if column.name.lower() == name), None
    ):
        return (named,)
    some = long or [column for column in columns if column.mean >= 2 and column.is_plain]
    most = max(some, key=lambda column: column.mean, default=None)
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
    scores = any(column.is_score for column in columns)
    return bool(few) or scores or any(name.lower() in (*_LABEL_NAMES, *_TEXT_NAMES) for name in first)


def invented_names(cells: Sequence[Sequence[str]], wanted: str | None) -> list[str]:
    """Names for the columns of a file without header, after what they hold; `wanted` stays as it is."""
    names = [f"column {place}" for place in range(1, len(cells[0]) + 1)]
    columns = [Column(name, list(values)) for name, values in zip(names, zip(*cells))]
    label, texts = chosen_columns(columns, wanted)
    called = dict(zip(texts, ("text",) if len(texts) == 1 else ("first", "second"))) if label else {}
    if label and label.name != wanted:
        called[label.name] = "label"
    return [called.get(name, name) for name in names]
