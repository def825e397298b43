"""A recipe as text, with comments, for what was seen: sizes and rates that fit, and why they do."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from shlex import quote as quoted
from typing import Any

import yaml

from gradus.core.errors import UserError, counted, quote
from gradus.core.model import ModelConfig
from gradus.core.storage import from_home
from gradus.data.builtin import builtin_name
from gradus.data.paths import is_sound
from gradus.families import preset
from gradus.pipeline.looking.rows import SeenRows
from gradus.pipeline.looking.text import SeenText
from gradus.pipeline.recipes.schema import FILE as SCHEMA

RECIPE = "recipe.yaml"
VOCABULARY = [(200e3, 1024), (1e6, 2048), (5e6, 4096), (50e6, 8192), (500e6, 16384), (float("inf"), 32768)]
"""Bytes of text below which so many tokens are enough, so that each is seen often; a rule of thumb."""
CHINESE_VOCABULARY = 4096
"""At least so many where text is Chinese: some thousand characters are in use, each best one token."""
PRESETS = [(400e3, "gpt1-tiny"), (1e9, "gpt1-mini"), (float("inf"), "gpt1")]
TEXT_EPOCHS = [(1e6, 10), (10e6, 5), (100e6, 2), (float("inf"), 1)]
ROW_EPOCHS = [(2000, 10), (20_000, 5), (float("inf"), 3)]
BYTES_A_TOKEN = 3
"""A careful guess, for English and Chinese; `gradus check` counts exactly."""
CONTEXTS = (32, 64, 128, 256, 512)
LEAST_TEXT_CONTEXT = 128
RARE = 20
"""Below so many rows of a label, train might lack it once others are held out: `labels` then names all."""
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

    @property
    def text_objective(self) -> str:
        """What the model learns from running text: what its family was taught with."""
        if self.model is None or self.model.arrangement == "decoder":
            return "causal_lm"
        if self.model.arrangement == "encoder":
            return "masked_lm"
        return "span_corruption" if self.model.family == "t5" else "denoising"


def recipe_lines(seen: Seen) -> list[str]:
    """The lines of the recipe."""
    base = "the folder of this file, or from GRADUS_DATA where that is set"
    if _data_root():
        base = "GRADUS_DATA, which was set,"
    lines = [
        f"# yaml-language-server: $schema={SCHEMA}",
        "# Written by `gradus init` after a look at the data; change what you like.",
        *(f"#   {command}" for command in commands(seen.directory)),
        f"# Paths count from {base}; --data-dir says otherwise.",
        "# Seen:",
        *(f"#   {line}" for line in story(seen)),
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
            instead = _start(seen)
            words = "no adaptation" if seen.folder else "no pre-training"
            lines += [
                "variants: # run beside it: what did the stage before earn?",
                f"  {words}: {{stages.finetune.from: {instead}}}",
            ]
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
        fits = _fits(seen.rows, context)
        words += "; the context holds nearly all rows" if fits else "; longer rows are cut: see `check`"
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
    paths = [_path(entry, seen.directory) for entry in text.entries]
    train = _value(paths if len(paths) > 1 else paths[0])
    dev = train if text.builtin else f"5 % # {held}, held out"
    lines = [f"  {name}:"]
    if seen.folder:
        lines.append(f"    from: {_start(seen)} # it brings its tokenizer")
    lines += ["    data:", "      kind: text", f"      train: {train}", f"      dev: {dev}"]
    if text.documents != "file":
        lines.append(f"      documents: {text.documents}")
    if text.encoding != "utf-8":
        lines.append(f"      encoding: {text.encoding}")
    return lines + [
        f"    objectives: [{{kind: {seen.text_objective}}}]",
        f"    optimizer: {{kind: adamw, lr: {_number(rate)}}}",
        f"    batch: {64 if seen.preset == 'gpt1' else 16} windows",
        f"    length: {epochs} epoch{'' if epochs == 1 else 's'}",
    ]


def _row_stage(first: str | None, seen: Seen, rows: SeenRows) -> list[str]:
    lines = ["  finetune:"]
    if first:
        lines.append(f"    from: {first}")
    elif seen.folder:
        lines.append(f"    from: {_start(seen)} # it brings its tokenizer")
    lines += ["    data:", "      kind: rows", f"      train: {_value(_path(rows.file, seen.directory))}"]
    for split in ("dev", "test"):
        held = "10 % # of train, by a hash of each row: the same rows with every seed"
        file = rows.splits.get(split)
        lines.append(f"      {split}: {held if file is None else _value(_path(file, seen.directory))}")
    for name, value in rows.options.items():
        told = f" # {counted(rows.dropped, 'row')}: nothing to learn from" if name == "drop" else ""
        lines.append(f"      {name}: {_value(value)}{told}")
    lines.append(f"      format: {_value(rows.format)}")
    lines.append("      leakage: drop # rows that are in test, too, leave train; they are counted")
    fewest, most = min(rows.counts.values()), max(rows.counts.values())
    metric, judged = "pearson" if rows.task == "regression" else "accuracy", ""
    if rows.task == "classification" and fewest < RARE:
        lines.append(f"      labels: {_value(list(rows.counts))} # all of them, since some are rare")
    if rows.task == "classification" and most > UNEVEN * fewest:
        metric, judged = "macro_f1", "; classes are uneven: F1 of each class counts the same"
    epochs = _below(rows.rows, ROW_EPOCHS)
    speaks = seen.text_objective == "causal_lm"
    beside = ", {kind: causal_lm, weight: 0.5}] # as GPT-1, section 3.2" if speaks else "]"
    return lines + [
        f"    objectives: [{{kind: {rows.task}}}{beside}",
        f"    optimizer: {{kind: adamw, lr: {_number(RATES[seen.preset][1])}}}",
        "    batch: 32 rows",
        f"    length: {epochs} epochs",
        f"    stop: {{metric: {metric}, patience: 3}} # dev, every epoch; the best weights are kept{judged}",
    ]


def _data_root() -> Path | None:
    chosen = os.environ.get("GRADUS_DATA")
    return from_home(chosen).resolve() if chosen else None


def _path(entry: str, directory: Path) -> str:
    """A file, folder or glob as the recipe names it: from its own folder (or from GRADUS_DATA) where one can
    get there, else absolute."""
    if builtin_name(entry) is not None:
        return entry
    if not is_sound(entry):
        raise UserError("a recipe cannot write this file name", text=ascii(entry), hint="rename it")
    path = from_home(entry)
    fixed = (
        path.parent
        if path.exists()
        else next(one for one in path.parents if not any(map(str(one).count, "*?[")))
    )
    real = fixed.resolve() / path.relative_to(fixed)
    root = _data_root()
    if root is not None:
        return str(real.relative_to(root)) if real.is_relative_to(root) else str(real)
    relative = os.path.relpath(real, directory.resolve())
    return str(real) if relative.startswith(os.path.relpath("/", directory.resolve()) + os.sep) else relative


def _start(seen: Seen) -> str:
    """What the journey starts from, as `from` names it."""
    return _value({"folder": _path(str(seen.folder), seen.directory)}) if seen.folder else "scratch"


def _value(value: Any) -> str:
    """A value as YAML on one line, quoted where it must be."""
    return yaml.safe_dump(
        [value], default_flow_style=True, allow_unicode=True, width=10**9, sort_keys=False
    ).strip()[1:-1]


def _number(rate: float) -> str:
    """1e-3 rather than 0.001."""
    digits, _, power = f"{rate:e}".partition("e")
    return f"{digits.rstrip('0').rstrip('.')}e{int(power)}"


def _below(amount: float, table: list[tuple[float, Any]]) -> Any:
    return next(value for limit, value in table if amount < limit)


def _amount(size: int) -> str:
    return f"{size / 1e6:,.1f} MB" if size >= 1e6 else f"{size / 1e3:,.1f} kB"


def _language(han: float) -> str:
    if 0 < han < 0.01:
        return "less than 1 % Chinese letters"
    return f"{100 * han:.0f} % Chinese letters" if han else "no Chinese"


def _shown(text: str) -> str:
    """Text of the user in a comment: as it is where it is short and harmless, else quoted and cut."""
    return text if text.isprintable() and 0 < len(text) <= 60 and text == text.strip() else quote(text)


def story(seen: Seen) -> list[str]:
    """What was seen, in lines."""
    lines: list[str] = []
    if seen.text:
        one, amount = seen.text, _amount(seen.text.bytes)
        where = ", ".join(map(_shown, one.entries))
        files = f"{one.files:,} {'document' if one.builtin else 'file'}{'' if one.files == 1 else 's'}"
        lines.append(f"text: {where}: {files}, {amount}, {_language(one.han)}, {one.encoding}")
        if one.left_out:
            lines.append(f"  only .txt is read there; other files: {one.left_out:,}")
    if seen.rows:
        lines += _rows_story(seen.rows)
    if seen.folder and seen.model:
        shape = f"{seen.model.layers} layers x {seen.model.width}, context {seen.model.context}"
        lines.append(f"start: {_shown(str(seen.folder))}: {shape}")
    return lines


def _rows_story(rows: SeenRows) -> list[str]:
    label, texts = _shown(rows.label), " and ".join(map(_shown, rows.texts))
    lines = [f"rows: {_shown(rows.file)}: {counted(rows.rows, 'row')}, {_language(rows.han)}"]
    if rows.task == "classification":
        listed = [f"{_shown(name)} ({count:,})" for name, count in rows.counts.items()]
        more = f" and {len(listed) - 10} more" if len(listed) > 10 else ""
        lines.append(f"  {len(listed)} labels in the column {label}: {' '.join(listed[:10])}{more}")
    elif rows.task == "regression":
        lines.append(f"  {len(rows.counts)} different numbers in the column {label}")
    else:
        answers = rows.format["answers"]
        shown = _shown(answers) if isinstance(answers, str) else ", ".join(map(_shown, answers))
        lines.append(f"  answers in {shown}; the right one in the column {label}")
    lines.append(f"  texts in {texts}, of {rows.lengths}")
    if rows.others:
        lines.append(f"  not used: {', '.join(map(_shown, rows.others[:20]))}")
    return lines + [f"  {note}" for note in rows.notes]


def commands(directory: Path) -> list[str]:
    recipe, run = quoted(str(directory / RECIPE)), quoted(f"runs/{directory.resolve().name}")
    return [f"gradus check {recipe}", f"gradus run {recipe}", f"gradus report {run}"]
