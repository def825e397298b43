"""A model folder: weights, config and tokenizer in Hugging Face's form where that can hold the model.

What it has no place for stands beside them in gradus.json. Safetensors and JSON only: nothing in a folder
is ever executed.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gradus.core.errors import UserError, nearest
from gradus.core.model import ModelConfig
from gradus.core.storage import MANIFEST, digest_file, read_json, write_json
from gradus.families import FAMILIES, Task
from gradus.nn.transformer import Transformer

CARD, CONFIG, WEIGHTS = "gradus.json", "config.json", "model.safetensors"
INDEX = "model.safetensors.index.json"
OWN_TYPE = "gradus"
"""`model_type` of a model that Hugging Face's code for its family cannot hold."""
FOREIGN_HEADS: dict[Task, str] = {
    "classes": "classification",
    "number": "regression",
    "choices": "multiple_choice",
}
"""What the head is called in a folder that Gradus did not write."""


@dataclass(frozen=True)
class Stored:
    """Where one tensor of ours stands: its file, its name there, and whether its matrix is transposed."""

    file: Path
    name: str
    transposed: bool
    shape: tuple[int, ...]


@dataclass(frozen=True)
class ModelFolder:
    """A model folder whose names, shapes and digests have been checked.

    `labels` are a classifier's, in order; `task` is what its head answers, None where it has no head; `card`
    is gradus.json, None in a folder that Gradus did not write; `dropped` are the file's tensors that are no
    weights of the model.
    """

    path: Path
    config: ModelConfig
    labels: list[str] | None
    card: dict[str, Any] | None
    stored: dict[str, Stored]
    dropped: tuple[str, ...] = ()
    task: Task | None = None

    @cached_property
    def tensors(self) -> dict[str, Tensor]:
        """Our name -> fp32 tensor, read when first asked for."""
        tensors = {}
        for file in sorted({place.file for place in self.stored.values()}):
            with _open(file) as content:
                for name, place in self.stored.items():
                    if place.file == file:
                        tensor = content.get_tensor(place.name).to(torch.float32)
                        tensors[name] = tensor.t().contiguous() if place.transposed else tensor
        return {name: tensors[name] for name in self.stored}


def shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """The name and shape of every tensor of the transformer."""
    with torch.device("meta"):
        built = Transformer(config, device="meta")
    return {name: tuple(parameter.shape) for name, parameter in built.named_parameters()}


def write_folder(
    path: Path,
    config: ModelConfig,
    tensors: Mapping[str, Tensor],
    card: Mapping[str, Any],
    save_tokenizer: Callable[[Path], None],
    labels: Sequence[str] | None = None,
    pad_id: int | None = None,
    task: Task | Literal["tokens"] | None = None,
) -> None:
    """Fills `path` with a model folder. Call it inside `core.storage.new_folder`, so that it is whole or
    not there.

    `tensors` are the transformer's under our names and those of heads as `heads.NAME.score.weight` (and
    `.bias`); `task` is what the one head answers, classes unless given; `labels` name its classes, in
    order. Raises ValueError where a tensor is missing or misshapen.
    """
    _check_shapes({name: tuple(tensor.shape) for name, tensor in tensors.items()}, config)
    content, named = _form(config, tensors, None if task == "tokens" else task, labels, pad_id)
    path.mkdir(parents=True, exist_ok=True)
    own = {name: named[name].detach().to("cpu", torch.float32).contiguous() for name in sorted(named)}
    # One key of metadata: the library orders several at random, and equal models should be equal files.
    save_file(own, path / WEIGHTS, metadata={"format": "pt"})
    write_json(path / CONFIG, content)
    write_json(path / CARD, dict(card))
    save_tokenizer(path)


