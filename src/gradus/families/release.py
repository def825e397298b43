"""GPT-1's weights as OpenAI released them: ten shards of one flat vector, and the shapes to cut it by.

openai/finetune-transformer-lm, folder `model`: the vector holds the positions, the tokens, then 12 arrays a
layer. Its projections are convolutions of width 1: [1, in, out], where ours are [out, in]. Nothing but plain
arrays of numbers is read from the files.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gradus.core.errors import UserError
from gradus.core.model import ModelConfig

SHAPES = "params_shapes.json"
SHARDS = tuple(f"params_{number}.npy" for number in range(10))
HEAD_WIDTH = 64
"""The files do not say how many heads there are; the paper has 12 of 64 (section 4.1)."""
TABLES = ("embedding.positions.weight", "embedding.tokens.weight")
_LAYER = (
    "attention.query_key_value.weight", "attention.query_key_value.bias",
    "attention.output.weight", "attention.output.bias",
    "attention_norm.weight", "attention_norm.bias",
    "feed_forward.up.weight", "feed_forward.up.bias",
    "feed_forward.down.weight", "feed_forward.down.bias",
    "feed_forward_norm.weight", "feed_forward_norm.bias",
)  # fmt: skip
"""The order of a layer's arrays; a norm's gain comes before its bias (train.py)."""

Shape = tuple[int, ...]


def is_release(folder: Path) -> bool:
    """Whether a folder holds any file of the released weights."""
    return any((folder / name).is_file() for name in (SHAPES, *SHARDS))


def read_config(folder: Path) -> ModelConfig:
    """The model that `params_shapes.json` describes. Raises UserError where it describes none."""
    return _config(_read_shapes(folder / SHAPES), folder / SHAPES)


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Our name -> fp32 tensor, views of one vector.

    Raises UserError, naming the file and what was expected, for a shard that is missing, is no vector of
    32-bit floats, or has too many numbers or too few.
    """
    shapes = _read_shapes(folder / SHAPES)
    config = _config(shapes, folder / SHAPES)
    parts = [_read_shard(folder / name) for name in SHARDS]
    total, found = sum(map(math.prod, shapes)), sum(map(len, parts))
    if found != total:
        odd = max(range(len(parts)), key=lambda place: abs(len(parts[place]) - total / len(SHARDS)))
        raise UserError(
            f"the {len(SHARDS)} shards hold {found} numbers, but {SHAPES} adds up to {total}",
            file=folder / SHARDS[odd],
            hint=f"this one holds {len(parts[odd])}; about {total // len(SHARDS)} are expected",
        )
    vector = torch.from_numpy(np.concatenate(parts))
    tensors, begin = {}, 0
    for name, shape in zip(_names(config), shapes):
        end = begin + math.prod(shape)
        array = vector[begin:end].view(shape)
        tensors[name] = array[0].t() if len(shape) == 3 else array
        begin = end
    return tensors


def _names(config: ModelConfig) -> list[str]:
    blocks = [f"blocks.{layer}.{name}" for layer in range(config.layers) for name in _LAYER]
    return [*TABLES, *blocks]


def _read_shapes(file: Path) -> list[Shape]:
    hint = "a list is wanted of the shapes of all arrays, [[512, 768], [40478, 768], [1, 768, 2304], ...]"
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError("a file of the release is missing", file=file) from None
    except (OSError, ValueError) as error:
        raise UserError("cannot be read as JSON", file=file, text=str(error), hint=hint) from None
    if not isinstance(content, list) or not all(_is_shape(entry) for entry in content):
        raise UserError("these are no shapes", file=file, hint=hint)
    return [tuple(entry) for entry in content]


def _is_shape(entry: object) -> bool:
    return isinstance(entry, list) and bool(entry) and all(type(size) is int and size > 0 for size in entry)


def _config(shapes: list[Shape], file: Path) -> ModelConfig:
    arrays = len(_LAYER)
    layers, rest = divmod(len(shapes) - len(TABLES), arrays)
    if layers < 1 or rest or any(len(shape) != 2 for shape in shapes[:2]) or len(shapes[8]) != 3:
        hint = f"positions, tokens, and {arrays} arrays a layer are expected"
        raise UserError(f"these {len(shapes)} shapes are not those of a GPT-1", file=file, hint=hint)
    (context, width), (vocabulary, _), (_, _, hidden) = shapes[0], shapes[1], shapes[8]
    if width % HEAD_WIDTH:
        hint = f"the heads of GPT-1 are {HEAD_WIDTH} wide, and a multiple of that is expected"
        raise UserError(f"these shapes are {width} wide", file=file, hint=hint)
    wanted = _expected(context, width, vocabulary, hidden, layers)
    for place, (found, shape) in enumerate(zip(shapes, wanted)):
        if found != shape:
            problem = f"array {place} (from 0) has shape {list(found)}, {list(shape)} is expected"
            raise UserError(problem, file=file)
    return ModelConfig(
        vocab_size=vocabulary,
        context=context,
        width=width,
        layers=layers,
        heads=width // HEAD_WIDTH,
        feed_forward=None if hidden == 4 * width else hidden,
    )


def _expected(context: int, width: int, vocabulary: int, hidden: int, layers: int) -> list[Shape]:
    layer: list[Shape] = [
        (1, width, 3 * width), (3 * width,), (1, width, width), (width,), (width,), (width,),
        (1, width, hidden), (hidden,), (1, hidden, width), (width,), (width,), (width,),
    ]  # fmt: skip
    return [(context, width), (vocabulary, width), *layer * layers]


def _read_shard(file: Path) -> np.ndarray:
    try:
        part = np.load(file, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        hint = f"{SHARDS[0]} to {SHARDS[-1]} belong together"
        raise UserError("a shard of the release is missing", file=file, hint=hint) from None
    except (OSError, ValueError, EOFError) as error:
        hint = "a vector of 32-bit floats in NumPy's format is expected"
        raise UserError("cannot be read as an array", file=file, text=str(error), hint=hint) from None
    if part.dtype != np.float32 or part.ndim != 1:
        problem = f"this shard is {part.dtype} of shape {list(part.shape)}"
        raise UserError(problem, file=file, hint="float32 of one dimension is expected")
    return part
