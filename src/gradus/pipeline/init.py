"""`gradus init`: from what was seen in a user's files to a commented recipe that passes `gradus check` as it stands."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from gradus.core.errors import UserError, nearest, quote
from gradus.core.model import ModelConfig
from gradus.core.storage import write_file
from gradus.data.builtin import builtin_name
from gradus.data.paths import is_sound
from gradus.families import preset
from gradus.families.folder import read_folder
from gradus.pipeline.look import SeenText, look_at_text
from gradus.pipeline.look_rows import SeenRows, look_at_rows
from gradus.pipeline.schema import FILE as SCHEMA

RECIPE = "recipe.yaml"
TEMPLATES: dict[str, tuple[str | None, list[str], str]] = {
    "quickstart": ("builtin:python_modules", ["builtin:python_docs"],
                   "the whole journey on what Python says about itself: pre-train, fine-tune, compare"),
    "pretrain": (None, ["builtin:python_docs"], "a language model from text alone"),
    "classify": ("builtin:python_modules", [], "a classifier from labelled rows alone"),
    "tiny": ("builtin:tiny", ["builtin:tiny"], "the whole journey in seconds, on made-up English and Chinese"),
}  # fmt: skip
"""Name -> rows, text (all built in, so that each runs as it is), and what it shows."""

VOCABULARY = [(200e3, 1024), (1e6, 2048), (5e6, 4096), (50e6, 8192), (500e6, 16384), (float("inf"), 32768)]
"""Bytes of text below which so many tokens are enough, so that each is seen often; a rule of thumb."""
CHINESE_VOCABULARY = 4096
"""At least so many where text is Chinese: some thousand characters are in use, and each should be one token."""
PRESETS = [(400e3, "gpt1-tiny"), (1e9, "gpt1-mini"), (float("inf"), "gpt1")]
TEXT_EPOCHS = [(1e6, 10), (10e6, 5), (100e6, 2), (float("inf"), 1)]
ROW_EPOCHS = [(2000, 10), (20_000, 5), (float("inf"), 3)]
BYTES_A_TOKEN = 3
"""A careful guess, for English and Chinese; `gradus check` counts exactly."""
CONTEXTS = (32, 64, 128, 256, 512)
LEAST_TEXT_CONTEXT = 128
RARE = 20
"""Below so many rows of a label, train might lack it once dev and test are held out: `labels` then names all."""
UNEVEN = 3
"""The largest class over the smallest: beyond this accuracy flatters, and macro F1 judges."""
WIDE = 512
RATES = {"gpt1-tiny": (2e-3, 5e-4), "gpt1-mini": (1e-3, 2.5e-4), "gpt1": (2.5e-4, 6.25e-5)}
"""Learning rates on text and on rows: the paper's for gpt1 (section 4.1), more where the model is smaller."""


@dataclass(frozen=True)
class Seen:
    """All that the writer knows."""

    directory: Path
    rows: SeenRows | None
    text: SeenText | None
    folder: Path | None
    model: ModelConfig | None
    """Of the folder."""

    @property
    def bytes(self) -> int:
        """What the tokenizer and the model's size go by."""
        return self.text.bytes if self.text else self.rows.bytes if self.rows else 0

    @property
    def preset(self) -> str:
        """Of a new model; for a folder the one that its width is nearest to, for the learning rates."""
        if self.model:
            return "gpt1" if self.model.width >= WIDE else "gpt1-mini"
        return _below(self.bytes, PRESETS)


def list_templates() -> str:
    """The templates, one a line."""
    lines = [f"{name:<12}{story}" for name, (_, _, story) in TEMPLATES.items()]
    return "\n".join([*lines, "Each runs as it is; with --from FOLDER it starts from a model that you have."])


