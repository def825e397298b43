"""Data that needs no download: what Python says about itself, and a tiny made-up English and Chinese set for
tests.

`python_docs` (text) and `python_modules` (rows) are gathered from the standard library of the running Python:
its docstrings, read from the source files without importing them, and the language reference of `pydoc_data`.
A file is in one split, the same for text and rows, so a model trained on the text has not read the rows it is
tested on. Another Python version has other documents, and so another digest. `tiny` (text and rows) is the
same everywhere.
"""

from __future__ import annotations

import ast
import os
import re
import sysconfig
import warnings
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from gradus.core.errors import UserError, nearest
from gradus.core.keyed import keyed_fraction, keyed_hash
from gradus.data.paths import BUILTIN, is_sound
from gradus.data.split import DEV, SPLITS, TEST, TRAIN

CLASSES = 10
LARGEST_CLASS = {TRAIN: 300, DEV: 60, TEST: 60}
"""At most so many rows of a class in a split: tkinter alone would else be a fifth of all."""
SHORTEST_ROW = 40
"""Characters: shorter docstrings ("Return the name.") tell nobody which module they are from."""
FEWEST_FILES, FEWEST_ROWS = 3, 30
HELD_OUT = 0.1
_NOT_READ = {
    "site-packages",
    "dist-packages",
    "test",
    "tests",
    "idle_test",
    "lib2to3",
    "turtledemo",
    "pydoc_data",
    "_bundled",
}
_SPACE = re.compile(r"\s+")


class Passage(NamedTuple):
    """A document and where it begins."""

    text: str
    file: str
    line: int


class BuiltinRow(NamedTuple):
    """A row's fields and where its text stands."""

    fields: dict[str, str]
    file: str
    line: int


def builtin_name(choice: str | Sequence[str]) -> str | None:
    """NAME of "builtin:NAME", None for anything else."""
    return choice.removeprefix(BUILTIN) if isinstance(choice, str) and choice.startswith(BUILTIN) else None


def builtin_text(name: str, split: str) -> list[Passage]:
    """The documents of a split. Raises UserError for an unknown name."""
    return list(_TEXT[_known(name, _TEXT, "text", split)](split))


def builtin_rows(name: str, split: str) -> list[BuiltinRow]:
    """The rows of a split: `text` and `module` of python_modules, `text` and `label` of tiny.

    Raises UserError for an unknown name, or where this Python comes without the source files of its library.
    """
    rows = _ROWS[_known(name, _ROWS, "rows", split)](split)
    return [
        row._replace(fields=dict(row.fields)) for row in rows
    ]  # what the caller does to them stays out of the cache


def _known(name: str, names: Iterable[str], kind: str, split: str) -> str:
    names = list(names)
    if name not in names:
        problem = f"no built-in {kind} of this name"
        raise UserError(problem, field=split, text=BUILTIN + name, hint=nearest(name, names))
    return name


@cache
def _docstrings() -> dict[str, list[tuple[int, str]]]:
    """(line, docstring) of every module, class and function, by file of the standard library, in the files'
    order."""
    library = Path(sysconfig.get_paths()["stdlib"])
    found = {name: _file_docstrings(library / name) for name in _library_files(library)}
    return {name: docstrings for name, docstrings in found.items() if docstrings}


def _library_files(library: Path) -> list[str]:
    """Sorted names; installed packages, which may be many, are not even looked through."""
    names: list[str] = []
    for folder, folders, files in os.walk(library):
        folders[:] = [name for name in folders if name not in _NOT_READ]
        names += [
            Path(folder, file).relative_to(library).as_posix() for file in files if file.endswith(".py")
        ]
    return sorted(names)


def _file_docstrings(file: Path) -> list[tuple[int, str]]:
    """A file that is not valid Python (some are templates) has none."""
    try:
        source = file.read_bytes()
        if b'"""' not in source and b"'''" not in source:
            return []
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            tree = ast.parse(source)
    except (OSError, SyntaxError, ValueError, RecursionError):
        return []
    return [(line, text) for line, text in _walk(tree) if text.strip() and is_sound(text)]


def _walk(node: ast.AST) -> Iterator[tuple[int, str]]:
    """Goes through statements only: docstrings never stand inside expressions."""
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        text = ast.get_docstring(node)
        if text:
            yield node.body[0].lineno, text
    for part in ("body", "handlers", "orelse", "finalbody"):
        for child in getattr(node, part, ()):
            if hasattr(child, "body"):
                yield from _walk(child)


