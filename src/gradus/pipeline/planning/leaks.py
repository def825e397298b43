"""Whether a model will have read its test before: all that a stage and those before it learn from is compared
with what the stage is judged by.

A test row in train stops a run unless the recipe says otherwise; everything else is told. What was found is
kept in the cache, by content.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field

from gradus.core.errors import UserError, counted
from gradus.core.storage import digest_json, lock, read_json, write_json
from gradus.data.leakage import FEWEST_WORDS, Key, row_keys, shared_rows
from gradus.data.mixture import Mixture
from gradus.data.readers import Row
from gradus.data.rows import UNLABELLED, RowsData
from gradus.data.runs import FEWEST_WORDS as SHORTEST_RUN
from gradus.data.runs import WORDS, Passage, Runs
from gradus.data.split import DEV, SPLITS, TEST, TRAIN
from gradus.data.text import TextData
from gradus.pipeline.planning.material import Material
from gradus.pipeline.planning.plan import Node

FOUND_FORMAT = 1
"""Raised when the same data would be told otherwise than before."""


@dataclass(frozen=True)
class Source:
    """One split of what a stage, or one of its zero-shot tasks, reads; `key` is its dotted path.

    Sources of the same `content` are one: the digest of what it says, by what it is compared, and the files
    that would be named.
    """

    content: str
    name: str = field(compare=False)
    key: str = field(compare=False)
    data: TextData | RowsData = field(compare=False)
    split: str = field(compare=False)

    @property
    def is_rows(self) -> bool:
        return isinstance(self.data, RowsData)


@dataclass(frozen=True)
class Found:
    """What `asked` (of so many rows or documents) shares with what was seen; places are FILE:LINE."""

    of: int = 0
    exact: int = 0
    alike: int = 0
    short: int = 0
    owners: int = 0
    runs: int = 0
    of_runs: int = 0
    file: str = ""
    line: int = 0
    seen: str = ""
    text: str = ""


@dataclass(frozen=True)
class Leaks:
    """What is worth telling, or, where there is nothing, how much was compared."""

    lines: list[str]
    summary: list[str]


def leakage(nodes: Sequence[Node], material: Material) -> Leaks:
    """Compares all splits that the nodes and those before them learn from with those they are judged by.

    Raises UserError where a row of test is in train, exactly or nearly, unless `leakage` of the data with
    that train allows it.
    """
    pairs = _pairs(nodes, material)
    lines = []
    for (seen, asked), found in zip(pairs, _found(pairs, material)):
        serious = found.exact + found.alike
        allowed = isinstance(seen.data, RowsData) and seen.data.leakage == "allow"
        if serious and (seen.split, asked.split) == (TRAIN, TEST) and not allowed:
            raise _refused(seen, asked, found)
        if serious or found.short or found.owners:
            lines.append(_line(seen, asked, found))
    return Leaks(lines, [f"leakage: {counted(len(pairs), 'pair')} of splits share nothing"] if pairs else [])


def _pairs(nodes: Sequence[Node], material: Material) -> list[tuple[Source, Source]]:
    """(seen, asked), each once; of those with the same content the first."""
    pairs: dict[tuple[Source, Source], None] = {}
    tasks_of: dict[str, list[list[Source]]] = {}
    for node in nodes:
        line = [node, *_ancestors(node)]
        for one in line:
            if one.likeness not in tasks_of:
                tasks_of[one.likeness] = _tasks(one, material)
        learned = [source for one in reversed(line) for source in tasks_of[one.likeness][0]]
        for task in tasks_of[node.likeness]:
            for asked in (source for source in task if source.split in (DEV, TEST)):
                for seen in dict.fromkeys([*learned, *task]):
                    if _worth(seen, asked, task):
                        pairs.setdefault((seen, asked))
    return list(pairs)


def _worth(seen: Source, asked: Source, task: Sequence[Source]) -> bool:
    """Train of all stages is learned from, and rows without labels; dev is chosen by; rows are not looked for
    in running text."""
    chosen = seen.split == DEV and asked.split == TEST and seen in task
    learned = seen.split in (TRAIN, UNLABELLED) or chosen
    return learned and not (seen.is_rows and not asked.is_rows)


def _ancestors(node: Node) -> Iterator[Node]:
    """All that came before, the nearest first."""
    for one in node.before:
        yield one
        yield from _ancestors(one)


def _tasks(node: Node, material: Material) -> list[list[Source]]:
    """The splits of the stage, then those of each of its zero-shot tasks."""
    named: list[tuple[str, str, TextData | RowsData | Mixture]]
    named = [(node.name, f"stages.{node.name}.data", node.stage.data)]
    for probe, config in node.stage.zero_shot.items():
        named.append((f"{node.name}.{probe}", f"stages.{node.name}.zero_shot.{probe}.data", config.data))
    return [
        [Source(_content(part, split, material), *place, part, split)
         for place, part in _parts(name, key, data) for split in (*SPLITS, UNLABELLED)
         if split in material.digests(part)]
        for name, key, data in named
    ]  # fmt: skip


def _parts(
    name: str, key: str, data: TextData | RowsData | Mixture
) -> list[tuple[tuple[str, str], TextData | RowsData]]:
    """(name, dotted path) of the data, of a mixture's every data set."""
    if isinstance(data, Mixture):
        return [((f"{name}.{part}", f"{key}.mix.{part}"), text) for part, text in data.parts.items()]
    return [((name, key), data)]