def write_recipe(
    directory: Path | None,
    *,
    rows: Path | str | None = None,
    text: Sequence[str] = (),
    start: Path | None = None,
    template: str | None = None,
) -> str:
    """Looks at the files, writes DIRECTORY/recipe.yaml and returns what to tell.

    Relative names count from the working folder. Raises UserError for files that cannot be read or have no label,
    where there is nothing to look at, and where the recipe exists: it is never overwritten.
    """
    names = ", ".join(TEMPLATES)
    if directory is None:
        raise UserError("say which folder the recipe goes to", hint="gradus init DIR --rows FILE --text FILES")
    if (directory / RECIPE).exists():
        raise UserError("there is a recipe already, and it stays", file=directory / RECIPE, hint="name another folder")
    if directory.exists() and not directory.is_dir():
        raise UserError("this is a file, a folder is wanted", file=directory)
    if template is not None:
        if rows is not None or text:
            raise UserError("a template brings its own data", field="--template", hint="leave out --rows and --text")
        if template not in TEMPLATES:
            raise UserError("there is no such template", field="--template", text=template, hint=nearest(template, TEMPLATES))
        rows, text, _ = TEMPLATES[template]
    if rows is None and not text:
        hint = f"--rows FILE for labelled rows, --text FILES for text, or --template NAME: {names}"
        raise UserError("there is nothing to look at", hint=hint)
    seen = Seen(
        directory,
        look_at_rows(str(rows)) if rows is not None else None,
        look_at_text(text) if text else None,
        start,
        read_folder(start).config if start else None,
    )
    recipe = "\n".join(_recipe(seen)) + "\n"
    write_file(directory / RECIPE, recipe)
    return "\n".join([*_story(seen), f"wrote {directory / RECIPE}", *_commands(directory)])


def _commands(directory: Path) -> list[str]:
    recipe, runs = directory / RECIPE, directory / "runs"
    return [f"gradus check {recipe} --runs {runs}", f"gradus run {recipe} --runs {runs}", f"gradus report {runs / 'recipe'}"]


def _story(seen: Seen) -> list[str]:
    """What was seen, in lines."""
    lines: list[str] = []
    if seen.text:
        one, amount = seen.text, _amount(seen.text.bytes)
        where = ", ".join(map(_shown, one.entries))
        files = f"{one.files:,} {'document' if one.builtin else 'file'}{'' if one.files == 1 else 's'}"
        lines.append(f"text: {where}: {files}, {amount}, {_language(one.han)}, {one.encoding}")
        if one.left_out:
            lines.append(f"  {one.left_out:,} files there are not .txt and are not read")
    if seen.rows:
        lines += _rows_story(seen.rows)
    if seen.folder and seen.model:
        model = seen.model
        lines.append(f"start: {_shown(str(seen.folder))}: {model.layers} layers x {model.width}, context {model.context}")
    return lines


def _rows_story(rows: SeenRows) -> list[str]:
    counted = list(rows.counts.items())
    shown = " ".join(f"{_shown(name)} ({count:,})" for name, count in counted[:10])
    more = f" and {len(counted) - 10} more" if len(counted) > 10 else ""
    texts = " and ".join(_shown(name) for name in rows.texts)
    lines = [
        f"rows: {_shown(rows.file)}: {rows.rows:,} rows, {_language(rows.han)}",
        f"  {len(counted)} labels in the column {_shown(rows.label)}: {shown}{more}",
        f"  texts in {texts}, of {rows.lengths}",
    ]
    if rows.others:
        lines.append(f"  not used: {', '.join(map(_shown, rows.others[:20]))}")
    return lines + [f"  {note}" for note in rows.notes]


