"""What teachers say: of rows before training, kept in the cache; of tokens, states and attention beside the
student.

A row is told by its text, in the teacher's own tokens, so any tokenizer and any family will do. Shapes: R
rows, K classes or answers (one number where a number is told).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import load_file, save_file

from gradus.core.storage import digest_json, is_whole, lock, new_folder, sweep
from gradus.data.readers import Row
from gradus.data.rows import UNLABELLED, RowsData
from gradus.data.sources import Told
from gradus.distributed.precision import Precision, resolve
from gradus.families.folder import read_folder
from gradus.nn.soft_losses import mean_log_softmax
from gradus.nn.transformer import Transformer
from gradus.objectives import DistillationConfig
from gradus.pipeline.models.opening import open_folder
from gradus.pipeline.models.serving import Model
from gradus.pipeline.planning.material import Material
from gradus.pipeline.planning.plan import Node, folder_digest
from gradus.pipeline.planning.prepared import Prepared
from gradus.training.learner import Learner
from gradus.training.pupil import Pupil

TAUGHT_FORMAT = 1
"""Raised when the same teacher would say other numbers of the same rows than before."""


def with_soft_labels(prepared: Prepared, material: Material, stages: Path, device: torch.device) -> Prepared:
    """The same with `Example.taught` in every row of train, where teachers say something of rows; `stages` is
    the folder of stages, which the teachers' are done in."""
    lesson, data, train = prepared.node.stage.lesson, prepared.node.stage.data, prepared.splits["train"]
    if lesson is None or not lesson.weight or not isinstance(data, RowsData) or prepared.answers is None:
        return prepared
    folders = _folders(prepared.node, stages)
    said = [_scores(folder, prepared, data, material, device) for folder in folders]
    told = soft(said, lesson, prepared.objectives[prepared.main].measure == "number")
    split = replace(train, source=Told(train.source, told))
    return replace(prepared, splits=prepared.splits | {"train": split})


def _scores(
    folder: Path, prepared: Prepared, data: RowsData, material: Material, device: torch.device
) -> np.ndarray:
    """What the model of a folder says of each row of train and of those without labels [R, K]: from the
    cache, or asked now and kept there."""
    sources = material.rows(data)
    read = [sources[name] for name in ("train", UNLABELLED) if name in sources]
    precision = resolve(prepared.node.stage.precision, device)
    names = list(prepared.labels.names) if prepared.labels else []
    key = [TAUGHT_FORMAT, folder_digest(folder), [source.digest for source in read], data.format.plain(),
           data.long, names, precision, device.type]  # fmt: skip
    kept = material.cache / f"taught-{digest_json(key)[:16]}"
    with lock(material.cache / f".{kept.name}.lock", wait=True):
        if not is_whole(kept):
            sweep(material.cache, f"{kept.name}*")
            material.told.working(f"asking the teacher {folder.parent.name}", 0, None)
            rows = [row for source in read for row in source.rows]
            scores = _asked(folder, prepared, rows, precision, device)
            with new_folder(kept) as temporary:
                # The library writes an array as it lies in memory, whatever its order.
                save_file({"scores": np.ascontiguousarray(scores)}, temporary / "scores.safetensors")
    return load_file(kept / "scores.safetensors")["scores"]


def soft(scores: Sequence[np.ndarray], lesson: DistillationConfig, numbers: bool) -> np.ndarray:
    """What several teachers say of rows, by their scores [R, K]: the mean of their probabilities at the
    lesson's temperature, or of their numbers."""
    if numbers:
        return np.mean(scores, 0)
    odds = mean_log_softmax([torch.from_numpy(one) for one in scores], lesson.heat).exp().numpy()
    return np.eye(odds.shape[1])[odds.argmax(1)] if lesson.hard else odds


def taught(prepared: Prepared, learner: Learner, stages: Path, precision: torch.dtype) -> Learner:
    """The learner with the stage's lessons and, where they are to run beside it, its teachers."""
    if not (lessons := prepared.lessons):
        return learner
    device = next(learner.parameters()).device
    teachers = [
        _transformer(one, precision, device) for one in _folders(prepared.node, stages) if prepared.live
    ]
    pupil: Learner = Pupil(learner, lessons, teachers, prepared.node.seed).to(device)
    return pupil


def _folders(node: Node, stages: Path) -> list[Path]:
    return [stages / one.id / "model" if isinstance(one, Node) else one for one in node.teachers]


def _transformer(folder: Path, precision: torch.dtype, device: torch.device) -> Transformer:
    """A folder's body; heads do not matter."""
    found = read_folder(folder)
    made = Transformer(found.config, precision, device=device)
    made.load_state_dict({name: one for name, one in found.tensors.items() if not name.startswith("heads.")})
    return made


def _asked(
    folder: Path, prepared: Prepared, rows: Sequence[Row], precision: Precision, device: torch.device
) -> np.ndarray:
    """The teacher's scores of each row [R, K], float64, in the order of the student's classes; -inf beyond a
    row's own answers. It reads the rows by the student's format."""
    data = prepared.node.stage.data
    assert isinstance(data, RowsData)
    opened = open_folder(folder, precision, str(device), None, None)
    reading = opened.reading.model_copy(update={"format": data.format, "long": data.long})
    teacher = Model(replace(opened, reading=reading))
    lines = [answer.scores for answer in teacher.answers(rows)]
    scores = np.full((len(lines), max(map(len, lines))), -np.inf)
    for line, own in zip(scores, lines):
        line[: len(own)] = own
    if prepared.labels is not None:
        scores = scores[:, [teacher.labels.index(name) for name in prepared.labels.names]]
    return scores