def _form(
    config: ModelConfig,
    tensors: Mapping[str, Tensor],
    task: Task | None,
    labels: Sequence[str] | None,
    pad_id: int | None,
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """config.json and the tensors as they are named in the file: Hugging Face's where they can be."""
    heads = sorted({name.split(".")[1] for name in tensors if name.startswith("heads.")})
    task = (task or "classes") if heads else None
    if task == "classes" and labels is None:
        labels = [f"LABEL_{index}" for index in range(len(tensors[f"heads.{heads[0]}.score.weight"]))]
    family = FAMILIES[config.family]
    bias = any(name.endswith(".score.bias") for name in tensors)
    if family.expressible(config, heads) is None and (task is None or family.obstacle(task, bias) is None):
        return family.to_config_json(config, labels, pad_id, task), family.to_names(tensors, task)
    content: dict[str, Any] = {"model_type": OWN_TYPE, "model": config.plain()}
    if task is not None:
        content["task"] = task
    if labels is not None:
        content["id2label"] = {str(index): label for index, label in enumerate(labels)}
    return content, dict(tensors)


def _check_shapes(found: Mapping[str, tuple[int, ...]], config: ModelConfig) -> None:
    wanted = shapes(config)
    own = {name: shape for name, shape in found.items() if not name.startswith("heads.")}
    if own != wanted:
        wrong = sorted(name for name in own.keys() | wanted.keys() if own.get(name) != wanted.get(name))
        raise ValueError(f"tensor {wrong[0]} has shape {own.get(wrong[0])}, not {wanted.get(wrong[0])}")


def read_folder(path: Path) -> ModelFolder:
    """Opens a folder that Gradus or Hugging Face tools wrote for a known family, whole or in shards.

    Raises UserError, naming file and tensor, for a folder that is no model, of an unknown family, altered,
    truncated, or with tensors missing, unknown or misshapen.
    """
    content = _json(path / CONFIG, "this is no model folder")
    _check_manifest(path)
    card = _json(path / CARD, "") if (path / CARD).is_file() else None
    labels = _labels(content)
    present = _tensors(path)
    kind = content.get("model_type")
    task: Task | None
    if kind == OWN_TYPE:
        config = _own_config(content, path / CONFIG)
        task = _own_task(content, present, path / CONFIG)
        stored = {name: Stored(file, name, False, shape) for name, (file, shape) in present.items()}
        dropped: tuple[str, ...] = ()
    else:
        types = {family.MODEL_TYPE: family for family in FAMILIES.values()}
        if kind not in types:
            raise UserError(
                "this kind of model is not supported", file=path / CONFIG, field="model_type",
                text=kind, hint=nearest(str(kind), [*types, OWN_TYPE]),
            )  # fmt: skip
        config = types[kind].from_config_json(content, path / CONFIG)
        task = types[kind].task_of(
            content, {name: shape for name, (_, shape) in present.items()}, path / CONFIG
        )
        stored, dropped = _translated(types[kind].from_name, present, _head_name(card, task), config, path)
    labels = labels if task == "classes" else None
    _check_stored(stored, config, task, labels, path)
    return ModelFolder(path, config, labels, card, stored, dropped, task)


def _translated(
    from_name: Callable[[str], tuple[str, bool] | None],
    present: Mapping[str, tuple[Path, tuple[int, ...]]],
    head: str,
    config: ModelConfig,
    path: Path,
) -> tuple[dict[str, Stored], tuple[str, ...]]:
    stored: dict[str, Stored] = {}
    dropped = []
    for name, (file, shape) in present.items():
        try:
            found = from_name(name)
        except KeyError:
            raise UserError("the family has no such tensor", file=file, text=name) from None
        if found is None:
            dropped.append(name)
            continue
        ours, transposed = found
        ours = f"heads.{head}.{ours}" if ours.startswith("score.") else ours
        stored[ours] = Stored(file, name, transposed, shape[::-1] if transposed else shape)
    if config.tie_embeddings and "unembedding.weight" in stored:
        copy = stored.pop("unembedding.weight")
        original = stored.setdefault("embedding.tokens.weight", copy)  # a tie may be kept under either name
        if original is not copy:
            _check_copy(copy, original, path)
            dropped.append(copy.name)
    return stored, tuple(dropped)


def _check_copy(copy: Stored, original: Stored, path: Path) -> None:
    """A second copy of tied weights may go only where it is one."""
    with _open(copy.file) as first, _open(original.file) as second:
        if not torch.equal(first.get_tensor(copy.name), second.get_tensor(original.name)):
            raise UserError(
                "the output embedding is said to be tied but differs from the token embedding",
                file=copy.file, text=copy.name, hint=f"set tie_word_embeddings to false in {path / CONFIG}",
            )  # fmt: skip


def _check_stored(
    stored: Mapping[str, Stored],
    config: ModelConfig,
    task: Task | None,
    labels: list[str] | None,
    path: Path,
) -> None:
    wanted = shapes(config)
    for name, shape in wanted.items():
        if name not in stored:
            raise UserError("the weights lack a tensor", file=path, text=name)
        if stored[name].shape != shape:
            raise UserError(
                f"a tensor has shape {_shape(stored[name].shape)}, not {_shape(shape)}",
                file=stored[name].file, text=stored[name].name,
                hint=f"{CONFIG} and weights do not belong together",
            )  # fmt: skip
    for name, place in stored.items():
        if name not in wanted:
            _check_head(name, place, config.width, task, labels)
    _check_bias(stored, task)


def _check_head(name: str, place: Stored, width: int, task: Task | None, labels: list[str] | None) -> None:
    if not re.fullmatch(r"heads\.[^.]+\.score\.(weight|bias)", name):
        raise UserError("the model has no place for a tensor", file=place.file, text=place.name)
    if labels is not None and place.shape[0] != len(labels):
        problem = f"the head has {place.shape[0]} rows for {len(labels)} labels"
        raise UserError(problem, file=place.file, text=place.name)
    rows = place.shape[0] if task == "classes" else 1
    shape = (rows, width) if name.endswith(".weight") else (rows,)
    if place.shape != shape:
        problem = f"the head has shape {_shape(place.shape)}, not {_shape(shape)}"
        raise UserError(problem, file=place.file, text=place.name)


def _check_bias(stored: Mapping[str, Stored], task: Task | None) -> None:
    """The linear layer of choices has a bias, here as in Hugging Face's class."""
    weight = next((name for name in stored if name.endswith(".score.weight")), None)
    if task == "choices" and weight is not None and f"{weight.removesuffix('weight')}bias" not in stored:
        place = stored[weight]
        lacking = f"{place.name.removesuffix('weight')}bias"
        raise UserError("the weights lack a tensor", file=place.file, text=lacking)


def _shape(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def _own_config(content: Mapping[str, Any], file: Path) -> ModelConfig:
    try:
        return ModelConfig.model_validate(content["model"])
    except KeyError:
        raise UserError("this file lacks a key", file=file, field="model") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(["model", *map(str, first["loc"])])
        raise UserError(f"this is no model config: {first['msg']}", file=file, field=where) from None


def _own_task(content: Mapping[str, Any], present: Mapping[str, Any], file: Path) -> Task | None:
    if not any(name.startswith("heads.") for name in present):
        return None
    task = content.get("task", "classes")
    if task not in get_args(Task):
        hint = nearest(str(task), get_args(Task))
        raise UserError("there is no such task", file=file, field="task", text=task, hint=hint)
    found: Task = task
    return found


def _head_name(card: Mapping[str, Any] | None, task: Task | None) -> str:
    return next(iter((card or {}).get("heads") or ()), FOREIGN_HEADS[task or "classes"])


def _labels(content: Mapping[str, Any]) -> list[str] | None:
    names = content.get("id2label")
    return [str(names[key]) for key in sorted(names, key=int)] if isinstance(names, dict) else None


def _json(file: Path, missing: str) -> dict[str, Any]:
    try:
        content = read_json(file)
    except FileNotFoundError:
        raise UserError(missing, file=file.parent, hint=f"it has no {file.name}") from None
    except (OSError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError("this file cannot be read as JSON", file=file, text=str(error)) from None
    if not isinstance(content, dict):
        raise UserError("this file should hold a JSON object", file=file)
    return content


def _check_manifest(path: Path) -> None:
    if not (path / MANIFEST).is_file():
        return
    files = _json(path / MANIFEST, "").get("files", {})
    for name, digest in files.items():
        file = path / name
        if not file.is_file():
            raise UserError("a file is missing that the manifest names", file=file)
        if digest_file(file) != digest:
            raise UserError(
                "this file was altered or cut after it was written", file=file,
                hint=f"its digest is not the one in {MANIFEST}; remove that file if the change was meant",
            )  # fmt: skip


def _tensors(path: Path) -> dict[str, tuple[Path, tuple[int, ...]]]:
    """Every tensor's file and shape, from the headers alone."""
    if (path / WEIGHTS).is_file():
        files = [path / WEIGHTS]
    elif (path / INDEX).is_file():
        named = set(_json(path / INDEX, "").get("weight_map", {}).values())
        files = [path / Path(str(name)).name for name in sorted(named)]
    else:
        hint = f"it has no {WEIGHTS}"
        if any(path.glob("pytorch_model*.bin")):
            hint = "pickled weights are never opened; load it with transformers and call save_pretrained"
        raise UserError("there are no weights that can be read", file=path, hint=hint)
    present = {}
    for file in files:
        with _open(file) as content:
            for name in sorted(content.keys()):
                present[name] = (file, tuple(content.get_slice(name).get_shape()))
    return present


def _open(file: Path) -> Any:
    if not file.is_file():
        raise UserError("a file of weights is missing", file=file)
    try:
        return safe_open(file, framework="pt")
    except (SafetensorError, OSError) as error:
        raise UserError("these weights are truncated or damaged", file=file, text=str(error)) from None
