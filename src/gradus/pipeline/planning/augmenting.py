"""What a stage does with its key `augment`: opens tables and models, makes its train rows anew, and tells
how."""

from __future__ import annotations

import torch

from gradus.core.errors import UserError, counted, quote
from gradus.data.augmentation import BackTranslation, Masking
from gradus.data.augmented import AugmentedRows, Changes, shown
from gradus.data.encoding import RowEncoder
from gradus.data.sources import Rows
from gradus.data.synonyms import read_synonyms
from gradus.pipeline.models.translating import Paraphrases
from gradus.pipeline.planning.augment_files import augment_paths
from gradus.pipeline.planning.material import Material
from gradus.pipeline.planning.plan import Node
from gradus.pipeline.planning.prepared import Prepared
from gradus.pipeline.planning.splits import Split
from gradus.tokenizers import Tokenizer

SEARCHED, SHORT = 200, 60
"""Rows among which `check` looks for one to show, and characters of one that can be shown whole."""


def augmented_rows(node: Node, split: Split, encoder: RowEncoder, material: Material) -> AugmentedRows:
    """The train rows as the stage changes them. Raises UserError where it masks and no token plays `mask`."""
    assert node.stage.augment is not None and isinstance(split.source, Rows)
    synonyms, paraphrases = {}, {}
    for place, one in enumerate(node.stage.augment):
        field = f"stages.{node.name}.augment.{place}"
        paths = augment_paths(field, one, material.root)
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


def lacks_paraphrases(prepared: Prepared) -> bool:
    """Whether the cache lacks texts that are to be translated."""
    return any(one.left for source in _changed(prepared) for one in _paraphrases(source))


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