def _content(data: TextData | RowsData, split: str, material: Material) -> str:
    made_of: list[object] = [split, material.digests(data)[split]]
    if isinstance(data, RowsData):
        files = sorted({row.file for row in material.rows(data)[split].rows})
        made_of += [data.format.fields, data.format.ordered, data.leakage, files]
    else:
        made_of += [[str(file) for file in material.texts(data)[split].files]]
    return digest_json(made_of)


def _found(pairs: list[tuple[Source, Source]], material: Material) -> list[Found]:
    """What each pair shares: from the cache, or found now and kept there."""
    if not pairs:
        return []
    key = digest_json([FOUND_FORMAT, [[seen.content, asked.content] for seen, asked in pairs]])
    file = material.cache / f"leakage-{key[:16]}.json"
    with lock(material.cache / f".{file.stem}.lock", wait=True):
        if not file.is_file():
            write_json(file, [asdict(found) for found in _Search(material).all(pairs)])
        return [Found(**found) for found in read_json(file)]


class _Search:
    """Compares, and reads nothing twice."""

    def __init__(self, material: Material):
        self.material = material
        self._keys: dict[tuple[Source, bool], list[Key]] = {}

    def all(self, pairs: list[tuple[Source, Source]]) -> list[Found]:
        found = {pair: self._shared_rows(*pair) for pair in pairs if pair[0].is_rows}
        for seen in dict.fromkeys(seen for seen, _ in pairs if not seen.is_rows):
            asked = [other for one, other in pairs if one == seen]
            self.material.told.working(f"comparing {seen.name}'s {seen.split} with dev and test", 0, None)
            runs = Runs([self._passages(other) for other in asked])
            for other, shared in zip(asked, runs.found_in(self._passages(seen))):
                file, _, line = (shared.first or (":0", ""))[0].rpartition(":")
                found[seen, other] = Found(
                    shared.of, owners=shared.owners, runs=shared.runs, of_runs=shared.of_runs,
                    file=file, line=int(line), seen=shared.first[1] if shared.first else "",
                )  # fmt: skip
        return [found[pair] for pair in pairs]

    def _shared_rows(self, seen: Source, asked: Source) -> Found:
        assert isinstance(seen.data, RowsData) and isinstance(asked.data, RowsData)
        ordered = seen.data.format.ordered and asked.data.format.ordered
        shared = shared_rows(self._row_keys(seen, ordered), self._row_keys(asked, ordered))
        counts = (shared.of, shared.exact, shared.alike, shared.short)
        if shared.first is None:
            return Found(*counts)
        row, other = self._rows(asked)[shared.first[0]], self._rows(seen)[shared.first[1]]
        text = " / ".join(row.fields.get(field, "") for field in asked.data.format.fields)
        return Found(*counts, file=row.file, line=row.line, seen=f"{other.file}:{other.line}", text=text)

    def _rows(self, source: Source) -> Sequence[Row]:
        assert isinstance(source.data, RowsData)
        return self.material.rows(source.data)[source.split].rows

    def _row_keys(self, source: Source, ordered: bool) -> list[Key]:
        assert isinstance(source.data, RowsData)
        if (source, ordered) not in self._keys:
            self._keys[source, ordered] = row_keys(self._rows(source), source.data.format.fields, ordered)
        return self._keys[source, ordered]

    def _passages(self, source: Source) -> Iterator[Passage]:
        if isinstance(source.data, RowsData):
            for row in self._rows(source):
                for field in source.data.format.fields:
                    yield Passage(row.fields.get(field, ""), row.file, row.line, row.index)
        else:
            documents = self.material.texts(source.data)[source.split].documents()
            for number, document in enumerate(documents):
                yield Passage(document.text, document.file, document.line, number)


def _whose(source: Source, other: Source) -> str:
    return source.split if source.name == other.name else f"{source.split} of {source.name}"


def _line(seen: Source, asked: Source, found: Found) -> str:
    """One line for a person."""
    there, example = _whose(seen, asked), f"such as {found.file}:{found.line}"
    if not seen.is_rows:
        kind = f"rows of {SHORTEST_RUN} words or more" if asked.is_rows else "documents"
        share = "" if asked.is_rows else f" ({found.runs / found.of_runs:.2%} of all such runs)"
        return (
            f"{asked.name}: {kind} of {asked.split} that share a run of {WORDS} words with {there}: "
            f"{found.owners:,} of {found.of:,}{share}, {example} with {found.seen}"
        )
    serious = found.exact + found.alike
    nearly = f" ({found.alike:,} but for case, space or punctuation)" if found.alike else ""
    short = f" and {found.short:,} of fewer than {FEWEST_WORDS} words" if found.short else ""
    return (
        f"{asked.name}: rows of {asked.split} that are in {there}, too: {serious:,} of {found.of:,}"
        f"{nearly}{short}, {example}, which is {found.seen}"
    )


def _refused(seen: Source, asked: Source, found: Found) -> UserError:
    drop = "`leakage: drop` leaves such rows out of train"
    if seen.data != asked.data:
        drop = f"name this test in {seen.key} as well, where `leakage: drop` leaves such rows out"
    serious = found.exact + found.alike
    return UserError(
        f"{serious:,} of {found.of:,} rows of {asked.split} are in {_whose(seen, asked)}, too",
        file=found.file,
        line=found.line,
        field=f"{seen.key}.leakage",
        text=found.text,
        hint=f"it is {found.seen}; {drop}, `leakage: allow` keeps them",
    )
