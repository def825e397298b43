"""Worked examples of the objectives, printed by the code itself: what a model reads, and what it is to say.

`python -m gradus.pipeline.worked.objectives` writes the blocks of the documents anew; a test tells when that
is due. A new example is an entry of `WORKED`, and the comment `<!-- printed: NAME -->` where it shall stand.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from unicodedata import east_asian_width

import numpy as np

from gradus.core.example import Example
from gradus.core.keyed import keyed_generator
from gradus.core.model import Arrangement, ModelConfig
from gradus.core.scripts import without_spaces
from gradus.core.sentences import SentenceEnds
from gradus.core.words import WordEdges
from gradus.data.formats import TextToText
from gradus.data.frame import Frame
from gradus.data.labels import Spans
from gradus.data.pairs import PairWindows
from gradus.data.questions import Question
from gradus.data.readers import Row
from gradus.data.sources import HeldTokens
from gradus.data.tagged import Entities, Tags
from gradus.data.tagged import Words as WordsFormat
from gradus.data.text_to_text import row_encoder
from gradus.objectives import (
    CausalLMConfig,
    DenoisingConfig,
    MaskedLMConfig,
    NextSentenceConfig,
    Objective,
    ObjectiveConfig,
    PrefixLMConfig,
    QuestionAnsweringConfig,
    SentenceOrderConfig,
    Seq2SeqConfig,
    SpanCorruptionConfig,
    Task,
    TokenClassificationConfig,
)
from gradus.pipeline.worked.tags import of_chain

QUESTION = Question(question="question", context="context", answers="answer", stride=2)
FILES = (Path("docs/objectives.md"), Path("docs/sequence-labelling.md"))
WIDTH = 100
"""Columns of a printed line."""
NOTHING = "·"
"""Stands where nothing is scored."""
ENGLISH = "Thank you for inviting me to your party last week . We came late , and stayed until it was dark ."
CHINESE = "话说天下大势，分久必合，合久必分。周末七国分争，并入于秦。"


class Words:
    """A vocabulary that grows as texts come: their words, or where they have no spaces their characters. A
    role's token is called by the role."""

    def __init__(self) -> None:
        self.names: list[str] = []

    @property
    def size(self) -> int:
        return len(self.names)

    @property
    def roles(self) -> dict[str, str]:
        return {name.strip("<>"): name for name in self.names if name.startswith("<")}

    def role(self, name: str) -> int:
        return self._number(f"<{name}>")

    @property
    def word_edges(self) -> WordEdges:
        """Every token is a word."""
        every = np.ones(self.size, dtype=bool)
        return WordEdges(every, every)

    @property
    def spelling(self) -> list[bytes]:
        return [b"\n" if name.startswith("<") else name.encode() for name in self.names]

    def encode(self, texts: list[str]) -> list[np.ndarray]:
        found = [list(text) if without_spaces([text]) else text.split(" ") for text in texts]
        return [np.array([self._number(word) for word in words if word], np.int64) for words in found]

    def places(self, texts: list[str]) -> list[tuple[np.ndarray, np.ndarray]]:
        """Ids, and where each word stands; between two is a space or nothing."""
        found = []
        for text, ids in zip(texts, self.encode(texts)):
            sizes = np.array([len(self.names[number]) for number in ids])
            spaces = " " in text.strip()
            ends = np.cumsum(sizes + spaces) - spaces + len(text) - len(text.lstrip())
            found.append((ids, np.stack([ends - sizes, ends], 1)))
        return found

    @property
    def sentence_ends(self) -> SentenceEnds:
        return SentenceEnds(tuple((self._number(mark),) for mark in (".", "。", "！", "？")))

    def _number(self, word: str) -> int:
        if word not in self.names:
            self.names.append(word)
        return self.names.index(word)


def of_text(
    config: ObjectiveConfig, arrangement: Arrangement, text: str, draw: int = 0, also: str = ""
) -> str:
    """A window of running text as the objective changes it; `draw` is the key of the corruption, and `also`
    the token that follows the window, which a decoder predicts, too."""
    words, model = Words(), ModelConfig(arrangement=arrangement, vocab_size=1000)
    (ids,) = words.encode([text])
    if arrangement == "encoder":
        frame = Frame.of(model)
        ids, _ = frame.laid([ids], roles_of(frame, words))
    for role in config.roles:
        words.role(role)
    objective = config.build(Task(model, "worked", vocabulary=words))
    following = int(words.encode([also])[0][0]) if also else None
    row = objective.corrupt(Example(0, (ids,), following=following), keyed_generator("worked", draw))
    window = f"{text} ({also})" if also else text
    return f"{line_of(config)}\nwindow: {window}\n\n" + shown(row, objective, words)


