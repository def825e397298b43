"""What the stages of a run draw on, opened once: texts, rows, tokenizers, token shards.

Everything here is keyed by content, so two stages, two variants or two processes that want the same thing
share it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from pydantic import ValidationError

from gradus.core.errors import UserError, counted
from gradus.core.storage import digest_json, is_whole, lock, new_folder, sweep
from gradus.core.telling import Silent, Told
from gradus.data.mixture import Mixture, within
from gradus.data.rows import RowsData, RowSource, row_splits
from gradus.data.shards import TextDocuments, TokenStore, token_store
from gradus.data.text import TextData, TextSource, text_splits
from gradus.pipeline.recipes.recipe import Recipe
from gradus.pipeline.recipes.stages import Stage
from gradus.tokenizers import GPT1Tokenizer, PretrainedTokenizer, Tokenizer

TOKENIZER_FORMAT = 1
"""Raised when the same config and text would give another tokenizer than before."""


class Material:
    """Opens data relative to `root` and keeps tokenizers and token shards under `cache`."""

    def __init__(self, root: Path, cache: Path, told: Told | None = None):
        self.root, self.cache, self.told = root, cache, told or Silent()
        self._texts: dict[str, dict[str, TextSource]] = {}
        self._rows: dict[str, dict[str, RowSource]] = {}
        self._tokenizers: dict[str, Tokenizer] = {}
        self._stores: dict[str, TokenStore] = {}

    def texts(self, data: TextData) -> dict[str, TextSource]:
        """The splits of running text."""
        key = digest_json(data.plain())
        if key not in self._texts:
            self._texts[key] = text_splits(data, self.root)
        return self._texts[key]

    def rows(self, data: RowsData) -> dict[str, RowSource]:
        """The splits of labelled rows."""
        key = digest_json(data.plain())
        if key not in self._rows:
            self._rows[key] = row_splits(data, self.root)
        return self._rows[key]

    def digests(self, data: TextData | RowsData | Mixture) -> dict[str, str]:
        """The content digest of every split; of a mixture every data set's, as NAME.SPLIT."""
        if isinstance(data, Mixture):
            found: dict[str, str] = {}
            for part, own in data.parts.items():
                with within(part):
                    found |= {f"{part}.{split}": digest for split, digest in self.digests(own).items()}
            return found
        splits = self.texts(data) if isinstance(data, TextData) else self.rows(data)
        return {name: source.digest for name, source in splits.items()}

    def tokenizer_key(self, recipe: Recipe) -> str:
        """What the tokenizer of a recipe is made of, without making it."""
        config = recipe.tokenizer
        if isinstance(config, PretrainedTokenizer | GPT1Tokenizer):
            made_of = config.build(root=self.root).digest
        else:
            made_of = self._corpus(recipe).digest
        return digest_json([TOKENIZER_FORMAT, config.plain(), made_of])

    def tokenizer(self, recipe: Recipe) -> Tokenizer:
        """The tokenizer of a recipe: loaded, found in the cache, or trained on train text and kept there."""
        key = self.tokenizer_key(recipe)
        if key not in self._tokenizers:
            self._tokenizers[key] = self._build(recipe, self.cache / f"tokenizer-{key[:16]}")
        return self._tokenizers[key]

    def _build(self, recipe: Recipe, folder: Path) -> Tokenizer:
        config = recipe.tokenizer
        if isinstance(config, PretrainedTokenizer | GPT1Tokenizer):
            return config.build(root=self.root)
        with lock(self.cache / f".{folder.name}.lock", wait=True):
            if not is_whole(folder):
                sweep(self.cache, folder.name + "*")
                self.told.working("training the tokenizer", 0, None)
                made = config.build(self._heard(self._corpus(recipe).documents()))
                with new_folder(folder) as temporary:
                    made.save(temporary)
                self.told.say(f"training the tokenizer: done, {counted(made.size, 'token')}")
        return Tokenizer.load(folder)

    def _heard(self, documents: Iterable[str]) -> Iterator[str]:
        done = 0
        for text in documents:
            yield text
            done += len(text)
            self.told.working("training the tokenizer", done, None)

    def _corpus(self, recipe: Recipe) -> Corpus:
        """The text a tokenizer learns from: as named, else train of the first stage with text, else train
        rows."""
        named = getattr(recipe.tokenizer, "train", None)
        stages = [recipe.stages[name] for name in recipe.order()]
        if named is not None:
            return _of_texts([self.texts(_text_of(named))["train"]])
        for stage in stages:
            if texts := [data for data in _parts(stage) if isinstance(data, TextData)]:
                return _of_texts([self.texts(text)["train"] for text in texts])
        rows = [data for data in _parts(stages[0]) if isinstance(data, RowsData)]
        return _of_all([_of_rows(self.rows(data)["train"], data) for data in rows])

    def store(self, source: TextDocuments, tokenizer: Tokenizer) -> TokenStore:
        """The tokens of a text, from the cache or made now."""
        key = f"{source.digest} {tokenizer.digest}"
        if key not in self._stores:
            self._stores[key] = token_store(
                source, tokenizer, self.cache, lambda done: self.told.working("tokenising", done, None)
            )
        return self._stores[key]


class Corpus:
    """Text by documents, and the digest of its content."""

    def __init__(self, digest: str, documents: Iterable[str]):
        self.digest, self._documents = digest, documents

    def documents(self) -> Iterator[str]:
        return iter(self._documents)


def _text_of(named: str | list[str]) -> TextData:
    try:
        return TextData(kind="text", train=named)
    except ValidationError as error:
        problem = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise UserError(problem, field="tokenizer.train", text=named) from None


def _parts(stage: Stage) -> Sequence[TextData | RowsData]:
    return list(stage.data.parts.values()) if isinstance(stage.data, Mixture) else [stage.data]


def _of_all(corpora: Sequence[Corpus]) -> Corpus:
    if len(corpora) == 1:
        return corpora[0]
    digest = digest_json([corpus.digest for corpus in corpora])
    return Corpus(digest, (text for corpus in corpora for text in corpus.documents()))


def _of_texts(sources: Sequence[TextSource]) -> Corpus:
    digest = sources[0].digest if len(sources) == 1 else digest_json([source.digest for source in sources])
    return Corpus(digest, (document.text for source in sources for document in source.documents()))


def _of_rows(source: RowSource, data: RowsData) -> Corpus:
    texts = (text for row in source.rows for text in data.format.corpus(row))
    return Corpus(digest_json([source.digest, data.plain()]), texts)