def _plain(text: str) -> str:
    return _SPACE.sub(" ", text).strip()


@cache
def _candidates() -> dict[str, list[tuple[int, str]]]:
    """By file, (line, text) of the docstrings that could be rows: long enough, and found in one
    place of the library only, be it as a docstring or as a paragraph of one."""
    times: Counter[str] = Counter()
    for items in _docstrings().values():
        for _, text in items:
            times.update({_plain(text), *map(_plain, text.split("\n\n"))})
    plain = {file: [(line, _plain(text)) for line, text in items] for file, items in _docstrings().items()}
    return {
        file: [(line, text) for line, text in items if len(text) >= SHORTEST_ROW and times[text] == 1]
        for file, items in plain.items()
    }


def _package(file: str) -> str:
    return file.split("/")[0]


@cache
def _classes() -> list[str]:
    """The packages with the most rows among those with files enough to have some in every split."""
    rows: Counter[str] = Counter()
    files: Counter[str] = Counter()
    for file, items in _candidates().items():
        if "/" in file and items:
            rows[_package(file)] += len(items)
            files[_package(file)] += 1
    enough = [name for name in rows if rows[name] >= FEWEST_ROWS and files[name] >= FEWEST_FILES]
    classes = sorted(sorted(enough, key=lambda name: (-rows[name], name))[:CLASSES])
    if len(classes) < 2:
        hint = "some installations leave out the .py files; name files of your own"
        raise UserError(
            "this Python has no library sources to make rows from", field="builtin:python_modules", hint=hint
        )
    return classes


@cache
def _file_splits() -> dict[str, str]:
    """The split of every file. Of a class, the largest file trains; the others are dealt out in the order of
    a hash until dev and then test have their share of its rows. Other files go by their hash alone."""
    rows = {file: len(items) for file, items in _candidates().items()}
    splits = {file: _split_of(file) for file in rows}
    for name in _classes():
        files = [file for file in rows if "/" in file and _package(file) == name and rows[file]]
        files.sort(key=lambda file: keyed_hash("python_modules", file))
        files.remove(max(files, key=lambda file: (rows[file], file)))
        wanted = HELD_OUT * sum(rows[file] for file in rows if _package(file) == name)
        splits |= {file: TRAIN for file in rows if _package(file) == name}
        for split, spared in ((DEV, 1), (TEST, 0)):
            have = 0
            while have < wanted and len(files) > spared:
                file = files.pop(0)
                splits[file] = split
                have += rows[file]
    return splits


def _split_of(name: str) -> str:
    place = keyed_fraction("python_docs", name)
    return DEV if place < HELD_OUT / 2 else TEST if place < HELD_OUT else TRAIN


@cache
def _python_text(split: str) -> list[Passage]:
    """One document a file, its docstrings with a blank line between, then one for each topic of the
    reference.

    Train lacks what dev and test also say: some docstrings are copied from file to file.
    """
    splits = _file_splits() if _docstrings() else {}
    held = {
        _plain(text) for file, items in _docstrings().items() if splits[file] != TRAIN for _, text in items
    }
    passages = []
    for file, items in _docstrings().items():
        kept = [(line, text) for line, text in items if split != TRAIN or _plain(text) not in held]
        if splits[file] == split and kept:
            passages.append(Passage("\n\n".join(text for _, text in kept) + "\n", file, kept[0][0]))
    passages += [
        Passage(text.strip() + "\n", f"topics/{name}", 1)
        for name, text in sorted(_topics().items())
        if text.strip() and _split_of(f"topics/{name}") == split
    ]
    if not passages:
        raise UserError("this Python has no documentation to read", field=split, text="builtin:python_docs")
    return passages


def _topics() -> dict[str, str]:
    try:
        from pydoc_data.topics import topics  # left out of some distributions
    except ImportError:
        return {}
    return dict(topics)


@cache
def _python_rows(split: str) -> list[BuiltinRow]:
    """At most LARGEST_CLASS rows of each class, mixed by a hash, so that the first hundred have all
    classes."""
    splits = _file_splits()
    of_class: dict[str, list[BuiltinRow]] = defaultdict(list)
    for file, items in _candidates().items():
        if "/" in file and _package(file) in _classes() and splits[file] == split:
            name = _package(file)
            of_class[name] += [BuiltinRow({"text": text, "module": name}, file, line) for line, text in items]
    kept = [row for name in _classes() for row in sorted(of_class[name], key=_mixed)[: LARGEST_CLASS[split]]]
    return sorted(kept, key=_mixed)


