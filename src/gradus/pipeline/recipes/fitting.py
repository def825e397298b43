"""What of a stage fits what else of it, beyond what a single key can say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, get_args

from gradus.core.config import wrong
from gradus.core.errors import UserError, nearest
from gradus.core.example import PairKind
from gradus.data.augmentation import Augment, Masking, Mixing
from gradus.data.formats import Pair, Single, TextToText
from gradus.data.mixture import Mixture
from gradus.data.rows import RowsData
from gradus.data.tagged import Tagged
from gradus.data.text import TextData, WindowKind
from gradus.objectives import DistillationConfig, ObjectiveConfig, TokenClassificationConfig, main_place
from gradus.objectives.distillation import TOLD_OF_ROWS, TOLD_OF_TOKENS
from gradus.optim.groups import matching, unmatched
from gradus.pipeline.recipes.pauses import Evaluate, Stop, asked_of_texts
from gradus.training.transfer import ChosenLayers, Transferred

if TYPE_CHECKING:
    from gradus.pipeline.recipes.stages import Stage

PAIRS = get_args(PairKind)


def require_windows(objectives: Sequence[ObjectiveConfig], windows: WindowKind | None) -> None:
    """Raises for an objective that reads the label of windows which this stage has not (rows have none), and
    for windows whose label nobody reads: half of them join texts that do not belong together."""
    for one in objectives:
        wanted = one.windows
        if wanted is None or wanted == windows:
            continue
        if windows is None:
            hint = f"`data: {{kind: text, windows: {wanted}}}`"
            raise wrong("objectives", f"{one.kind} reads the label of windows of text", None, hint)
        hint = f"write `windows: {wanted}`"
        raise wrong("data.windows", f"{one.kind} reads the label of another kind", windows, hint)
    if windows in PAIRS and all(one.windows != windows for one in objectives):
        reader = {"sentence_pairs": "next_sentence", "sentence_order": "sentence_order"}[str(windows)]
        problem, hint = "no objective reads the label of these windows", f"add {{kind: {reader}}}"
        raise wrong("data.windows", problem, windows, f"{hint}, or `windows: contiguous`")


def require_chains(objectives: Sequence[ObjectiveConfig], data: RowsData) -> None:
    """Raises for tags that are to follow each other where several tokens of a word have one, for rules of a
    scheme that has none, and for tags of a row that weigh what each has for itself."""
    form = data.format
    for place, one in enumerate(objectives):
        if not isinstance(one, TokenClassificationConfig) or not isinstance(form, Tagged):
            continue
        if one.chained and data.weights is not None:
            problem = "a CRF has one probability for all tags of a row, so no tag weighs more"
            raise wrong("data.weights", problem, None, "leave it out, or `loss: cross_entropy`")
        legal = one.transitions == "legal"
        if (legal or one.chained) and form.pieces == "all":
            key = "transitions: legal" if legal else "loss: crf"
            problem = f"with `{key}` each word has one tag, and here all of its tokens have"
            raise wrong("data.format.pieces", problem, "all", "first, or in a decoder last")
        if legal and form.scheme == "none":
            problem, hint = "the scheme none has no rules which tag may follow which", "any, or a scheme"
            raise wrong(f"objectives.{place}.transitions", problem, "legal", hint)


LABELLED = ("classification", "token_classification")
"""Objectives whose answers have names."""


def require_labels(data: RowsData, tasks: Sequence[ObjectiveConfig]) -> None:
    """Raises for keys about labels where what reads those of rows, `tasks`, does not know such."""
    kinds = [one.kind for one in tasks]
    for key, fits in (("labels", LABELLED), ("weights", LABELLED), ("multi_label", LABELLED[:1])):
        if getattr(data, key) is not None and not {*fits} & {*kinds}:
            problem = f"this key is for {' and '.join(fits)}"
            raise wrong(f"data.{key}", problem, None, "leave it out")
    if data.multi_label and any(getattr(one, "label_smoothing", None) for one in tasks):
        hint = "leave it out, or `multi_label`"
        raise wrong("objectives", "label_smoothing is for one label a row", None, hint)


def require_depth(layers: int | None, transferred: Transferred, scratch: bool) -> None:
    """Raises where `model.layers` of a stage is not what comes out of its start."""
    chosen = len(transferred.layers) if isinstance(transferred, ChosenLayers) else None
    if layers is not None and not scratch and layers != chosen:
        hint = "name the layers it takes, `transfer: {layers: [0, 2]}`, or start `from: scratch`"
        raise wrong("model.layers", "the layers come from where the stage starts", layers, hint)


def require_lesson(stage: Stage, lesson: DistillationConfig | None) -> None:
    """Raises where there is nothing that a teacher could say."""
    data, tasks = stage.data, stage.judged
    if isinstance(data, RowsData) and data.unlabelled is not None and lesson is None:
        raise wrong(
            "data.unlabelled", "nobody says what these rows are", None, "add {kind: distillation, ...}"
        )
    if lesson is None:
        return
    if stage.members or lesson.on:
        hint = "a stage of its own for each data set"
        raise wrong("objectives", "teachers teach one task alone", "distillation", hint)
    if any(isinstance(one, Mixing) for one in stage.augment or ()):
        raise wrong("augment", "nobody is asked about two rows at once", "mix", "leave it out")
    kind = tasks[main_place(tasks)].kind if tasks else None
    if kind not in (*TOLD_OF_ROWS, *TOLD_OF_TOKENS) or getattr(data, "multi_label", None):
        hint = f"beside it one of {', '.join((*TOLD_OF_ROWS, *TOLD_OF_TOKENS))}, one label a row"
        raise wrong("objectives", "a teacher has no soft labels for this", kind or "nothing", hint)
    if kind in TOLD_OF_TOKENS and lesson.hard:
        raise wrong("objectives", "`hard` is for rows", kind, "leave it out")
    if kind == "regression" and (lesson.temperature is not None or lesson.hard):
        raise wrong("objectives", "a number has no temperature and is never soft", kind, "leave them out")
    unlabelled = isinstance(data, RowsData) and data.unlabelled is not None
    if unlabelled and (kind in TOLD_OF_TOKENS or not lesson.weight):
        raise wrong("data.unlabelled", "nobody says what these rows are", None, "leave it out")
    if unlabelled and stage.augment:
        raise wrong("augment", "rows without a label are read as they stand", None, "leave it out")


def as_text(form: Single | Pair, names: Sequence[str]) -> TextToText:
    """The same rows as texts to read and to say (Raffel et al. 2020, section 2.4): of two texts each under
    its column's name, and a class says its own."""
    several = len(form.fields) > 1
    source = " ".join(f"{field}: {{{field}}}" if several else f"{{{field}}}" for field in form.fields)
    return TextToText(source=source, label=form.label, answers={name: name for name in names})