def of_sentences(
    config: NextSentenceConfig | SentenceOrderConfig, documents: Sequence[Sequence[str]], draw: int
) -> str:
    """A window of two segments out of `documents`, which are sentences; `draw` is the epoch."""
    words, model = Words(), ModelConfig(arrangement="encoder", segments=2, context=20)
    end = [words.role("end")]
    parts = [np.append(ids, end) for document in documents for ids in words.encode([*document])]
    store = HeldTokens(np.concatenate(parts), np.cumsum([0, *map(len, parts)]))
    frame, counts = Frame.of(model), np.array([*map(len, documents)])
    assert config.windows is not None
    windows = PairWindows(store, counts, model.context, frame, roles_of(frame, words), config.windows)
    row = windows.example(0, draw)
    assert row.label is not None
    lines = [
        [words.names[token] for token in row.sequences[0]],
        [str(belongs) for belongs in row.segments[0]],
    ]
    text = " | ".join(" ".join(document) for document in documents)
    label = config.labels[int(row.label)]
    return f"{line_of(config)}\ntext: {text}\n\n{table(['reads', 'segment'], lines)}\n\nlabel: {label}"


def roles_of(frame: Frame, words: Words) -> dict[str, np.ndarray]:
    """The tokens of a frame's roles."""
    return {name: np.array([words.role(name)]) for name in frame.roles(pair=True)}


def of_row(
    config: ObjectiveConfig, arrangement: Arrangement, form: TextToText, fields: dict[str, str]
) -> str:
    """A labelled row as its format lays it out for the arrangement."""
    words, model = Words(), ModelConfig(arrangement=arrangement, vocab_size=1000)
    (row,) = row_encoder(form, words, model, None, "error").encode([Row(0, fields, "rows", 1)])
    objective = config.build(Task(model, "worked", vocabulary=words))
    cells = ", ".join(f"{name} = {value}" for name, value in fields.items())
    return f"{line_of(config)}\nrow: {cells}\n\n" + shown(row, objective, words)


def of_question(
    arrangement: Arrangement, context: int, fields: dict[str, str], form: Question = QUESTION
) -> str:
    """The windows of a question, with what is to be named in each."""
    words, model = Words(), ModelConfig(arrangement=arrangement, context=context, segments=2, vocab_size=1000)
    config = QuestionAnsweringConfig()
    encoder = row_encoder(form, words, model, Spans(), "window")
    (row,) = encoder.encode([Row(0, fields, "rows", 1)])
    windows = config.build(Task(model, "worked", vocabulary=words)).targets(row).value[:, :2]
    cells = "\n".join(f"{name}: {value}" for name, value in fields.items())
    blocks = [f"{line_of(config)}\n{cells}"]
    for read, (begin, end) in zip(row.sequences, windows):
        said = np.where(np.arange(len(read)) == begin, "begin", NOTHING).astype(object)
        said[end] = "both" if begin == end else "end"
        blocks.append(table(["reads", "says"], [[words.names[token] for token in read], said.tolist()]))
    return "\n\n".join(blocks)


def of_words(arrangement: Arrangement, form: WordsFormat | Entities, fields: dict[str, str]) -> str:
    """A row of words, and what is to be said of each."""
    words, model = Words(), ModelConfig(arrangement=arrangement, segments=2, vocab_size=1000)
    made, config = Row(0, fields, "rows", 1), TokenClassificationConfig()
    tags = Tags.of_rows([made], form, None)
    (row,) = row_encoder(form, words, model, tags, "error").encode([made])
    targets = config.build(Task(model, "worked", tags.names, vocabulary=words)).targets(row)
    said = np.full(row.tokens, NOTHING, object)
    said[targets.index] = [tags.names[tag] for tag in targets.value[:, 1]]
    cells = "\n".join(f"{name}: {value}" for name, value in fields.items())
    (read,) = row.sequences
    shown = table(["reads", "says"], [[words.names[token] for token in read], said.tolist()])
    return f"{line_of(config)}\n{cells}\n\n{shown}"


def line_of(config: ObjectiveConfig) -> str:
    """The objective as a recipe names it."""
    named = {"kind": config.kind} | config.model_dump(mode="json", exclude_defaults=True)
    return (
        "objective: {" + ", ".join(f"{key}: {value}" for key, value in named.items()).replace("'", "") + "}"
    )


def shown(row: Example, objective: Objective, words: Words) -> str:
    """What each stack reads, one token a column, and below what is scored there."""
    targets = objective.targets(row)
    read = np.concatenate([said[:-1] for said in row.decoded] or row.sequences)
    said = {int(place): words.names[int(token)] for place, token in zip(targets.index, targets.value)}
    lines = [[words.names[token] for token in read], [said.get(at, NOTHING) for at in range(len(read))]]
    heads = ["decoder reads", "and says"] if row.decoded else ["reads", "says"]
    if row.prefix:
        head = row.prefix[0]
        lines.insert(1, ["all" if at < head else "before" for at in range(len(read))])
        heads.insert(1, "sees")
    if not row.decoded:
        return table(heads, lines)
    encoder = [words.names[token] for token in np.concatenate(row.sequences)]
    return table(["encoder reads"], [encoder]) + "\n\n" + table(heads, lines)


