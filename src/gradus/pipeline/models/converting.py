"""`gradus convert`: OpenAI's release of GPT-1, or a Hugging Face folder, becomes a folder of Gradus.

That has the weights in safetensors, the tokenizer in one file, and in gradus.json what the model was taught,
so that `from: {folder: ...}`, `gradus generate` and transformers open it alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from torch import Tensor

from gradus.core.errors import UserError, nearest
from gradus.core.model import ModelConfig
from gradus.core.storage import new_folder
from gradus.families.folder import CARD, CONFIG, ModelFolder, read_folder, write_folder
from gradus.families.heads import Task
from gradus.families.release import SHAPES, is_release, read_config, read_weights
from gradus.nn.transformer import count_parameters
from gradus.objectives import CausalLMConfig, HeadConfig, ObjectiveConfig
from gradus.objectives import Task as Built
from gradus.pipeline.models.opening import FORMAT_VERSION, taught_by_tensors
from gradus.tokenizers import Tokenizer
from gradus.tokenizers.files import TOKENIZER
from gradus.tokenizers.release import HUB_ENCODER, read_release
from gradus.tokenizers.roles import WORD_END

Words = Literal["simple", "release"]


@dataclass(frozen=True)
class _Found:
    """A model as it was found: what `write_folder` wants and what gradus.json says. `origin` says from
    where."""

    origin: str
    config: ModelConfig
    tensors: Callable[[], Mapping[str, Tensor]]
    tokenizer: Tokenizer
    objectives: list[ObjectiveConfig]
    head: str = ""
    labels: tuple[str, ...] = ()
    task: Task | None = None
    dropped: tuple[str, ...] = ()


def convert(source: Path, target: Path, pre_tokenization: str = "simple") -> str:
    """Writes `target`, whole or not at all, and returns a line that tells what it is.

    `source` holds OpenAI's files as published, or a GPT-1 in Hugging Face's form (safetensors).
    `pre_tokenization` is how the converted model finds words in text; see `GPT1Tokenizer`. Raises UserError
    for a target that is not empty, and for a file that is missing, of another shape or of another model.
    """
    if pre_tokenization not in get_args(Words):
        hint = nearest(pre_tokenization, get_args(Words))
        problem = "there is no such pre-tokenisation"
        raise UserError(problem, field="--pre-tokenization", text=pre_tokenization, hint=hint)
    words: Words = "release" if pre_tokenization == "release" else "simple"
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError("the target is there already", file=target, hint="a new or empty folder is wanted")
    found = _of_release(source, words) if is_release(source) else _of_hugging_face(source, words)
    tensors = found.tensors()
    with new_folder(target) as folder:
        write_folder(
            folder,
            found.config,
            tensors,
            _card(found),
            lambda path: found.tokenizer.save(path, None, found.config.context),
            labels=found.labels or None,
            task=found.task,
            roles={role: found.tokenizer.role(role) for role in found.tokenizer.roles},
        )
    return _told(target, found)


def _of_release(source: Path, words: Words) -> _Found:
    config, tokenizer = read_config(source), read_release(source, words)
    if tokenizer.size != config.vocab_size:
        raise UserError(
            f"the vocabulary has {tokenizer.size} tokens, the embedding {config.vocab_size} rows",
            file=source / SHAPES,
            hint="vocabulary and weights do not belong together",
        )
    read: Callable[[], Mapping[str, Tensor]] = lambda: read_weights(source)  # noqa: E731
    return _Found("OpenAI's release", config, read, tokenizer, [CausalLMConfig()])


def _of_hugging_face(source: Path, words: Words) -> _Found:
    if not (source / CONFIG).is_file():
        hint = f"a folder is wanted with {SHAPES} (OpenAI's release) or {CONFIG} (Hugging Face)"
        raise UserError("here is no model that can be converted", file=source, hint=hint)
    if (source / CARD).is_file():
        hint = f"`from: {{folder: {source}}}` starts from it as it is"
        raise UserError("this is a folder of Gradus already", file=source, hint=hint)
    folder = read_folder(source)
    tokenizer = _tokenizer_of(folder, words)
    objectives, head, labels = taught_by_tensors(folder, None)
    return _Found(
        "a Hugging Face folder",
        folder.config,
        lambda: folder.tensors,
        tokenizer,
        objectives,
        head,
        labels,
        folder.task,
        folder.dropped,
    )


def _tokenizer_of(folder: ModelFolder, words: Words) -> Tokenizer:
    """tokenizer.json, or the vocabulary and merges from which it would be made."""
    alone = (folder.path / HUB_ENCODER).is_file() and not (folder.path / TOKENIZER).is_file()
    found = read_release(folder.path, words) if alone else Tokenizer.load(folder.path)
    if words == "release" and found.pre_tokenization is None:
        if getattr(found.inner.model, "end_of_word_suffix", None) != WORD_END:
            problem = "only the vocabulary of GPT-1's release has this pre-tokenisation"
            raise UserError(problem, file=folder.path / TOKENIZER, field="--pre-tokenization", text=words)
        found = Tokenizer(found.inner, found.roles, words)
    rows = folder.config.vocab_size or 0
    if found.size > rows:
        problem = f"the tokenizer has {found.size} tokens, the model's embedding {rows} rows"
        raise UserError(problem, file=folder.path, hint="they do not belong together")
    return found


def _card(found: _Found) -> dict[str, Any]:
    """gradus.json, as a stage would have written it; how rows are read is not known."""
    task = Built(found.config, found.head, found.labels, sets=found.task == "sets")
    one = next((one for one in found.objectives if isinstance(one, HeadConfig)), None)
    heads = {found.head: one.described(one.build(task), found.config, found.labels)} if one else {}
    return {
        "format_version": FORMAT_VERSION,
        "stage": found.head,
        "converted_from": found.origin,
        "model": found.config.plain(),
        "roles": dict(found.tokenizer.roles),
        "objectives": [objective.plain() for objective in found.objectives],
        "heads": heads,
        "labels": list(found.labels) or None,
        "range": None,
    }


def _told(target: Path, found: _Found) -> str:
    config = found.config
    shape = f"{config.layers} layers, {config.width} wide, {found.tokenizer.size} tokens"
    taught = found.objectives[0].kind
    lost = f"; not taken over: {', '.join(found.dropped)}" if found.dropped else ""
    parameters = f"{count_parameters(config):,} parameters"
    return f"{target}: {found.origin}: {shape}, {parameters}, taught {taught}{lost}"
