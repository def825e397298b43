"""A recipe that is right, and the table of what users get wrong in it: the mistake, and what must be said of it."""
# ruff: noqa: E501  (one mistake a line: the table is read across)

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

RECIPE = """\
seed: 1
tokenizer: {kind: char}
model: {layers: 1, width: 16, heads: 2, context: 48}
stages:
  read:
    data: {kind: text, train: books.txt, dev: 20 %}
    objectives: [{kind: causal_lm}]
    batch: 8 windows
    length: 2 steps
  judge:
    from: read
    data:
      kind: rows
      train: train.tsv
      dev: dev.tsv
      format: {kind: single, text: text, label: label}
    objectives: [{kind: classification}]
    batch: 8 rows
    length: 3 steps
"""
BOOK = "It was a dark and stormy night. 天黑了，风很大。\n" * 40
HEADER = "text\tlabel\n"
ROWS = "".join(f"good film {n} 好看\tyes\nbad film {n} 难看\tno\n" for n in range(8))
STAGE_KEYS = "one of from, data, augment, objectives, model, optimizer"
GB = "好看".encode("gb18030")


def edited(*edits: tuple[str, str]) -> str:
    """The recipe with the last occurrence of each text replaced."""
    recipe = RECIPE
    for old, new in edits:
        assert old in recipe, old
        before, _, after = recipe.rpartition(old)
        recipe = before + new + after
    return recipe


MOST_LINES = 5


@dataclass(frozen=True)
class Said:
    """What the command answered."""

    status: int
    out: str
    err: str


def write(folder: Path, files: dict[str, str | bytes | None]) -> None:
    for name, content in files.items():
        if content is None:
            (folder / name).unlink()
            continue
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def is_told(said: Said, *patterns: str) -> None:
    """Status 2, a few lines, no traceback, and every pattern in them."""
    assert said.status == 2, said
    assert "Traceback" not in said.err + said.out
    lines = [line for line in said.err.splitlines() if not line.startswith("training the tokenizer")]
    assert 1 <= len(lines) <= MOST_LINES, said.err
    assert lines[0].startswith("gradus: "), said.err
    for pattern in patterns:
        assert re.search(pattern, said.err), f"{pattern!r} is not in {said.err!r}"


def leaves_nothing(runs: Path) -> None:
    """No stage has begun and nothing is half-written: what the cache holds is whole."""
    left = [path.relative_to(runs) for path in runs.rglob("*")]
    assert not [path for path in left if "stages" in path.parts[:-1]], left
    assert not [
        path for path in left if path.name.endswith((".tmp", ".safetensors")) or path.name == "stage.json"
    ], left
    for folder in (runs / "cache").glob("to*-*"):
        assert not folder.is_dir() or (folder / "MANIFEST.json").is_file(), folder


@dataclass(frozen=True)
class Case:
    """A mistake: what differs from the recipe that is right, and what must be said. `told` are regular expressions."""

    name: str
    told: tuple[str, ...]
    edits: tuple[tuple[str, str], ...] = ()
    files: dict[str, str | bytes | None] = field(default_factory=dict)
    options: tuple[str, ...] = ()
    commands: tuple[str, ...] = ("check", "run")


def recipe_case(name: str, old: str, new: str, *told: str) -> Case:
    return Case(name, told, edits=((old, new),))


def file_case(
    name: str, files: dict[str, str | bytes | None], *told: str, edits: tuple[tuple[str, str], ...] = ()
) -> Case:
    return Case(name, told, edits=edits, files=files)


def option_case(
    name: str, *options: str, told: tuple[str, ...], commands: tuple[str, ...] = ("check", "run")
) -> Case:
    return Case(name, told, options=options, commands=commands)


LAST = "    length: 3 steps\n"
"""The end of the stage judge: where lines are added to it."""
STAGES = RECIPE[RECIPE.index("stages:") :]

