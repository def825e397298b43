"""Adapters in the form that the `peft` library loads on the folder a stage began with.

    adapter_config.json         which of their modules have one, its rank and alpha; `modules_to_save`
    adapter_model.safetensors   A and B of each, and whole what is new: heads, token tables that grew

Where they keep one matrix for what are several projections here (`c_attn` of GPT-1 and GPT-2), the adapters
of the parts become one of the sum of their ranks: A's on top of each other, B's on a diagonal.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from gradus.core.storage import write_json
from gradus.families import FAMILIES, Task
from gradus.families.folder import ModelFolder
from gradus.families.table import Place, Table
from gradus.nn.adapters import Adapted, Adapter, Adapters

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
INSIDE = "base_model.model."
"""What peft writes before the names of the model that it wraps."""
TASK_TYPES: dict[Task | None, str] = {
    "classes": "SEQ_CLS",
    "number": "SEQ_CLS",
    "sets": "SEQ_CLS",
    "tags": "TOKEN_CLS",
    "spans": "QUESTION_ANS",
}


def write_adapter(
    folder: Path,
    adapters: Adapters,
    transformer: nn.Module,
    model: ModelFolder,
    new: Mapping[str, Tensor],
    base: Path,
) -> None:
    """Fills `folder`. `model` is the folder of the merged model, in Hugging Face's form; `new` are heads and
    what is larger than in `base`, by the names that `write_folder` has for them."""
    table, task = FAMILIES[model.config.family].TABLE, model.task
    tensors: dict[str, Tensor] = {}
    ranks: dict[str, int] = {}
    turned = False
    for path, part in transformer.named_modules():
        if not isinstance(part, Adapted):
            continue
        place = table.place(f"{path}.weight", task, model.config.gated)
        assert place is not None, "the folder could be written"
        turned = turned or place.transposed
        for name, rows in _pieces(table, place, task, model, len(part.weight)):
            own = [(part.rows[key], adapter) for key, adapter in part.adapters.items()]
            own = [(where, adapter) for where, adapter in own if rows.start <= where.start < rows.stop]
            if own:
                tensors[f"{name}.lora_A.weight"], tensors[f"{name}.lora_B.weight"] = _joined(own, rows)
                ranks[name] = len(tensors[f"{name}.lora_A.weight"])
    saved = table.written(new, model.config, task)
    tensors |= saved
    made = {f"{INSIDE}{name}": value.detach().to("cpu", torch.float32).contiguous()
            for name, value in sorted(tensors.items())}  # fmt: skip
    save_file(made, folder / WEIGHTS, metadata={"format": "pt"})
    write_json(folder / CONFIG, _config(adapters, ranks, saved, turned, task, model, base))


def _pieces(
    table: Table, place: Place, task: Task | None, model: ModelFolder, count: int
) -> list[tuple[str, slice]]:
    """Their modules that a matrix of ours is, and its rows in each."""
    found, start = [], 0
    for name, rows in zip(place.names, model.config.rows_of_parts(len(place.names), count)):
        found.append((table.full(name, task).removesuffix(".weight"), slice(start, start + rows)))
        start += rows
    return found


def _joined(own: Sequence[tuple[slice, nn.Module]], rows: slice) -> tuple[Tensor, Tensor]:
    """A [R, I] and B [O, R] of all adapters within `rows`."""
    narrow: list[Tensor] = []
    widen: list[Tensor] = []
    for where, adapter in own:
        assert isinstance(adapter, Adapter)
        narrow.append(adapter.narrow.weight)
        above, below = where.start - rows.start, rows.stop - where.stop
        widen.append(nn.functional.pad(adapter.widen.weight, (0, 0, above, below)))
    return torch.cat(narrow), torch.cat(widen, 1)


def _config(
    adapters: Adapters,
    ranks: Mapping[str, int],
    saved: Mapping[str, Tensor],
    turned: bool,
    task: Task | None,
    model: ModelFolder,
    base: Path,
) -> dict[str, Any]:
    whole = {name.removesuffix(".weight").removesuffix(".bias") for name in saved}
    # With a task type peft wraps what is called `classifier`, so a head of several layers is named by itself.
    above = [name.rpartition(".")[0] for name in whole]
    whole = {parent if above.count(parent) > 1 and parent else name for name, parent in zip(whole, above)}
    other = {name: rank for name, rank in ranks.items() if rank != adapters.rank}
    speaks = {"decoder": "CAUSAL_LM", "encoder_decoder": "SEQ_2_SEQ_LM"}.get(model.config.arrangement)
    return {
        "peft_type": "LORA",
        "task_type": speaks if task is None else TASK_TYPES.get(task),
        "base_model_name_or_path": str(base.resolve()),
        "inference_mode": True,
        "r": adapters.rank,
        "lora_alpha": adapters.alpha,
        "lora_dropout": adapters.dropout,
        "target_modules": list(ranks),
        "rank_pattern": other,
        "alpha_pattern": {name: adapters.scale * rank for name, rank in other.items()},
        "fan_in_fan_out": turned,
        "bias": "none",
        "modules_to_save": sorted(whole) or None,
    }