def _recipe(seen: Seen) -> list[str]:
    """The lines of the recipe."""
    base = "GRADUS_DATA, which was set," if _data_root() else "the folder of this file, or from GRADUS_DATA where that is set"
    lines = [
        f"# yaml-language-server: $schema={SCHEMA}",
        "# Written by `gradus init` after a look at the data; change what you like.",
        *(f"#   {command}" for command in _commands(seen.directory)),
        f"# Paths count from {base}; --data-dir says otherwise.",
        "# Seen:",
        *(f"#   {line}" for line in _story(seen)),
        "seed: 1",
    ]
    if not seen.model:
        lines += _beginning(seen)
    lines.append("stages:")
    first = None
    if seen.text:
        first = "adapt" if seen.folder else "pretrain"
        lines += _text_stage(first, seen, seen.text)
    if seen.rows:
        lines += _row_stage(first, seen, seen.rows)
        lines.append("seeds: 3 # the stage with rows is repeated, so that the report can tell luck from gain")
        if first:
            instead = f"{{folder: {_written(seen.folder, seen.directory)}}}" if seen.folder else "scratch"
            words = "no adaptation" if seen.folder else "no pre-training"
            lines += ["variants: # run beside it: what did the stage before earn?", f"  {words}: {{stages.finetune.from: {instead}}}"]
    return lines


def _beginning(seen: Seen) -> list[str]:
    """The tokenizer and the model of a journey that starts from nothing."""
    chinese = seen.text.chinese if seen.text else bool(seen.rows and seen.rows.chinese)
    size = max(_below(seen.bytes, VOCABULARY), CHINESE_VOCABULARY if chinese else 0)
    shape = preset(seen.preset)
    context = _context(seen, shape["context"])
    changed = "" if context == shape["context"] else f", context: {context}"
    words = f"{shape['layers']} layers x {shape['width']}, for {_amount(seen.bytes)} of text"
    if seen.rows:
        words += "; the context holds nearly all rows" if _fits(seen.rows, context) else "; longer rows are cut: see `check`"
    if seen.preset == "gpt1":
        words += "; 117M parameters want a GPU, gpt1-mini a CPU"
    return [
        f"tokenizer: {{kind: bpe, vocab_size: {size}}} # over bytes: any text goes through, in any language",
        f"model: {{preset: {seen.preset}{changed}}} # {words}",
    ]


def _context(seen: Seen, usual: int) -> int:
    """The preset's own for text alone; with rows the least that holds nearly all of them."""
    if seen.rows is None:
        return usual
    holds = next((context for context in CONTEXTS if _fits(seen.rows, context)), CONTEXTS[-1])
    return max(holds, LEAST_TEXT_CONTEXT) if seen.text else holds


def _fits(rows: SeenRows, context: int) -> bool:
    return rows.lengths.nearly_all_bytes / BYTES_A_TOKEN + 1 + len(rows.texts) <= context


def _text_stage(name: str, seen: Seen, text: SeenText) -> list[str]:
    rate = RATES[seen.preset][0]
    epochs = _below(text.bytes, TEXT_EPOCHS)
    if seen.folder:  # what the folder has learnt should move less
        rate, epochs = rate / 2, min(epochs, 3)
    held = {"file": "whole files" if text.files > 1 else "the end of the file", "line": "lines",
            "blank line": "pieces between blank lines"}[text.documents]  # fmt: skip
    train = _value([_path(entry, seen.directory) for entry in text.entries])
    dev = train if text.builtin else f"5 % # {held}, held out"
    lines = [f"  {name}:"]
    if seen.folder:
        lines.append(f"    from: {{folder: {_written(seen.folder, seen.directory)}}} # it brings its tokenizer")
    lines += ["    data:", "      kind: text", f"      train: {train}", f"      dev: {dev}"]
    if text.documents != "file":
        lines.append(f"      documents: {text.documents}")
    if text.encoding != "utf-8":
        lines.append(f"      encoding: {text.encoding}")
    return lines + [
        "    objectives: [{kind: causal_lm}]",
        f"    optimizer: {{kind: adamw, lr: {_number(rate)}}}",
        f"    batch: {64 if seen.preset == 'gpt1' else 16} windows",
        f"    length: {epochs} epoch{'' if epochs == 1 else 's'}",
    ]