# fmt: off
RECIPE_CASES = [
    # unknown keys and words: the place, the nearest word, the legal ones
    recipe_case("key of recipe", "seed: 1", "sed: 1", r"recipe\.yaml:1: sed: unknown key", "did you mean 'seed'", "one of seed, tokenizer, model, stages"),
    recipe_case("key of stage", "length: 3", "lenght: 3", r"recipe\.yaml:19: stages\.judge\.lenght: unknown key", "did you mean 'length'", STAGE_KEYS),
    recipe_case("key of data", "dev: 20 %", "dve: 20 %", r":6: stages\.read\.data\.dve: unknown key", "did you mean 'dev'", "kind, train, dev, test, encoding"),
    recipe_case("key of model", "width", "widht", r":3: model\.widht: unknown key", "did you mean 'width'", "layers, width, heads"),
    recipe_case("key of objective", "{kind: causal_lm}", "{kind: causal_lm, wieght: 2}", r":7: stages\.read\.objectives\.0\.wieght", "'weight'"),
    recipe_case("key of format", "text: text", "txt: text", r":16: stages\.judge\.data\.format\.txt: unknown key", "'text'"),
    recipe_case("key of optimizer", LAST, LAST + "    optimizer: {kind: adamw, rate: 1}\n", r":20: stages\.judge\.optimizer\.rate: unknown key", "one of .*lr"),
    recipe_case("key of another tool", LAST, LAST + "    optimizer: {kind: adamw, learning_rate: 1}\n", r":20: stages\.judge\.optimizer\.learning_rate: unknown key", "did you mean 'lr'"),
    recipe_case("key of stop", LAST, LAST + "    stop: {patiense: 3}\n", r":20: stages\.judge\.stop\.patiense", "did you mean 'patience'"),
    recipe_case("key of tokenizer", "{kind: char}", "{kind: bpe, size: 300}", r":2: tokenizer\.size: unknown key", "vocab_size"),
    recipe_case("kind of objective", "causal_lm", "casual_lm", r":7: stages\.read\.objectives\.0: unknown word: 'casual_lm'", "did you mean 'causal_lm'", "classification"),
    recipe_case("kind of data", "kind: rows", "kind: row", r":12: stages\.judge\.data: unknown word: 'row'", "did you mean 'rows'"),
    recipe_case("kind of format", "kind: single", "kind: paar", r":16: stages\.judge\.data\.format: unknown word: 'paar'", "did you mean 'pair'"),
    recipe_case("kind of tokenizer", "kind: char", "kind: sentencepiece", r":2: tokenizer: unknown word: 'sentencepiece'", "one of bpe, char, gpt1, pretrained"),
    recipe_case("no kind", "{kind: char}", "{vocab_size: 300}", r":2: tokenizer: a `kind` is missing", "one of bpe, char"),
    recipe_case("preset", "layers: 1", "preset: gtp1, layers: 1", r"recipe\.yaml:3: model\.preset", "'gtp1'", "did you mean 'gpt1'"),
    recipe_case("window for rows", "kind: rows", "kind: rows\n      long: window", r":14: stages\.judge\.data\.long: rows of the format single are read as one: 'window'", "truncate or error"),
    recipe_case("precision", LAST, LAST + "    precision: fp8\n", r"stages\.judge\.precision: unknown word: 'fp8'", "auto, fp32, bf16"),
    # the shape of the file
    recipe_case("not YAML", "seed: 1", "seed: [1", r"recipe\.yaml:2: this is not YAML", "'tokenizer: {kind: char}'", "begins on line 1"),
    recipe_case("tabs", "    length: 3", "\tlength: 3", r"recipe\.yaml:19: this is not YAML", "with spaces, never with tabs"),
    recipe_case("key twice", "seed: 1", "seed: 1\nseed: 2", r"recipe\.yaml:2: seed: this key stands twice"),
    recipe_case("stage twice", "  judge:", "  read:", r"recipe\.yaml:10: stages\.read: this key stands twice"),
    recipe_case("alias in a circle", "seed: 1", "seed: &a [*a]", r"recipe\.yaml: the recipe holds itself"),
    recipe_case("a tag of Python", "seed: 1", "seed: !!python/object:os.system {}", r"recipe\.yaml:1: this is not YAML", "python/object"),
    recipe_case("empty recipe", RECIPE, "", r"recipe\.yaml: a recipe is a mapping of keys", "gradus init"),
    recipe_case("only comments", RECIPE, "# 待写\n", r"recipe\.yaml: a recipe is a mapping of keys"),
    recipe_case("only a word", RECIPE, "hello\n", r"recipe\.yaml: a recipe is a mapping of keys"),
    recipe_case("no stages", STAGES, "", r"recipe\.yaml:1: stages: this key is missing"),
    recipe_case("stages as a list", STAGES, "stages: [read, judge]\n", r":4: stages: a mapping of keys is wanted"),
    recipe_case("stages empty", STAGES, "stages:\n", r":4: stages: a mapping of keys is wanted"),
    recipe_case("stage as a word", STAGES, "stages: {read: books.txt}\n", r":4: stages\.read: a mapping of keys is wanted here: 'books.txt'"),
    recipe_case("data as a list", "{kind: text, train: books.txt, dev: 20 %}", "[books.txt]", r":6: stages\.read\.data: a mapping of keys is wanted"),
    recipe_case("objectives as a mapping", "[{kind: causal_lm}]", "{kind: causal_lm}", r":7: stages\.read\.objectives: a list is wanted"),
    recipe_case("no objective", "[{kind: causal_lm}]", "[]", r":7: stages\.read\.objectives: at least 1 wanted"),
    recipe_case("objective twice", "[{kind: causal_lm}]", "[{kind: causal_lm}, {kind: causal_lm}]", r":7: stages\.read\.objectives: .*twice: 'causal_lm'"),
    recipe_case("classes of text", "{kind: causal_lm}", "{kind: classification}", r":7: stages\.read\.objectives: .*data of kind rows"),
    recipe_case("name of stage", "  judge:", "  Judge It:", r":10: stages\.Judge It: this is no name", "small letters"),
    recipe_case("seed as a word", "seed: 1", "seed: one", r":1: seed: input should be a valid integer", "'one'"),
    # what a stage starts from
    recipe_case("from nowhere", "from: read", "from: raed", r":11: stages\.judge\.from: there is no such stage: 'raed'", "did you mean 'read'", "scratch"),
    recipe_case("from itself", "from: read", "from: judge", r":11: stages\.judge\.from: a stage cannot start from itself"),
    recipe_case("circle", "  read:\n", "  read:\n    from: judge\n", r":6: stages\.read\.from: read and judge can never start", "circle"),
    recipe_case("from a list", "from: read", "from: [read]", r":11: stages\.judge\.from: ", "the name of an earlier stage"),
    recipe_case("from, misspelt folder", "from: read", "from: {foldr: x}", r":11: stages\.judge\.from\.foldr: unknown key", "did you mean 'folder'"),
    recipe_case("from no folder", "from: read", "from: {folder: nope}", r":11: stages\.judge\.from\.folder: this is no model folder", "nope", "config.json"),
    # amounts
    recipe_case("apples", "8 rows", "3 apples", r":18: stages\.judge\.batch: an amount with a unit is wanted", "'3 apples'", "32 rows"),
    recipe_case("no unit", "8 rows", "8", r":18: stages\.judge\.batch: an amount with a unit is wanted", "not 8"),
    recipe_case("rows of text", "8 windows", "64 rows", r":8: stages\.read\.batch: the batch counts windows or tokens here: '64 rows'"),
    recipe_case("windows of rows", "8 rows", "8 windows", r":18: stages\.judge\.batch: the batch counts rows here"),
    recipe_case("batch of 0", "8 rows", "0 rows", r":18: stages\.judge\.batch: a whole number of at least 1 is wanted: '0 rows'"),
    recipe_case("half a row", "8 rows", "2.5 rows", r":18: stages\.judge\.batch: a whole number"),
    recipe_case("length of 0", "3 steps", "0 epochs", r":19: stages\.judge\.length: the length must be more than nothing: '0 epochs'"),
    recipe_case("length below 0", "3 steps", "-1 epochs", r":19: stages\.judge\.length: an amount", "'-1 epochs'", "epochs, steps, tokens or minutes"),
    recipe_case("length in rows", "3 steps", "30 rows", r":19: stages\.judge\.length: the unit must be one of epochs, steps, tokens, minutes"),
    recipe_case("length without end", "3 steps", "1e999 steps", r":19: stages\.judge\.length: an amount", "'1e999 steps'"),
    recipe_case("evaluate every 0", LAST, LAST + "    evaluate: {every: 0 steps}\n", r":20: stages\.judge\.evaluate\.every: .*more than nothing: '0 steps'"),
    recipe_case("save every 0", LAST, LAST + "    save: {every: 0 minutes}\n", r":20: stages\.judge\.save\.every: .*more than nothing.*: '0 minutes'"),
    recipe_case("learning rate as a word", LAST, LAST + "    optimizer: {kind: adamw, lr: fast}\n", r":20: stages\.judge\.optimizer\.lr: .*number", "'fast'"),
    recipe_case("learning rate below 0", LAST, LAST + "    optimizer: {kind: adamw, lr: -1}\n", r":20: stages\.judge\.optimizer\.lr: .*greater than 0", "'-1'"),
    recipe_case("dropout", "context: 48", "context: 48, dropout: 1.5", r":3: model\.dropout: .*less than 1", "'1.5'"),
    recipe_case("heads", "heads: 2", "heads: 3", r":3: model: width 16 is not a multiple of heads 3"),
    recipe_case("distances in single buckets", "heads: 2", "heads: 2, positions: relative, relative_distance: 16", r":3: model\.relative_distance: .*'16'", "more than 16"),
    recipe_case("context for special tokens only", "context: 48", "context: 2", r":3: model\.context: a context of 2 tokens"),
    recipe_case("vocabulary for bytes", "{kind: char}", "{kind: bpe, vocab_size: 100}", r":2: tokenizer\.vocab_size: .*263", "'100'", "256 bytes and 7 roles"),
    recipe_case("embedding smaller than tokenizer", "heads: 2", "heads: 2, vocab_size: 9", r":3: model\.vocab_size: .*smaller", "'9'", "at least [0-9]+"),
    # evaluation and choice of weights
    Case("best weights without dev", (r":19: stages\.judge\.weights: .*data\.dev", r"10 %"), edits=(("      dev: dev.tsv\n", ""), (LAST, LAST + "    weights: best\n"))),
    Case("stop without dev", (r":19: stages\.judge\.stop: .*data\.dev",), edits=(("      dev: dev.tsv\n", ""), (LAST, LAST + "    stop: {patience: 2}\n"))),
    recipe_case("metric", LAST, LAST + "    stop: {metric: acuracy}\n", r":20: stages\.judge\.stop\.metric: .*'acuracy'", "did you mean 'accuracy'", "macro_f1"),
    recipe_case("metric of another task", "8 windows", "8 windows\n    stop: {metric: accuracy}", r":9: stages\.read\.stop\.metric: .*'accuracy'", "bits_per_byte, loss, perplexity"),
    # variants and seeds
    recipe_case("variant, unknown key", "seed: 1", "seed: 1\nvariants:\n  无: {stages.judge.optimzer.lr: 1}", r":3: variants\.无: stages\.judge\.optimzer: unknown key", "'optimizer'"),
    recipe_case("variant, unknown stage", "seed: 1", "seed: 1\nvariants:\n  no text: {stages.jugde.from: scratch}", r":3: variants\.no text: there is no such stage: 'jugde'", "'judge'"),
    recipe_case("variant, wrong value", "seed: 1", "seed: 1\nvariants:\n  a:\n    stages.judge.length: 3 apples", r":4: variants\.a: stages\.judge\.length: .*'3 apples'"),
    recipe_case("variant, its own stage", "seed: 1", "seed: 1\nvariants:\n  a:\n    stages.more:\n      data: {kind: text, train: books.txt}\n      objectives: [{kind: causal_lm}]\n      length: 3 apples", r":7: variants\.a: stages\.more\.length: .*'3 apples'"),
    recipe_case("variant, its own stage's files", "seed: 1", "seed: 1\nvariants:\n  a:\n    stages.more:\n      data: {kind: text, train: nope.txt}\n      objectives: [{kind: causal_lm}]\n      length: 3 steps", r":5: variants\.a: stages\.more\.data\.train: no such file: 'nope\.txt'"),
    recipe_case("variant, key of a part that no line has", "seed: 1", "seed: 1\nvariants:\n  a: {stages.judge.adapters: {dropout: 2}}", r":3: variants\.a: stages\.judge\.adapters\.dropout: .*'2'"),
    recipe_case("variant, what is frozen", "seed: 1", "seed: 1\nvariants:\n  无: {stages.judge.freeze: [nothing]}", r":3: variants\.无: stages\.judge\.freeze: no parameter has such a name: 'nothing'"),
    recipe_case("variant, how often", "seed: 1", "seed: 1\nvariants:\n  a: {seeds: 3}", r":3: variants\.a: this is for all variants together: 'seeds'", "beside `variants`"),
    recipe_case("unfreeze every 0", LAST, LAST + "    unfreeze: {every: 0 epochs}\n", r":20: stages\.judge\.unfreeze\.every: .*more than nothing: '0 epochs'"),
    recipe_case("variant, missing file", "seed: 1", "seed: 1\nvariants:\n  a: {stages.judge.data.train: nope.tsv}", r"variants\.a: stages\.judge\.data\.train: no such file: 'nope\.tsv'"),
    recipe_case("variants as a list", "seed: 1", "seed: 1\nvariants: [a]", r":2: variants: a mapping of keys is wanted"),
    recipe_case("no seeds", "seed: 1", "seed: 1\nseeds: 0", r":2: seeds\.count: .*greater than or equal to 1", "'0'"),
    recipe_case("seeds from nowhere", "seed: 1", "seed: 1\nseeds: {count: 2, from: judeg}", r":2: seeds\.from: there is no such stage: 'judeg'", "did you mean 'judge'"),
]

