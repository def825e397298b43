"""A node made ready: tokenizer, model config, labels, examples and lengths, before a single weight is
drawn."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from gradus.core.errors import UserError, counted, nearest, under
from gradus.core.model import ModelConfig
from gradus.data.encoding import Answers, RowEncoder
from gradus.data.frame import Frame
from gradus.data.label_sets import LabelSets
from gradus.data.labels import Choices, Labels, Numbers, Spans
from gradus.data.mixture import Mixture
from gradus.data.question_windows import QuestionEncoder
from gradus.data.rows import UNLABELLED, RowsData, RowSource
from gradus.data.sources import FramedWindows, Rows, Windows
from gradus.data.tagged import Tagged, Tags
from gradus.data.text import TextData, TextSource
from gradus.data.text_to_text import row_encoder
from gradus.data.windows import text_windows
from gradus.data.word_pieces import WordEncoder
from gradus.evaluation.evaluator import PART_METRICS
from gradus.evaluation.metrics import METRICS
from gradus.evaluation.texts import NUMBERS, libraries_of
from gradus.families import fitted
from gradus.families.folder import ModelFolder, read_folder
from gradus.objectives import serving, window_of
from gradus.pipeline.planning.augmenting import augmented_rows
from gradus.pipeline.planning.material import Material
from gradus.pipeline.planning.plan import Node
from gradus.pipeline.planning.prepared import Prepared
from gradus.pipeline.planning.probing import make_probes
from gradus.pipeline.planning.splits import Split, mixed_splits
from gradus.pipeline.planning.teachers import Known, require_teacher
from gradus.pipeline.recipes.fitting import require_parameters
from gradus.pipeline.recipes.members import require_equal_labels, speaking
from gradus.pipeline.recipes.stages import Stage
from gradus.tokenizers import Tokenizer
from gradus.tokenizers.files import TOKENIZER
from gradus.training.transfer import ChosenLayers, FirstLayers


def prepare(node: Node, material: Material) -> Prepared:
    """Reads, tokenises and checks everything that `node` needs. Raises UserError for the first thing that is
    wrong."""
    start = starting_point(node, material)
    data = node.stage.data
    roles = _roles(node, start.model)
    tokenizer = start.tokenizer.with_roles([role for role in roles if not start.tokenizer.has(role)])
    model = _model(node, start.model, tokenizer)
    _check_transfer(node, start.model)
    _check_serves(node, model)
    members = {name: _member(node, name, stage, tokenizer, model, material)
               for name, stage in node.stage.members.items()}  # fmt: skip
    if members:
        labels = {name: one.labels for name, one in members.items()}
        require_equal_labels(labels, node.stage.judged, f"stages.{node.name}")
        _check_names(node)
        assert isinstance(data, Mixture), "a single data set has no members"
        answers, splits = (
            None,
            mixed_splits({part: task.splits for part, task in members.items()}, data, node.seed),
        )
    else:
        answers, splits = _task(node, tokenizer, model, material)
    probes = make_probes(node.name, node.stage, node.seed, tokenizer, model.context, material)
    teachers = [_teacher(one, material) for one in node.teachers]
    models = [one.model for one in teachers]
    prepared = Prepared(node, tokenizer, model, answers, splits, probes, members, models)
    for teacher in teachers:
        require_teacher(prepared, teacher)
    _check_metric(prepared)
    _check_windows(prepared)
    _check_cached(prepared)
    groups = [one.match for one in node.stage.optimizer.groups or ()]
    require_parameters(f"stages.{node.name}", list(prepared.shapes), node.stage.freeze or (), groups)
    return prepared


def _task(
    node: Node, tokenizer: Tokenizer, model: ModelConfig, material: Material
) -> tuple[Answers | None, dict[str, Split]]:
    """What the labels of a task mean, and its splits."""
    data = node.stage.data
    if not isinstance(data, RowsData):
        return None, _text_splits(node, data, tokenizer, model, material)
    answers = _answers(node, data, material)
    encoder = row_encoder(data.format, tokenizer, model, answers, data.long)
    splits = {
        name: _row_split(source, encoder, name != UNLABELLED) for name, source in material.rows(data).items()
    }
    if UNLABELLED in splits:
        splits["train"] = splits["train"].followed_by(splits.pop(UNLABELLED))
    if node.stage.augment:
        splits["train"].source = augmented_rows(node, splits["train"], encoder, material)
    return answers, splits


def _member(
    node: Node, name: str, stage: Stage, tokenizer: Tokenizer, model: ModelConfig, material: Material
) -> Prepared:
    """A data set of several as if it were the stage's only one; its mistakes get its place."""
    alone, own = replace(node, stage=stage), f"stages.{node.name}.data."
    try:
        prepared = Prepared(alone, tokenizer, model, *_task(alone, tokenizer, model, material))
        _ = prepared.label_weights  # they are worked out here, where a mistake gets its place
        return prepared
    except UserError as mistake:
        field = (mistake.field or "").removeprefix(own)
        if mistake.file is None and not field.startswith(("stages.", "model.", "tokenizer.")):
            mistake.field = f"{own}mix.{name}{'.' if field else ''}{field}"
        raise