def require_base(starts: bool, transferred: Transferred, rivals: Sequence[str]) -> None:
    """Raises where adapters would stand on weights that are random, and where a key says again, or otherwise,
    what learns beside them."""
    if not starts or transferred != "all":
        problem = "adapters change what was learnt before, and these weights are new"
        hint = "start `from` a stage or a folder, with all of its weights"
        raise wrong("adapters", problem, None, hint)
    if rivals:
        problem, hint = (
            "beside adapters only the heads learn",
            "leave it out; `adapters.projections` says what has one",
        )
        raise wrong(rivals[0], problem, None, hint)


def require_pieces(stage: Stage) -> None:
    """Raises where windows cannot be read in pieces, and for a ramp that is none."""
    if (ramp := stage.window_ramp) is None:
        return
    if stage.reads == "rows":
        raise wrong("window_ramp", "rows have no windows", None, "leave it out")
    if stranger := next((one.kind for one in stage.objectives if one.kind != "causal_lm"), None):
        problem = "only causal_lm reads a window in pieces"
        raise wrong("window_ramp", problem, stranger, "leave it out, or a stage with causal_lm alone")
    if ramp.start.amount < 1 or ramp.start.amount % 1:
        raise wrong("window_ramp.from", "a whole number of at least 1 is wanted", ramp.start)
    if not 0 < ramp.over.amount <= 100:
        raise wrong("window_ramp.over", "a share of the stage is wanted", ramp.over, "such as 30 %")