DATA_CASES = [
    file_case("a synonym alone", {"synonyms.tsv": "good\tfine\n\n好看\n"},
        r"synonyms\.tsv:3: a word alone has no synonym: '好看' \(a line is two or more words, parted by tabs\)",
        edits=(("    length: 3 steps", "    augment: [{kind: synonyms, file: synonyms.tsv}]\n    length: 3 steps"),)),
    file_case("no such translator", {}, r"recipe\.yaml:\d+: stages\.judge\.augment\.0\.there: this is no model folder: '.*/en-zh'",
        edits=(("    length: 3 steps", "    augment: [{kind: back_translation, there: en-zh, back: zh-en}]\n    length: 3 steps"),)),
    file_case("missing rows", {"train.tsv": None}, r"recipe\.yaml:14: stages\.judge\.data\.train: no such file: 'train\.tsv'", "looked in"),
    file_case("missing text", {"books.txt": None}, r"recipe\.yaml:6: stages\.read\.data\.train: no such file: 'books\.txt'"),
    recipe_case("folder for rows", "train.tsv", ".", r":14: stages\.judge\.data\.train: this is a folder", r"\*\.tsv"),
    recipe_case("glob", "books.txt", "书/*.txt", r":6: stages\.read\.data\.train: no file matches this pattern: '书/\*\.txt'"),
    recipe_case("built-in name", "books.txt", "builtin:tinny", r":6: stages\.read\.data\.train: .*'builtin:tinny'", "did you mean 'tiny'"),
    recipe_case("file named twice", "train: train.tsv", "train: [train.tsv, train.tsv]", r":14: stages\.judge\.data\.train: this file is named twice"),
    file_case("empty rows", {"train.tsv": ""}, r"train\.tsv: train: the file is empty"),
    file_case("empty text", {"books.txt": ""}, r"books\.txt: train: the file is empty"),
    file_case("blank text", {"books.txt": " \n\n"}, r"books\.txt: the file holds no text"),
    file_case("only a header", {"dev.tsv": HEADER}, r"dev\.tsv: the file holds no rows"),
    file_case("text in GB 18030", {"books.txt": "天黑了，风很大。\n".encode("gb18030") * 9}, r"books\.txt:1: bytes .* at byte [0-9]+ are not utf-8", "encoding: gb18030"),
    file_case("a bad byte", {"books.txt": BOOK.encode() + b"\xff\n"}, r"books\.txt:41: bytes ff at byte [0-9]+ are not utf-8", "encoding:"),
    file_case("rows in GB 18030", {"train.tsv": HEADER.encode() + "好\tyes\n".encode() + GB + b"\tno\n"}, r"train\.tsv:3: bytes .* are not utf-8", "encoding: gb18030"),
    recipe_case("unknown encoding", "kind: rows", "kind: rows\n      encoding: utf9", r":14: stages\.judge\.data\.encoding: .*'utf9'", "gb18030"),
    file_case("too few fields", {"train.tsv": HEADER + "好\tyes\n坏\n"}, r"train\.tsv:3: 1 field where 2 are wanted: '坏'", "text, label"),
    file_case("too many fields", {"train.tsv": HEADER + "好\tyes\n坏\tno\tmore\n"}, r"train\.tsv:3: 3 fields below a header of 2: 'more'"),
    file_case("no header", {"train.tsv": ROWS}, r"train\.tsv:", "no such column", edits=(("dev: dev.tsv", "dev: 20 %"),)),
    recipe_case("columns and a header", "dev: dev.tsv", "dev: dev.tsv\n      columns: [text, label]", r"train\.tsv:1: .*it is a header", "header: true"),
    recipe_case("text column", "text: text", "text: txet", r"train\.tsv:2: there is no such column: 'txet'", "did you mean 'text'"),
    recipe_case("label column", "label: label", "label: lable", r"train\.tsv:2: there is no such column: 'lable'", "one of text, label"),
    recipe_case("no label column", ", label: label", "", r":16: stages\.judge\.data\.format\.label: .*column with the label"),
    recipe_case("reader", "train: train.tsv", "train: books.dat", r":14: stages\.judge\.data\.train: no such file"),
    file_case("reader unknown", {"rows.dat": "a\tb\n"}, r"rows\.dat: reader: .*how to read", "tsv, csv, jsonl", edits=(("train: train.tsv", "train: rows.dat"),)),
    file_case("JSON lines", {"rows.jsonl": '{"text": "好", "label": "yes"}\n{"text": "坏", "label": no}\n'}, r"rows\.jsonl:2: not JSON: Expecting value: 'no}'", "column 24", edits=(("train: train.tsv", "train: rows.jsonl"),)),
    file_case("JSON", {"rows.json": '[{"text": "a", "label": "yes"},\n {"text": "b" "label": 1}]\n'}, r"rows\.json:2: not JSON: Expecting ',' delimiter", "column 15", edits=(("train: train.tsv", "train: rows.json"),)),
    file_case("JSON, no object", {"rows.jsonl": '{"text": "a", "label": "yes"}\n3\n'}, r"rows\.jsonl:2: a row must be a JSON object: '3'", edits=(("train: train.tsv", "train: rows.jsonl"),)),
    file_case("JSON, a key of one row", {"rows.jsonl": '{"text": "a", "label": "yes"}\n{"txt": "b", "label": "no"}\n'}, r"rows\.jsonl:2: there is no such column: 'text'", "did you mean 'txt'", edits=(("train: train.tsv", "train: rows.jsonl"),)),
    file_case("CSV, a quote that never ends", {"rows.csv": 'text,label\n"好,yes\nbad,no\n'}, r"rows\.csv:2: .*never ends", "quotes: false", edits=(("train: train.tsv", "train: rows.csv"),)),
    file_case("empty label", {"train.tsv": HEADER + ROWS + "hm \t \n"}, r"train\.tsv:18: label: the label is empty", r'`drop: \{label: " "\}` leaves such rows out'),
    file_case("one class", {"train.tsv": HEADER + "好\tyes\n很好\tyes\n"}, r"train\.tsv: label: .*same label: 'yes'", "at least two"),
    file_case("dev has another label", {"dev.tsv": HEADER + ROWS + "一般\tmaybe\n"}, r"dev\.tsv:18: label: .*not among those of the training rows: 'maybe'", "one of no, yes; `labels` in the data names all"),
    file_case("test has another label", {"test.tsv": HEADER + "一般\t也许\n"}, r"test\.tsv:2: label: .*'也许'", edits=(("dev: dev.tsv", "test: test.tsv"),)),
    file_case("dev has another case", {"dev.tsv": HEADER + "good\tYes\n"}, r"dev\.tsv:2: label: .*'Yes'", "did you mean 'yes'"),
    recipe_case("labels lack one", "kind: rows", "kind: rows\n      labels: [\"yes\", never]", r"train\.tsv:3: label: `labels` does not name this label: 'no'", "yes, never"),
    recipe_case("labels with one twice", "kind: rows", "kind: rows\n      labels: [\"yes\", \"no\", \"no\"]", r":14: stages\.judge\.data\.labels: 'no' stands there twice"),
    recipe_case("label among the texts", "label: label", "label: text", r":16: stages\.judge\.data\.format\.label: this column is one of the texts: 'text'", "the model would read the answer"),
    recipe_case("answers in one column twice", "{kind: single, text: text,", "{kind: multiple_choice, context: text, answers: [b, b],", r":16: stages\.judge\.data\.format\.answers: this column is named twice: 'b'"),
    recipe_case("labels as truth values", "kind: rows", "kind: rows\n      labels: [yes, no]", r":14: stages\.judge\.data\.labels\.0: write it in quotes"),
    recipe_case("map of no field", "kind: rows", "kind: rows\n      map: {lable: {a: b}}", r":14: stages\.judge\.data\.map: .*'lable'", "did you mean 'label'"),
    recipe_case("all dropped", "kind: rows", "kind: rows\n      drop: {label: [\"yes\", \"no\"]}", r":15: stages\.judge\.data\.train: `drop` leaves none of the 16 rows"),
    recipe_case("all held out", "dev: 20 %", "dev: 200 %", r":6: stages\.read\.data: shares held out .*200 %"),
    recipe_case("a share as a number", "dev: 20 %", "dev: 20", r":6: stages\.read\.data\.dev: .*'10 %' is wanted, not 20"),
    recipe_case("an empty list of files", "dev: dev.tsv", "dev: []", r":15: stages\.judge\.data\.dev: the list names no file"),
    recipe_case("a number among files", "train: train.tsv", "train: [train.tsv, 3]", r":14: stages\.judge\.data\.train: input should be a valid string"),
    recipe_case("an unknown user's home", "train: train.tsv", "train: ~nobody here.tsv", r":14: stages\.judge\.data\.train: no such file: '~nobody here\.tsv'"),
    recipe_case("a share to train the tokenizer on", "{kind: char}", "{kind: char, train: 10 %}", r":2: tokenizer\.train: .*'10 %'"),
    recipe_case("bad_rows, wrong words", "kind: rows", "kind: rows\n      bad_rows: skip 3", r":14: stages\.judge\.data\.bad_rows: .*'skip 3'", "skip up to 10"),
    file_case("more bad rows than allowed", {"train.tsv": HEADER + ROWS + "x\ny\nz\n"}, r"train\.tsv:20: 1 field where 2 are wanted, and 2 bad rows were skipped before it: 'z'", edits=(("kind: rows", "kind: rows\n      bad_rows: skip up to 2"),)),
    Case("a row longer than the context", (r"train\.tsv:2: text: the row has 16 tokens, the context holds 12", "long: truncate"), edits=(("context: 48", "context: 12"), ("kind: rows", "kind: rows\n      long: error"))),
    recipe_case("no tokenizer", "{kind: char}", "{kind: pretrained, path: nope}", "nope: there is no tokenizer"),
    file_case("a tokenizer that is none", {"tokenizer.json": "{}"}, r"tokenizer\.json", edits=(("{kind: char}", "{kind: pretrained, path: tokenizer.json}"),)),
]

