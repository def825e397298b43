"""Files and folders that are whole or not there: written under a temporary name, synced, renamed, manifest
last."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any

from gradus.core.errors import UserError

MANIFEST = "MANIFEST.json"
_CHUNK = 1 << 20


def from_home(path: str | Path) -> Path:
    """The path with the home folder for `~`. A name that begins so and is nobody's home is a name."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  (Path.expanduser raises there)


def digest_bytes(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()


def digest_json(value: Any) -> str:
    """The digest of a JSON value, whatever the order of its keys."""
    return digest_bytes(json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":")).encode())


def digest_file(path: Path) -> str:
    state = hashlib.blake2b(digest_size=16)
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            state.update(chunk)
    return state.hexdigest()


def folder_digest(folder: Path) -> str:
    """The digest of a model folder: its manifest where there is one, else its files."""
    if (folder / MANIFEST).is_file():
        return digest_json(read_json(folder / MANIFEST))
    files = sorted(path for path in folder.iterdir() if path.suffix in (".json", ".safetensors"))
    return digest_json({path.name: digest_file(path) for path in files})


def sync(path: Path) -> None:
    """Forces a file or a folder's entries to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[IO[bytes]]:
    """Yields a temporary file that becomes `path` when the block ends without error: a reader finds the old
    file or the new, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    sync(path.parent)


def write_file(path: Path, data: bytes | str) -> None:
    """Replaces `path` at once."""
    with new_file(path) as file:
        file.write(data.encode() if isinstance(data, str) else data)


def write_json(path: Path, value: Any) -> None:
    write_file(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    """Writes objects as JSON Lines in one step."""
    write_file(path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The objects of JSON Lines; none where there is no such file."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
    return [json.loads(line) for line in lines]


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yields a temporary folder that becomes `path`, whole and with a manifest, when the block ends without
    error.

    An existing folder of that name is replaced. What a killed process left behind is swept away by the next.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    temporary.mkdir()
    try:
        yield temporary
        files = sorted(file for file in temporary.rglob("*") if file.is_file())
        for file in files:
            sync(file)
        digests = {str(file.relative_to(temporary)): digest_file(file) for file in files}
        write_json(temporary / MANIFEST, {"files": digests})
        old = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
        if path.exists():
            os.rename(path, old)
        os.rename(temporary, path)
        sync(path.parent)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def is_whole(path: Path) -> bool:
    """Whether `path` has a manifest and every file in it has the digest that the manifest says."""
    try:
        files = read_json(path / MANIFEST)["files"]
        return all(digest_file(path / name) == digest for name, digest in files.items())
    except (OSError, ValueError, KeyError, TypeError):
        return False


def sweep(folder: Path, name: str = "*") -> None:
    """Removes temporary files and folders that killed processes left in `folder`. Call it under the folder's
    lock.

    With `name`, a pattern, only what was to become a file or folder of such a name.
    """
    for entry in folder.glob(f".{name}.tmp"):
        if entry.is_dir():
            shutil.rmtree(entry, ignore_errors=True)
        else:
            entry.unlink(missing_ok=True)


@contextlib.contextmanager
def lock(path: Path, *, wait: bool, busy: str = "another process is at work here") -> Iterator[None]:
    """Holds an advisory lock on `path` (a file it makes). The kernel frees it when the process dies.

    With `wait` it blocks until the lock is free; without, it raises UserError(busy).
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except OSError:
            raise UserError(busy, file=path.parent) from None
        yield


def free_bytes(path: Path) -> int:
    """Bytes free on the disk that holds `path` or its nearest existing parent."""
    while not path.exists():
        path = path.parent
    return shutil.disk_usage(path).free
