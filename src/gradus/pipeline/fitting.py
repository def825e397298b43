"""What of a stage fits what else of it, beyond what a single key can say."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

from gradus.core.config import wrong
from gradus.core.errors import UserError, nearest
from gradus.core.example import PairKind
from gradus.data.formats import Pair, Single, TextToText
from gradus.data.ramp import WindowRamp
from gradus.data.rows import RowsData
from gradus.data.text import WindowKind
from gradus.objectives import ObjectiveConfig
from gradus.optim.groups import matching, unmatched
from gradus.pipeline.pauses import Evaluate, Stop, asked_of_texts
from gradus.training.transfer import Transferred

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


def require_pieces(
    ramp: WindowRamp, objectives: Sequence[ObjectiveConfig], reads: Literal["text", "rows"]
) -> None:
    """Raises where windows cannot be read in pieces, and for a ramp that is none."""
    if reads == "rows":
        raise wrong("window_ramp", "rows have no windows", None, "leave it out")
    if stranger := next((one.kind for one in objectives if one.kind != "causal_lm"), None):
        problem = "only causal_lm reads a window in pieces"
        raise wrong("window_ramp", problem, stranger, "leave it out, or a stage with causal_lm alone")
    if ramp.start.amount < 1 or ramp.start.amount % 1:
        raise wrong("window_ramp.from", "a whole number of at least 1 is wanted", ramp.start)
    if not 0 < ramp.over.amount <= 100:
        raise wrong("window_ramp.over", "a share of the stage is wanted", ramp.over, "such as 30 %")


def require_sameness(objectives: Sequence[ObjectiveConfig], grows: bool) -> None:
    """Raises where frozen layers would read something else every epoch."""
    if stranger := next((one.kind for one in objectives if one.corrupts), None):
        problem = "this objective changes what is read anew every epoch"
        raise wrong("cache_frozen", problem, stranger, "leave it out, or another objective")
    if grows:
        raise wrong(
            "cache_frozen", "windows that grow are read anew", None, "leave out `window_ramp`, or this"
        )


def require_whole(starts: bool, transferred: Transferred, adapted: bool) -> None:
    """Raises where there is no whole model to grow, and where adapters would stand on a folder that does not
    have the layers they belong to."""
    if not starts or transferred != "all":
        problem, hint = (
            "only a whole model grows",
            "start `from` a stage or a folder, with all of its weights",
        )
        raise wrong("grow", problem, None, hint)
    if adapted:
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
