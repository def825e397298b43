"""A model folder: weights, config and tokenizer in Hugging Face's form where that can hold the model.

What it has no place for stands beside them in gradus.json. Safetensors and JSON only: nothing in a folder
is ever executed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from pydantic import ValidationError
from safetensors.torch import save_file
from torch import Tensor

from gradus.core.errors import UserError, nearest
from gradus.core.model import ModelConfig
from gradus.core.storage import write_json
from gradus.families import FAMILIES, Family, Task
from gradus.families.files import WEIGHTS, check_manifest, object_at, object_of, pieces_of
from gradus.families.heads import LABELLED, NEXT
from gradus.families.stored import Stored, by, check_shape, locate, read, shapes

CARD, CONFIG = "gradus.json", "config.json"
OWN_TYPE = "gradus"
"""`model_type` of a model that Hugging Face's code for its family cannot hold."""
FOREIGN_HEADS: dict[Task, str] = {
    "classes": "classification",
    "sets": "classification",
    "number": "regression",
    "choices": "multiple_choice",
    "spans": "question_answering",
    "tags": "token_classification",
    "next": "next_sentence",
}
"""What the head is called in a folder that Gradus did not write."""


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
        return read(self.stored)


def write_folder(
    path: Path,
    config: ModelConfig,
    tensors: Mapping[str, Tensor],
    card: Mapping[str, Any],
    save_tokenizer: Callable[[Path], None],
    labels: Sequence[str] | None = None,
    pad_id: int | None = None,
    task: Task | Literal["tokens"] | None = None,
    roles: Mapping[str, int] | None = None,
) -> None:
    """Fills `path` with a model folder. Call it inside `core.storage.new_folder`, so that it is whole or
    not there.

    `tensors` are the transformer's under our names and those of heads as `heads.NAME.score.weight` (and
    `.bias`); `task` is what the one head answers, classes unless given (of several gradus.json tells);
    `labels` name its classes, in order, and `roles` are the ids of tokens that play one, of which `pad_id` is
    another word for one. Raises ValueError where a tensor is missing or misshapen.
    """
    roles = {**(roles or {}), **({} if pad_id is None else {"pad": pad_id})}
    _check_shapes({name: tuple(tensor.shape) for name, tensor in tensors.items()}, config)
    task = None if task == "tokens" else task or _told(card)
    content, named = _form(config, tensors, task, labels, roles)
    path.mkdir(parents=True, exist_ok=True)
    own = {name: named[name].detach().to("cpu", torch.float32).contiguous() for name in sorted(named)}
    # One key of metadata: the library orders several at random, and equal models should be equal files.
    save_file(own, path / WEIGHTS, metadata={"format": "pt"})
    write_json(path / CONFIG, content)
    write_json(path / CARD, dict(card))
    save_tokenizer(path)


def _told(card: Mapping[str, Any]) -> Task | None:
    """`next` where gradus.json names the objective of its head."""
    taught = [head.get("objective") for head in (card.get("heads") or {}).values()]
    return "next" if taught == [FOREIGN_HEADS["next"]] else None