OPTION_CASES = [
    option_case("set, unknown key", "--set", "stages.judge.optimzer.lr=1", told=(r"--set: stages\.judge\.optimzer: unknown key", "'optimizer'")),
    option_case("set, unknown stage", "--set", "stages.jugde.length=1 steps", told=(r"--set: there is no such stage: 'jugde'", "'judge'")),
    option_case("set, wrong value in a new stage", "--set", "stages.more={{data: {{kind: text, train: books.txt}}, objectives: [{{kind: causal_lm}}], length: 3 apples}}", told=(r"--set: stages\.more\.length: .*'3 apples'",)),
    option_case("set, key of a part that no line has", "--set", "stages.judge.penalties.l1=-1", told=(r"--set: stages\.judge\.penalties\.l1: .*'-1'",)),
    option_case("set, unknown top key", "--set", "sede=3", told=(r"--set: sede: unknown key", "'seed'")),
    option_case("set, wrong value", "--set", "stages.judge.length=3 apples", told=(r"--set: stages\.judge\.length: .*'3 apples'",)),
    option_case("set, no value", "--set", "stages.judge.length", told=("--set: a setting is PATH=VALUE: 'stages.judge.length'",)),
    option_case("set, no YAML", "--set", "seed=[1", told=(r"--set seed: this value is not YAML: '\[1'",)),
    option_case("set, into a value", "--set", "seed.more=1", told=("--set: this path leads into a value: 'seed.more'",)),
    option_case("set, into a list", "--set", "stages.read.objectives.0.weight=1", told=("leads into a value", "a list is set whole")),
    option_case("set, missing file", "--set", "stages.judge.data.train=nope.tsv", told=(r"stages\.judge\.data\.train: no such file: 'nope\.tsv'",)),
    option_case("until", "--until", "jugde", told=("--until: there is no such stage: 'jugde'", "did you mean 'judge'"), commands=("run",)),
    option_case("device tpu", "--device", "tpu", told=("--device: there is no such device: 'tpu'", "there is .*cpu")),
    option_case("device of no machine", "--device", "cuda:99", told=("--device: there is no such device: 'cuda:99'", "cpu")),
    option_case("data folder", "--data-dir", "/nowhere/at all", told=("--data-dir: there is no such data folder: '/nowhere/at all'",)),
    option_case("runs in a file", "--runs", "{place}/train.tsv", told=(r"train\.tsv: --runs: run folders cannot be kept here",)),
    option_case("runs below a file", "--runs", "{place}/train.tsv/runs", told=(r"train\.tsv/runs: --runs: run folders cannot be kept here",)),
]
# fmt: on