def table(heads: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """Lines of cells under each other, in as many blocks as the width asks for."""
    wide = [max(map(columns, cells)) for cells in zip(*lines)]
    first = max(map(len, heads)) + 2
    blocks: list[list[str]] = []
    room = 0
    for place, width in enumerate(wide):
        if not blocks or room < width:
            blocks.append([head.ljust(first) for head in heads])
            room = WIDTH - first
        for at, line in enumerate(lines):
            blocks[-1][at] += line[place] + " " * (width - columns(line[place]) + 1)
        room -= width + 1
    return "\n\n".join("\n".join(line.rstrip() for line in block) for block in blocks)


def columns(text: str) -> int:
    """How many columns of a terminal a text takes: a Chinese character takes two."""
    return sum(2 if east_asian_width(character) in "WF" else 1 for character in text)


TO_WORDS = TextToText(
    source="sst2 sentence: {sentence}", label="label", answers={"0": "negative", "1": "positive"}
)
WHOLE_WORDS = MaskedLMConfig(unit="word", words="jieba", share=0.3)
SHORT_SPANS = SpanCorruptionConfig(share=0.2, mean_span=2.0)
"""More spans than a short example has by default."""
TALES = [["We came late .", "It was dark ."], ["The song is long .", "Nobody sings it ."]]
"""Two documents of two sentences each."""
SENTENCE = {"sentence": "a gorgeous , witty film", "label": "1"}

WORKED: dict[str, Callable[[], str]] = {
    "causal_lm": lambda: of_text(CausalLMConfig(), "decoder", "Thank you for inviting", also="me"),
    "masked_lm": lambda: of_text(MaskedLMConfig(), "encoder", ENGLISH, 2),
    "masked_lm, words": lambda: of_text(WHOLE_WORDS, "encoder", CHINESE, 1),
    "masked_lm, spans": lambda: of_text(MaskedLMConfig(unit="span", share=0.3), "encoder", CHINESE, 1),
    "next_sentence": lambda: of_sentences(NextSentenceConfig(), TALES, 0),
    "next_sentence, another": lambda: of_sentences(NextSentenceConfig(), TALES, 2),
    "sentence_order": lambda: of_sentences(SentenceOrderConfig(), TALES, 1),
    "span_corruption": lambda: of_text(SHORT_SPANS, "encoder_decoder", ENGLISH, 4),
    "span_corruption, Chinese": lambda: of_text(SHORT_SPANS, "encoder_decoder", CHINESE, 1),
    "prefix_lm, encoder-decoder": lambda: of_text(PrefixLMConfig(), "encoder_decoder", ENGLISH[:51]),
    "prefix_lm, decoder": lambda: of_text(PrefixLMConfig(), "decoder", ENGLISH[:28], 3, "your"),
    "denoising": lambda: of_text(DenoisingConfig(), "encoder_decoder", ENGLISH, 1),
    "denoising, Chinese": lambda: of_text(DenoisingConfig(), "encoder_decoder", CHINESE, 2),
    "denoising, other noises": lambda: of_text(
        DenoisingConfig(noises=["token_masking", "token_deletion", "document_rotation"], share=0.2),
        "encoder_decoder", ENGLISH[:51],
    ),
    "seq2seq, encoder-decoder": lambda: of_row(Seq2SeqConfig(), "encoder_decoder", TO_WORDS, SENTENCE),
    "question_answering": lambda: of_question("encoder", 16, {
        "question": "When did we come ?", "context": "We came late , and stayed until it was dark .",
        "answer": "until it was dark"}),
    "question_answering, Chinese": lambda: of_question("decoder", 20, {
        "question": "七国并入何国？", "context": CHINESE[17:], "answer": "秦"}),
    "token_classification": lambda: of_words("encoder", WordsFormat(words="words", tags="tags"), {
        "words": "EU rejects German call to boycott British lamb .",
        "tags": "B-ORG O B-MISC O O O B-MISC O O"}),
    "token_classification, Chinese": lambda: of_words(
        "decoder", Entities(text="text", spans="spans", scheme="bmes"), {
        "text": CHINESE[17:],
        "spans": '[{"start": 2, "end": 4, "type": "GPE"}, {"start": 10, "end": 11, "type": "GPE"}]'}),
    "tags said together": lambda: of_chain(table),
    "seq2seq, decoder": lambda: of_row(Seq2SeqConfig(), "decoder", TO_WORDS, SENTENCE),
}  # fmt: skip
"""What is printed, by the name in a document's comment."""

_BLOCK = re.compile(r"<!-- printed: (.+?) -->\n(```text\n.*?^```\n)?", re.MULTILINE | re.DOTALL)


def rewritten(text: str, worked: Mapping[str, Callable[[], str]] = WORKED) -> str:
    """The document with every block as the code prints it now. Raises KeyError for a name that is not in
    `worked`."""

    def block(found: re.Match[str]) -> str:
        return f"<!-- printed: {found[1]} -->\n```text\n{worked[found[1]]()}\n```\n"

    return _BLOCK.sub(block, text)


if __name__ == "__main__":
    for file in [*map(Path, sys.argv[1:])] or FILES:
        file.write_text(rewritten(file.read_text(encoding="utf-8")), encoding="utf-8")
        print(file)