def _row_stage(first: str | None, seen: Seen, rows: SeenRows) -> list[str]:
    lines = ["  finetune:"]
    if first:
        lines.append(f"    from: {first}")
    elif seen.folder:
        lines.append(f"    from: {{folder: {_written(seen.folder, seen.directory)}}} # it brings its tokenizer")
    lines += ["    data:", "      kind: rows", f"      train: {_value(_path(rows.file, seen.directory))}"]
    for split in ("dev", "test"):
        held = "10 % # of train, by a hash of each row: the same rows with every seed"
        lines.append(f"      {split}: {_value(_path(rows.splits[split], seen.directory)) if split in rows.splits else held}")
    lines += [f"      {name}: {_value(value)}" for name, value in rows.options.items()]
    names = ("text",) if len(rows.texts) == 1 else ("first", "second")
    columns = [f"{name}: {_value(column)}" for name, column in zip((*names, "label"), (*rows.texts, rows.label))]
    lines.append(f"      format: {{kind: {'single' if len(names) == 1 else 'pair'}, {', '.join(columns)}}}")
    fewest, most = min(rows.counts.values()), max(rows.counts.values())
    if fewest < RARE:
        lines.append(f"      labels: {_value(list(rows.counts))} # all of them, since some are rare")
    uneven = most > UNEVEN * fewest
    metric = "macro_f1" if uneven else "accuracy"
    judged = "; classes are uneven: F1 of each class counts the same" if uneven else ""
    epochs = _below(rows.rows, ROW_EPOCHS)
    return lines + [
        "    objectives: [{kind: classification}, {kind: causal_lm, weight: 0.5}] # the auxiliary loss of GPT-1",
        f"    optimizer: {{kind: adamw, lr: {_number(RATES[seen.preset][1])}}}",
        "    batch: 32 rows",
        f"    length: {epochs} epochs",
        f"    stop: {{metric: {metric}, patience: 3}} # dev, every epoch; the best weights are kept{judged}",
    ]


def _data_root() -> Path | None:
    chosen = os.environ.get("GRADUS_DATA")
    return Path(chosen).expanduser().resolve() if chosen else None


def _path(entry: str, directory: Path) -> str:
    """A file, folder or glob as the recipe names it: from its own folder (or from GRADUS_DATA) where one can get
    there, else absolute."""
    if builtin_name(entry) is not None:
        return entry
    if not is_sound(entry):
        raise UserError("a recipe cannot write this file name", text=ascii(entry), hint="rename it")
    path = Path(entry).expanduser()
    fixed = path.parent if path.exists() else next(one for one in path.parents if not any(map(str(one).count, "*?[")))
    real = fixed.resolve() / path.relative_to(fixed)
    root = _data_root()
    if root is not None:
        return str(real.relative_to(root)) if real.is_relative_to(root) else str(real)
    relative = os.path.relpath(real, directory.resolve())
    return str(real) if relative.startswith(os.path.relpath("/", directory.resolve()) + os.sep) else relative


def _written(folder: Path | None, directory: Path) -> str:
    return _value(_path(str(folder), directory))


def _value(value: Any) -> str:
    """A value as YAML on one line, quoted where it must be; a list of one path is the path."""
    return yaml.safe_dump([value], default_flow_style=True, allow_unicode=True, width=10**9, sort_keys=False).strip()[1:-1]


def _number(rate: float) -> str:
    """1e-3 rather than 0.001."""
    digits, _, power = f"{rate:e}".partition("e")
    return f"{digits.rstrip('0').rstrip('.')}e{int(power)}"


def _below(amount: float, table: list[tuple[float, Any]]) -> Any:
    return next(value for limit, value in table if amount < limit)


def _amount(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e6 else f"{size / 1e3:,.1f} kB"


def _language(han: float) -> str:
    return f"{han:.0%} Chinese letters" if han >= 0.005 else "no Chinese"


def _shown(text: str) -> str:
    """Text of the user in a comment: as it is where it is short and harmless, else quoted and cut."""
    return text if text.isprintable() and 0 < len(text) <= 60 and text == text.strip() else quote(text)