@dataclass(frozen=True)
class Start:
    """What a stage starts from: a tokenizer and a model's shape; `folder` is None at scratch."""

    tokenizer: Tokenizer
    model: ModelConfig


def starting_point(node: Node, material: Material) -> Start:
    """The tokenizer and model config a node begins with, worked out without the parent having run."""
    if node.parent is not None:
        return _leaving(node.parent, material)
    if node.folder is not None:
        folder: ModelFolder = read_folder(node.folder)
        return Start(Tokenizer.load(node.folder), folder.config)
    return Start(material.tokenizer(node.recipe), node.recipe.model)


def _leaving(node: Node, material: Material) -> Start:
    """The tokenizer and model config that leave a node."""
    start = starting_point(node, material)
    roles = [role for role in _roles(node, start.model) if not start.tokenizer.has(role)]
    tokenizer = start.tokenizer.with_roles(roles)
    return Start(tokenizer, _model(node, start.model, tokenizer))


def _teacher(teacher: Node | Path, material: Material) -> Known:
    if isinstance(teacher, Path):
        found = read_folder(teacher)
        tokenizer = Tokenizer.load(teacher) if (teacher / TOKENIZER).is_file() else None
        named = tuple(found.labels or ())
        tasks = tuple((found.card or {}).get("members") or ())
        return Known(str(teacher), tokenizer, found.config, found.task or "tokens", named, tasks)
    start, data = _leaving(teacher, material), teacher.stage.data
    answers = _answers(teacher, data, material) if isinstance(data, RowsData) else None
    named = answers.names if isinstance(answers, Labels) else ()
    stage = teacher.stage
    return Known(teacher.name, start.tokenizer, start.model, stage.measure, named, tuple(stage.members))


def _model(node: Node, start: ModelConfig, tokenizer: Tokenizer) -> ModelConfig:
    size = max(start.vocab_size or 0, tokenizer.size)
    if node.parent is None and node.folder is None and start.vocab_size and start.vocab_size < tokenizer.size:
        raise UserError(
            "the model's vocabulary is smaller than the tokenizer's",
            field="model.vocab_size",
            text=start.vocab_size,
            hint=f"leave it out, or at least {tokenizer.size}",
        )
    if node.parent is None and node.folder is None:
        start = fitted(start, tokenizer.role("pad") if tokenizer.has("pad") else None)
    changes = {"vocab_size": size}
    if isinstance(node.stage.transfer, ChosenLayers):
        changes["layers"] = len(node.stage.transfer.layers)
    if node.stage.grow is not None:
        with under(f"stages.{node.name}"):
            start = node.stage.grow.grown(start)
    return node.stage.model.changed(start).model_copy(update=changes)


def _check_transfer(node: Node, model: ModelConfig) -> None:
    transferred, field = node.stage.transfer, f"stages.{node.name}.transfer.layers"
    if isinstance(transferred, FirstLayers) and transferred.layers > model.layers:
        hint = f"at most {model.layers}"
        raise UserError("the model has fewer layers", field=field, text=transferred.layers, hint=hint)
    if isinstance(transferred, ChosenLayers) and max(transferred.layers) >= model.layers:
        hint = f"they are counted from 0: at most {model.layers - 1}"
        raise UserError("there is no such layer", field=field, text=max(transferred.layers), hint=hint)


def _roles(node: Node, model: ModelConfig) -> tuple[str, ...]:
    """The roles that data and objectives need."""
    if members := node.stage.members:
        each = [_roles(replace(node, stage=stage), model) for stage in members.values()]
        return tuple(dict.fromkeys(role for roles in each for role in roles))
    data, frame = node.stage.data, Frame.of(model)
    if isinstance(data, RowsData):
        encoded = model.arrangement == "encoder" and data.format.kind != "text_to_text"
        own = frame.roles("delimiter" in data.format.roles) if encoded else data.format.roles
    elif data.windows in ("sentence_pairs", "sentence_order"):
        own = (*frame.roles(True), "end")
    else:
        own = ("start", "end") if model.arrangement == "encoder" else ("end",)
    return tuple(dict.fromkeys([*own, *(role for one in node.stage.objectives for role in one.roles)]))


