"""Going on from prompts with a model that is ready for use: text in, text out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from gradus.core.errors import UserError, nearest
from gradus.core.storage import read_json
from gradus.evaluation.generate import generate_all
from gradus.evaluation.sampling import Sampling, before_stop
from gradus.families.folder import CONFIG
from gradus.pipeline.models.opening import never_said

if TYPE_CHECKING:
    from gradus.pipeline.models.serving import Model

DECODER_START = "decoder_start_token_id"
"""Where Hugging Face's config.json says what a decoder beside an encoder begins with."""


def continue_texts(model: Model, prompts: Sequence[str], options: Mapping[str, Any]) -> list[str]:
    """The text that continues each of `prompts`, without it; see `Model.generate`."""
    model.require_speech()
    settings = sampling_of(options)
    for place, prompt in enumerate(prompts):
        if not isinstance(prompt, str):
            raise UserError("a prompt is a text", field=f"prompt {place}", text=prompt)
    tokens, config = model.tokens, model.opened.folder.config
    end = tokens.role("end") if tokens.has("end") else None
    ids = [found.tolist() for found in tokens.encode(prompts)]
    start: list[int] = []
    if config.encodes_and_decodes:
        # As in training: see `ModelConfig.encoder_roles` and `decoder_roles`.
        first, last = (_ids(model, names) for names in config.encoder_roles)
        start = [decoder_start(model), *_ids(model, config.decoder_roles[1:])]
        ids = [[*first, *one, *last] for one in ids]
    before = [[] if config.encodes_and_decodes else one for one in ids]
    heads = [tokens.decode(one) for one in before]

    def text(place: int, said: list[int]) -> str:
        whole = tokens.decode(before[place] + said)
        head = heads[place]
        return whole[len(head) :] if whole.startswith(head) else tokens.decode(said)

    said = generate_all(
        model.opened.learner.transformer, ids, settings, end, never_said(tokens, config),
        start=start, text=text,
    )  # fmt: skip
    return [before_stop(text(place, one), settings.stop) for place, one in enumerate(said)]


def _ids(model: Model, roles: Sequence[str]) -> list[int]:
    """The tokens of those roles that the tokenizer has."""
    return [model.tokens.role(name) for name in roles if model.tokens.has(name)]


def decoder_start(model: Model) -> int:
    """What the decoder beside an encoder begins with: as config.json says, else the token of the first of
    `ModelConfig.decoder_roles`, else that of `pad` (T5). Raises UserError where there is none."""
    path = model.opened.folder.path
    named = read_json(path / CONFIG).get(DECODER_START) if (path / CONFIG).is_file() else None
    if isinstance(named, int):
        return named
    for role in (model.opened.folder.config.decoder_roles[0], "pad"):
        if model.tokens.has(role):
            return model.tokens.role(role)
    hint = f"{CONFIG} should name it as {DECODER_START}"
    raise UserError("no token is known that the decoder begins with", file=path, hint=hint)


def sampling_of(options: Mapping[str, Any]) -> Sampling:
    """The settings. Raises UserError for the first that is wrong."""
    try:
        return Sampling.model_validate(options)
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"])) or None
        if first["type"] == "extra_forbidden":
            hint = nearest(str(field), Sampling.model_fields)
            raise UserError("there is no such setting", text=field, hint=hint) from None
        problem = first["msg"].removeprefix("Value error, ")
        raise UserError(problem, field=field, text=first["input"] if field else None) from None
