"""The files and folders that `augment` reads, and their digests: part of what a stage is known by."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gradus.core.storage import digest_file, folder_digest, from_home
from gradus.data.augmentation import Augment, BackTranslation, Insertion, Replacement
from gradus.data.synonyms import read_synonyms
from gradus.pipeline.models.translating import translator


def augment_digests(name: str, augment: Sequence[Augment], root: Path) -> list[dict[str, str]]:
    """The content digests of the files and folders that each kind reads: part of the fingerprint of the
    stage called `name`. Raises UserError for those that are not there."""
    fields = [f"stages.{name}.augment.{place}" for place in range(len(augment))]
    return [
        {key: _digest(path) for key, path in augment_paths(field, one, root).items()}
        for field, one in zip(fields, augment)
    ]


def augment_paths(field: str, one: Augment, root: Path) -> dict[str, Path]:
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
