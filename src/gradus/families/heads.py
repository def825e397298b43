"""What a head answers, as a model folder and its config.json say it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from gradus.core.errors import UserError

Task = Literal["classes", "sets", "number", "choices", "spans", "tags", "next"]
"""The class of a row, which labels it has, its number, which of its answers is right, where in its context
the answer stands, or the tags of its words: `objectives.Measure` but for tokens. And `next`, BERT's own:
whether the second of two texts follows the first."""

LABELLED = ("classes", "sets", "tags")
"""The tasks whose answers have names."""

ROW_TASKS: tuple[Task, ...] = ("classes", "sets", "number")
"""The tasks of a sequence classifier: one class of theirs, told apart by `problem_type`."""

NEXT = ("next", "other")
"""The classes of `next`, in the order of BERT's release."""

Shapes = Mapping[str, tuple[int, ...]]
"""Their name of each tensor of a folder -> its shape."""

SUMMARY: dict[str, Any] = {
    "summary_type": "cls_index",
    "summary_use_proj": True,
    "summary_activation": None,
    "summary_proj_to_labels": True,
}
"""How the double-headed classes of GPT-1 and GPT-2 read the extract token: a linear layer with one output,
and nothing else."""

SPANS = {"score": "qa_outputs"}
"""The head of every class for question answering: two scores a token, without a layer of its own before."""

WITH_OUTPUT = (
    "LMHeadModel",
    "CausalLM",
    "MaskedLM",
    "ForConditionalGeneration",
    "PreTraining",
    "DoubleHeadsModel",
)
"""How the names of their classes end that score a vocabulary."""


def row_answer(content: Mapping[str, Any], outputs: int, file: Path) -> Task:
    """Whether a sequence classifier with so many outputs gives a class, labels or a number.

    As their classes have it, one output without a `problem_type` is a number. Raises UserError for several
    numbers a row.
    """
    kind = content.get("problem_type")
    if kind == "multi_label_classification":
        return "sets"
    if kind == "regression" and outputs > 1:
        hint = "one number a row is"
        raise UserError("this head is not supported", file=file, field="problem_type", text=kind, hint=hint)
    return "number" if kind == "regression" or (kind is None and outputs == 1) else "classes"


def own_output(content: Mapping[str, Any], shapes: Shapes, name: str) -> dict[str, Any]:
    """What changes where config.json promises an output embedding that the files of a class without one do
    not have: the tokens' takes its place."""
    named = content.get("architectures")
    lacks = isinstance(named, list) and named and not str(named[0]).endswith(WITH_OUTPUT)
    return {"tie_embeddings": True} if lacks and name not in shapes else {}


def row_labels(task: Task | None, labels: Sequence[str] | None) -> dict[str, Any]:
    """What config.json says of a classifier's answers, `labels` in order; nothing of other heads."""
    if task not in (*LABELLED, "number"):
        return {}
    names = ["LABEL_0"] if task == "number" else labels or ()
    kinds = {"number": "regression", "classes": "single_label_classification",
             "sets": "multi_label_classification"}  # fmt: skip
    return {
        **({"problem_type": kinds[task]} if task in kinds else {}),
        "id2label": {str(index): label for index, label in enumerate(names)},
        "label2id": {label: index for index, label in enumerate(names)},
    }


def generative_task(content: Mapping[str, Any], shapes: Shapes, prefix: str, file: Path) -> Task | None:
    """What the head of a decoder answers: `score` a row's class or number, `multiple_choice_head.summary`
    choices, `qa_outputs` spans, and what config.json says tags; None where there is none of them.

    Raises UserError as `row_answer` does, and for a summary that is no linear layer on the last token.
    """
    outputs = {name.removeprefix(prefix): shape[0] for name, shape in shapes.items() if shape}
    if "qa_outputs.weight" in outputs:
        return "spans"
    if _tells_tags(content):
        return "tags"
    if "multiple_choice_head.summary.weight" in outputs:
        for key, usual in SUMMARY.items():
            given = content.get(key, usual)
            if given != usual and (key, given) != ("summary_type", "last"):
                hint = f"only {usual!r} is"
                raise UserError("this head is not supported", file=file, field=key, text=given, hint=hint)
        return "choices"
    return row_answer(content, outputs["score.weight"], file) if "score.weight" in outputs else None


CLASSIFICATION_HEAD = {"dense": "classification_head.dense", "score": "classification_head.out_proj"}
"""Parts of the head on a decoder beside an encoder, as the classifiers of BART and T5 name them."""


def classification_task(content: Mapping[str, Any], shapes: Shapes, file: Path) -> Task | None:
    """What `classification_head` answers, a row's class or number, or `qa_outputs`, spans; None where there
    is neither. Raises UserError as `row_answer` does."""
    if "qa_outputs.weight" in shapes:
        return "spans"
    shape = shapes.get(f"{CLASSIFICATION_HEAD['score']}.weight")
    return row_answer(content, shape[0], file) if shape else None


def encoder_task(
    content: Mapping[str, Any], shapes: Shapes, score: str, file: Path, choices: str | None = None
) -> Task | None:
    """What the head of an encoder answers: the tensor `score` scores a row's classes or number, `choices`
    (the same unless given) the one logit of an answer, `qa_outputs` spans. None where there is none of them.

    Their classes for choices and for tags have tensors of the same names, so config.json tells these apart.
    Raises UserError as `row_answer` does.
    """
    if "qa_outputs.weight" in shapes:
        return "spans"
    if _tells_tags(content):
        return "tags"
    if (choices or score) in shapes and _kind(content).endswith("ForMultipleChoice"):
        return "choices"
    return row_answer(content, shapes[score][0], file) if score in shapes else None


def _kind(content: Mapping[str, Any]) -> str:
    """The class of theirs that config.json names; "" where it names none."""
    named = content.get("architectures")
    return str(named[0]) if isinstance(named, list) and named else ""


def _tells_tags(content: Mapping[str, Any]) -> bool:
    return _kind(content).endswith("ForTokenClassification")
