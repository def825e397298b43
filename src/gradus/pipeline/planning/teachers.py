"""Whether the teachers of a stage can teach it: told before anything is trained."""

from __future__ import annotations

import json
from dataclasses import dataclass

from gradus.core.errors import UserError
from gradus.core.model import ModelConfig
from gradus.data.frame import Frame
from gradus.pipeline.planning.prepared import Prepared
from gradus.tokenizers import Tokenizer

BY_ROWS = "soft labels of rows go by their text, whatever the tokenizer: leave out `hidden` and `attention`"


@dataclass(frozen=True)
class Known:
    """What is known of a teacher before it is asked: its place or its stage's name, its model, what its head
    answers (`tokens` where it has none), the classes in the order of its logits, and its tasks where it has
    several."""

    name: str
    tokenizer: Tokenizer | None
    model: ModelConfig
    measure: str
    labels: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()


def require_teacher(prepared: Prepared, teacher: Known) -> None:
    """Raises UserError where this teacher cannot say what the stage wants to learn."""
    lesson = prepared.node.stage.lesson
    assert lesson is not None
    task = prepared.objectives[prepared.main]
    field = f"stages.{prepared.node.name}.objectives.teacher"
    if teacher.tasks:
        problem = f"this teacher knows several tasks: {', '.join(teacher.tasks)}"
        raise UserError(problem, field=field, text=teacher.name, hint="one that was taught one task alone")
    if lesson.weight and task.measure != "tokens":
        if teacher.measure != task.measure:
            hint = f"one that learnt {task.name}"
            raise UserError("this teacher answers another kind of question", field=field, text=teacher.name,
                            hint=hint)  # fmt: skip
        own = prepared.labels.names if prepared.labels else ()
        if {*teacher.labels} != {*own}:
            problem = f"the teacher {teacher.name} tells other classes apart"
            told, hint = ", ".join(teacher.labels), f"those of the stage are {', '.join(own)}"
            raise UserError(problem, field=field, text=told, hint=hint)
    if lesson.live(task.name):
        _require_same_input(prepared, teacher, field)
        _require_layers(prepared, teacher, field)


def _require_same_input(prepared: Prepared, teacher: Known, field: str) -> None:
    """A teacher that runs beside the student reads its very tokens."""
    student, lesson = prepared.model, prepared.node.stage.lesson
    assert lesson is not None
    if teacher.tokenizer is None or not _knows(teacher, prepared.tokenizer):
        problem = "the teacher has another tokenizer, and is to be learnt from token by token"
        raise UserError(problem, field=field, text=teacher.name, hint=BY_ROWS)
    same = student.arrangement == teacher.model.arrangement and Frame.of(student) == Frame.of(teacher.model)
    if not same:
        shapes = f"a {teacher.model.arrangement} of the family {teacher.model.family}"
        hint = f"a {student.arrangement} that reads the same special tokens"
        raise UserError(
            "the teacher does not read what the student reads", field=field, text=shapes, hint=hint
        )
    if student.encodes_and_decodes and (key := lesson.inside):
        problem = "of an encoder-decoder only what it says is learnt"
        raise UserError(problem, field=field, text=key, hint=f"leave `{key}` out")
    if teacher.model.context < student.context:
        problem = f"the student reads {student.context} tokens, the teacher fewer"
        raise UserError(problem, field=field, text=teacher.model.context, hint="a smaller model.context")


def _knows(teacher: Known, tokenizer: Tokenizer) -> bool:
    """Whether the teacher makes the same tokens of a text, and has every one of the student's."""
    assert teacher.tokenizer is not None
    ours, theirs = (json.loads(one.inner.to_str()) for one in (tokenizer, teacher.tokenizer))
    alike = all(ours[part] == theirs[part] for part in ("model", "normalizer", "pre_tokenizer"))
    found = teacher.tokenizer.inner.get_vocab(with_added_tokens=True)
    named = tokenizer.inner.get_vocab(with_added_tokens=True).items()
    return alike and all(found.get(token) == number for token, number in named)


def _require_layers(prepared: Prepared, teacher: Known, field: str) -> None:
    lesson = prepared.node.stage.lesson
    assert lesson is not None
    if lesson.attention is not None:
        if "lstm" in (prepared.model.body, teacher.model.body):
            raise UserError("an LSTM attends to nothing", field=field, text="attention", hint="leave it out")
        if prepared.model.heads != teacher.model.heads:
            problem = f"the student has {prepared.model.heads} heads of attention, the teacher others"
            hint = "as many, or no `attention`"
            raise UserError(problem, field=field, text=teacher.model.heads, hint=hint)
    try:
        lesson.lessons(prepared.objectives[prepared.main], prepared.model, teacher.model)
    except ValueError as mistake:
        raise UserError(str(mistake), field=field, text=teacher.name) from None