def _form(
    config: ModelConfig,
    tensors: Mapping[str, Tensor],
    task: Task | None,
    labels: Sequence[str] | None,
    roles: Mapping[str, int],
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """config.json and the tensors as they are named in the file: Hugging Face's where they can be."""
    heads = sorted({name.split(".")[1] for name in tensors if name.startswith("heads.")})
    task = (task or "classes") if heads else None
    if len(heads) > 1:  # of several heads gradus.json tells
        task = labels = None
    if task in LABELLED and labels is None:
        labels = [f"LABEL_{index}" for index in range(len(tensors[f"heads.{heads[0]}.score.weight"]))]
    family = FAMILIES[config.family]
    bias = any(name.endswith(".score.bias") for name in tensors)
    chained = any(".chain." in name for name in tensors)
    obstacle = None if task is None else family.TABLE.obstacle(task, bias, chained)
    if family.expressible(config, heads) is None and obstacle is None:
        return family.to_config_json(config, labels, roles, task), family.TABLE.written(tensors, config, task)
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
    content = object_of(path / CONFIG, "this is no model folder")
    check_manifest(path)
    card = object_of(path / CARD, "") if (path / CARD).is_file() else None
    labels = _labels(content, path / CONFIG)
    present = pieces_of(path)
    dropped: tuple[str, ...] = ()
    if content.get("model_type") == OWN_TYPE:
        config = _own_config(content, path / CONFIG)
        _check_vocabulary(config, path / CONFIG)
        task = _own_task(content, present, path / CONFIG)
        stored = {name: Stored((piece,)) for name, piece in present.items()}
    else:
        family = _family(content, path / CONFIG)
        found = {name: piece.shape for name, piece in present.items()}
        config = family.from_config_json(content, found, path / CONFIG)
        _check_vocabulary(config, path / CONFIG)
        task = family.task_of(content, found, path / CONFIG)
        stored, dropped = locate(family.TABLE, present, config, task, _head_name(card, task), path)
    labels = labels if task in LABELLED else list(NEXT) if task == "next" else None
    _check_stored(stored, config, task, labels, path)
    return ModelFolder(path, config, labels, card, stored, dropped, task)


def theirs(path: Path) -> ModelFolder | None:
    """As `read_folder`; None where Hugging Face's code cannot open the folder."""
    own = object_of(path / CONFIG, "this is no model folder").get("model_type") == OWN_TYPE
    return None if own else read_folder(path)


def _family(content: Mapping[str, Any], file: Path) -> Family:
    kind, types = (
        content.get("model_type"),
        {family.SETTINGS.model_type: family for family in FAMILIES.values()},
    )
    if not isinstance(kind, str) or kind not in types:
        raise UserError(
            "this kind of model is not supported", file=file, field="model_type",
            text=kind, hint=nearest(str(kind), [*types, OWN_TYPE]),
        )  # fmt: skip
    return types[kind]


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
        check_shape(name, stored[name], shape, config)
    for name, place in stored.items():
        if name not in wanted:
            _check_head(name, place, config.width, task, labels)
    _check_bias(stored, task)


_OF_HEAD = re.compile(r"heads\.[^.]+\.(?:(score|dense)\.(weight|bias)|chain\.(starts|ends|transitions))")


def _check_head(name: str, place: Stored, width: int, task: Task | None, labels: list[str] | None) -> None:
    part = _OF_HEAD.fullmatch(name)
    if part is None:
        raise UserError("the model has no place for a tensor", file=place.file, text=place.name)
    fixed: dict[Task | None, int] = {"number": 1, "choices": 1, "spans": 2, "next": len(NEXT)}
    rows = fixed.get(task, place.shape[0])
    rows = width if part[1] == "dense" else rows
    if part[1] != "dense" and labels is not None and rows != len(labels):
        problem = f"the head has {rows} rows for {len(labels)} labels"
        raise UserError(problem, file=place.file, text=place.name)
    matrices = {"weight": (rows, width), "transitions": (rows, rows)}
    shape = matrices.get(name.split(".")[-1], (rows,))
    if place.shape != shape:
        problem = f"the head has shape {by(place.shape)}, not {by(shape)}"
        raise UserError(problem, file=place.file, text=place.name)


def _check_bias(stored: Mapping[str, Stored], task: Task | None) -> None:
    """The linear layer of choices, of spans and of tags has a bias, here as in Hugging Face's classes."""
    weight = next((name for name in stored if name.endswith(".score.weight")), None)
    if (
        task in ("choices", "spans", "tags")
        and weight is not None
        and f"{weight.removesuffix('weight')}bias" not in stored
    ):
        place = stored[weight]
        lacking = f"{place.name.removesuffix('weight')}bias"
        raise UserError("the weights lack a tensor", file=place.file, text=lacking)


def _check_vocabulary(config: ModelConfig, file: Path) -> None:
    if config.vocab_size is None:
        raise UserError("this should be a number", file=file, field="vocab_size", text="null")


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
    if len({name.split(".")[1] for name in present if name.startswith("heads.")}) != 1:
        return None
    task = content.get("task", "classes")
    if task not in get_args(Task):
        hint = nearest(str(task), get_args(Task))
        raise UserError("there is no such task", file=file, field="task", text=task, hint=hint)
    found: Task = task
    return found


def _head_name(card: Mapping[str, Any] | None, task: Task | None) -> str:
    return next(iter((card or {}).get("heads") or ()), FOREIGN_HEADS[task or "classes"])


def _labels(content: Mapping[str, Any], file: Path) -> list[str] | None:
    names = object_at(content, "id2label", file)
    for number in names:
        if not number.isdecimal():
            raise UserError("this should be the number of a label", file=file, field="id2label", text=number)
    return [str(names[number]) for number in sorted(names, key=int)] or None
