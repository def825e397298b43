"""The files of a model folder: JSON, the manifest, and the headers of the weights, whole or in shards."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from gradus.core.errors import UserError
from gradus.core.storage import MANIFEST, digest_file, read_json

WEIGHTS, INDEX = "model.safetensors", "model.safetensors.index.json"


@dataclass(frozen=True)
class Piece:
    """A tensor of a file, and its shape there."""

    file: Path
    name: str
    shape: tuple[int, ...]


def object_of(file: Path, missing: str) -> dict[str, Any]:
    """The JSON object of a file. Raises UserError, with the words `missing` where there is no such file."""
    try:
        content = read_json(file)
    except FileNotFoundError:
        raise UserError(missing, file=file.parent, hint=f"it has no {file.name}") from None
    except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError("this file cannot be read as JSON", file=file, text=str(error)) from None
    if not isinstance(content, dict):
        raise UserError("this file should hold a JSON object", file=file)
    return content


def object_at(content: Mapping[str, Any], key: str, file: Path) -> dict[str, Any]:
    """The JSON object that stands under a key, an empty one where nothing does. Raises UserError for anything
    else."""
    found = content.get(key) or {}
    if not isinstance(found, dict):
        raise UserError("this should be a JSON object", file=file, field=key, text=found)
    return found


def check_manifest(path: Path) -> None:
    """Raises UserError for a file that is not as it was written."""
    if not (path / MANIFEST).is_file():
        return
    files = object_at(object_of(path / MANIFEST, ""), "files", path / MANIFEST)
    for name, digest in files.items():
        file = path / name
        if not file.is_file():
            raise UserError("a file is missing that the manifest names", file=file)
        if digest_file(file) != digest:
            raise UserError(
                "this file was altered or cut after it was written", file=file,
                hint=f"its digest is not the one in {MANIFEST}; remove that file if the change was meant",
            )  # fmt: skip


def pieces_of(path: Path) -> dict[str, Piece]:
    """Every tensor of a folder by its name, from the headers alone."""
    if (path / WEIGHTS).is_file():
        files = [path / WEIGHTS]
    elif (path / INDEX).is_file():
        places = object_at(object_of(path / INDEX, ""), "weight_map", path / INDEX)
        files = [path / name for name in sorted({Path(str(place)).name for place in places.values()})]
    else:
        hint = f"it has no {WEIGHTS}"
        if any(path.glob("pytorch_model*.bin")):
            hint = "pickled weights are never opened; load it with transformers and call save_pretrained"
        raise UserError("there are no weights that can be read", file=path, hint=hint)
    present = {}
    for file in files:
        with opened(file) as content:
            for name in sorted(content.keys()):
                present[name] = Piece(file, name, tuple(content.get_slice(name).get_shape()))
    return present


@contextmanager
def opened(file: Path) -> Iterator[Any]:
    """A file of safetensors. Raises UserError where it is none."""
    if not file.is_file():
        raise UserError("a file of weights is missing", file=file)
    try:
        content = safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        raise UserError("these weights are truncated or damaged", file=file, text=str(error)) from None
    with content:
        yield content