def require_sameness(stage: Stage) -> None:
    """Raises where frozen layers whose states are kept would read something else every epoch."""
    if stage.cache_frozen is None:
        return
    hint = "leave it out"
    if stranger := next((one.kind for one in stage.judged if one.corrupts), None):
        problem = "this objective changes what is read anew every epoch"
        raise wrong("cache_frozen", problem, stranger, f"{hint}, or another objective")
    if stage.lesson is not None:
        raise wrong("cache_frozen", "what teachers are compared with is computed anew", None, hint)
    if stage.augment is not None:
        raise wrong("cache_frozen", "what is augmented is read anew every epoch", None, hint)
    if stage.window_ramp is not None:
        raise wrong("cache_frozen", "windows that grow are read anew", None, f"{hint}, or `window_ramp`")


def require_whole(stage: Stage, starts: bool) -> None:
    """Raises where there is no whole model to grow, and where adapters would stand on a folder that does not
    have the layers they belong to."""
    if stage.grow is None:
        return
    if not starts or stage.transfer != "all":
        problem, hint = (
            "only a whole model grows",
            "start `from` a stage or a folder, with all of its weights",
        )
        raise wrong("grow", problem, None, hint)
    if stage.adapters is not None:
        hint = "a stage that grows, and `adapters` in the next"
        raise wrong("adapters", "they belong to a folder, and this stage's layers stand in none", None, hint)


def require_texts(evaluate: Evaluate, stop: Stop | None, says_texts: bool) -> None:
    """Raises where texts are to be judged and the stage says none, or single words that name classes."""
    if (asked := asked_of_texts(evaluate, stop)) and not says_texts:
        key = "evaluate.metrics" if evaluate.metrics else "stop.metric"
        text = ", ".join(asked) if stop is None or evaluate.metrics else stop.metric
        hint = "the objective seq2seq, and a format with a `target`"
        raise wrong(key, "this judges texts, and the stage says none of its own", text, hint)


def require_parameters(
    field: str, names: Sequence[str], frozen: Sequence[str], groups: Sequence[str]
) -> None:
    """Raises UserError for a pattern that matches none of the parameters with these `names`, and where none
    of them is left to learn."""
    for key, patterns in (("freeze", frozen), ("optimizer.groups", groups)):
        if idle := unmatched(names, patterns):
            hint = nearest(idle[0], names)
            raise UserError("no parameter has such a name", field=f"{field}.{key}", text=idle[0], hint=hint)
    if len(matching(names, frozen)) == len(names):
        raise UserError("nothing is left to learn", field=f"{field}.freeze", text=", ".join(frozen))


def require_augmentable(
    augment: Sequence[Augment], data: TextData | RowsData | Mixture, objectives: Sequence[ObjectiveConfig]
) -> None:
    """Raises for augmentation of what is no labelled rows, or of rows whose texts the labels point into;
    for kinds in another order than they can be done in; and for a kind that these objectives cannot learn
    from."""
    if not augment:
        return
    if not isinstance(data, RowsData):
        hint = "text is changed by its objective: masked_lm, span_corruption or denoising"
        raise wrong("augment", "this changes labelled rows", None, hint)
    if not data.format.changeable:
        kind, why = data.format.kind, "tags go with words"
        if kind == "text_to_text":
            why = "every column that is read is said, too"
        hint = "single, pair, similarity, multiple_choice, question, text_to_text with columns not said"
        raise wrong("augment", f"rows of the format {kind} cannot be changed: {why}", None, hint)
    for place, (one, before) in enumerate(zip(augment, (None, *augment))):
        if before is not None and (before.turn > one.turn or isinstance(before, Mixing)):
            hint = "back_translation, then what changes words, then masking, then one mix"
            raise wrong(f"augment.{place}", f"this cannot follow {before.kind}", one.kind, hint)
        reading = [objective.kind for objective in objectives if objective.measure == "tokens"]
        if isinstance(one, Masking) and (
            reader := next((kind for kind in reading if kind != "seq2seq"), None)
        ):
            problem = f"{reader} would learn to say the mask"
            raise wrong(f"augment.{place}", problem, one.kind, f"deletion, or a stage without {reader}")
        if isinstance(one, Mixing) and not any(row.measure in ("classes", "number") for row in objectives):
            hint = "classification and regression can"
            raise wrong(f"augment.{place}", "nothing of this stage can be mixed", one.kind, hint)
