"""What a stage does with its key `augment`: opens tables and models, makes its train rows anew, and tells
how."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from gradus.core.errors import UserError, counted, quote
from gradus.core.storage import digest_file, folder_digest, from_home
from gradus.data.augmentation import Augment, BackTranslation, Insertion, Masking, Replacement
from gradus.data.augmented import AugmentedRows, Changes, shown
from gradus.data.encoding import RowEncoder
from gradus.data.sources import Rows
from gradus.data.synonyms import read_synonyms
from gradus.pipeline.models.translating import Paraphrases, translator
from gradus.pipeline.planning.material import Material
from gradus.tokenizers import Tokenizer

if TYPE_CHECKING:
    from gradus.pipeline.planning.plan import Node
    from gradus.pipeline.planning.prepared import Prepared
    from gradus.pipeline.planning.splits import Split

SEARCHED, SHORT = 200, 60
"""Rows among which `check` looks for one to show, and characters of one that can be shown whole."""


def augment_digests(name: str, augment: Sequence[Augment], root: Path) -> list[dict[str, str]]:
    """The content digests of the files and folders that each kind reads: part of the fingerprint of the
    stage called `name`. Raises UserError for those that are not there."""
    return [
        {key: _digest(path) for key, path in _named(f"stages.{name}.augment.{place}", one, root).items()}
        for place, one in enumerate(augment)
    ]


def _named(field: str, one: Augment, root: Path) -> dict[str, Path]:
    """The files and folders that a kind reads, by key. Raises UserError for what is none."""
    if isinstance(one, Replacement | Insertion) and one.file is not None:
        path = root / from_home(one.file)
        read_synonyms(path, f"{field}.file")
        return {"file": path}
    if isinstance(one, BackTranslation):
        return {
            key: translator(root / from_home(getattr(one, key)), f"{field}.{key}")
            for key in ("there", "back")
        }
    return {}


def _digest(path: Path) -> str:
    return folder_digest(path) if path.is_dir() else digest_file(path)


def augmented_rows(node: Node, split: Split, encoder: RowEncoder, material: Material) -> AugmentedRows:
    """The train rows as the stage changes them. Raises UserError where it masks and no token plays `mask`."""
    assert node.stage.augment is not None and isinstance(split.source, Rows)
    synonyms, paraphrases = {}, {}
    for place, one in enumerate(node.stage.augment):
        field = f"stages.{node.name}.augment.{place}"
        paths = _named(field, one, material.root)
        tokenizer = encoder.tokenizer
        if isinstance(one, Masking) and isinstance(tokenizer, Tokenizer) and not tokenizer.has("mask"):
            hint = "deletion, or `tokenizer.roles`; BERT's have one, and those that Gradus trains"
            raise UserError("no token plays the role mask", field=field, text=one.kind, hint=hint)
        if "file" in paths:
            synonyms[place] = read_synonyms(paths["file"], field)
        if isinstance(one, BackTranslation):
            columns = encoder.format.changeable
            texts = list(dict.fromkeys(row.fields[column] for row in split.rows for column in columns))
            paraphrases[place] = Paraphrases(
                texts, (paths["there"], paths["back"]), one.temperature, material.cache, material.told
            )
    changes = Changes(node.stage.augment, node.seed, synonyms, paraphrases)
    return AugmentedRows(split.rows, split.source, encoder, changes)


def _changed(prepared: Prepared) -> list[AugmentedRows]:
    """The train rows that are read otherwise every epoch, of each task of the stage."""
    sources = (task.splits["train"].source for task in prepared.tasks.values())
    return [source for source in sources if isinstance(source, AugmentedRows)]


def _paraphrases(source: AugmentedRows) -> list[Paraphrases]:
    return [one for one in source.changes.paraphrases.values() if isinstance(one, Paraphrases)]


def translate(prepared: Prepared, device: torch.device) -> None:
    """Makes what the cache lacks of the paraphrases that a stage will read, before anything is trained."""
    for source in _changed(prepared):
        for one in _paraphrases(source):
            one.make(str(device))


def augment_notes(prepared: Prepared) -> list[str]:
    """What is to be translated, and one row as it stands and as the first epoch reads it."""
    return [note for source in _changed(prepared) for note in _notes(source, prepared.node.name)]


def _notes(source: AugmentedRows, name: str) -> list[str]:
    notes, made = [], _paraphrases(source)
    for one in made:
        texts, left = counted(len(one.texts), "text"), one.left
        done = f": {len(one.texts) - left:,} done" if left else ": all done"
        done = done if left < len(one.texts) else ""
        notes.append(f"{name}: augment: {texts} to be translated there and back before training{done}")
    if any(one.left for one in made):
        return notes
    places = range(min(len(source), SEARCHED))
    changed = [index for index in places if source.texts(index, 0) or source.partner(index, 0)]
    if changed:
        kinds = " and ".join(one.kind for one in source.changes.list)
        short = (index for index in changed if all(len(text) <= SHORT for text in _texts(source, index)))
        index = next(short, changed[0])
        notes.append(f"{name}: {kinds}: {source.where(index)}: {_told(source, index)}")
    return notes


def _texts(source: AugmentedRows, index: int) -> list[str]:
    """The texts of a row that may be changed."""
    return [source.rows[index].fields[column] for column in source.columns]


def _told(source: AugmentedRows, index: int) -> str:
    """A row before and after."""
    fields, told = source.rows[index].fields, []
    changed, partner = source.texts(index, 0), source.partner(index, 0)
    for column in source.columns if changed else ():
        if column in changed:
            told.append(f"{column}: {quote(fields[column])} is read as {quote(shown(changed[column]))}")
    if partner is not None:
        told.append(f"mixed with {source.where(partner[0])}, which weighs {partner[1]:.2f}")
    return "; ".join(told)