def _check_serves(node: Node, model: ModelConfig) -> None:
    """Raises UserError for an objective that a model of this arrangement cannot learn."""
    field, names = f"stages.{node.name}.objectives", {"decoder": "a decoder", "encoder": "an encoder",
                                                      "encoder_decoder": "an encoder-decoder"}  # fmt: skip
    name = names[model.arrangement]
    for objective in node.stage.objectives:
        if model.arrangement not in objective.serves:
            kind = "rows" if objective.reads == {"rows"} else node.kind
            hint = f"on {kind} {name} can have {', '.join(serving(model.arrangement, kind))}"
            raise UserError(f"{name} cannot learn this", field=field, text=objective.kind, hint=hint)
        if objective.kind == "prefix_lm" and model.body == "lstm":
            raise UserError("an LSTM sees nothing of what comes", field=field, text="prefix_lm",
                            hint="causal_lm")  # fmt: skip
    if node.stage.zero_shot and model.arrangement != "decoder":
        problem = f"only a decoder can be asked, and this is {name}"
        raise UserError(problem, field=f"stages.{node.name}.zero_shot", hint="leave it out")


def _window(node: Node, model: ModelConfig) -> int:
    """Tokens of a window. Raises UserError where the context leaves no room."""
    try:
        return window_of(node.stage.objectives, model)
    except UserError as mistake:
        if not str(mistake.field).startswith("model."):
            mistake.field = f"stages.{node.name}.objectives.{mistake.field}"
        raise


def _text_splits(
    node: Node, data: TextData | Mixture, tokenizer: Tokenizer, model: ModelConfig, material: Material
) -> dict[str, Split]:
    window, least = _window(node, model), max(one.least for one in node.stage.objectives)

    def split_of(text: TextData, source: TextSource, name: str) -> Split:
        windows, store, counts = text_windows(
            source, text, tokenizer, model, window,
            lambda text: material.store(text, tokenizer), material.cache, least,
        )  # fmt: skip
        if windows.longest < least:
            problem = f"the longest window of the text has {counted(windows.longest, 'token')}"
            raise UserError(problem, field=f"{name}train", hint=f"the objective needs {least}")
        return Split(windows, store=store, counts=counts)

    if isinstance(data, TextData):
        return {name: split_of(data, source, "") for name, source in material.texts(data).items()}
    _check_names(node)
    texts = {part: text for part, text in data.parts.items() if isinstance(text, TextData)}
    made = {
        part: {name: split_of(text, source, f"mix.{part}.") for name, source in material.texts(text).items()}
        for part, text in texts.items()
    }
    return mixed_splits(made, data, node.seed)


def _check_names(node: Node) -> None:
    """Raises UserError for a data set of a mixture that is called as an objective is."""
    assert isinstance(node.stage.data, Mixture)
    for part in node.stage.data.parts:
        if part in {objective.kind for objective in node.stage.objectives}:
            problem = "a text cannot be called as an objective is: their losses would have one name"
            raise UserError(problem, field=f"mix.{part}", hint="another name")


def _answers(node: Node, data: RowsData, material: Material) -> Answers | None:
    """What the label means: the stage's objective says so, and train says which labels there are."""
    measure = node.stage.measure
    if measure == "tokens":
        return None
    if data.format.label is None:
        raise UserError(
            "the objective needs to know the column with the label",
            field=f"stages.{node.name}.data.format.{data.format.label_key}",
            hint=f"add `{data.format.label_key}: COLUMN`",
        )
    if measure in ("choices", "spans"):
        return Choices() if measure == "choices" else Spans()
    rows = material.rows(data)["train"].rows
    if isinstance(data.format, Tagged):
        return Tags.of_rows(rows, data.format, data.labels)
    if measure == "number":
        return Numbers.of(rows, data.format.label)
    if measure == "sets":
        return LabelSets.written((), data.multi_label).of_train(rows, data.format.label, data.labels)
    return Labels.of(rows, data.format.label, data.labels)


def _row_split(source: RowSource, encoder: RowEncoder, labelled: bool = True) -> Split:
    examples = encoder.encode(source.rows, labelled)
    cut = [example.truncated for example in examples if example.truncated]
    counts: dict[str, Any] = {
        "rows": len(examples), "tokens": sum(example.tokens for example in examples), "bytes": None,
        "truncated_rows": len(cut), "truncated_tokens": sum(cut), "skipped_rows": len(source.skipped),
    }  # fmt: skip
    left_out = {"dropped": source.dropped, "leaked": source.leaked, "beyond_limit": source.beyond_limit}
    counts |= {f"{why}_rows": rows for why, rows in left_out.items() if rows}
    if isinstance(encoder, QuestionEncoder):
        counts["windows"] = sum(len(example.sequences) for example in examples)
    if isinstance(encoder, WordEncoder):
        counts |= encoder.counts(source.rows, examples)
    elif isinstance(encoder.answers, LabelSets):
        counts |= encoder.answers.counts(examples)
    elif isinstance(encoder.answers, Labels):
        names = encoder.answers.names
        found = np.bincount([int(example.label or 0) for example in examples], minlength=len(names))
        counts["labels"] = dict(zip(names, found.tolist()))
    return Split(
        Rows(examples, [f"{row.file}:{row.line}" for row in source.rows]),
        rows=source.rows,
        counts=counts,
        skipped=source.skipped,
    )


