"""Texts said by one model in another language and by another model in the first again, once for all: what
is made stands in the cache by content, in pieces, so that a run that is killed goes on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from gradus.core.errors import UserError, counted
from gradus.core.storage import digest_json, folder_digest, lock, read_json, sweep, write_json
from gradus.core.telling import Told
from gradus.data.readers import Row
from gradus.data.templates import names_in
from gradus.data.text_to_text import TextToTextEncoder
from gradus.evaluation.sampling import Sampling
from gradus.families.folder import read_folder
from gradus.pipeline.models.results import model_folder

if TYPE_CHECKING:
    from gradus.pipeline.models.serving import Model

FORMAT = 1
"""Raised when the same texts and models would give other paraphrases than before."""
AT_ONCE = 64
"""Texts of a piece."""


def translator(path: Path, field: str) -> Path:
    """The model folder that `path` means: a model's, a stage's or a run's. Raises UserError, which names
    `field`, for one that says no text of its own for a text."""
    try:
        folder = model_folder(path)
        found = read_folder(folder)
    except UserError as mistake:
        raise UserError(mistake.problem, field=field, text=str(path), hint=mistake.hint) from None
    says = found.card is None and found.config.encodes_and_decodes and found.task is None
    if found.card is not None:
        form = found.card.get("format") or {}
        taught = any(objective.get("kind") == "seq2seq" for objective in found.card.get("objectives", ()))
        says = taught and bool(form.get("target")) and len(names_in(form["source"])) == 1
    if not says:
        hint = "an encoder-decoder of Hugging Face, or one taught `seq2seq` from one column to a `target`"
        raise UserError("this model does not say a text for a text", field=field, text=str(path), hint=hint)
    return folder


class Paraphrases(Mapping[str, str]):
    """Text -> what the two `models` make of it there and back.

    A text that one of them cannot read whole, or of which nothing is left, stays as it is.
    """

    def __init__(
        self, texts: Sequence[str], models: tuple[Path, Path], temperature: float, cache: Path, told: Told
    ):
        self.texts, self.models, self.temperature, self.cache, self.told = (
            texts,
            models,
            temperature,
            cache,
            told,
        )
        self._device: str | None = None

    def __getitem__(self, text: str) -> str:
        return self._all[text]

    def __iter__(self) -> Iterator[str]:
        return iter(self.texts)

    def __len__(self) -> int:
        return len(self.texts)

    @cached_property
    def pieces(self) -> list[tuple[Path, Sequence[str]]]:
        """Texts, and the file that says what becomes of them: a function of them, the models and how those
        speak."""
        models = [folder_digest(folder) for folder in self.models]
        found = []
        for begin in range(0, len(self.texts), AT_ONCE):
            texts = self.texts[begin : begin + AT_ONCE]
            key = digest_json([FORMAT, models, self.temperature, list(texts)])
            found.append((self.cache / f"back-translation-{key[:16]}.json", texts))
        return found

    @property
    def left(self) -> int:
        """How many texts are still to be translated."""
        return sum(len(texts) for file, texts in self.pieces if not file.is_file())

    def make(self, device: str | None = None) -> None:
        """Translates what the cache lacks. Processes that want the same wait for one another."""
        self._device = device
        if not self.left:
            return
        with lock(self.cache / ".back-translation.lock", wait=True):
            if missing := [piece for piece in self.pieces if not piece[0].is_file()]:
                sweep(self.cache, "back-translation-*")
                self._make(missing)

    def _make(self, missing: Sequence[tuple[Path, Sequence[str]]]) -> None:
        from gradus.pipeline.models.serving import load

        there, back = (load(folder, device=self._device) for folder in self.models)
        done, kept = len(self.texts) - sum(len(texts) for _, texts in missing), 0
        for file, texts in missing:
            self.told.working("translating there and back", done, len(self.texts))
            said = said_for(back, said_for(there, texts, self.temperature), self.temperature)
            write_json(file, [again or text for text, again in zip(texts, said)])
            done, kept = done + len(texts), kept + said.count("")
        whole = f"; too long, or nothing was left of them: {kept:,}, kept as they are" if kept else ""
        self.told.say(f"translating there and back: done, {counted(len(self.texts), 'text')}{whole}")

    @cached_property
    def _all(self) -> dict[str, str]:
        self.make(self._device)
        return {text: said for file, texts in self.pieces for text, said in zip(texts, read_json(file))}


def said_for(model: Model, texts: Sequence[str], temperature: float) -> list[str]:
    """What a model says for each text; "" for an empty text and for one longer than it can read."""
    from gradus.pipeline.models.saying import MOST_TOKENS, decoded

    config = model.opened.folder.config
    sampling = Sampling(temperature=temperature, tokens=min(MOST_TOKENS, config.context))
    if model.reading.format is None:
        around = sum(map(len, config.encoder_roles))
        fits = [0 < len(ids) <= config.context - around for ids in model.tokens.encode(list(texts))]
        read = [text for text, short in zip(texts, fits) if short]
        said = iter(model.generate(read, temperature=temperature, tokens=sampling.tokens) if read else [])
    else:
        encoder = model.row_encoder
        assert isinstance(encoder, TextToTextEncoder)
        (column,) = encoder.form.fields
        rows = [Row(place, {column: text}, "rows", place + 1) for place, text in enumerate(texts)]
        laid = encoder.encode(rows, labelled=False)
        fits = [bool(text.strip()) and not one.truncated for text, one in zip(texts, laid)]
        laid = [one for one, short in zip(laid, fits) if short]
        said = iter(decoded(model.opened.learner.transformer, encoder, laid, sampling))
    return [next(said).strip() if short else "" for short in fits]