def _mixed(row: BuiltinRow) -> int:
    return keyed_hash("python_modules", row.fields["text"])


TINY_ROWS = {TRAIN: 160, DEV: 40, TEST: 40}
TINY_DOCUMENTS = {TRAIN: 40, DEV: 6, TEST: 6}
TINY_SENTENCES = 25
"""Sentences a document: with 40 documents about 40 kB."""
_POSITIVE = ["wonderful", "lovely", "brilliant", "pleasant", "精彩", "美好", "可爱", "动人"]
_NEGATIVE = ["dreadful", "boring", "clumsy", "tiresome", "糟糕", "无聊", "笨拙", "难看"]
_NOUNS = ["film", "book", "song", "meal", "garden", "story", "电影", "小说", "歌曲", "晚饭", "花园", "故事"]
_DEGREES = ["quite", "very", "rather", "truly", "相当", "非常", "有点", "真的"]
_PLACES = [
    "in the town",
    "by the river",
    "last winter",
    "this morning",
    "城里",
    "河边",
    "去年冬天",
    "今天早上",
]
_VERBS = ["sees", "remembers", "follows", "awaits", "看见", "想起", "跟着", "等着"]
_PEOPLE = ["the teacher", "a sailor", "my sister", "the old king", "老师", "水手", "我妹妹", "老国王"]


def _pick(words: Sequence[str], chinese: bool, *key: object) -> str:
    """A word of the half that is in the language."""
    half = len(words) // 2
    return words[keyed_hash("tiny", *key) % half + (half if chinese else 0)]


def _tiny_opinion(label: str, chinese: bool, *key: object) -> str:
    words = {"positive": _POSITIVE, "negative": _NEGATIVE}[label]
    noun, degree = _pick(_NOUNS, chinese, "noun", *key), _pick(_DEGREES, chinese, "degree", *key)
    place, word = _pick(_PLACES, chinese, "place", *key), _pick(words, chinese, "word", *key)
    return f"{place}的{noun}{degree}{word}。" if chinese else f"the {noun} {place} was {degree} {word} ."


def _tiny_sentence(chinese: bool, *key: object) -> str:
    """An opinion or an event; both are short, so a small model soon learns them."""
    kind = keyed_hash("tiny", "kind", *key) % 3
    if kind < 2:
        return _tiny_opinion(("positive", "negative")[kind], chinese, *key)
    person, verb = _pick(_PEOPLE, chinese, "person", *key), _pick(_VERBS, chinese, "verb", *key)
    place, noun = _pick(_PLACES, chinese, "place", *key), _pick(_NOUNS, chinese, "noun", *key)
    return f"{place}，{person}{verb}那{noun}。" if chinese else f"{person} {verb} the {noun} {place} ."


@cache
def _tiny_text(split: str) -> list[Passage]:
    documents = []
    for number in range(TINY_DOCUMENTS[split]):
        chinese = number % 2 == 1
        sentences = [_tiny_sentence(chinese, split, number, place) for place in range(TINY_SENTENCES)]
        documents.append(Passage("\n".join(sentences) + "\n", f"{BUILTIN}tiny/{split}/{number}", 1))
    return documents


@cache
def _tiny_rows(split: str) -> list[BuiltinRow]:
    """Rows of alternating labels and languages; none is in two splits."""
    seen: set[str] = set()
    rows: dict[str, list[BuiltinRow]] = {name: [] for name in SPLITS}
    for name in SPLITS:
        turn = 0
        while len(rows[name]) < TINY_ROWS[name]:
            number = len(rows[name])
            label = ("positive", "negative")[number % 2]
            text = _tiny_opinion(label, number % 4 >= 2, "row", name, turn)
            turn += 1
            if text not in seen:
                seen.add(text)
                rows[name].append(
                    BuiltinRow({"text": text, "label": label}, f"{BUILTIN}tiny/{name}", number + 1)
                )
    return rows[split]


_TEXT: dict[str, Callable[[str], list[Passage]]] = {"python_docs": _python_text, "tiny": _tiny_text}
_ROWS: dict[str, Callable[[str], list[BuiltinRow]]] = {"python_modules": _python_rows, "tiny": _tiny_rows}