def _check_windows(prepared: Prepared) -> None:
    """Raises UserError where windows are to grow that are as long from the start."""
    ramp, name = prepared.node.stage.window_ramp, prepared.node.name
    if ramp is not None and ramp.start.amount >= (longest := prepared.train.longest):
        field, hint = f"stages.{name}.window_ramp.from", f"fewer than {longest} tokens"
        raise UserError("no window is longer", field=field, text=str(ramp.start), hint=hint)


def _check_cached(prepared: Prepared) -> None:
    """Raises UserError where there are no states to keep, or more of them than the recipe allows."""
    name, cache = prepared.node.name, prepared.node.stage.cache_frozen
    if cache is None:
        return
    with under(f"stages.{name}"):
        if prepared.model.encodes_and_decodes:
            raise UserError("an encoder-decoder's are not kept", field="cache_frozen", hint="leave it out")
        if not isinstance(prepared.train, (Rows, Windows, FramedWindows)):
            problem = "what is drawn or mixed anew every epoch cannot be kept"
            raise UserError(
                problem, field="cache_frozen", hint="leave it out, or one text with plain windows"
            )
        if not prepared.cached:
            hint = '`freeze: ["transformer.embedding.*", "transformer.blocks.0.*"]`'
            raise UserError(
                "no layer on the embedding is frozen with all below it", field="cache_frozen", hint=hint
            )
        if (size := prepared.states_bytes / 1e9) > cache.gigabytes:
            text, hint = f"{cache.gigabytes:g}", f"the states of train take {size:.3g}"
            raise UserError("too little room", field="cache_frozen.gigabytes", text=text, hint=hint)


def _check_metric(prepared: Prepared) -> None:
    stage, field = prepared.node.stage, f"stages.{prepared.node.name}"
    libraries_of(stage.text_metrics, field=f"{field}.{'evaluate' if stage.evaluate.metrics else 'stop'}")
    stop = stage.stop
    if stop is None or stop.metric is None:
        return
    known = _choosable(prepared)
    if stop.metric not in known:
        raise UserError(
            "this stage reports no such metric",
            field=f"{field}.stop.metric",
            text=stop.metric,
            hint=nearest(stop.metric, sorted(known)),
        )


def _choosable(prepared: Prepared) -> set[str]:
    """The metrics that a stage may be chosen by; of several tasks each one's, and what all report."""
    legal = {name: _reported(task) for name, task in prepared.tasks.items() if "dev" in task.splits}
    if prepared.members:
        telling = speaking({name: prepared.members[name].node.stage for name in legal})
        common = set.intersection(*(legal[name] for name in telling))
        legal = {name: {f"{name}.{metric}" for metric in own} for name, own in legal.items()} | {"": common}
    return set[str]().union(*legal.values())


def reported(prepared: Prepared) -> set[str]:
    """The metrics that each evaluation of the stage reports, of texts that are said those that were asked."""
    asked = {kind for task in prepared.tasks.values() for kind in task.node.stage.text_metrics}
    unasked = {name for kind, names in NUMBERS.items() if kind not in asked for name in names}
    main = prepared.objectives[prepared.main]
    losses = {f"{other.name}.loss" for other in prepared.objectives if other is not main}
    known = _choosable(prepared) | (set() if prepared.members else losses)
    return {metric for metric in known if metric.rsplit(".", 1)[-1] not in unasked}


def _reported(prepared: Prepared) -> set[str]:
    """The metrics that a task may be chosen by."""
    stage, main = prepared.node.stage, prepared.objectives[prepared.main]
    legal = METRICS[main.measure] | ({"accuracy"} if main.names_tokens else set())
    if stage.marks_nothing:
        legal = {"accuracy", "loss"}
    if not stage.every_token:  # it is not known how many bytes were scored
        legal = legal - {"bits_per_byte"}
    if stage.says_answers:
        texts = {name for names in NUMBERS.values() for name in names}
        legal = legal | {"exact_match"} | ({"accuracy"} if stage.told_answers else texts)
    parts = prepared.splits["dev"].parts if "dev" in prepared.splits else ()
    return legal | {f"{part}.{metric}" for part in parts for metric in legal & PART_METRICS}
