"""What was made of one split of a stage's data: its examples, where they come from, and what was counted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gradus.core.errors import UserError, counted
from gradus.data.mixture import InTurn, Joined, Mixed, Mixture
from gradus.data.readers import Row, Skipped
from gradus.data.shards import TokenStore
from gradus.data.sources import Rows, Source


@dataclass
class Split:
    """One split of a stage's data."""

    source: Source
    rows: Sequence[Row] = ()
    store: TokenStore | None = None
    counts: dict[str, Any] = field(default_factory=dict)
    """What was read, cut and skipped, for check and report."""
    skipped: Sequence[Skipped] = ()
    """Bad rows that the recipe allowed to leave out."""
    parts: Mapping[str, Split] = field(default_factory=dict)
    """Of a mixture the data sets by name; empty for a single one."""

    @property
    def stores(self) -> list[TokenStore]:
        """The tokens of its texts; none of rows."""
        return [split.store for split in (self.parts or {"": self}).values() if split.store is not None]

    def followed_by(self, other: Split) -> Split:
        """Rows and, after them, others whose labels are not known: they stand in the source, and neither
        among the `rows`, which say labels, nor in what is counted of those."""
        first, then = self.source, other.source
        assert isinstance(first, Rows) and isinstance(then, Rows)
        numbered = [replace(one, row=one.row + len(first)) for one in then.examples]
        added = {
            key: self.counts[key] + other.counts[key]
            for key in ("rows", "tokens", "truncated_rows", "truncated_tokens", "skipped_rows")
        }
        counts = self.counts | added | {"unlabelled_rows": len(then)}
        source = Rows([*first.examples, *numbered], [*first.places, *then.places])
        return replace(self, source=source, counts=counts, skipped=[*self.skipped, *other.skipped])


def mixed_splits(parts: Mapping[str, Mapping[str, Split]], data: Mixture, seed: int) -> dict[str, Split]:
    """The splits of a mixture, given those of each data set: train is drawn as `data` says, the others are
    whole."""
    found: dict[str, Split] = {}
    for split in dict.fromkeys(split for of_text in parts.values() for split in of_text):
        own = {name: of_text[split] for name, of_text in parts.items() if split in of_text}
        counts = _added([part.counts for part in own.values()])
        source: Source = Joined([part.source for part in own.values()])
        if split == "train":
            sizes = {name: len(part.source) for name, part in own.items()}
            drawn = InTurn if data.by == "turns" else Mixed
            source = drawn({name: part.source for name, part in own.items()}, data.shares(sizes), seed)
            counts["drawn"] = dict(zip(own, source.counts.tolist()))
            if never := [name for name, drawn in counts["drawn"].items() if not drawn]:
                unit, what = ("row", "data set") if data.has_rows else ("window", "text")
                problem = f"of {counted(len(source), unit)} an epoch this {what} would have none"
                raise UserError(problem, field="data.by", text=never[0], hint="a larger share")
        skipped = [bad for part in own.values() for bad in part.skipped]
        found[split] = Split(source, counts=counts, skipped=skipped, parts=own)
    return found


def _added(counts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What can be added up: labels are each data set's own, and rows have no bytes."""
    keys = dict.fromkeys(key for one in counts for key in one if not isinstance(one[key], dict))
    return {key: None if any(one.get(key, 0) is None for one in counts)
            else sum(one.get(key, 0) for one in counts) for key in keys}  # fmt: skip