WEIGHTS = "model.safetensors"


def weights(change: Callable[[bytes], bytes]) -> Callable[[Path], object]:
    def rewrite(folder: Path) -> None:
        (folder / WEIGHTS).write_bytes(change((folder / WEIGHTS).read_bytes()))

    return rewrite


def tensors(change: Callable[[torch.Tensor], torch.Tensor | None]) -> Callable[[Path], object]:
    """Changes one tensor, or leaves it out."""

    def rewrite(folder: Path) -> None:
        kept = load_file(folder / WEIGHTS)
        name = "transformer.h.0.ln_1.bias"
        new = change(kept.pop(name))
        save_file(kept | ({} if new is None else {name: new}), folder / WEIGHTS)

    return rewrite


def config(text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / "config.json").write_text(text)


def gone(folder: Path) -> None:
    (folder / WEIGHTS).unlink()


def pickled(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "pytorch_model.bin")


CUT, FLIPPED = weights(lambda data: data[:-100]), weights(lambda data: data[:-1] + bytes([data[-1] ^ 1]))
WHOLE, BARE = True, False
"""With the manifest that Gradus wrote, or without one, as in a folder of other tools."""
# fmt: off
FOLDERS: list[tuple[bool, Callable[[Path], object], str, str]] = [
    (WHOLE, CUT, r"model\.safetensors: this file was altered or cut", "MANIFEST"),
    (WHOLE, FLIPPED, r"model\.safetensors: this file was altered or cut", "MANIFEST"),
    (WHOLE, gone, r"model\.safetensors: a file is missing", "manifest"),
    (BARE, CUT, r"model\.safetensors: these weights are truncated or damaged", "start"),
    (BARE, tensors(lambda tensor: None), "start: the weights lack a tensor", "norm"),
    (BARE, tensors(lambda tensor: tensor[:-1]), r"model\.safetensors: a tensor has shape 15, not 16", r"ln_1\.bias"),
    (BARE, gone, "no weights that can be read", r"no model\.safetensors"),
    (BARE, pickled, "no weights", "pickled weights are never"),
    (BARE, config('{"model_type": "mamba"}'), r"config\.json: model_type: .*'mamba'", "one of openai-gpt"),
    (BARE, config('{"model_type": '), r"config\.json: .*cannot be read as JSON", "column"),
]
# fmt: on
